//! Kills Troupe's processes under load, and checks that nothing was lost or repeated.
//!
//! Reading order: [`options`] (what may be asked for), [`load`] (which runs are started), [`fault`] (what is done to whom), [`plan`] (when),
//! [`stage`] (the processes), [`inflict`] (how a fault is done), [`drive`] (the clients), [`worker`] and [`ledger`] (what is done outside of
//! Troupe), [`refusals`] (what those who come too late are told), [`judge`] (what must hold at the end), [`report`] (what is printed), [`run`]
//! (all of it in order).

pub mod change;
pub mod clock;
pub mod disk;
pub mod drive;
pub mod fault;
pub mod inflict;
pub mod judge;
pub mod ledger;
pub mod load;
pub mod options;
pub mod plan;
pub mod progress;
pub mod refusals;
pub mod report;
pub mod run;
pub mod stage;
pub mod worker;

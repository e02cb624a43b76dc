//! Effects that may be lost are issued again. All of them are idempotent.

use super::{Partition, Recovering};
use crate::{
    message::{Recovered, Scan},
    recovery::Lost,
    run::{Run, now},
};
use std::collections::HashSet;
use troupe_domain::RunId;

impl Partition {
    /// Everything before it is durable.
    pub(super) fn scan(&mut self, scan: Scan) {
        match scan {
            Scan::Found(page) => self.issue_recovered(page),
            Scan::Over => self.recovering = None,
            Scan::Begins(lost, begun) => {
                self.resync(lost);
                let _ = begun.send(());
            }
        }
    }

    /// What a scan found pending goes out, unless the run has moved on since.
    fn issue_recovered(&mut self, page: Vec<Recovered>) {
        let Some(Recovering { touched, .. }) = &mut self.recovering else { return };
        for recovered in page {
            if touched.insert(recovered.run) {
                for command in recovered.commands {
                    self.shared.effects.issue_again(&recovered.scope, command, now());
                }
            }
        }
    }

    /// Runs in memory issue what they have pending; the scan that follows does it for the others.
    fn resync(&mut self, lost: Lost) {
        let mut touched = HashSet::new();
        for run in self.runs.iter().filter(|run| !run.has_ended()) {
            self.issue_pending(run, &lost);
            touched.insert(run.key.run);
        }
        self.recovering = Some(Recovering { lost, touched });
    }

    /// Runs that were touched for the first time since a scan began issue what they have pending: the scan passes them over.
    pub(super) fn issue_touched(&self, runs: &[RunId]) {
        let Some(Recovering { lost, .. }) = &self.recovering else { return };
        for run in runs.iter().filter_map(|run| self.runs.get(*run)) {
            self.issue_pending(run, lost);
        }
    }

    fn issue_pending(&self, run: &Run, lost: &Lost) {
        for command in run.pending().into_iter().filter(|command| lost.covers(command, &self.shared.router)) {
            self.shared.effects.issue_again(&run.scope, command, now());
        }
    }
}

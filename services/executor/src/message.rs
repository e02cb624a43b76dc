//! What partitions are told, and how they answer.

mod reply;

use crate::{recovery::Lost, run::Key};
use bytes::Bytes;
pub(crate) use reply::Reply;
use std::{collections::HashMap, sync::Arc};
use tokio::sync::{broadcast, oneshot};
use troupe_domain::{Code, Error, Json, RunId};
use troupe_engine::{
    Command, Definition, Event, EventKind, Rejection, RunState, Time,
    event::{ChildOutcome, Parent},
    run::Change,
};
use troupe_proto::{checkpoint::v1::RunSummary, executor::v1 as wire};

pub(crate) enum Message {
    /// Something for one run.
    Run { key: Key, op: Op, traceparent: String },
    /// Something of the scan of open runs.
    Scan(Scan),
}

pub(crate) enum Scan {
    /// Commands that a page of open runs has pending; they are issued for those runs that nothing else has touched since the scan began.
    Found(Vec<Recovered>),
    /// It is over.
    Over,
    /// Effects may have been lost: runs in memory issue theirs again. The others are looked through after the answer: what was before it is
    /// durable, and what comes after it is noticed.
    Begins(Lost, oneshot::Sender<()>),
}

/// What is to happen to a run, wherever it lives. Cheap to copy: it is kept until its answer is known, to be sent elsewhere if it must.
#[derive(Clone)]
pub(crate) enum Intent {
    /// `fresh`: the id was made up just now, so no such run can exist.
    Start {
        start: Arc<Start>,
        fresh: bool,
    },
    Apply(Arc<Event>),
}

impl Intent {
    pub(crate) fn apply(event: Event) -> Self {
        Self::Apply(Arc::new(event))
    }

    /// The operation on the run, where it is in memory here.
    pub(crate) fn op(self, reply: Reply) -> Op {
        match self {
            Self::Start { start, fresh } => Op::Start { start, fresh, reply },
            Self::Apply(event) => Op::Apply { event, reply },
        }
    }
}

pub(crate) enum Op {
    Start {
        start: Arc<Start>,
        /// The id was made up just now: no such run can exist.
        fresh: bool,
        reply: Reply,
    },
    Apply {
        event: Arc<Event>,
        reply: Reply,
    },
    /// The run as it is in memory; `None`: it is not there.
    View {
        reply: oneshot::Sender<Option<Box<wire::Run>>>,
    },
    /// Answered when the run's end is durable. The caller asks the journal after this whether that was so before.
    Wait {
        reply: oneshot::Sender<Arc<wire::Run>>,
    },
    /// Changes that become durable from now on.
    Watch {
        reply: oneshot::Sender<broadcast::Receiver<Arc<Live>>>,
    },
}

/// How a run begins.
pub(crate) struct Start {
    pub(crate) definition: Arc<Definition>,
    /// `Started` or `Forked`.
    pub(crate) event: Event,
    /// The state of a fork's checkpoint.
    pub(crate) fork: Option<RunState>,
    pub(crate) labels: HashMap<String, String>,
    pub(crate) priority: u32,
}

impl Start {
    pub(crate) fn parent(&self) -> Option<&Parent> {
        match &self.event.kind {
            EventKind::Started(started) => started.parent.as_ref(),
            _ => None,
        }
    }
}

pub(crate) struct Recovered {
    pub(crate) run: RunId,
    pub(crate) scope: Arc<Scope>,
    pub(crate) commands: Vec<Command>,
}

/// What effects need to know about the run they belong to.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    pub(crate) key: Key,
    pub(crate) workflow: String,
    pub(crate) traceparent: String,
}

/// A durable entry, as watchers see it.
pub(crate) struct Live {
    pub(crate) seq: u64,
    pub(crate) at: Time,
    pub(crate) changes: Vec<Change>,
    /// The run has ended with this entry.
    pub(crate) ended: bool,
}

/// The answer to a call, given once everything it says is durable.
pub(crate) struct Answer {
    /// The run after the call.
    pub(crate) summary: Box<RunSummary>,
    pub(crate) done: Done,
    /// Set where the run has ended.
    pub(crate) outcome: Option<(ChildOutcome, Json)>,
    /// It was sent before, and what became of that was not known: what was found may be its own doing.
    pub(crate) repeated: bool,
}

/// What a message did to a run that exists.
#[derive(Debug)]
pub(crate) enum Done {
    Created,
    /// A start found the run that it had made before.
    Existed,
    Applied,
    Rejected(Rejection),
}

/// The error that a refused call is answered with.
pub(crate) fn refusal(rejection: Rejection) -> Error {
    match rejection {
        Rejection::Limit(text) => Error::new(Code::ResourceExhausted, text).with_reason("LIMIT"),
        Rejection::Ended => Error::precondition("the run has ended").with_reason("RUN_ENDED"),
        Rejection::Duplicate => Error::conflict("it was applied before").with_reason("DUPLICATE"),
        Rejection::Already => Error::precondition("it is so already").with_reason("ALREADY"),
        Rejection::Stale(text) => Error::precondition(format!("it is stale: {text}")).with_reason("STALE"),
        Rejection::NotPossible(text) => Error::precondition(text).with_reason("NOT_POSSIBLE"),
    }
}

/// JSON of one change, as watchers get it.
pub(crate) fn change_json(change: &Change) -> Bytes {
    serde_json::to_vec(change).map(Bytes::from).unwrap_or_default()
}

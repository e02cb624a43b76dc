//! Child runs: started, cancelled, and their ends told to their parents. Each is tried until its journal has it.

use crate::{
    backlog::Work,
    backoff::Backoff,
    defaults,
    message::{Answer, Done, Intent, Scope, Start},
    run::Key,
    shared::Shared,
    trace,
};
use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use troupe_domain::{Code, Json, Result, RunId};
use troupe_engine::{
    Definition, Event, EventKind, Rejection,
    command::StartChild,
    event::{ChildOutcome, Failure, Parent, Started},
};

pub(crate) enum ChildWork {
    Start { parent: Arc<Scope>, child: Box<StartChild> },
    Cancel { parent: Arc<Scope>, child: RunId, reason: String },
    Ended { child: Arc<Scope>, parent: Parent, outcome: ChildOutcome, output: Json },
}

impl ChildWork {
    /// The child that it is about: what concerns one child is done in order.
    fn child(&self) -> RunId {
        match self {
            Self::Start { child, .. } => child.child,
            Self::Cancel { child, .. } => *child,
            Self::Ended { child, .. } => child.key.run,
        }
    }
}

/// Works at once.
const AT_ONCE: usize = 128;

pub(crate) struct Children {
    pub(crate) shared: Arc<Shared>,
    pub(crate) work: Work<ChildWork>,
    pub(crate) token: CancellationToken,
}

impl Children {
    /// Runs until the process stops.
    pub(crate) async fn run(mut self) {
        let mut running: FuturesUnordered<BoxFuture<'static, RunId>> = FuturesUnordered::new();
        // Children with work under way, and what waits behind it.
        let mut queues: HashMap<RunId, VecDeque<ChildWork>> = HashMap::new();
        let mut items = Vec::new();
        let token = self.token.clone();
        loop {
            tokio::select! {
                () = token.cancelled() => return,
                Some(child) = running.next(), if !running.is_empty() => {
                    match queues.get_mut(&child).and_then(VecDeque::pop_front) {
                        Some(next) => running.push(Box::pin(perform(Arc::clone(&self.shared), next, token.clone()))),
                        None => {
                            queues.remove(&child);
                        }
                    }
                }
                more = self.work.take(&mut items, AT_ONCE), if running.len() < AT_ONCE => {
                    if !more {
                        return;
                    }
                    for work in items.drain(..) {
                        let child = work.child();
                        if let Some(queue) = queues.get_mut(&child) {
                            queue.push_back(work);
                            continue;
                        }
                        queues.insert(child, VecDeque::new());
                        running.push(Box::pin(perform(Arc::clone(&self.shared), work, token.clone())));
                    }
                    if self.work.overflowed() {
                        self.shared.resync.send_modify(|generation| *generation += 1);
                    }
                }
            }
        }
    }
}

/// How often a run that cannot be read is tried: it must not take the place of others for ever. A recovery begins anew.
const DAMAGED_TRIES: u32 = 10;

/// Does one piece of work, however often it takes.
async fn perform(shared: Arc<Shared>, work: ChildWork, token: CancellationToken) -> RunId {
    let (mut backoff, mut tries) = (Backoff::default(), 0);
    let child = work.child();
    loop {
        let attempt = match &work {
            // Who owns the parent now has its children started, or has ended it.
            ChildWork::Start { parent, .. } if !shared.router.serves(parent.key.run) => return child,
            ChildWork::Start { parent, child } => start(&shared, parent, child).await,
            ChildWork::Cancel { parent, child, reason } => cancel(&shared, parent, *child, reason).await,
            ChildWork::Ended { child, parent, outcome, output } => {
                let key = Key { namespace: child.key.namespace.clone(), run: parent.run };
                tell(&shared, key, &child.traceparent, &parent.step, child.key.run, outcome.clone(), output.clone()).await
            }
        };
        let Err(error) = attempt else { return child };
        tries += 1;
        if error.code == Code::Internal && tries >= DAMAGED_TRIES {
            tracing::error!(run.id = %child, cause = %error, "a child run's business is left until its run can be read again");
            return child;
        }
        tracing::warn!(run.id = %child, cause = %error, "a child run's business is tried again");
        if !backoff.wait(&token).await {
            return child;
        }
    }
}

/// Starts a child, or tells its parent why it cannot be, or (where it was started before) how it ended.
async fn start(shared: &Shared, parent: &Scope, child: &StartChild) -> Result<()> {
    let namespace = &parent.key.namespace;
    let refused = match prepare(shared, parent, child).await {
        Ok((definition, input)) => match launch(shared, parent, child, definition, input).await {
            Ok(answer) => match (answer.done, answer.outcome) {
                // It was started before a crash, and may have ended without its parent being told.
                (Done::Existed, Some((outcome, output))) => {
                    return tell(shared, parent.key.clone(), &parent.traceparent, &child.step, child.child, outcome, output).await;
                }
                _ => return Ok(()),
            },
            Err(error) => error,
        },
        Err(error) => error,
    };
    if matches!(refused.code, Code::Unavailable | Code::DeadlineExceeded | Code::Internal | Code::Cancelled) {
        return Err(refused);
    }
    tracing::info!(run.id = %child.child, run.namespace = %namespace, cause = %refused, "a child run is refused");
    let failure = Failure::permanent(refused.code.name(), format!("workflow '{}': {}", child.workflow, refused.message));
    let kind = EventKind::ChildRefused { step: child.step.clone(), child: child.child, failure };
    apply(shared, parent.key.clone(), &parent.traceparent, Event::new(kind)).await.map(|_| ())
}

async fn prepare(shared: &Shared, parent: &Scope, child: &StartChild) -> Result<(Arc<Definition>, Json)> {
    let version = child.version.as_deref().unwrap_or_default();
    let definition = shared.definitions.resolve(&parent.key.namespace, &child.workflow, version).await?;
    let input = defaults::accept(definition.input.as_ref(), child.input.clone())?;
    Ok((definition, input))
}

async fn launch(shared: &Shared, parent: &Scope, child: &StartChild, definition: Arc<Definition>, input: Json) -> Result<Answer> {
    let traceparent = parent.traceparent.clone();
    let (span, traceparent) = trace::invocation(&definition.name, &parent.key.namespace, child.child, traceparent);
    let family = Parent { run: parent.key.run, step: child.step.clone(), depth: child.depth };
    let started = Started {
        namespace: parent.key.namespace.clone(),
        run: child.child,
        priority: child.priority,
        labels: std::collections::BTreeMap::new(),
        deadline: child.deadline,
        parent: Some(family),
        env: shared.env.clone(),
        limits: Some(Box::new(shared.config.limits.clone())),
        traceparent: traceparent.clone(),
    };
    let start = Start {
        definition,
        event: Event::with(EventKind::Started(Box::new(started)), input),
        fork: None,
        labels: HashMap::new(),
        priority: child.priority,
    };
    let key = Key { namespace: parent.key.namespace.clone(), run: child.child };
    shared.router.call(key, traceparent, Intent::Start { start: Arc::new(start), fresh: false }).instrument(span).await
}

async fn cancel(shared: &Shared, parent: &Scope, child: RunId, reason: &str) -> Result<()> {
    let key = Key { namespace: parent.key.namespace.clone(), run: child };
    apply(shared, key, &parent.traceparent, Event::new(EventKind::Cancelled { reason: reason.to_owned() })).await.map(|_| ())
}

async fn tell(
    shared: &Shared,
    parent: Key,
    traceparent: &str,
    step: &str,
    child: RunId,
    outcome: ChildOutcome,
    output: Json,
) -> Result<()> {
    let ended = |outcome| EventKind::ChildEnded { step: step.to_owned(), child, outcome };
    let refused = apply(shared, parent.clone(), traceparent, Event::with(ended(outcome), output)).await?;
    if let Some(Rejection::Limit(message)) = refused {
        // The parent has no room for the output: it must learn all the same that the child has ended.
        let failure = Failure::permanent(Code::ResourceExhausted.name(), message);
        apply(shared, parent, traceparent, Event::new(ended(ChildOutcome::Failed(failure)))).await?;
    }
    Ok(())
}

/// Gives a run an event, and answers why it was refused. That there is no such run is an answer as good as any.
async fn apply(shared: &Shared, key: Key, traceparent: &str, event: Event) -> Result<Option<Rejection>> {
    match shared.router.call(key, traceparent.to_owned(), Intent::apply(event)).await {
        Ok(answer) => {
            let Done::Rejected(rejection) = answer.done else { return Ok(None) };
            tracing::debug!(%rejection, "a run had no use for news of its family");
            Ok(Some(rejection))
        }
        Err(error) if error.code == Code::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

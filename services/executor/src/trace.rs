//! Spans of runs. A run outlives processes, so it has no span of its own: it has the context under which it was started, which is in its
//! journal, and everything that happens to it is a span under that context.

use crate::message::Scope;
use tracing::Span;
use troupe_domain::{Namespace, RunId};
use troupe_proto::checkpoint::v1::JournalEntry;
use troupe_wire::trace::{adopt_traceparent, traceparent_of};

/// The span of a run's start under the caller's context, and the context that is the run's from then on.
pub(crate) fn invocation(workflow: &str, namespace: &Namespace, run: RunId, caller: String) -> (Span, String) {
    let span = tracing::info_span!(
        "invoke_workflow",
        otel.name = format!("invoke_workflow {workflow}"),
        gen_ai.operation.name = "invoke_workflow",
        gen_ai.workflow.name = workflow,
        run.id = %run,
        run.namespace = %namespace
    );
    adopt_traceparent(&span, &caller);
    let own = traceparent_of(&span);
    (span, if own.is_empty() { caller } else { own })
}

/// The span of a journal entry: from the event's application until it is durable and what follows from it is let out.
pub(crate) fn entry(scope: &Scope, entry: &JournalEntry) -> Span {
    if scope.traceparent.is_empty() {
        return Span::none();
    }
    let span = tracing::debug_span!(
        parent: None,
        "journal",
        otel.name = format!("journal {}", entry.kind),
        run.id = %scope.key.run,
        run.namespace = %scope.key.namespace,
        seq = entry.seq
    );
    adopt_traceparent(&span, &scope.traceparent);
    span
}

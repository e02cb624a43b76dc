//! The one place of this SDK that starts background tasks.

use std::future::Future;
use tracing::{Instrument, Span};

/// Runs a future in the background inside `span`. Its owner learns of the end through what the future itself reports.
#[expect(clippy::disallowed_methods, reason = "an SDK cannot ask its users for a task tracker; the worker's table of tasks is one")]
pub(crate) fn spawn(span: Span, future: impl Future<Output = ()> + Send + 'static) {
    drop(tokio::spawn(future.instrument(span)));
}

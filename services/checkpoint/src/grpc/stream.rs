//! The append stream: requests are taken while earlier ones commit, and answered in their order.

use crate::{
    Journal,
    error::{Result, StoreError},
    metrics::measured,
    service::refuse_when_closing,
};
use futures::{
    FutureExt as _, StreamExt as _,
    future::{self, Either},
    stream::BoxStream,
};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};
use troupe_domain::Error;
use troupe_proto::checkpoint::v1::{AppendError, AppendRequest, AppendResponse};

/// Requests of one stream that may be on their way at the same time.
const IN_FLIGHT: usize = 256;

pub(super) fn answers(
    journal: Arc<dyn Journal>,
    requests: Streaming<AppendRequest>,
    closing: CancellationToken,
) -> BoxStream<'static, Result<AppendResponse, Status>> {
    let until = closing.clone().cancelled_owned();
    requests
        .take_until(until)
        .map(move |request| match request {
            // The journal gets the batch here, in the order of the requests; only the waiting is concurrent.
            Ok(request) => Either::Left(submit(&*journal, request, &closing).map(Ok)),
            Err(status) => Either::Right(future::ready(Err(status))),
        })
        .buffered(IN_FLIGHT)
        .boxed()
}

fn submit(journal: &dyn Journal, request: AppendRequest, closing: &CancellationToken) -> impl Future<Output = AppendResponse> + use<> {
    let AppendRequest { id, batch } = request;
    let submitted = refuse_when_closing(closing)
        .and_then(|()| Ok(batch.ok_or_else(|| Error::invalid_field("batch", "is missing"))?.try_into()?))
        .map(|batch| journal.append(batch));
    async move {
        let outcome = measured("append", async move { submitted?.await }).await;
        AppendResponse { id, error: outcome.err().as_ref().map(append_error) }
    }
}

fn append_error(error: &StoreError) -> AppendError {
    let run_id = match error {
        StoreError::Sequence { run, .. } => run.to_string(),
        _ => String::new(),
    };
    let shown = Error::from(error);
    AppendError { code: shown.code.name().to_owned(), reason: shown.reason, message: shown.message, run_id }
}

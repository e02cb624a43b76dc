//! A worker's stream: Hello first, then batches both ways.

use super::{Answers, Face, check};
use crate::{
    core::{Message, Newcomer},
    metrics,
    roster::{ConnId, worker::Outbox},
};
use futures::stream;
use prost::Message as _;
use std::{
    collections::VecDeque,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Request, Response, Status, Streaming};
use troupe_domain::{Code, Error};
use troupe_proto::scheduler::v1::{
    Hello, ServerMessage, WorkRequest, WorkResponse, WorkerMessage, worker_message::Kind, worker_service_server::WorkerService,
};
use troupe_wire::to_status;

/// How long a worker may take to say Hello.
const HELLO_WITHIN: Duration = Duration::from_secs(10);

/// Messages in one response.
const BATCH: usize = 256;

/// Bytes in one response; a single larger message goes alone.
const BATCH_BYTES: usize = 4 << 20;

/// Room in a worker's outbox beside two messages for each of its slots.
const OUTBOX: usize = 1_024;

/// Numbers the streams of this process.
static STREAMS: AtomicU64 = AtomicU64::new(1);

#[tonic::async_trait]
impl WorkerService for Face {
    type WorkStream = Answers<WorkResponse>;

    async fn work(&self, request: Request<Streaming<WorkRequest>>) -> Result<Response<Self::WorkStream>, Status> {
        // The worker may read before it writes, so the answer begins at once and the reading goes on beside it.
        let (outbox, receiver) = mpsc::channel(2 * self.config.max_slots as usize + OUTBOX);
        let end = CancellationToken::new();
        let link =
            Link { face: self.clone(), requests: request.into_inner(), conn: STREAMS.fetch_add(1, Ordering::Relaxed), end: end.clone() };
        self.tasks.spawn("worker-stream", link.run(outbox));
        let writer = Writer { receiver, waiting: VecDeque::new(), ended: false, _guard: end.drop_guard() };
        Ok(self.answers(stream::unfold(writer, next)))
    }
}

/// The writing side. The guard ends the reading side when the worker stops listening.
struct Writer {
    receiver: mpsc::Receiver<Result<ServerMessage, Status>>,
    waiting: VecDeque<Result<ServerMessage, Status>>,
    ended: bool,
    _guard: DropGuard,
}

/// What waits, in one response; an error comes after what was before it, and is the last.
async fn next(mut writer: Writer) -> Option<(Result<WorkResponse, Status>, Writer)> {
    if writer.ended {
        return None;
    }
    if writer.waiting.is_empty() {
        let mut fresh = Vec::new();
        writer.receiver.recv_many(&mut fresh, BATCH).await;
        writer.waiting.extend(fresh);
    }
    let (mut messages, mut bytes) = (Vec::with_capacity(writer.waiting.len()), 0);
    while bytes < BATCH_BYTES
        && let Some(message) = writer.waiting.pop_front_if(|item| item.is_ok()).and_then(Result::ok)
    {
        bytes += message.encoded_len();
        messages.push(message);
    }
    if !messages.is_empty() {
        return Some((Ok(WorkResponse { messages }), writer));
    }
    // Nothing more can come (`None`), or the worker is let go of.
    let status = writer.waiting.pop_front()?.err()?;
    writer.ended = true;
    Some((Err(status), writer))
}

/// The reading side.
struct Link {
    face: Face,
    requests: Streaming<WorkRequest>,
    conn: ConnId,
    /// Cancelled when the writing side or the core lets go.
    end: CancellationToken,
}

impl Link {
    async fn run(mut self, outbox: Outbox) {
        let stop = self.face.tasks.token().clone();
        let end = self.end.clone();
        let conn = self.conn;
        let core = self.face.core.clone();
        tokio::select! {
            () = stop.cancelled() => {}
            () = end.cancelled() => {}
            () = self.serve(outbox) => {}
        }
        // The core may have stopped already.
        let _ = core.send(Message::Gone { conn }).await;
    }

    async fn serve(&mut self, outbox: Outbox) {
        let first = tokio::time::timeout(HELLO_WITHIN, self.first()).await;
        let late = || Err(Error::new(Code::DeadlineExceeded, "no Hello came within 10 s of the stream's start"));
        let (hello, rest) = match first.unwrap_or_else(|_| late()) {
            Ok(first) => first,
            Err(error) => return refuse(&outbox, &error),
        };
        let scope = hello.namespace.clone();
        // The core has the only sender from here on, so that the stream ends when it lets go. A fault goes through a weak one.
        let faults = outbox.downgrade();
        let guard = self.end.clone().drop_guard();
        let newcomer = Newcomer { conn: self.conn, hello, outbox, guard };
        if self.face.core.send(Message::Connect(Box::new(newcomer))).await.is_err() {
            return;
        }
        if let Err(error) = self.read(rest, &scope).await
            && let Some(outbox) = faults.upgrade()
        {
            refuse(&outbox, &error);
        }
    }

    /// The Hello, and what came with it.
    async fn first(&mut self) -> Result<(Hello, Vec<WorkerMessage>), Error> {
        let request = self.requests.message().await.map_err(|status| troupe_wire::from_status(&status))?;
        let mut messages = request.map(|request| request.messages).unwrap_or_default();
        if !matches!(messages.first(), Some(WorkerMessage { kind: Some(Kind::Hello(_)) })) {
            return Err(Error::invalid("the first message of a worker must be Hello"));
        }
        match messages.remove(0).kind {
            Some(Kind::Hello(mut hello)) => check::hello(&mut hello, &self.face.config).map(|()| (hello, messages)),
            _ => Err(Error::invalid("the first message of a worker must be Hello")),
        }
    }

    async fn read(&mut self, mut messages: Vec<WorkerMessage>, scope: &str) -> Result<(), Error> {
        loop {
            check::at_most("messages", messages.len(), check::MAX_MESSAGES)?;
            let mut checked = Vec::with_capacity(messages.len());
            let mut fault = None;
            // A message of a newer SDK has no kind that is known here.
            for kind in messages.into_iter().filter_map(|message| message.kind) {
                match check::message(kind, scope, &self.face.config) {
                    Ok(kind) => checked.extend(kind),
                    Err(error) => {
                        fault = Some(error);
                        break;
                    }
                }
            }
            // What came before the fault still counts.
            if !checked.is_empty() && self.face.core.send(Message::Worker { conn: self.conn, messages: checked }).await.is_err() {
                return Ok(());
            }
            if let Some(error) = fault {
                return Err(error);
            }
            messages = match self.requests.message().await {
                Ok(Some(request)) => request.messages,
                // The worker has closed its side, or is lost: both mean that nothing more can come.
                Ok(None) | Err(_) => return Ok(()),
            };
        }
    }
}

fn refuse(outbox: &Outbox, error: &Error) {
    metrics::error("worker_refused");
    tracing::warn!(%error, "worker stream refused");
    // A full outbox cannot take it: the end of the stream must do.
    let _ = outbox.try_send(Err(to_status(error)));
}

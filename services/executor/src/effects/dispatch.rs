//! Tasks and cancellations on their way to the scheduler: one long-lived stream, batches that form while others are in flight.

use crate::{backlog::Work, backoff::Backoff};
use prost::Message;
use std::collections::{HashSet, VecDeque};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use troupe_proto::scheduler::v1::{CancelTask, DispatchRequest, Task, scheduler_client::SchedulerClient};
use troupe_wire::{MAX_MESSAGE, Transport};

pub(crate) enum DispatchWork {
    Task(Box<Task>),
    Cancel(CancelTask),
}

/// How a run is held that effects came from.
#[derive(Clone, Copy)]
pub(crate) struct Hold {
    /// Its partition is served here.
    pub(crate) is_served: bool,
    /// Our leases have not ended, as far as we can tell.
    pub(crate) is_valid: bool,
}

impl Hold {
    /// Whether a task is to be sent. Who owns its run now has issued it anew, and may know its outcome already.
    fn admits(self, task: &mut Task) -> bool {
        // A process that was stopped may find itself here before it knows that it has lost the run.
        task.first &= self.is_served && self.is_valid;
        self.is_served
    }
}

/// The run that a task is of.
fn run_of(cancel: &CancelTask) -> &str {
    cancel.task_id.split('/').next().unwrap_or_default()
}

/// Items of one batch.
const BATCH: usize = 512;

/// Bytes after which a batch is closed.
const BATCH_BYTES: usize = 4 << 20;

/// Batches that the scheduler has not answered yet. It answers several at once, a moment later.
const IN_FLIGHT: usize = 64;

/// Bytes in them, after which no more is sent.
const IN_FLIGHT_BYTES: usize = 16 << 20;

pub(crate) struct Dispatcher {
    /// How a run is held, by its id.
    pub(crate) hold: Box<dyn Fn(&str) -> Hold + Send>,
    pub(crate) client: SchedulerClient<Transport>,
    pub(crate) work: Work<DispatchWork>,
    pub(crate) resync: watch::Sender<u64>,
    pub(crate) token: CancellationToken,
}

/// What has been taken from the queue and not been answered.
#[derive(Default)]
struct Window {
    unsent: VecDeque<DispatchRequest>,
    unanswered: VecDeque<Sent>,
    last_id: u64,
    /// The scheduler may have lost tasks that it had answered for.
    lost: bool,
    answered_once: bool,
}

struct Sent {
    request: DispatchRequest,
    bytes: usize,
}

/// Why a session on a stream ended.
enum End {
    Stop,
    Lost(tonic::Status),
}

impl Dispatcher {
    /// Runs until the process stops.
    pub(crate) async fn run(mut self) {
        let mut window = Window::default();
        let mut backoff = Backoff::default();
        loop {
            let token = self.token.clone();
            let end = tokio::select! {
                () = token.cancelled() => return,
                end = self.session(&mut window, &mut backoff) => end,
            };
            match end {
                End::Stop => return,
                End::Lost(cause) => {
                    tracing::warn!(%cause, "the scheduler does not take tasks");
                    window.lost |= window.answered_once;
                    if cause.code() == tonic::Code::InvalidArgument
                        && let Some(bad) = window.isolate()
                    {
                        let tasks: Vec<&str> = bad.tasks.iter().map(|task| task.task_id.as_str()).collect();
                        tracing::error!(?tasks, "the scheduler refuses a task; its run waits until somebody cancels it");
                    }
                    window.retry();
                    window.keep(&self.hold);
                }
            }
            if !backoff.wait(&self.token).await {
                return;
            }
        }
    }

    async fn session(&mut self, window: &mut Window, backoff: &mut Backoff) -> End {
        let mut items = Vec::new();
        if window.lost && window.unsent.is_empty() {
            // An empty batch asks whether the scheduler is back: what it lost cannot wait for the next task.
            window.close(DispatchRequest::default());
        }
        if window.unsent.is_empty() {
            while items.is_empty() {
                if !self.work.take(&mut items, BATCH).await {
                    return End::Stop;
                }
                self.drop_foreign(&mut items);
            }
            window.fill(&mut items);
        }
        let (requests, outbound) = mpsc::channel(IN_FLIGHT);
        // The first batches go ahead of the answer: a server may answer the call only once it has seen one.
        window.send(&requests);
        let mut answers = match self.client.dispatch(ReceiverStream::new(outbound)).await {
            Ok(answers) => answers.into_inner(),
            Err(status) => return End::Lost(status),
        };
        loop {
            tokio::select! {
                answer = answers.message() => match answer {
                    Ok(Some(answer)) => {
                        backoff.reset();
                        window.answered(answer.id);
                        self.resync_if_lost(window);
                        window.send(&requests);
                    }
                    Ok(None) => return End::Lost(tonic::Status::unavailable("the dispatch stream ended")),
                    Err(status) => return End::Lost(status),
                },
                more = self.work.take(&mut items, BATCH), if window.has_room() => {
                    if !more {
                        return End::Stop;
                    }
                    self.drop_foreign(&mut items);
                    window.fill(&mut items);
                    window.send(&requests);
                }
            }
        }
    }

    fn drop_foreign(&self, items: &mut Vec<DispatchWork>) {
        items.retain_mut(|item| match item {
            DispatchWork::Task(task) => (self.hold)(&task.run_id).admits(task),
            // Who has handed a run over still cancels what it has to. Who has lost it may be late: a later attempt may be wanted again.
            DispatchWork::Cancel(cancel) => (self.hold)(run_of(cancel)).is_valid,
        });
    }

    /// Has all open runs issue their effects again, once the scheduler answers. What was lost does not wait for a lull, which may never
    /// come; what found no room waits until there is some.
    fn resync_if_lost(&self, window: &mut Window) {
        let lost = std::mem::take(&mut window.lost);
        if lost || (self.work.has_room() && self.work.overflowed()) {
            tracing::info!("the scheduler may have lost tasks; open runs issue theirs again");
            self.resync.send_modify(|generation| *generation += 1);
        }
    }
}

impl Window {
    fn has_room(&self) -> bool {
        self.unsent.is_empty() && self.may_send()
    }

    fn may_send(&self) -> bool {
        self.unanswered.len() < IN_FLIGHT && self.unanswered.iter().map(|sent| sent.bytes).sum::<usize>() < IN_FLIGHT_BYTES
    }

    /// Forms batches. A task that follows its own cancellation begins a new one, so that the order stands.
    fn fill(&mut self, items: &mut Vec<DispatchWork>) {
        let (mut request, mut bytes, mut cancelled) = (DispatchRequest::default(), 0_usize, HashSet::new());
        for item in items.drain(..) {
            let size = match &item {
                DispatchWork::Task(task) => 256 + task.input.len() + task.records.iter().map(|r| r.value.len() + 64).sum::<usize>(),
                DispatchWork::Cancel(_) => 128,
            };
            let revived = matches!(&item, DispatchWork::Task(task) if cancelled.contains(&(task.namespace.clone(), task.task_id.clone())));
            if (revived || bytes + size > BATCH_BYTES) && bytes > 0 {
                self.close(std::mem::take(&mut request));
                (bytes, cancelled) = (0, HashSet::new());
            }
            bytes += size;
            match item {
                DispatchWork::Task(task) => request.tasks.push(*task),
                DispatchWork::Cancel(cancel) => {
                    cancelled.insert((cancel.namespace.clone(), cancel.task_id.clone()));
                    request.cancels.push(cancel);
                }
            }
        }
        if bytes > 0 {
            self.close(request);
        }
    }

    fn close(&mut self, request: DispatchRequest) {
        self.last_id += 1;
        self.unsent.push_back(DispatchRequest { id: self.last_id, ..request });
    }

    /// Sends what fits into the stream.
    fn send(&mut self, requests: &mpsc::Sender<DispatchRequest>) {
        while self.may_send()
            && let Some(request) = self.unsent.pop_front()
        {
            if requests.try_send(request.clone()).is_err() {
                self.unsent.push_front(request);
                return;
            }
            self.unanswered.push_back(Sent { bytes: request.encoded_len(), request });
        }
    }

    /// Takes out what is not ours any more.
    fn keep(&mut self, hold: impl Fn(&str) -> Hold) {
        for request in &mut self.unsent {
            request.tasks.retain_mut(|task| hold(&task.run_id).admits(task));
            request.cancels.retain(|cancel| hold(run_of(cancel)).is_served);
        }
    }

    /// An answer stands for all batches that were sent before.
    fn answered(&mut self, id: u64) {
        self.answered_once = true;
        if let Some(place) = self.unanswered.iter().position(|sent| sent.request.id == id) {
            self.unanswered.drain(..=place);
        }
    }

    /// The scheduler cannot make sense of the first batch that it has not answered: each of its items is sent alone from now on. One that
    /// is alone already is given up, so that it does not hold up the others.
    fn isolate(&mut self) -> Option<DispatchRequest> {
        let mut bad = self.unanswered.pop_front()?.request;
        bad.tasks.iter_mut().for_each(|task| task.first = false);
        if bad.tasks.len() + bad.cancels.len() <= 1 {
            return Some(bad);
        }
        self.retry();
        let tasks = bad.tasks.drain(..).map(|task| DispatchRequest { tasks: vec![task], ..Default::default() });
        let cancels = bad.cancels.drain(..).map(|cancel| DispatchRequest { cancels: vec![cancel], ..Default::default() });
        for single in tasks.chain(cancels).collect::<Vec<_>>().into_iter().rev() {
            self.last_id += 1;
            self.unsent.push_front(DispatchRequest { id: self.last_id, ..single });
        }
        None
    }

    /// After a loss everything unanswered is sent again, in the same order.
    fn retry(&mut self) {
        while let Some(Sent { mut request, .. }) = self.unanswered.pop_back() {
            request.tasks.iter_mut().for_each(|task| task.first = false);
            self.unsent.push_front(request);
        }
    }
}

/// A client with the limits that all services share.
pub(crate) fn client(transport: Transport) -> SchedulerClient<Transport> {
    SchedulerClient::new(transport).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(id: &str) -> DispatchWork {
        DispatchWork::Task(Box::new(Task { task_id: id.to_owned(), ..Default::default() }))
    }

    #[test]
    fn a_task_is_never_in_one_batch_with_its_earlier_cancellation() {
        let mut window = Window::default();
        let cancel = DispatchWork::Cancel(CancelTask { task_id: "a".into(), ..Default::default() });
        window.fill(&mut vec![task("a"), cancel, task("b"), task("a")]);
        let shape: Vec<(u64, usize, usize)> = window.unsent.iter().map(|r| (r.id, r.tasks.len(), r.cancels.len())).collect();
        assert_eq!(shape, [(1, 2, 1), (2, 1, 0)]);
    }

    #[test]
    fn what_was_not_answered_is_sent_again_in_order() {
        let mut window = Window::default();
        for id in ["a", "b", "c"] {
            window.fill(&mut vec![task(id)]);
        }
        let (requests, _outbound) = mpsc::channel(IN_FLIGHT);
        window.send(&requests);
        window.answered(2);
        window.answered(1);
        window.retry();
        let ids: Vec<u64> = window.unsent.iter().map(|r| r.id).collect();
        assert_eq!(ids, [3], "an answer stands for the batches before it");
    }

    #[test]
    fn what_has_become_anothers_is_not_sent_again() {
        let mut window = Window::default();
        let of = |run: &str| DispatchWork::Task(Box::new(Task { run_id: run.to_owned(), first: true, ..Default::default() }));
        let cancel = |run: &str| DispatchWork::Cancel(CancelTask { task_id: format!("{run}/step"), ..Default::default() });
        window.fill(&mut vec![of("ours"), of("theirs"), cancel("ours"), cancel("theirs")]);
        let (requests, _outbound) = mpsc::channel(IN_FLIGHT);
        window.send(&requests);
        window.retry();
        window.keep(|run| Hold { is_served: run == "ours", is_valid: true });
        let request = &window.unsent[0];
        let runs: Vec<&str> = request.tasks.iter().map(|task| task.run_id.as_str()).chain(request.cancels.iter().map(run_of)).collect();
        assert_eq!(runs, ["ours", "ours"]);
    }

    #[test]
    fn who_may_have_lost_a_run_does_not_say_that_it_dispatches_first() {
        let mut task = Task { first: true, ..Default::default() };
        assert!(Hold { is_served: true, is_valid: true }.admits(&mut task) && task.first);
        assert!(Hold { is_served: true, is_valid: false }.admits(&mut task) && !task.first);
        assert!(!Hold { is_served: false, is_valid: true }.admits(&mut task));
    }

    #[tokio::test]
    async fn lost_tasks_do_not_wait_for_a_lull() {
        let (backlog, work) = crate::backlog::backlog("test", 1_000);
        let resync = watch::Sender::new(0);
        let client = client(Transport::embedded(tonic::service::Routes::default()));
        let (hold, token) = (Box::new(|_: &str| Hold { is_served: true, is_valid: true }), CancellationToken::new());
        let dispatcher = Dispatcher { hold, client, work, resync: resync.clone(), token };
        let mut window = Window { lost: true, ..Window::default() };
        window.fill(&mut vec![task("a")]);
        backlog.push(task("b"));
        dispatcher.resync_if_lost(&mut window);
        assert_eq!(*resync.borrow(), 1, "there is always something to send");
        dispatcher.resync_if_lost(&mut window);
        assert_eq!(*resync.borrow(), 1);
    }

    #[test]
    fn a_task_that_cannot_be_taken_does_not_hold_up_the_others() {
        let mut window = Window::default();
        window.fill(&mut vec![task("a"), task("bad"), task("c")]);
        let (requests, _outbound) = mpsc::channel(IN_FLIGHT);
        window.send(&requests);
        assert!(window.isolate().is_none());
        let ids = |window: &Window| window.unsent.iter().map(|r| r.tasks[0].task_id.clone()).collect::<Vec<_>>();
        assert_eq!(ids(&window), ["a", "bad", "c"]);
        let (requests, _outbound) = mpsc::channel(IN_FLIGHT);
        window.send(&requests);
        let first = window.unanswered[0].request.id;
        window.answered(first);
        assert_eq!(window.isolate().unwrap().tasks[0].task_id, "bad");
        window.retry();
        assert_eq!(ids(&window), ["c"]);
    }
}

//! The network: every call between two nodes goes through it, in frames that take their time, are held up, or get lost with their connection.

mod body;
mod call;

use crate::trace::{Dice, Trace};
use bytes::Bytes;
use call::Call;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{body::Body, codegen::http::Request};
use troupe_wire::Transport;

/// A node: a process of the simulated system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NodeId(usize);

/// Whom a call is for.
#[derive(Clone, Debug)]
pub(crate) enum To {
    Node(NodeId),
    /// Any of several replicas.
    Any(Vec<NodeId>),
}

/// Looks at what a node is sent and what it sends, by the number and the path of the call.
pub(crate) trait Inspect: Send + Sync {
    /// A frame comes to the node; it may be replaced.
    fn request(&self, call: u64, path: &str, data: Bytes) -> Bytes;
    /// The node answers with a frame.
    fn response(&self, call: u64, path: &str, data: &Bytes);
}

/// The network. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Net(Arc<Mutex<State>>);

struct State {
    begun: Instant,
    dice: Dice,
    trace: Trace,
    nodes: Vec<Node>,
    links: BTreeMap<(NodeId, NodeId), Link>,
    calls: BTreeMap<u64, Open>,
    next_call: u64,
    inspector: Option<(NodeId, Arc<dyn Inspect>)>,
}

struct Node {
    name: String,
    /// Grows with each start and each end of the process: what an earlier life of it sends goes nowhere.
    life: u32,
    server: Option<Transport>,
    held_until: Instant,
}

/// The way between two nodes, whoever calls.
#[derive(Clone, Copy)]
struct Link {
    cut_until: Instant,
    held_until: Instant,
    slow_until: Instant,
    slow_by: Duration,
}

struct Open {
    ends: (NodeId, NodeId),
    broken: CancellationToken,
}

fn pair(a: NodeId, b: NodeId) -> (NodeId, NodeId) {
    (a.min(b), a.max(b))
}

impl Net {
    pub(crate) fn new(seed: u64, trace: Trace) -> Self {
        let state = State {
            begun: Instant::now(),
            dice: Dice::new(seed, "network"),
            trace,
            nodes: Vec::new(),
            links: BTreeMap::new(),
            calls: BTreeMap::new(),
            next_call: 0,
            inspector: None,
        };
        Self(Arc::new(Mutex::new(state)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node that is not up yet.
    pub(crate) fn add(&self, name: &str) -> NodeId {
        let mut state = self.state();
        let held_until = state.begun;
        state.nodes.push(Node { name: name.to_owned(), life: 0, server: None, held_until });
        NodeId(state.nodes.len() - 1)
    }

    pub(crate) fn name(&self, node: NodeId) -> String {
        self.state().nodes[node.0].name.clone()
    }

    /// The node of a name.
    pub(crate) fn named(&self, name: &str) -> Option<NodeId> {
        self.state().nodes.iter().position(|node| node.name == name).map(NodeId)
    }

    /// A new process begins; it can call others from now on. Answers which life of the node this is.
    pub(crate) fn begin(&self, node: NodeId) -> u32 {
        let mut state = self.state();
        state.nodes[node.0].life += 1;
        state.nodes[node.0].life
    }

    /// The process of a node whose memory lasts goes on: it is the one that began first.
    pub(crate) fn revive(&self, node: NodeId) -> u32 {
        self.state().nodes[node.0].life = 1;
        1
    }

    /// The process accepts calls, if it is the one that lives.
    pub(crate) fn serve(&self, node: NodeId, life: u32, server: Transport) {
        let mut state = self.state();
        if state.nodes[node.0].life == life {
            let up = format!("{} is up", state.nodes[node.0].name);
            state.nodes[node.0].server = Some(server);
            state.note(&up);
        }
    }

    pub(crate) fn lives(&self, node: NodeId, life: u32) -> bool {
        self.state().nodes[node.0].life == life
    }

    /// The process is gone, and all its connections with it.
    pub(crate) fn crash(&self, node: NodeId) {
        let mut state = self.state();
        state.nodes[node.0].life += 1;
        state.nodes[node.0].server = None;
        state.nodes[node.0].held_until = state.begun;
        state.reset(|ends| ends.0 == node || ends.1 == node);
    }

    /// Nothing comes in or goes out for so long; then all of it at once.
    pub(crate) fn hold(&self, node: NodeId, span: Duration) {
        self.state().nodes[node.0].held_until = Instant::now() + span;
    }

    /// Resets the connections between two nodes, and refuses new ones for so long.
    pub(crate) fn cut(&self, a: NodeId, b: NodeId, span: Duration) {
        let mut state = self.state();
        state.link(a, b).cut_until = Instant::now() + span;
        let both = pair(a, b);
        state.reset(|ends| pair(ends.0, ends.1) == both);
    }

    /// Holds everything between two nodes up for so long.
    pub(crate) fn stall(&self, a: NodeId, b: NodeId, span: Duration) {
        self.state().link(a, b).held_until = Instant::now() + span;
    }

    /// Every frame between two nodes takes so much longer.
    pub(crate) fn slow(&self, a: NodeId, b: NodeId, span: Duration, by: Duration) {
        let mut state = self.state();
        let link = state.link(a, b);
        (link.slow_until, link.slow_by) = (Instant::now() + span, by);
    }

    /// Everything is well again.
    pub(crate) fn heal(&self) {
        let mut state = self.state();
        state.links.clear();
        let begun = state.begun;
        state.nodes.iter_mut().for_each(|node| node.held_until = begun);
    }

    /// Has all calls of a node inspected.
    pub(crate) fn inspect(&self, node: NodeId, inspector: Arc<dyn Inspect>) {
        self.state().inspector = Some((node, inspector));
    }

    pub(crate) fn note(&self, words: &str) {
        self.state().note(words);
    }

    /// Simulated milliseconds since the start.
    pub(crate) fn now(&self) -> u64 {
        self.state().now()
    }

    /// The hash of all events, their number and the last of them.
    pub(crate) fn trace(&self) -> (u64, u64, Vec<String>) {
        let state = self.state();
        (state.trace.hash(), state.trace.count(), state.trace.tail())
    }

    /// How a node's present process calls others.
    pub(crate) fn transport(&self, from: NodeId, to: To) -> Transport {
        let (net, life) = (self.clone(), self.state().nodes[from.0].life);
        Transport::embedded(tower::service_fn(move |request: Request<Body>| {
            let (net, to) = (net.clone(), to.clone());
            async move { net.call(from, life, &to, request).await }
        }))
    }
}

impl State {
    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn note(&mut self, words: &str) {
        let now = self.now();
        self.trace.note(now, words.to_owned());
    }

    fn link(&mut self, a: NodeId, b: NodeId) -> &mut Link {
        let past = self.begun;
        let link = Link { cut_until: past, held_until: past, slow_until: past, slow_by: Duration::ZERO };
        self.links.entry(pair(a, b)).or_insert(link)
    }

    fn reset(&mut self, which: impl Fn((NodeId, NodeId)) -> bool) {
        for call in self.calls.values().filter(|call| which(call.ends)) {
            call.broken.cancel();
        }
    }

    fn open(&mut self, from: NodeId, to: &To, path: &str, net: &Net) -> Option<(Call, Transport)> {
        let target = match to {
            To::Node(node) => *node,
            To::Any(nodes) => {
                let reached: Vec<NodeId> = nodes.iter().copied().filter(|node| self.reaches(from, *node)).collect();
                *self.dice.pick(&reached)?
            }
        };
        if !self.reaches(from, target) {
            return None;
        }
        let server = self.nodes[target.0].server.clone()?;
        let (id, broken) = (self.next_call, CancellationToken::new());
        self.next_call += 1;
        let opened = format!("#{id} {} -> {} {path}", self.nodes[from.0].name, self.nodes[target.0].name);
        self.note(&opened);
        self.calls.insert(id, Open { ends: (from, target), broken: broken.clone() });
        let inspector = self.inspector.as_ref().filter(|(node, _)| *node == target).map(|(_, it)| (path.to_owned(), Arc::clone(it)));
        Some((Call { net: net.clone(), id, ends: (from, target), broken, inspector }, server))
    }

    fn reaches(&self, from: NodeId, to: NodeId) -> bool {
        let cut = self.links.get(&pair(from, to)).is_some_and(|link| link.cut_until > Instant::now());
        self.nodes[to.0].server.is_some() && !cut
    }

    /// How long the next frame takes.
    fn latency(&mut self, ends: (NodeId, NodeId)) -> Duration {
        let usual = match self.dice.below(20) {
            0..=8 => 0,
            9..=17 => self.dice.between(1, 3),
            _ => self.dice.between(4, 40),
        };
        let link = self.links.get(&pair(ends.0, ends.1));
        let extra = link.filter(|link| link.slow_until > Instant::now()).map_or(Duration::ZERO, |link| link.slow_by);
        Duration::from_millis(usual) + extra
    }

    fn held_until(&self, ends: (NodeId, NodeId)) -> Instant {
        let link = self.links.get(&pair(ends.0, ends.1)).map_or(self.begun, |link| link.held_until);
        self.nodes[ends.0.0].held_until.max(self.nodes[ends.1.0].held_until).max(link)
    }
}

//! What the system has to live through: drawn from the seed, made one after the other and at the same time.

use crate::{
    net::NodeId,
    os,
    trace::Dice,
    world::{Role, World, spawn},
};
use std::time::Duration;
use tokio::time::Instant;

/// Faults begin within this time, and the last ones end a few seconds later.
const SPAN: u64 = 18_000;

/// The longest that a fault lasts.
const LONGEST: u64 = 6_000;

#[derive(Clone, Copy, Debug)]
enum Fault {
    /// Killed, and started again later.
    Crash(NodeId, Duration),
    /// Told to end in order, and started again later.
    Stop(NodeId, Duration),
    /// As a process that was stopped and woken: everything that it sends and is sent comes late.
    Hold(NodeId, Duration),
    Cut(NodeId, NodeId, Duration),
    Stall(NodeId, NodeId, Duration),
    Slow(NodeId, NodeId, Duration, Duration),
    /// The wall clock is set.
    Clock(Duration, bool),
}

/// A fault and when it begins.
type Planned = (Duration, Fault);

fn draw(world: &World, dice: &mut Dice) -> Vec<Planned> {
    let of = |role| world.nodes(role);
    let executors = of(Role::Executor);
    let crashing: Vec<NodeId> =
        [executors.clone(), executors.clone(), of(Role::Worker), of(Role::Scheduler), of(Role::Checkpoint), of(Role::Approval)].concat();
    let nodes: Vec<NodeId> = [&crashing[..], &of(Role::Client)].concat();
    let mut plan = Vec::new();
    for _ in 0..dice.between(4, 14) {
        let at = Duration::from_millis(dice.below(SPAN));
        let span = Duration::from_millis(dice.between(50, LONGEST));
        let (Some(&one), Some(&other)) = (dice.pick(&crashing), dice.pick(&nodes)) else { continue };
        // Between an owner and its journal is where it hurts most.
        let owner = dice.pick(&executors).copied().filter(|_| dice.percent(60));
        let (a, b) = owner.map_or((one, other), |owner| (owner, world.checkpoint()));
        let fault = match dice.below(100) {
            0..=34 => Fault::Crash(one, span / 2),
            35..=41 => Fault::Stop(one, span / 2),
            42..=59 => Fault::Hold(one, span),
            60..=71 => Fault::Cut(a, b, span),
            72..=84 => Fault::Stall(a, b, span),
            85..=93 => Fault::Slow(a, b, span, Duration::from_millis(dice.between(20, 800))),
            _ => Fault::Clock(Duration::from_millis(dice.between(10, 5_000)), dice.percent(60)),
        };
        plan.push((at, fault));
    }
    plan.sort_by_key(|(at, _)| *at);
    plan
}

/// Makes all faults of a seed, and heals everything after the last one. Answers how many there were.
pub(crate) async fn make(seed: u64, world: &World) -> u64 {
    let begun = Instant::now();
    let plan = draw(world, &mut Dice::new(seed, "faults"));
    for (at, fault) in &plan {
        tokio::time::sleep_until(begun + *at).await;
        one(world, *fault);
    }
    tokio::time::sleep_until(begun + Duration::from_millis(SPAN + LONGEST)).await;
    world.net.note("everything is well again");
    world.net.heal();
    world.boot_all();
    plan.len() as u64
}

fn one(world: &World, fault: Fault) {
    let net = &world.net;
    let name = |node| net.name(node);
    match fault {
        Fault::Crash(node, down) => {
            world.crash(node);
            let world = world.clone();
            spawn(async move {
                tokio::time::sleep(down).await;
                world.boot(node);
            });
        }
        Fault::Stop(node, down) => {
            let world = world.clone();
            spawn(async move {
                world.stop(node).await;
                tokio::time::sleep(down).await;
                world.boot(node);
            });
        }
        Fault::Hold(node, span) => {
            net.note(&format!("{} stops for {span:?}", name(node)));
            net.hold(node, span);
        }
        Fault::Cut(a, b, span) => {
            net.note(&format!("{} and {} are cut off for {span:?}", name(a), name(b)));
            net.cut(a, b, span);
        }
        Fault::Stall(a, b, span) => {
            net.note(&format!("nothing comes over between {} and {} for {span:?}", name(a), name(b)));
            net.stall(a, b, span);
        }
        Fault::Slow(a, b, span, by) => {
            net.note(&format!("{} and {} are {by:?} apart for {span:?}", name(a), name(b)));
            net.slow(a, b, span, by);
        }
        Fault::Clock(by, forward) => {
            net.note(&format!("the wall clock is set {} by {by:?}", if forward { "forward" } else { "back" }));
            os::set_wall(by, forward);
        }
    }
}

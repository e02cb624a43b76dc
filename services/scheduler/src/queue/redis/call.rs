//! Scripts, their arguments, and the way to the server and back: by namespace, in parts of a bounded size, several sent at once.

use super::{RedisQueue, Space};
use crate::{
    clock::Millis,
    link::reply::{array, fields, maybe_number, number, text},
    queue::{Handle, QueueEvent, TaskKey},
};
use futures::future::join_all;
use redis::{Script, Value};
use std::future::Future;
use troupe_domain::Error;

/// Items of one script: a few milliseconds, in which nobody else is served.
const MOST_ITEMS: usize = 256;

/// Bytes of arguments after which a script gets no more items.
const MOST_ARGUMENT_BYTES: usize = 4 << 20;

/// Scripts sent before the first is answered: the last of them is to be answered in time too.
const MOST_PARTS: usize = 8;

/// The scripts, each with what all begin with.
pub(super) struct Scripts {
    pub(super) enqueue: Script,
    pub(super) take: Script,
    pub(super) status: Script,
    pub(super) extend: Script,
    pub(super) claim: Script,
    pub(super) release: Script,
    pub(super) settle: Script,
    pub(super) remove: Script,
    pub(super) record: Script,
    pub(super) tick: Script,
    pub(super) renew: Script,
    pub(super) mark: Script,
    pub(super) resume: Script,
    pub(super) list: Script,
    pub(super) view: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        let script = |own: &str| Script::new(&[include_str!("scripts/shared.lua"), own].concat());
        Self {
            enqueue: script(include_str!("scripts/enqueue.lua")),
            take: script(include_str!("scripts/take.lua")),
            status: script(include_str!("scripts/status.lua")),
            extend: script(include_str!("scripts/extend.lua")),
            claim: script(include_str!("scripts/claim.lua")),
            release: script(include_str!("scripts/release.lua")),
            settle: script(include_str!("scripts/settle.lua")),
            remove: script(include_str!("scripts/remove.lua")),
            record: script(include_str!("scripts/record.lua")),
            tick: script(include_str!("scripts/tick.lua")),
            renew: script(include_str!("scripts/renew.lua")),
            mark: script(include_str!("scripts/mark.lua")),
            resume: script(include_str!("scripts/resume.lua")),
            list: script(include_str!("scripts/list.lua")),
            view: script(include_str!("scripts/view.lua")),
        }
    }
}

/// Arguments of a script, after those that all have.
#[derive(Clone, Default)]
pub(super) struct Args {
    items: Vec<Vec<u8>>,
    size: usize,
}

impl Args {
    pub(super) fn bytes(&mut self, bytes: Vec<u8>) -> &mut Self {
        self.size += bytes.len();
        self.items.push(bytes);
        self
    }

    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes().to_vec())
    }

    pub(super) fn number(&mut self, number: u64) -> &mut Self {
        self.bytes(number.to_string().into_bytes())
    }
}

/// All digits, so that texts compare as numbers do.
pub(super) fn fence_text(fence: u64) -> Vec<u8> {
    format!("{fence:020}").into_bytes()
}

pub(super) fn write_handle(_: &RedisQueue, handle: &Handle, args: &mut Args) {
    args.text(handle.key.task_id()).bytes(fence_text(handle.fence));
}

/// The places of items by namespace, in the order in which namespaces come first.
pub(super) fn by_namespace<T>(items: &[T], key: impl Fn(&T) -> &TaskKey) -> Vec<(Box<str>, Vec<usize>)> {
    let mut groups: Vec<(Box<str>, Vec<usize>)> = Vec::new();
    for (at, item) in items.iter().enumerate() {
        let namespace = key(item).namespace();
        match groups.iter_mut().rev().find(|(known, _)| **known == *namespace) {
            Some((_, places)) => places.push(at),
            None => groups.push((namespace.into(), vec![at])),
        }
    }
    groups
}

impl RedisQueue {
    pub(super) fn send(
        &self,
        namespace: &str,
        script: &'static Script,
        begin: bool,
        args: Args,
        now: Millis,
    ) -> impl Future<Output = Result<Value, Error>> + Send + 'static {
        let link = self.link.clone();
        let tag = format!("{{{}:{namespace}}}", self.prefix);
        let token = if begin { uuid::Uuid::now_v7().simple().to_string() } else { String::new() };
        let me = self.me.clone();
        async move {
            link.script(script, |call| {
                call.key(format!("{tag}:meta")).arg(&tag).arg(now).arg(&me).arg(&token).arg(&args.items);
            })
            .await
        }
    }

    /// Looks at what every answer says of the namespace, and gives the script's own.
    pub(super) fn took(&mut self, namespace: &str, ops_before: u64, answer: Value) -> Result<Value, Error> {
        let [generation, ops, count, due, body] = fields(answer)?;
        let (generation, ops) = (text(generation)?, number(ops)?);
        if generation.is_empty() && !self.spaces.contains_key(namespace) {
            return Ok(body);
        }
        let space = self.spaces.entry(namespace.into()).or_default();
        let lost = space.is_lost(&generation, ops, ops_before);
        *space = Space {
            listed: space.listed && !lost,
            ops: if lost { ops } else { ops.max(space.ops) },
            generation,
            count: number(count)? as usize,
            due: maybe_number(due)?,
        };
        if lost {
            tracing::warn!(namespace, "redis has lost tasks: executors will dispatch theirs again");
            // A core with that many events waiting will look everywhere soon, and is told again until then.
            if self.events.try_send(QueueEvent::Lost).is_err() {
                self.spaces.entry(namespace.into()).or_default().generation = "lost, and nobody was told".into();
            }
        }
        Ok(body)
    }

    pub(super) fn ops(&self, namespace: &str) -> u64 {
        self.spaces.get(namespace).map_or(0, |space| space.ops)
    }

    /// One script in one namespace. `begin`: the namespace is begun where there is nothing of it.
    pub(super) async fn ask(&mut self, namespace: &str, script: &'static Script, begin: bool, args: Args) -> Result<Value, Error> {
        self.heed();
        let ops = self.ops(namespace);
        let answer = self.send(namespace, script, begin, args, self.now).await?;
        self.took(namespace, ops, answer)
    }

    /// Takes as many items as one script should have.
    pub(super) fn part<T>(&self, head: &Args, rest: &mut &[&T], write: impl Fn(&Self, &T, &mut Args)) -> Args {
        let mut args = head.clone();
        let mut count = 0;
        while count < MOST_ITEMS
            && args.size < MOST_ARGUMENT_BYTES
            && let Some((item, others)) = rest.split_first()
        {
            write(self, item, &mut args);
            *rest = others;
            count += 1;
        }
        args
    }

    /// All items, where one script takes them.
    pub(super) fn one_part<T>(&self, head: &Args, items: &[&T], write: impl Fn(&Self, &T, &mut Args)) -> Option<Args> {
        let mut rest = items;
        let args = self.part(head, &mut rest, write);
        rest.is_empty().then_some(args)
    }

    /// One script for many items of one namespace; the answers of all parts.
    async fn parts<T>(
        &mut self,
        namespace: &str,
        script: &'static Script,
        begin: bool,
        head: &Args,
        items: &[&T],
        write: impl Fn(&Self, &T, &mut Args),
    ) -> Result<Vec<Value>, Error> {
        self.heed();
        let (mut out, mut rest) = (Vec::new(), items);
        while !rest.is_empty() {
            let ops = self.ops(namespace);
            let mut sent = Vec::new();
            while sent.len() < MOST_PARTS && !rest.is_empty() {
                let args = self.part(head, &mut rest, &write);
                sent.push(self.send(namespace, script, begin, args, self.now));
            }
            for answer in join_all(sent).await {
                out.push(self.took(namespace, ops, answer?)?);
            }
        }
        Ok(out)
    }

    /// One script for many items of one namespace; one answer for each.
    pub(super) async fn in_namespace<T>(
        &mut self,
        namespace: &str,
        script: &'static Script,
        begin: bool,
        head: &Args,
        items: &[&T],
        write: impl Fn(&Self, &T, &mut Args),
    ) -> Result<Vec<Value>, Error> {
        let mut out = Vec::with_capacity(items.len());
        for part in self.parts(namespace, script, begin, head, items, write).await? {
            out.extend(array(part)?);
        }
        if out.len() == items.len() { Ok(out) } else { Err(Error::internal()) }
    }

    /// One script for many items; one answer for each, in their order.
    pub(super) async fn each<T>(
        &mut self,
        script: &'static Script,
        head: &Args,
        items: &[T],
        key: impl Fn(&T) -> &TaskKey,
        write: impl Fn(&Self, &T, &mut Args),
    ) -> Result<Vec<Value>, Error> {
        let mut out = vec![Value::Nil; items.len()];
        for (namespace, places) in by_namespace(items, key) {
            let of_it: Vec<&T> = places.iter().map(|at| &items[*at]).collect();
            let answers = self.in_namespace(&namespace, script, false, head, &of_it, &write).await?;
            places.into_iter().zip(answers).for_each(|(at, answer)| out[at] = answer);
        }
        Ok(out)
    }

    /// One script for many items that have no answers.
    pub(super) async fn each_in<T>(
        &mut self,
        script: &'static Script,
        head: &Args,
        items: &[T],
        key: impl Fn(&T) -> &TaskKey,
        write: impl Fn(&Self, &T, &mut Args),
    ) -> Result<(), Error> {
        for (namespace, places) in by_namespace(items, key) {
            let of_it: Vec<&T> = places.iter().map(|at| &items[*at]).collect();
            self.parts(&namespace, script, false, head, &of_it, &write).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fences_compare_as_texts() {
        assert!(fence_text(9) < fence_text(10) && fence_text(u64::MAX).len() == 20);
    }

    #[test]
    fn items_are_grouped_by_namespace_and_keep_their_places() {
        let keys = ["a/1", "b/1", "a/2"].map(|key| key.split_once('/').map(|(ns, id)| TaskKey::new(ns, id)).expect("a slash"));
        let groups = by_namespace(&keys, |key| key);
        let shape: Vec<(&str, &[usize])> = groups.iter().map(|(ns, places)| (&**ns, places.as_slice())).collect();
        assert_eq!(shape, [("a", &[0, 2][..]), ("b", &[1])]);
    }
}

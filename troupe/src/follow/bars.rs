//! A bar for each step of the workflow (not for each of its instances), and the last line of what is being said.

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;
use std::{collections::BTreeMap, time::Duration};

/// Characters of streamed text that are shown.
const TAIL: usize = 60;

pub(crate) struct Bars {
    all: MultiProgress,
    steps: BTreeMap<String, Step>,
    run: ProgressBar,
}

struct Step {
    bar: ProgressBar,
    own: Count,
    instances: Count,
    said: String,
}

#[derive(Clone, Copy, Default)]
struct Count {
    started: u64,
    ended: u64,
    failed: u64,
}

impl Bars {
    pub(crate) fn new(run: &str) -> Self {
        let all = MultiProgress::new();
        let bar = all
            .add(ProgressBar::new_spinner().with_style(style("{spinner:.cyan} run {prefix} {msg} {elapsed}")).with_prefix(run.to_owned()));
        bar.enable_steady_tick(Duration::from_millis(120));
        Self { all, steps: BTreeMap::new(), run: bar }
    }

    pub(crate) fn show(&mut self, kind: &str, event: &Value) {
        let path = event["step"].as_str().unwrap_or_default();
        if let Some(status) = kind.strip_prefix("run.") {
            self.run.set_message(status.to_owned());
            return;
        }
        if path.is_empty() {
            return;
        }
        let step = self.step(&without_indices(path));
        // A step with instances (`for_each`, `loop`) is counted by them: its own events are not one more.
        let count = if path.ends_with(']') { &mut step.instances } else { &mut step.own };
        match kind {
            "step.started" => count.started += 1,
            "step.succeeded" | "step.skipped" => count.ended += 1,
            "step.failed" | "step.cancelled" => (count.ended, count.failed) = (count.ended + 1, count.failed + 1),
            "chunk" => step.say(&event["data"]),
            _ => {}
        }
        step.draw(kind);
    }

    fn step(&mut self, name: &str) -> &mut Step {
        let all = &self.all;
        self.steps.entry(name.to_owned()).or_insert_with(|| {
            let bar = ProgressBar::new(1)
                .with_style(style("  {prefix:<24} {bar:20.green/dim} {pos}/{len} {msg:.dim}"))
                .with_prefix(name.to_owned());
            Step { bar: all.add(bar), own: Count::default(), instances: Count::default(), said: String::new() }
        })
    }

    pub(crate) fn print(&self, text: &str) {
        // A terminal that has gone away needs no message.
        let _ = self.all.println(text);
    }

    pub(crate) fn hide(&mut self) {
        self.run.disable_steady_tick();
        self.all.set_draw_target(ProgressDrawTarget::hidden());
    }

    pub(crate) fn reveal(&mut self) {
        self.all.set_draw_target(ProgressDrawTarget::stderr());
        self.run.enable_steady_tick(Duration::from_millis(120));
    }

    pub(crate) fn finish(&mut self) {
        for step in self.steps.values() {
            step.bar.abandon();
        }
        self.run.abandon();
    }
}

impl Step {
    fn say(&mut self, chunk: &Value) {
        let text = chunk.as_str().or_else(|| chunk["text"].as_str()).or_else(|| chunk["data"].as_str()).unwrap_or_default();
        self.said.push_str(text);
        let skip = self.said.chars().count().saturating_sub(TAIL);
        self.said = self.said.chars().skip(skip).map(|c| if c.is_control() { ' ' } else { c }).collect();
    }

    fn count(&self) -> Count {
        if self.instances.started + self.instances.ended > 0 { self.instances } else { self.own }
    }

    fn draw(&self, kind: &str) {
        let count = self.count();
        self.bar.set_length(count.started.max(count.ended).max(1));
        self.bar.set_position(count.ended);
        let status = kind.strip_prefix("step.").unwrap_or("");
        let failed = if count.failed > 0 { format!("{} failed ", count.failed) } else { String::new() };
        let words = if kind == "chunk" { self.said.clone() } else { status.to_owned() };
        self.bar.set_message(format!("{failed}{words}"));
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("━╸─")
}

/// `improve[0].score` is an instance of `improve.score`.
fn without_indices(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut inside = false;
    for c in path.chars() {
        match c {
            '[' => inside = true,
            ']' => inside = false,
            c if !inside => out.push(c),
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::Bars;
    use serde_json::json;

    #[test]
    fn a_fan_out_is_counted_by_its_instances() {
        let mut bars = Bars::new("r");
        for (kind, step) in
            [("started", "a"), ("started", "a[0]"), ("started", "a[1]"), ("succeeded", "a[0]"), ("failed", "a[1]"), ("failed", "a")]
        {
            bars.show(&format!("step.{kind}"), &json!({ "step": step }));
        }
        let count = bars.step("a").count();
        assert_eq!((count.started, count.ended, count.failed), (2, 2, 1));
    }

    #[test]
    fn instances_share_a_bar() {
        assert_eq!(super::without_indices("improve[0].score[12]"), "improve.score");
    }
}

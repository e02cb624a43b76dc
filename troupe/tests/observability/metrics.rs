//! Prometheus' text format, read.

use anyhow::Context;
use std::collections::BTreeSet;
use troupe_testkit::DevServer;

pub(crate) struct Metrics {
    pub(crate) text: String,
}

pub(crate) async fn scrape(server: &DevServer) -> anyhow::Result<Metrics> {
    let answer = reqwest::get(format!("{}/metrics", server.url())).await?.error_for_status().context("GET /metrics")?;
    Ok(Metrics { text: answer.text().await? })
}

impl Metrics {
    /// The value of the one series with exactly these labels.
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let wanted: BTreeSet<String> = labels.iter().map(|(key, value)| format!("{key}=\"{value}\"")).collect();
        let series = self.text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
        let mut found = series.filter(|(series, _)| {
            let (known, rest) = series.split_once('{').unwrap_or((series, "}"));
            let labels: BTreeSet<String> = rest.trim_end_matches('}').split(',').filter(|l| !l.is_empty()).map(str::to_owned).collect();
            known == name && labels == wanted
        });
        found.next()?.1.parse().ok()
    }
}

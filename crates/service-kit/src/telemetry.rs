//! Logs, traces and metrics of a process. `init` returns a guard; main shuts it down last, under a timeout.

use crate::tasks::SPAN_TARGET;
use anyhow::Context;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use opentelemetry::{KeyValue, global, trace::TracerProvider};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::{Resource, propagation::TraceContextPropagator, trace::SdkTracerProvider};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{io::IsTerminal, sync::Arc, time::Duration};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::{LevelFilter, filter_fn},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

/// Seconds: from 50 microseconds to a minute.
const BUCKETS: [f64; 16] = [0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 15.0, 60.0];

/// How long the last spans may take to be sent at shutdown.
const FLUSH: Duration = Duration::from_secs(3);

type BoxedLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// `[telemetry]`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Log filter, as in `RUST_LOG` ("info", "troupe_executor=debug,warn"). `RUST_LOG` wins.
    pub log: String,
    /// `text` for people, `json` for collectors.
    pub format: Format,
    /// OTLP/gRPC endpoint of traces ("http://localhost:4317"); empty: `OTEL_EXPORTER_OTLP_ENDPOINT`, and no export when that is empty too.
    pub otlp_endpoint: String,
}

impl Default for Config {
    fn default() -> Self {
        Self { log: "warn".to_owned(), format: Format::Text, otlp_endpoint: String::new() }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    #[default]
    Text,
    Json,
}

/// The guard: keep it until the process ends.
pub struct Telemetry {
    metrics: PrometheusHandle,
    traces: Option<SdkTracerProvider>,
}

impl Telemetry {
    /// Installs the process's log subscriber, trace exporter and metrics recorder. Call it once, inside the runtime.
    pub fn init(service: &'static str, config: &Config) -> anyhow::Result<Self> {
        let traces = exporter(service, config)?;
        let filter =
            EnvFilter::try_from_default_env().or_else(|_| EnvFilter::try_new(&config.log)).context("telemetry.log is not a log filter")?;
        // A list, not an `Option` on top: with that, a span that no layer wants would be asked about again at each use.
        let mut layers: Vec<BoxedLayer> = vec![match config.format {
            Format::Text => {
                let colour = std::io::stderr().is_terminal();
                tracing_subscriber::fmt::layer().with_ansi(colour).with_writer(std::io::stderr).with_filter(filter).boxed()
            }
            Format::Json => tracing_subscriber::fmt::layer().json().with_writer(std::io::stderr).with_filter(filter).boxed(),
        }];
        layers.extend(traces.as_ref().map(|provider| spans(provider)));
        tracing_subscriber::registry().with(layers).try_init().context("a log subscriber is installed already")?;
        global::set_text_map_propagator(TraceContextPropagator::new());
        let builder = PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("seconds".to_owned()), &BUCKETS)?;
        let metrics = builder.install_recorder().context("a metrics recorder is installed already")?;
        Ok(Self { metrics, traces })
    }

    /// Renders the metrics as Prometheus text, with those of the process itself (`process_resident_memory_bytes` and so on).
    pub fn metrics(&self) -> Arc<dyn Fn() -> String + Send + Sync> {
        let (ours, process) = (self.metrics.clone(), metrics_process::Collector::default());
        process.describe();
        Arc::new(move || {
            process.collect();
            ours.render()
        })
    }

    /// Sends what is left, for at most three seconds.
    pub async fn shutdown(self) {
        if let Some(traces) = self.traces {
            let flush = tokio::task::spawn_blocking(move || traces.shutdown());
            if !matches!(tokio::time::timeout(FLUSH, flush).await, Ok(Ok(Ok(())))) {
                tracing::warn!("the last spans were not exported");
            }
        }
    }
}

/// Exports the spans of Troupe's own code. Log lines are not exported with them: they may quote what users wrote.
fn spans(provider: &SdkTracerProvider) -> BoxedLayer {
    let ours = filter_fn(|meta| meta.is_span() && meta.target().starts_with("troupe") && meta.target() != SPAN_TARGET)
        .with_max_level_hint(LevelFilter::DEBUG);
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("troupe"));
    layer
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_level(false)
        .with_target(false)
        .with_filter(ours)
        .boxed()
}

fn exporter(service: &'static str, config: &Config) -> anyhow::Result<Option<SdkTracerProvider>> {
    let endpoint = match config.otlp_endpoint.as_str() {
        "" => std::env::var("OTEL_EXPORTER_OTLP_ENDPOINT").unwrap_or_default(),
        endpoint => endpoint.to_owned(),
    };
    if endpoint.is_empty() {
        return Ok(None);
    }
    let exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint).build().context("cannot build the trace exporter")?;
    let mut resource = Resource::builder();
    if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
        resource = resource.with_service_name(service);
    }
    let resource = resource.with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION"))).build();
    Ok(Some(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build()))
}

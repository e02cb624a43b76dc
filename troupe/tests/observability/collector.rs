//! A collector of traces: it serves OTLP over gRPC and keeps what it gets.

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{AnyValue, any_value::Value},
    trace::v1 as otlp,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::net::TcpListener;
use tonic::{Request, Response, Status, transport::server::TcpIncoming};
use troupe_service_kit::Tasks;

#[derive(Clone, Debug)]
pub(crate) struct Span {
    pub(crate) name: String,
    pub(crate) trace: String,
    pub(crate) id: String,
    pub(crate) parent: String,
    pub(crate) attributes: BTreeMap<String, String>,
}

impl Span {
    /// Empty where it is not there.
    pub(crate) fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }
}

#[derive(Clone)]
pub(crate) struct Collector {
    pub(crate) url: String,
    received: Arc<Mutex<Vec<otlp::Span>>>,
}

impl Collector {
    pub(crate) async fn start(tasks: &Tasks) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let collector = Self { url: format!("http://{}", listener.local_addr()?), received: Arc::default() };
        let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(collector.clone()));
        tasks.spawn("collector", server.serve_with_incoming(TcpIncoming::from(listener)));
        Ok(collector)
    }

    /// The spans of one trace.
    pub(crate) fn trace(&self, id: &str) -> Vec<Span> {
        self.spans().map(read).filter(|span| span.trace == id).collect()
    }

    pub(crate) fn names(&self) -> BTreeSet<String> {
        self.spans().map(|span| span.name).collect()
    }

    /// All that was sent, as text.
    pub(crate) fn everything(&self) -> String {
        format!("{:?}", self.spans().collect::<Vec<_>>())
    }

    fn spans(&self) -> impl Iterator<Item = otlp::Span> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).clone().into_iter()
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(&self, request: Request<ExportTraceServiceRequest>) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let scopes = request.into_inner().resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
        self.received.lock().unwrap_or_else(PoisonError::into_inner).extend(scopes.flat_map(|scope| scope.spans));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn read(span: otlp::Span) -> Span {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let attributes = span.attributes.into_iter().map(|pair| (pair.key, text(pair.value))).collect();
    Span { name: span.name, trace: hex(&span.trace_id), id: hex(&span.span_id), parent: hex(&span.parent_span_id), attributes }
}

fn text(value: Option<AnyValue>) -> String {
    match value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    }
}

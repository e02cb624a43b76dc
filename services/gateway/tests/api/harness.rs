//! A gateway whose services are [`Fakes`], called without sockets.

use crate::fakes::Fakes;
use axum::{
    Router,
    body::{Body, to_bytes},
    http::{HeaderMap, Method, Request, StatusCode, header},
};
use futures::FutureExt;
use serde_json::Value;
use std::sync::Arc;
use tower::ServiceExt;
use troupe_gateway::{Config, Dependencies, Service};
use troupe_service_kit::{Ops, Tasks};
use troupe_wire::Transport;

/// A run that the fakes know.
pub(crate) const RUN: &str = "0199e1f2-7c54-7b7e-9a51-3c1f0f4c9f10";

pub(crate) struct Harness {
    pub(crate) fakes: Fakes,
    pub(crate) service: Service,
    pub(crate) router: Router,
    pub(crate) tasks: Tasks,
}

pub(crate) fn ops() -> Ops {
    Ops { health: Arc::new(|| async { Vec::new() }.boxed()), metrics: Arc::new(|| "troupe_test 1\n".to_owned()) }
}

impl Harness {
    pub(crate) async fn start() -> Self {
        Self::with(Config::default()).await
    }

    pub(crate) async fn with(config: Config) -> Self {
        let fakes = Fakes::default();
        let transport = Transport::embedded(fakes.routes());
        Self::over(config, fakes, transport).await
    }

    /// With another way to the executor.
    pub(crate) async fn over(config: Config, fakes: Fakes, executor: Transport) -> Self {
        let others = Transport::embedded(fakes.routes());
        let dependencies = Dependencies { executor, scheduler: others.clone(), registry: others.clone(), approval: others, ops: ops() };
        let tasks = Tasks::new();
        let service = Service::start(config, dependencies, &tasks).await.unwrap();
        Self { fakes, router: service.router(), service, tasks }
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Reply {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        Reply { status: parts.status, headers: parts.headers, body: to_bytes(body, usize::MAX).await.unwrap().to_vec() }
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send(request(Method::GET, path).body(Body::empty()).unwrap()).await
    }

    pub(crate) async fn post(&self, path: &str, body: &str) -> Reply {
        self.post_with(path, body, &[]).await
    }

    pub(crate) async fn post_with(&self, path: &str, body: &str, headers: &[(&str, &str)]) -> Reply {
        let mut builder = request(Method::POST, path);
        if !headers.iter().any(|(name, _)| *name == "content-type") {
            builder = builder.header(header::CONTENT_TYPE, "application/json");
        }
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        self.send(builder.body(Body::from(body.to_owned())).unwrap()).await
    }
}

pub(crate) fn request(method: Method, path: &str) -> axum::http::request::Builder {
    Request::builder().method(method).uri(path).header(header::HOST, "localhost:8080")
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Checks that it is a problem document with this status and code, and gives it.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text());
        assert_eq!(self.header("content-type"), "application/problem+json");
        let problem = self.json();
        assert_eq!(problem["code"], code, "{problem}");
        assert_eq!(problem["status"], status, "{problem}");
        assert_eq!(problem["instance"], self.header("x-request-id"), "{problem}");
        problem
    }
}

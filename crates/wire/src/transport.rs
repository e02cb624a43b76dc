//! The transport under every generated client: a socket to another process, or the other service's server object in this one.

use crate::trace;
use std::{
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};
use tonic::{
    body::Body,
    codegen::{Service, StdError},
    transport::{Channel, Endpoint},
};
use tower::{ServiceExt, util::BoxCloneSyncService};

type Inner = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, StdError>;

/// Clients are `XClient<Transport>` everywhere: same messages and interceptors, with sockets or without.
#[derive(Clone)]
pub struct Transport(Inner);

impl Transport {
    /// Calls a server object of this process: a generated server, or `tonic::service::Routes` with several.
    pub fn embedded<S>(server: S) -> Self
    where
        S: Service<http::Request<Body>, Response = http::Response<Body>> + Clone + Send + Sync + 'static,
        S::Error: Into<StdError>,
        S::Future: Send + 'static,
    {
        Self(BoxCloneSyncService::new(server.map_err(Into::into)))
    }

    /// Connects to `http://host:port` when it is first used, and again after a loss.
    pub fn connect(url: &str) -> Result<Self, tonic::transport::Error> {
        let endpoint = Endpoint::from_shared(url.to_owned())?
            .connect_timeout(std::time::Duration::from_secs(5))
            .tcp_nodelay(true)
            .http2_adaptive_window(true)
            .keep_alive_while_idle(true)
            .http2_keep_alive_interval(std::time::Duration::from_secs(10));
        Ok(Self::from_channel(endpoint.connect_lazy()))
    }

    pub fn from_channel(channel: Channel) -> Self {
        Self(BoxCloneSyncService::new(channel.map_err(Into::into)))
    }
}

impl Service<http::Request<Body>> for Transport {
    type Response = http::Response<Body>;
    type Error = StdError;
    type Future = <Inner as Service<http::Request<Body>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StdError>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        trace::inject_headers(request.headers_mut());
        self.0.call(request)
    }
}

/// Services of one process may need each other both ways: this transport is handed out first and bound when its target exists.
#[derive(Clone, Default)]
pub struct LateTransport(Arc<OnceLock<Transport>>);

impl LateTransport {
    /// The transport to hand out. Calls before [`LateTransport::bind`] fail with `Unavailable`, as those to a server that is not up do.
    pub fn transport(&self) -> Transport {
        let slot = Arc::clone(&self.0);
        Transport::embedded(tower::service_fn(move |request: http::Request<Body>| {
            let bound = slot.get().cloned();
            async move {
                match bound {
                    Some(transport) => transport.oneshot(request).await,
                    None => Ok(tonic::Status::unavailable("the service is starting").into_http()),
                }
            }
        }))
    }

    /// Binds it. The second call does nothing.
    pub fn bind(&self, target: Transport) {
        let _ = self.0.set(target);
    }
}

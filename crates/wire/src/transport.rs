//! The transport under every generated client: a socket to another process, or the other service's server object in this one.

use crate::{spanned::Spanned, trace};
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

/// Flow-control windows of HTTP/2, in bytes, for clients and servers. They are set, not adaptive: h2 derives its budget for small frames from the
/// connection's window and closes a connection that passes it, which many small calls at once do with the default.
pub const STREAM_WINDOW: u32 = 4 << 20;
pub const CONNECTION_WINDOW: u32 = 16 << 20;

/// The most bytes of one gRPC message, both ways: every generated client and server is given it.
pub const MAX_MESSAGE: usize = 64 << 20;

type Inner = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, StdError>;

/// Clients are `XClient<Transport>` everywhere: same messages and interceptors, with sockets or without.
#[derive(Clone)]
pub struct Transport(Inner);

impl Transport {
    /// Calls a server object of this process: a generated server, or `tonic::service::Routes` with several. As over a socket, a call has a
    /// span of the server's in the caller's trace.
    pub fn embedded<S>(server: S) -> Self
    where
        S: Service<http::Request<Body>, Response = http::Response<Body>> + Clone + Send + Sync + 'static,
        S::Error: Into<StdError>,
        S::Future: Send + 'static,
    {
        Self(BoxCloneSyncService::new(Spanned::new(server.map_err(Into::into))))
    }

    /// Connects to `http://host:port` when it is first used, and again after a loss.
    pub fn connect(url: &str) -> Result<Self, tonic::transport::Error> {
        let endpoint = Endpoint::from_shared(url.to_owned())?
            .connect_timeout(std::time::Duration::from_secs(5))
            .tcp_nodelay(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
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

/// How a service reaches others whose addresses it learns while it runs.
#[derive(Clone)]
pub struct Connector(Arc<dyn Fn(&str) -> Result<Transport, StdError> + Send + Sync>);

impl Connector {
    /// Over sockets, to `http://host:port`.
    pub fn sockets() -> Self {
        Self::new(|url| Ok(Transport::connect(url)?))
    }

    /// In any other way (simulations).
    pub fn new(connect: impl Fn(&str) -> Result<Transport, StdError> + Send + Sync + 'static) -> Self {
        Self(Arc::new(connect))
    }

    pub fn connect(&self, address: &str) -> Result<Transport, StdError> {
        (self.0)(address)
    }
}

/// Services of one process may need each other both ways: this transport is handed out first and bound when its target exists.
#[derive(Clone, Default)]
pub struct LateTransport(Arc<OnceLock<Transport>>);

impl LateTransport {
    /// The transport to hand out. Calls before [`LateTransport::bind`] fail with `Unavailable`, as those to a server that is not up do.
    pub fn transport(&self) -> Transport {
        let slot = Arc::clone(&self.0);
        Transport(BoxCloneSyncService::new(tower::service_fn(move |request: http::Request<Body>| {
            let bound = slot.get().cloned();
            async move {
                match bound {
                    Some(transport) => transport.oneshot(request).await,
                    None => Ok(tonic::Status::unavailable("the service is starting").into_http()),
                }
            }
        })))
    }

    /// Binds it. The second call does nothing.
    pub fn bind(&self, target: Transport) {
        let _ = self.0.set(target);
    }
}

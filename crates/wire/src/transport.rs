//! The transport under every generated client: sockets to other processes, or the other service's server object in this one.

mod peer;
mod replay;
mod several;
mod watched;

use crate::{spanned::Spanned, trace};
use std::{
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Duration,
};
use tonic::{
    body::Body,
    codegen::{Service, StdError},
    transport::{Channel, Endpoint},
};
use tower::{ServiceExt, util::BoxCloneSyncService};
use troupe_domain::Error;

/// Flow-control windows of HTTP/2, in bytes, for clients and servers. They are set, not adaptive: h2 derives its budget for small frames from the
/// connection's window and closes a connection that passes it, which many small calls at once do with the default.
pub const STREAM_WINDOW: u32 = 4 << 20;
pub const CONNECTION_WINDOW: u32 = 16 << 20;

/// The most bytes of one gRPC message, both ways: every generated client and server is given it.
pub const MAX_MESSAGE: usize = 64 << 20;

/// For so long answers gather that nobody waits for: one message then carries several.
pub const GATHER: Duration = Duration::from_millis(3);

/// After this long without a frame the other side is asked for a sign of life, by clients and servers.
pub const KEEP_ALIVE: Duration = Duration::from_secs(2);

/// How long the sign may take; then the connection is given up. Both together are shorter than a partition's lease.
pub const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long opening a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1_500);

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

    /// Connects to `http://host:port` when it is first used, and again after a loss; or to several replicas of one service, with commas
    /// between them, at most 64: calls are spread over those that answer, and one that was not sent is sent to the next. Call it inside a runtime.
    ///
    /// # Errors
    /// An address is missing, is no URL, or there are too many.
    pub fn connect(addresses: &str) -> Result<Self, Error> {
        let mut channels: Vec<(&str, Channel)> = Vec::new();
        for address in addresses.split(',').map(str::trim) {
            if !channels.iter().any(|(known, _)| *known == address) {
                channels.push((address, endpoint(address)?.connect_lazy()));
            }
        }
        match channels.as_slice() {
            [(_, channel)] => Ok(Self::from_channel(channel.clone())),
            _ if channels.len() > several::MAX => {
                Err(Error::invalid(format!("{} addresses are more than {}", channels.len(), several::MAX)))
            }
            _ => Ok(Self(several::service(channels))),
        }
    }

    pub fn from_channel(channel: Channel) -> Self {
        Self(BoxCloneSyncService::new(channel.map_err(Into::into)))
    }
}

fn endpoint(address: &str) -> Result<Endpoint, Error> {
    let endpoint = Endpoint::from_shared(address.to_owned()).map_err(|e| Error::invalid(format!("'{address}' is no URL: {e}")))?;
    if endpoint.uri().scheme().is_none() || endpoint.uri().host().is_none() {
        return Err(Error::invalid(format!("'{address}' is no URL like http://host:port")));
    }
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_while_idle(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT))
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

type Connect = dyn Fn(&str) -> Result<Transport, StdError> + Send + Sync;

/// How a service reaches others whose addresses it learns while it runs.
#[derive(Clone)]
pub struct Connector(Arc<Connect>);

impl Connector {
    /// Over sockets, as [`Transport::connect`] does.
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

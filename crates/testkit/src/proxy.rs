//! A TCP link that can be cut and slowed down.

use anyhow::Context;
use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    task::JoinSet,
    time::Instant,
};

/// Bytes that are read at once, and such pieces that may be under way in one direction.
const PIECE: usize = 16 << 10;
const UNDER_WAY: usize = 256;

/// What a link does with what it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Carries everything, this much later; zero: at once.
    Open(Duration),
    /// Connections that stand are dropped, new ones too.
    Cut,
    /// Connections stand, and nothing comes through them.
    Silent,
}

#[derive(Debug, Default)]
struct Counts {
    opened: AtomicU64,
    standing: AtomicU64,
    carried: AtomicU64,
}

/// A connection that stands until this is dropped.
struct Standing(Arc<Counts>);

impl Standing {
    fn new(counts: Arc<Counts>) -> Self {
        counts.opened.fetch_add(1, Ordering::Relaxed);
        counts.standing.fetch_add(1, Ordering::Relaxed);
        Self(counts)
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        self.0.standing.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A proxy in front of one address. It ends when this is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    target: SocketAddr,
    state: watch::Sender<Link>,
    counts: Arc<Counts>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// One in front of `target`, open. Call it inside a runtime.
    pub fn start(target: SocketAddr) -> anyhow::Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot open a port for a proxy")?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let address = listener.local_addr()?;
        let (state, seen) = watch::channel(Link::Open(Duration::ZERO));
        let counts = Arc::new(Counts::default());
        let tasks = JoinSet::from_iter([accept(listener, target, seen, Arc::clone(&counts))]);
        Ok(Self { address, target, state, counts, _tasks: tasks })
    }

    /// Where to connect to instead.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What is behind it.
    pub fn target(&self) -> SocketAddr {
        self.target
    }

    /// From now on.
    pub fn set(&self, link: Link) {
        self.state.send_replace(link);
    }

    /// Connections that were opened through it so far.
    pub fn opened(&self) -> u64 {
        self.counts.opened.load(Ordering::Relaxed)
    }

    /// Connections that stand now.
    pub fn standing(&self) -> u64 {
        self.counts.standing.load(Ordering::Relaxed)
    }

    /// Bytes that came through it so far, both ways.
    pub fn carried(&self) -> u64 {
        self.counts.carried.load(Ordering::Relaxed)
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, state: watch::Receiver<Link>, counts: Arc<Counts>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // A connection that is gone already, or no descriptor is left for it: its client tries again.
                let Ok((client, _)) = accepted else { continue };
                if *state.borrow() == Link::Cut {
                    continue;
                }
                let standing = Standing::new(Arc::clone(&counts));
                connections.spawn(carry(client, target, state.clone(), standing));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// One connection until either side closes it or the link is cut.
async fn carry(client: TcpStream, target: SocketAddr, state: watch::Receiver<Link>, standing: Standing) -> io::Result<()> {
    let counts = &standing.0;
    let mut watched = state.clone();
    let work = async {
        let server = TcpStream::connect(target).await?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        // Both directions end by themselves: one side may say that it has said everything and still listen.
        tokio::try_join!(pass(from_client, to_server, state.clone(), counts), pass(from_server, to_client, state, counts)).map(|_| ())
    };
    tokio::select! {
        outcome = work => outcome,
        // The sender lives as long as the proxy.
        _ = watched.wait_for(|link| *link == Link::Cut) => Ok(()),
    }
}

/// One direction: what comes is kept for as long as the link is slow, in order.
async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut state: watch::Receiver<Link>,
    counts: &Counts,
) -> io::Result<()> {
    let (sender, mut pieces) = mpsc::channel::<(Instant, Vec<u8>)>(UNDER_WAY);
    let read = async {
        loop {
            let mut piece = vec![0; PIECE];
            let size = from.read(&mut piece).await?;
            piece.truncate(size);
            if size == 0 || sender.send((Instant::now(), piece)).await.is_err() {
                drop(sender);
                return io::Result::Ok(());
            }
        }
    };
    let write = async {
        while let Some((came, piece)) = pieces.recv().await {
            let delay = match state.wait_for(|link| matches!(link, Link::Open(_))).await.as_deref() {
                Ok(Link::Open(delay)) => *delay,
                _ => return Ok(()),
            };
            tokio::time::sleep_until(came + delay).await;
            to.write_all(&piece).await?;
            counts.carried.fetch_add(piece.len() as u64, Ordering::Relaxed);
        }
        to.shutdown().await
    };
    tokio::try_join!(read, write).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::until;

    /// Says back what it hears, on each connection.
    async fn echo() -> anyhow::Result<(SocketAddr, JoinSet<()>)> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let serve = async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(async move {
                    let (mut from, mut to) = stream.into_split();
                    tokio::io::copy(&mut from, &mut to).await
                });
            }
        };
        Ok((address, JoinSet::from_iter([serve])))
    }

    async fn say(stream: &mut TcpStream, text: &[u8]) -> io::Result<Vec<u8>> {
        stream.write_all(text).await?;
        let mut answer = vec![0; text.len()];
        stream.read_exact(&mut answer).await?;
        Ok(answer)
    }

    #[tokio::test]
    async fn it_carries_later_when_it_is_slow() -> anyhow::Result<()> {
        let (echo, _tasks) = echo().await?;
        let proxy = Proxy::start(echo)?;
        let mut stream = TcpStream::connect(proxy.address()).await?;
        assert_eq!(say(&mut stream, b"one").await?, b"one");
        proxy.set(Link::Open(Duration::from_millis(60)));
        let begun = Instant::now();
        assert_eq!(say(&mut stream, &[7; 100_000]).await?, vec![7; 100_000]);
        assert!(begun.elapsed() >= Duration::from_millis(120), "there and back");
        assert_eq!((proxy.opened(), proxy.standing(), proxy.carried()), (1, 1, 200_006));
        Ok(())
    }

    #[tokio::test]
    async fn a_cut_drops_what_stands_and_what_comes() -> anyhow::Result<()> {
        let (echo, _tasks) = echo().await?;
        let proxy = Proxy::start(echo)?;
        let mut stream = TcpStream::connect(proxy.address()).await?;
        say(&mut stream, b"one").await?;
        proxy.set(Link::Cut);
        until("the connection ends", async || say(&mut stream, b"two").await.err()).await?;
        // The connection may still be taken, and is dropped.
        if let Ok(mut other) = TcpStream::connect(proxy.address()).await {
            assert!(say(&mut other, b"three").await.is_err());
        }
        proxy.set(Link::Open(Duration::ZERO));
        let mut again = TcpStream::connect(proxy.address()).await?;
        assert_eq!(say(&mut again, b"four").await?, b"four");
        Ok(())
    }

    #[tokio::test]
    async fn silence_keeps_what_was_said_for_later() -> anyhow::Result<()> {
        let (echo, _tasks) = echo().await?;
        let proxy = Proxy::start(echo)?;
        let mut stream = TcpStream::connect(proxy.address()).await?;
        say(&mut stream, b"one").await?;
        proxy.set(Link::Silent);
        assert!(tokio::time::timeout(Duration::from_millis(50), say(&mut stream, b"two")).await.is_err(), "nothing comes back");
        proxy.set(Link::Open(Duration::ZERO));
        let mut answer = [0; 3];
        stream.read_exact(&mut answer).await?;
        assert_eq!(&answer, b"two");
        Ok(())
    }
}

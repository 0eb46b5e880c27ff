//! Drives one connection: between the client, the network filters, and the HTTP connection manager or a TCP
//! upstream.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{Future as _, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::{Chain, Closing, Side, Terminal};
use crate::connection::serve_http;
use crate::exchange::Connection;
use crate::offline::{Pipe, Servers};
use crate::reload::Current;
use crate::stream::BUFFER_LIMIT;
use crate::stream::state::StreamState;
use crate::upstream::{self, Address};
use crate::vm::network::CloseType;

const CHUNK: usize = 16 << 10;
const PIPE: usize = 64 << 10;
/// Envoy's `idle_timeout` of its TCP proxy.
const TCP_IDLE: Duration = Duration::from_hours(1);
/// How long a client may take to read what is left for it at the end.
const FLUSH: Duration = Duration::from_secs(5);

/// Serves one connection.
pub(crate) async fn serve<C: AsyncRead + AsyncWrite + Unpin>(
    current: Current,
    connection: Connection,
    client: C,
    on_shutdown: watch::Receiver<bool>,
) {
    // A connection ends with the filters that it began with.
    let site = current.get();
    let mut state = StreamState::new(site.proxy.clone(), &connection);
    state.trace = site.recording(&state);
    let chain = Chain::new(state, &site.network, site.sink.clone());
    match site.terminal.clone() {
        Terminal::Http => {
            let connection = connection.within(&chain.state);
            let (ours, theirs) = tokio::io::duplex(PIPE);
            let http = Peer::<DuplexStream>::Ready(ours);
            tokio::task::spawn_local(serve_http(current, None, connection, theirs, on_shutdown));
            Driver::new(chain, client, http, false).run().await;
        }
        Terminal::Tcp(address) => Driver::new(chain, client, Peer::<TcpStream>::Later(address), true).run().await,
        Terminal::Scripted(servers) => Driver::new(chain, client, Peer::<Pipe>::Later(servers), true).run().await,
    }
}

/// What is behind the filters.
enum Peer<T: Connect> {
    /// To be connected when all filters have let the connection begin.
    Later(T::To),
    Ready(T),
}

/// Bytes on their way out.
#[derive(Default)]
struct Outgoing {
    chunks: VecDeque<Bytes>,
    end: bool,
    ended: bool,
}

struct Driver<C, T: Connect> {
    chain: Chain,
    client: C,
    peer: Peer<T>,
    /// Each direction may end by itself, which HTTP does not know.
    half_close: bool,
    client_ended: bool,
    peer_ended: bool,
    to_client: Outgoing,
    to_peer: Outgoing,
}

enum Event {
    Woken,
    FromClient(Bytes),
    FromPeer(Bytes),
    ClientEnded,
    ClientReset,
    PeerEnded,
    PeerReset,
    /// Something was written, or can be written no more.
    Written,
    Idle,
}

impl<C: AsyncRead + AsyncWrite + Unpin, T: AsyncRead + AsyncWrite + Connect + Unpin> Driver<C, T> {
    fn new(chain: Chain, client: C, peer: Peer<T>, half_close: bool) -> Self {
        Self {
            chain,
            client,
            peer,
            half_close,
            client_ended: false,
            peer_ended: false,
            to_client: Outgoing::default(),
            to_peer: Outgoing::default(),
        }
    }

    async fn run(mut self) {
        let close = self.drive().await;
        self.chain.finish(close);
    }

    async fn drive(&mut self) -> CloseType {
        self.chain.begin();
        loop {
            self.chain.process_pending();
            self.collect();
            match self.chain.closing {
                Closing::Open => {}
                Closing::Now => return CloseType::Local,
                Closing::Flush => {
                    self.flush().await;
                    return CloseType::Local;
                }
            }
            if let (Peer::Later(to), true) = (&self.peer, self.chain.begun) {
                match T::connect(to).await {
                    Some((stream, peer)) => {
                        self.chain.state_mut().upstream = peer;
                        self.peer = Peer::Ready(stream);
                    }
                    None => return CloseType::Local,
                }
                continue;
            }
            if self.half_close && self.client_ended && self.to_client.ended {
                return CloseType::Local;
            }
            // The upstream's connection is over, though a filter holds its end back.
            if self.half_close && self.client_ended && self.peer_ended && self.to_peer.ended {
                self.flush().await;
                return CloseType::Local;
            }
            match self.next_event().await {
                Event::Woken | Event::Written => {}
                Event::FromClient(bytes) => self.chain.received(bytes, false),
                Event::ClientEnded if self.half_close => {
                    self.client_ended = true;
                    self.chain.received(Bytes::new(), true);
                    if self.to_client.ended {
                        return CloseType::Remote;
                    }
                }
                Event::ClientEnded | Event::ClientReset => return CloseType::Remote,
                Event::FromPeer(bytes) => self.chain.write(bytes, false),
                Event::PeerEnded if self.half_close => {
                    self.peer_ended = true;
                    self.chain.write(Bytes::new(), true);
                }
                Event::PeerEnded | Event::PeerReset => {
                    self.flush().await;
                    return CloseType::Local;
                }
                Event::Idle => return CloseType::Local,
            }
        }
    }

    /// Takes what passed the filters.
    fn collect(&mut self) {
        self.to_client.chunks.extend(self.chain.to_client.0.drain(..));
        self.to_client.end |= self.chain.to_client.1;
        self.to_peer.chunks.extend(self.chain.to_terminal.0.drain(..));
        self.to_peer.end |= self.chain.to_terminal.1;
    }

    /// Writes what is there for the client, within a limit of time.
    async fn flush(&mut self) {
        self.collect();
        let (out, client) = (&mut self.to_client, &mut self.client);
        out.end = true;
        let flushed = poll_fn(|cx| {
            while !out.ended {
                if out.poll_write(cx, client).is_pending() {
                    return Poll::Pending;
                }
            }
            Poll::Ready(())
        });
        // A client that does not read gets less.
        let _ = tokio::time::timeout(FLUSH, flushed).await;
    }

    async fn next_event(&mut self) -> Event {
        let mut idle = pin!(tokio::time::sleep(TCP_IDLE));
        poll_fn(|cx| {
            {
                let mut state = self.chain.state_mut();
                if std::mem::take(&mut state.woken) {
                    return Poll::Ready(Event::Woken);
                }
                if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                    state.waker = Some(cx.waker().clone());
                }
            }
            if let Poll::Ready(event) = self.poll_write(cx) {
                return Poll::Ready(event);
            }
            if let Poll::Ready(event) = self.poll_read(cx) {
                return Poll::Ready(event);
            }
            // HTTP has timeouts of its own.
            if self.half_close { idle.as_mut().poll(cx).map(|()| Event::Idle) } else { Poll::Pending }
        })
        .await
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        match self.to_client.poll_write(cx, &mut self.client) {
            Poll::Ready(Ok(())) => return Poll::Ready(Event::Written),
            Poll::Ready(Err(())) => return Poll::Ready(Event::ClientReset),
            Poll::Pending => {}
        }
        match &mut self.peer {
            Peer::Ready(peer) => match self.to_peer.poll_write(cx, peer) {
                Poll::Ready(Ok(())) => Poll::Ready(Event::Written),
                Poll::Ready(Err(())) => Poll::Ready(Event::PeerReset),
                Poll::Pending => Poll::Pending,
            },
            Peer::Later(_) => Poll::Pending,
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        let Peer::Ready(peer) = &mut self.peer else {
            // Envoy's TCP proxy reads nothing before it has an upstream.
            return Poll::Pending;
        };
        let room = self.chain.waiting(Side::Downstream) < BUFFER_LIMIT && self.to_peer.is_low();
        if room
            && !self.client_ended
            && let Poll::Ready(read) = poll_chunk(cx, &mut self.client)
        {
            return Poll::Ready(match read {
                Ok(bytes) if bytes.is_empty() => Event::ClientEnded,
                Ok(bytes) => Event::FromClient(bytes),
                Err(()) => Event::ClientReset,
            });
        }
        let room = self.chain.waiting(Side::Upstream) < BUFFER_LIMIT && self.to_client.is_low();
        if room
            && !self.peer_ended
            && let Poll::Ready(read) = poll_chunk(cx, peer)
        {
            return Poll::Ready(match read {
                Ok(bytes) if bytes.is_empty() => Event::PeerEnded,
                Ok(bytes) => Event::FromPeer(bytes),
                Err(()) => Event::PeerReset,
            });
        }
        Poll::Pending
    }
}

fn poll_chunk<S: AsyncRead + Unpin>(cx: &mut Context<'_>, stream: &mut S) -> Poll<Result<Bytes, ()>> {
    let mut chunk = vec![0; CHUNK];
    let mut buffer = ReadBuf::new(&mut chunk);
    match Pin::new(stream).poll_read(cx, &mut buffer) {
        Poll::Pending => Poll::Pending,
        Poll::Ready(Err(_)) => Poll::Ready(Err(())),
        Poll::Ready(Ok(())) => {
            let read = buffer.filled().len();
            chunk.truncate(read);
            Poll::Ready(Ok(chunk.into()))
        }
    }
}

impl Outgoing {
    fn is_low(&self) -> bool {
        self.chunks.iter().map(Bytes::len).sum::<usize>() < BUFFER_LIMIT
    }

    /// Writes some, or the end once everything is written. Pending when there is nothing to do.
    fn poll_write<S: AsyncWrite + Unpin>(&mut self, cx: &mut Context<'_>, stream: &mut S) -> Poll<Result<(), ()>> {
        if let Some(chunk) = self.chunks.front_mut() {
            return match Pin::new(stream).poll_write(cx, chunk) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Ok(written)) if written > 0 => {
                    chunk.advance(written);
                    if chunk.is_empty() {
                        self.chunks.pop_front();
                    }
                    Poll::Ready(Ok(()))
                }
                Poll::Ready(_) => {
                    self.chunks.clear();
                    self.ended = true;
                    Poll::Ready(Err(()))
                }
            };
        }
        if !self.end || self.ended {
            return Poll::Pending;
        }
        match Pin::new(stream).poll_shutdown(cx) {
            Poll::Pending => Poll::Pending,
            // Whoever is gone does not need to be told.
            Poll::Ready(_) => {
                self.ended = true;
                Poll::Ready(Ok(()))
            }
        }
    }
}

/// How the terminal's side is connected.
pub(super) trait Connect: Sized {
    type To;

    /// The connection and whom it is to.
    async fn connect(to: &Self::To) -> Option<(Self, Option<upstream::Peer>)>;
}

impl Connect for TcpStream {
    type To = Address;

    async fn connect(address: &Address) -> Option<(Self, Option<upstream::Peer>)> {
        let stream = upstream::dial(address).await.ok()?;
        let local = stream.local_addr().ok();
        let peer = stream.peer_addr().ok().map(|remote| upstream::Peer { remote, local });
        Some((stream, peer))
    }
}

impl Connect for DuplexStream {
    /// The connection manager is there from the beginning.
    type To = Infallible;

    async fn connect(to: &Infallible) -> Option<(Self, Option<upstream::Peer>)> {
        match *to {}
    }
}

impl Connect for Pipe {
    type To = Rc<dyn Servers>;

    async fn connect(servers: &Rc<dyn Servers>) -> Option<(Self, Option<upstream::Peer>)> {
        let (ours, theirs) = Self::pair(PIPE);
        servers.connection(theirs).then_some((ours, None))
    }
}

//! Accepting connections: each goes to the worker that has the fewest, as with Envoy's exact balance.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc, watch};

use crate::connection::serve_http;
use crate::exchange::Connection;
use crate::network;
use crate::page::Page;
use crate::reload::Current;

/// A connection on its way to another worker.
type Accepted = (std::net::TcpStream, SocketAddr);

/// How many connections each worker has.
pub(crate) struct Balance {
    workers: Vec<(AtomicUsize, mpsc::UnboundedSender<Accepted>)>,
    /// The next connection's id.
    next: AtomicU64,
}

/// Where a worker gets connections from that others accepted.
pub(crate) type Inbox = mpsc::UnboundedReceiver<Accepted>;

impl Balance {
    /// A balance among `count` workers, and each one's inbox.
    pub(crate) fn new(count: usize) -> (Self, Vec<Inbox>) {
        let (senders, inboxes): (Vec<_>, _) = (0..count).map(|_| mpsc::unbounded_channel()).unzip();
        let workers = senders.into_iter().map(|sender| (AtomicUsize::new(0), sender)).collect();
        (Self { workers, next: AtomicU64::new(1) }, inboxes)
    }

    /// The worker for one more connection, which counts from now on; `own` when others have no fewer.
    fn place(&self, own: usize) -> usize {
        let open = |worker: &usize| self.workers[*worker].0.load(Ordering::Relaxed);
        let least = (0..self.workers.len()).min_by_key(|worker| (open(worker), *worker != own)).unwrap_or(own);
        self.workers[least].0.fetch_add(1, Ordering::Relaxed);
        least
    }
}

/// One worker's side of the listener.
pub(crate) struct Accepting {
    pub(crate) current: Current,
    pub(crate) balance: Arc<Balance>,
    pub(crate) worker: usize,
    /// The trace page, when it is served in front of the chain.
    pub(crate) page: Option<Page>,
    pub(crate) on_shutdown: watch::Receiver<bool>,
    /// How long connections may take to end at shutdown.
    pub(crate) drain: Duration,
}

impl Accepting {
    /// Serves connections until shutdown, then waits for those in flight.
    pub(crate) async fn run(self, listener: TcpListener, mut inbox: Inbox) {
        let open = Rc::new(Open::default());
        let mut on_shutdown = self.on_shutdown.clone();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted.and_then(|(stream, source)| self.place(stream, source)),
                Some((stream, source)) = inbox.recv() => TcpStream::from_std(stream).map(|stream| Some((stream, source))),
                _ = on_shutdown.wait_for(|shutdown| *shutdown) => break,
            };
            match accepted {
                Ok(Some((stream, source))) => self.serve(&open, stream, source),
                Ok(None) => {}
                // Out of descriptors, most likely: connections that end will free some.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
        drop(listener);
        let drained = async {
            while open.count.get() > 0 {
                open.changed.notified().await;
            }
        };
        // Whoever is not done by then is cut off.
        let _ = tokio::time::timeout(self.drain, drained).await;
    }

    /// The connection, if it is this worker's.
    fn place(&self, stream: TcpStream, source: SocketAddr) -> io::Result<Option<(TcpStream, SocketAddr)>> {
        let worker = self.balance.place(self.worker);
        if worker == self.worker {
            return Ok(Some((stream, source)));
        }
        let (open, inbox) = &self.balance.workers[worker];
        let sent = stream.into_std().map(|stream| inbox.send((stream, source)));
        match sent {
            Ok(Ok(())) => Ok(None),
            // That worker has ended, which all are about to do.
            Ok(Err(_)) => {
                open.fetch_sub(1, Ordering::Relaxed);
                Ok(None)
            }
            Err(error) => {
                open.fetch_sub(1, Ordering::Relaxed);
                Err(error)
            }
        }
    }

    fn serve(&self, open: &Rc<Open>, stream: TcpStream, source: SocketAddr) {
        // Latency only; a socket that refuses it still works.
        let _ = stream.set_nodelay(true);
        let connection = Connection {
            id: self.balance.next.fetch_add(1, Ordering::Relaxed),
            source: Some(source),
            destination: stream.local_addr().ok(),
            state: None,
        };
        let guard = Guard::new(open, &self.balance, self.worker);
        let (current, page, on_shutdown) = (self.current.clone(), self.page.clone(), self.on_shutdown.clone());
        tokio::task::spawn_local(async move {
            if current.get().is_http_alone() {
                serve_http(current, page, connection, stream, on_shutdown).await;
            } else {
                network::serve(current, connection, stream, on_shutdown).await;
            }
            drop(guard);
        });
    }
}

/// Counts a worker's open connections.
#[derive(Default)]
struct Open {
    count: Cell<usize>,
    changed: Notify,
}

struct Guard {
    open: Rc<Open>,
    balance: Arc<Balance>,
    worker: usize,
}

impl Guard {
    fn new(open: &Rc<Open>, balance: &Arc<Balance>, worker: usize) -> Self {
        open.count.set(open.count.get() + 1);
        Self { open: open.clone(), balance: balance.clone(), worker }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.balance.workers[self.worker].0.fetch_sub(1, Ordering::Relaxed);
        self.open.count.set(self.open.count.get() - 1);
        self.open.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_go_where_the_fewest_are() {
        let (balance, _inboxes) = Balance::new(3);
        let placed: Vec<usize> = (0..6).map(|_| balance.place(1)).collect();
        assert_eq!(placed, [1, 0, 2, 1, 0, 2]);
        balance.workers[2].0.fetch_sub(2, Ordering::Relaxed);
        assert_eq!([balance.place(0), balance.place(0)], [2, 2]);
    }
}

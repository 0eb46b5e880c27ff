//! An end of a TCP connection that is a test's: what it sends, and what comes to it.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::{Buf as _, BytesMut};
use harness::offline::Pipe;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

const CHUNK: usize = 16 << 10;

/// A connection that can be reset.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + 'static {
    fn reset(self);
}

impl Stream for Pipe {
    fn reset(self) {
        Self::reset(self);
    }
}

impl Stream for TcpStream {
    fn reset(self) {
        // A connection that lingers is closed as well.
        let _ = self.set_zero_linger();
    }
}

/// What came to an end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Received {
    pub(super) bytes: Vec<u8>,
    /// The other side has ended or reset it.
    pub(super) ended: bool,
}

enum Does {
    Send(Vec<u8>),
    End,
    Reset,
}

/// The end. It is reset when dropped.
pub(super) struct End {
    received: Rc<RefCell<Received>>,
    does: mpsc::UnboundedSender<Does>,
}

/// The upstream's end, once there is one.
pub(super) type Upstream = Rc<RefCell<Option<End>>>;

impl End {
    /// Receives from now on.
    pub(super) fn new(stream: impl Stream) -> Self {
        let (does, on_does) = mpsc::unbounded_channel();
        let received = Rc::new(RefCell::new(Received::default()));
        tokio::task::spawn_local(live(stream, on_does, received.clone()));
        Self { received, does }
    }

    pub(super) fn received(&self) -> Received {
        self.received.borrow().clone()
    }

    /// What the other side no longer takes is lost.
    pub(super) fn send(&self, bytes: Vec<u8>) {
        self.does(Does::Send(bytes));
    }

    pub(super) fn end(&self) {
        self.does(Does::End);
    }

    pub(super) fn reset(&self) {
        self.does(Does::Reset);
    }

    fn does(&self, does: Does) {
        // After a reset nothing is done any more.
        let _ = self.does.send(does);
    }
}

async fn live(stream: impl Stream, mut on_does: mpsc::UnboundedReceiver<Does>, received: Rc<RefCell<Received>>) {
    let (mut read, mut write) = tokio::io::split(stream);
    let mut chunk = vec![0; CHUNK];
    let mut outgoing = BytesMut::new();
    let (mut ends, mut ended) = (false, false);
    loop {
        tokio::select! {
            // In this order, so that a run is the same each time.
            biased;
            count = read.read(&mut chunk), if !ended => {
                let count = count.unwrap_or(0);
                ended = count == 0;
                let received = &mut *received.borrow_mut();
                received.bytes.extend_from_slice(chunk.get(..count).unwrap_or_default());
                received.ended = ended;
            }
            written = write.write(&outgoing), if !outgoing.is_empty() => match written {
                Ok(count) => outgoing.advance(count),
                Err(_) => outgoing.clear(),
            },
            does = on_does.recv() => match does {
                Some(Does::Send(bytes)) => outgoing.extend_from_slice(&bytes),
                Some(Does::End) => ends = true,
                Some(Does::Reset) | None => break,
            },
        }
        if ends && outgoing.is_empty() {
            ends = false;
            // Whoever is gone need not be told.
            let _ = write.shutdown().await;
        }
    }
    read.unsplit(write).reset();
}

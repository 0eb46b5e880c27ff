//! A connection without sockets: both sides' data in turns.

use std::sync::Arc;

use bytes::Bytes;

use super::{Chain, Closing, Filter, Side};
use crate::log::Sink;
use crate::stream::BUFFER_LIMIT;
use crate::stream::state::StreamState;
use crate::vm::network::CloseType;

/// A connection that goes on with each `next`.
pub(crate) struct Turns {
    chain: Chain,
    /// What is still to come, last first.
    pending: Vec<(Side, Bytes, bool)>,
    begun: bool,
    passed: (usize, usize),
}

/// Begins a connection; the sides' chunks alternate, the client's first.
pub(crate) fn exercise(
    state: StreamState,
    filters: &[Filter],
    sink: Arc<dyn Sink>,
    client: &[Vec<u8>],
    server: &[Vec<u8>],
) -> Turns {
    let mut pending = Vec::new();
    for at in 0..client.len().max(server.len()) {
        for (side, chunks) in [(Side::Downstream, client), (Side::Upstream, server)] {
            if let Some(chunk) = chunks.get(at) {
                pending.push((side, Bytes::copy_from_slice(chunk), at + 1 == chunks.len()));
            }
        }
    }
    pending.reverse();
    Turns { chain: Chain::new(state, filters, sink), pending, begun: false, passed: (0, 0) }
}

impl Turns {
    /// Bytes that passed the filters, from the client and for it.
    pub(crate) fn passed(&self) -> (usize, usize) {
        self.passed
    }
}

impl Iterator for Turns {
    type Item = ();

    fn next(&mut self) -> Option<()> {
        let chain = &mut self.chain;
        if std::mem::replace(&mut self.begun, true) {
            let next = self.pending.pop().filter(|_| chain.closing == Closing::Open);
            let Some((side, bytes, end)) = next else {
                chain.finish(CloseType::Remote);
                return None;
            };
            match side {
                _ if chain.waiting(side) >= BUFFER_LIMIT => {}
                Side::Downstream => chain.received(bytes, end),
                // There is an upstream once all filters have let the connection begin.
                Side::Upstream if chain.begun => chain.write(bytes, end),
                Side::Upstream => {}
            }
        } else {
            chain.begin();
        }
        chain.process_pending();
        self.passed.0 += chain.to_terminal.0.drain(..).map(|bytes| bytes.len()).sum::<usize>();
        self.passed.1 += chain.to_client.0.drain(..).map(|bytes| bytes.len()).sum::<usize>();
        Some(())
    }
}

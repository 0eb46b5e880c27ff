//! Shared queues: named within a `vm_id`, owned by whoever registered last.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{Shared, SharedError, lock};

const MAX_QUEUES: usize = 4096;
const MAX_NAME: usize = 4096;
/// All queued values together, each with what its place costs.
const MAX_BYTES: usize = 64 << 20;
const VALUE_COST: usize = 64;

/// Where a queue's owner is told that there is something in it.
#[derive(Debug, Clone)]
pub(crate) struct QueueTarget {
    pub(crate) worker: mpsc::Sender<QueueReady>,
    pub(crate) vm: u64,
    pub(crate) root: u32,
}

/// A call of `on_queue_ready` that is due on a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct QueueReady {
    pub(crate) vm: u64,
    pub(crate) root: u32,
    pub(crate) token: u32,
}

#[derive(Debug, Default)]
pub(super) struct Queues {
    tokens: HashMap<(String, Vec<u8>), u32>,
    /// By token, which starts at 1.
    all: Vec<Queue>,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Queue {
    values: VecDeque<Bytes>,
    owner: Option<QueueTarget>,
}

impl Queues {
    fn queue(&mut self, token: u32) -> Option<&mut Queue> {
        self.all.get_mut((token as usize).checked_sub(1)?)
    }
}

impl Shared {
    /// Makes `owner` the one who is told; the queue is created if it does not exist.
    pub(crate) fn register_queue(
        &self,
        vm_id: &str,
        name: &[u8],
        owner: Option<QueueTarget>,
    ) -> Result<u32, SharedError> {
        let queues = &mut *lock(&self.queues);
        let key = (vm_id.to_owned(), name.to_vec());
        let token = match queues.tokens.get(&key) {
            Some(token) => *token,
            None if name.len() > MAX_NAME || queues.all.len() >= MAX_QUEUES => return Err(SharedError::TooMuch),
            None => {
                queues.all.push(Queue::default());
                let token = u32::try_from(queues.all.len()).map_err(|_| SharedError::TooMuch)?;
                queues.tokens.insert(key, token);
                token
            }
        };
        if let Some(queue) = queues.queue(token) {
            queue.owner = owner;
        }
        Ok(token)
    }

    pub(crate) fn resolve_queue(&self, vm_id: &str, name: &[u8]) -> Option<u32> {
        lock(&self.queues).tokens.get(&(vm_id.to_owned(), name.to_vec())).copied()
    }

    pub(crate) fn enqueue(&self, token: u32, value: &[u8]) -> Result<(), SharedError> {
        let queues = &mut *lock(&self.queues);
        let bytes = queues.bytes + value.len() + VALUE_COST;
        let queue = queues.queue(token).ok_or(SharedError::Unknown)?;
        if bytes > MAX_BYTES {
            return Err(SharedError::TooMuch);
        }
        queue.values.push_back(Bytes::copy_from_slice(value));
        if let Some(QueueTarget { worker, vm, root }) = &queue.owner {
            // A worker that has ended is told nothing, and one that is told enough already will look.
            let _ = worker.try_send(QueueReady { vm: *vm, root: *root, token });
        }
        queues.bytes = bytes;
        Ok(())
    }

    pub(crate) fn dequeue(&self, token: u32) -> Result<Bytes, SharedError> {
        let queues = &mut *lock(&self.queues);
        let queue = queues.queue(token).ok_or(SharedError::Unknown)?;
        let value = queue.values.pop_front().ok_or(SharedError::Empty)?;
        queues.bytes -= value.len() + VALUE_COST;
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(worker: &mpsc::Sender<QueueReady>, root: u32) -> QueueTarget {
        QueueTarget { worker: worker.clone(), vm: 7, root }
    }

    #[test]
    fn the_last_to_register_is_told_and_values_come_out_in_order() {
        let (sender, mut receiver) = mpsc::channel(8);
        let shared = Shared::default();
        assert_eq!(shared.register_queue("", b"q", Some(target(&sender, 1))), Ok(1));
        assert_eq!(shared.register_queue("", b"other", None), Ok(2));
        assert_eq!(shared.register_queue("", b"q", Some(target(&sender, 2))), Ok(1));
        assert_eq!((shared.resolve_queue("", b"q"), shared.resolve_queue("vm", b"q")), (Some(1), None));
        assert_eq!([b"a", b"b"].map(|value| shared.enqueue(1, value)), [Ok(()), Ok(())]);
        assert_eq!(receiver.try_recv().unwrap(), QueueReady { vm: 7, root: 2, token: 1 });
        assert_eq!([(); 2].map(|()| shared.dequeue(1)), [Ok("a".into()), Ok("b".into())]);
        assert_eq!(shared.dequeue(1), Err(SharedError::Empty));
        assert_eq!((shared.enqueue(3, b""), shared.dequeue(0)), (Err(SharedError::Unknown), Err(SharedError::Unknown)));
    }

    #[test]
    fn queues_are_bounded_and_room_comes_back() {
        let shared = Shared::default();
        shared.register_queue("", b"q", None).unwrap();
        let half = vec![0; MAX_BYTES / 2 - VALUE_COST];
        assert_eq!([(); 3].map(|()| shared.enqueue(1, &half)), [Ok(()), Ok(()), Err(SharedError::TooMuch)]);
        shared.dequeue(1).unwrap();
        assert_eq!(shared.enqueue(1, &half), Ok(()));
    }
}

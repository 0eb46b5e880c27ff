//! Queues between plugins and workers.

use crate::host::{Host, HostError};

/// A queue that plugins with the same VM id share, in all workers: first in, first out.
///
/// The plugin that [registers](Self::register) it is told when there is something in it:
/// [`Plugin::on_queue_ready`](crate::Plugin::on_queue_ready), or [`Root::queue`](crate::Root::queue) for plugins that
/// wait.
///
/// ```
/// use plugwright_sdk::Queue;
/// use plugwright_sdk::testing::InMemoryHost;
///
/// # fn main() -> Result<(), plugwright_sdk::HostError> {
/// let mut host = InMemoryHost::default();
/// let jobs = Queue::register(&mut host, "jobs")?;
/// let same = Queue::resolve(&host, "", "jobs")?;
/// assert_eq!(same, Some(jobs));
/// jobs.push(&mut host, b"one")?;
/// assert_eq!(jobs.pop(&mut host)?.as_deref(), Some(&b"one"[..]));
/// assert_eq!(jobs.pop(&mut host)?, None);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue(u32);

impl Queue {
    pub(crate) const fn from_token(token: u32) -> Self {
        Self(token)
    }

    pub(crate) const fn token(self) -> u32 {
        self.0
    }

    /// Makes this plugin the one that is told of what is in the queue. A name that is registered already stays the same
    /// queue, with another owner.
    pub fn register(host: &mut impl Host, name: &str) -> Result<Self, HostError> {
        host.register_queue(name).map(Self)
    }

    /// Finds a queue by the VM id of its owner, which Istio leaves empty, and its name; none when nobody registered it.
    pub fn resolve(host: &impl Host, vm_id: &str, name: &str) -> Result<Option<Self>, HostError> {
        Ok(host.resolve_queue(vm_id, name)?.map(Self))
    }

    /// Appends.
    pub fn push(self, host: &mut impl Host, value: &[u8]) -> Result<(), HostError> {
        host.enqueue(self.0, value)
    }

    /// Takes the first; none when there is none.
    pub fn pop(self, host: &mut impl Host) -> Result<Option<Vec<u8>>, HostError> {
        host.dequeue(self.0)
    }
}

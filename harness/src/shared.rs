//! What all VMs of one process share: data and queues, keyed by `vm_id` as in Envoy, and metrics.

mod metrics;
mod queues;

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::builtin::stats::RequestMetrics;

/// All shared values together.
const MAX_DATA_BYTES: usize = 64 << 20;
/// Names of missing clusters that are remembered as reported.
const MAX_REPORTED: usize = 256;

pub(crate) use metrics::{BUCKETS, MetricType, VmMetrics, escaped};
pub(crate) use queues::{QueueReady, QueueTarget};

#[derive(Debug)]
pub(crate) struct Shared {
    tables: Mutex<Tables>,
    queues: Mutex<queues::Queues>,
    metrics: Mutex<metrics::Metrics>,
    started: Instant,
    /// Istio's standard metrics.
    pub(crate) requests: RequestMetrics,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            tables: Mutex::default(),
            queues: Mutex::default(),
            metrics: Mutex::default(),
            started: Instant::now(),
            requests: RequestMetrics::default(),
        }
    }
}

#[derive(Debug, Default)]
struct Tables {
    data: HashMap<(String, Vec<u8>), (Bytes, u32)>,
    data_bytes: usize,
    last_cas: u32,
    missing_clusters: HashSet<String>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum SharedError {
    Unknown,
    CasMismatch,
    NotForThisType,
    Empty,
    TooMuch,
}

impl Shared {
    /// What the guests' monotonic clock shows.
    pub(crate) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        lock(&self.tables)
    }

    /// Whether nobody has been told yet that there is no such cluster.
    pub(crate) fn report_missing_cluster(&self, cluster: &str) -> bool {
        let mut tables = self.tables();
        tables.missing_clusters.len() < MAX_REPORTED && tables.missing_clusters.insert(cluster.to_owned())
    }

    pub(crate) fn data(&self, vm_id: &str, key: &[u8]) -> Option<(Bytes, u32)> {
        self.tables().data.get(&(vm_id.to_owned(), key.to_vec())).cloned()
    }

    /// Stores a value; `cas` counts only when the key exists and it is not 0.
    pub(crate) fn set_data(&self, vm_id: &str, key: &[u8], value: &[u8], cas: u32) -> Result<(), SharedError> {
        if key.len() + value.len() > MAX_DATA_BYTES {
            return Err(SharedError::TooMuch);
        }
        let tables = &mut *self.tables();
        let key = (vm_id.to_owned(), key.to_vec());
        let old = match tables.data.get(&key) {
            Some((_, current)) if cas != 0 && cas != *current => return Err(SharedError::CasMismatch),
            Some((old, _)) => old.len() + key.1.len(),
            None => 0,
        };
        let bytes = tables.data_bytes - old + key.1.len() + value.len();
        // The table's own cost per entry counts too, or empty values would be free.
        if bytes + tables.data.len() * 128 > MAX_DATA_BYTES {
            return Err(SharedError::TooMuch);
        }
        tables.data_bytes = bytes;
        tables.last_cas = tables.last_cas.wrapping_add(1).max(1);
        tables.data.insert(key, (Bytes::copy_from_slice(value), tables.last_cas));
        Ok(())
    }
}

/// What a panicking thread leaves behind is still consistent: each change is made in one step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cas_counts_only_for_existing_keys() {
        let shared = Shared::default();
        assert_eq!(shared.set_data("", b"k", b"1", 77), Ok(()));
        assert_eq!(shared.data("", b"k"), Some(("1".into(), 1)));
        assert_eq!(shared.set_data("", b"k", b"2", 77), Err(SharedError::CasMismatch));
        assert_eq!(shared.set_data("", b"k", b"2", 1), Ok(()));
        assert_eq!(shared.data("", b"k"), Some(("2".into(), 2)));
        assert_eq!(shared.data("other", b"k"), None);
    }

    #[test]
    fn shared_data_is_bounded() {
        let shared = Shared::default();
        assert_eq!(shared.set_data("", b"k", &vec![0; MAX_DATA_BYTES], 0), Err(SharedError::TooMuch));
    }
}

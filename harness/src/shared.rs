//! What all VMs of one process share: shared data and metrics, as in Envoy keyed by `vm_id`.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::builtin::stats::RequestMetrics;

/// All shared values together.
const MAX_DATA_BYTES: usize = 64 << 20;
const MAX_METRICS: usize = 65_536;
const MAX_METRIC_NAME: usize = 4096;

#[derive(Debug)]
pub(crate) struct Shared {
    tables: Mutex<Tables>,
    started: Instant,
    /// Istio's standard metrics.
    pub(crate) requests: RequestMetrics,
}

impl Default for Shared {
    fn default() -> Self {
        Self { tables: Mutex::default(), started: Instant::now(), requests: RequestMetrics::default() }
    }
}

#[derive(Debug, Default)]
struct Tables {
    data: HashMap<(String, Vec<u8>), (Bytes, u32)>,
    data_bytes: usize,
    last_cas: u32,
    metrics: Vec<Metric>,
    metric_ids: HashMap<(MetricType, Vec<u8>), usize>,
}

#[derive(Debug)]
struct Metric {
    kind: MetricType,
    value: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum MetricType {
    Counter,
    Gauge,
    Histogram,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum SharedError {
    Unknown,
    CasMismatch,
    NotForThisType,
    TooMuch,
}

impl Shared {
    /// What the guests' monotonic clock shows.
    pub(crate) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Names a metric. Ids are 4, 8, … for counters, 5, 9, … for gauges, 6, 10, … for histograms.
    pub(crate) fn define_metric(&self, kind: MetricType, name: &[u8]) -> Result<u32, SharedError> {
        let tables = &mut *self.tables();
        if tables.metrics.len() >= MAX_METRICS || name.len() > MAX_METRIC_NAME {
            return Err(SharedError::TooMuch);
        }
        let next = tables.metrics.len();
        let index = *tables.metric_ids.entry((kind, name.to_vec())).or_insert(next);
        if index == next {
            tables.metrics.push(Metric { kind, value: 0 });
        }
        u32::try_from(index * 4 + 4 + kind as usize).map_err(|_| SharedError::TooMuch)
    }

    fn metric<T>(&self, id: u32, f: impl FnOnce(&mut Metric) -> Result<T, SharedError>) -> Result<T, SharedError> {
        let index = (id as usize / 4).checked_sub(1).ok_or(SharedError::Unknown)?;
        let tables = &mut *self.tables();
        let metric = tables.metrics.get_mut(index).ok_or(SharedError::Unknown)?;
        if id % 4 == metric.kind as u32 { f(metric) } else { Err(SharedError::Unknown) }
    }

    pub(crate) fn increment_metric(&self, id: u32, offset: i64) -> Result<(), SharedError> {
        self.metric(id, |metric| match metric.kind {
            MetricType::Counter if offset > 0 => {
                metric.value = metric.value.wrapping_add_signed(offset);
                Ok(())
            }
            MetricType::Gauge => {
                metric.value = metric.value.wrapping_add_signed(offset);
                Ok(())
            }
            MetricType::Counter | MetricType::Histogram => Err(SharedError::NotForThisType),
        })
    }

    pub(crate) fn record_metric(&self, id: u32, value: u64) -> Result<(), SharedError> {
        self.metric(id, |metric| {
            metric.value = match metric.kind {
                MetricType::Counter => metric.value.wrapping_add(value),
                MetricType::Gauge | MetricType::Histogram => value,
            };
            Ok(())
        })
    }

    pub(crate) fn metric_value(&self, id: u32) -> Result<u64, SharedError> {
        self.metric(id, |metric| match metric.kind {
            MetricType::Histogram => Err(SharedError::NotForThisType),
            MetricType::Counter | MetricType::Gauge => Ok(metric.value),
        })
    }
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

    #[test]
    fn metrics_follow_their_type() {
        let shared = Shared::default();
        let counter = shared.define_metric(MetricType::Counter, b"c").unwrap();
        let gauge = shared.define_metric(MetricType::Gauge, b"g").unwrap();
        assert_eq!((counter, gauge), (4, 9));
        assert_eq!(shared.increment_metric(counter, -1), Err(SharedError::NotForThisType));
        assert_eq!(shared.increment_metric(gauge, -1), Ok(()));
        assert_eq!(shared.metric_value(gauge), Ok(u64::MAX));
        assert_eq!(shared.metric_value(5), Err(SharedError::Unknown));
    }
}

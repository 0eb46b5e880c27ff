//! What the workers of a proxy under test share: data, queues, metrics.

use std::collections::{BTreeMap, VecDeque};

use crate::host::{HostError, MetricType};

const NOT_FOUND: u32 = 1;
const BAD_ARGUMENT: u32 = 2;
const CAS_MISMATCH: u32 = 8;

#[derive(Debug, Default)]
pub(super) struct Shared {
    data: BTreeMap<String, (Vec<u8>, u32)>,
    version: u32,
    queues: Vec<(String, VecDeque<Vec<u8>>)>,
    metrics: Vec<(MetricType, String, u64)>,
}

impl Shared {
    pub(super) fn data(&self, key: &str) -> Option<(Vec<u8>, u32)> {
        self.data.get(key).cloned()
    }

    pub(super) fn set_data(&mut self, key: &str, value: &[u8], version: u32) -> Result<(), HostError> {
        if version != 0 && self.data.get(key).is_some_and(|(_, current)| *current != version) {
            return Err(HostError::new("proxy_set_shared_data", CAS_MISMATCH));
        }
        self.version += 1;
        self.data.insert(key.to_owned(), (value.to_vec(), self.version));
        Ok(())
    }

    /// The queue's number, from 1.
    pub(super) fn queue(&self, name: &str) -> Option<u32> {
        let index = self.queues.iter().position(|(other, _)| other == name)?;
        u32::try_from(index + 1).ok()
    }

    pub(super) fn register_queue(&mut self, name: &str) -> u32 {
        if self.queue(name).is_none() {
            self.queues.push((name.to_owned(), VecDeque::new()));
        }
        self.queue(name).unwrap_or(0)
    }

    fn items(&mut self, call: &'static str, queue: u32) -> Result<&mut VecDeque<Vec<u8>>, HostError> {
        let index = usize::try_from(queue).ok().and_then(|queue| queue.checked_sub(1));
        let found = index.and_then(|index| self.queues.get_mut(index));
        found.map(|(_, items)| items).ok_or(HostError::new(call, NOT_FOUND))
    }

    pub(super) fn enqueue(&mut self, queue: u32, value: &[u8]) -> Result<(), HostError> {
        self.items("proxy_enqueue_shared_queue", queue)?.push_back(value.to_vec());
        Ok(())
    }

    pub(super) fn dequeue(&mut self, queue: u32) -> Result<Option<Vec<u8>>, HostError> {
        Ok(self.items("proxy_dequeue_shared_queue", queue)?.pop_front())
    }

    pub(super) fn define_metric(&mut self, kind: MetricType, name: &str) -> u32 {
        let index = self.metrics.iter().position(|(k, n, _)| *k == kind && n == name).unwrap_or_else(|| {
            self.metrics.push((kind, name.to_owned(), 0));
            self.metrics.len() - 1
        });
        u32::try_from(index).unwrap_or(u32::MAX)
    }

    pub(super) fn metric_named(&self, name: &str) -> Option<u64> {
        self.metrics.iter().find(|(_, other, _)| other == name).map(|(_, _, value)| *value)
    }

    fn value(&mut self, call: &'static str, metric: u32) -> Result<(MetricType, &mut u64), HostError> {
        let found = usize::try_from(metric).ok().and_then(|index| self.metrics.get_mut(index));
        found.map(|(kind, _, value)| (*kind, value)).ok_or(HostError::new(call, NOT_FOUND))
    }

    pub(super) fn increment_metric(&mut self, metric: u32, by: i64) -> Result<(), HostError> {
        let call = "proxy_increment_metric";
        match self.value(call, metric)? {
            (MetricType::Counter, value) if by > 0 => *value = value.wrapping_add_signed(by),
            (MetricType::Gauge, value) => *value = value.wrapping_add_signed(by),
            _ => return Err(HostError::new(call, BAD_ARGUMENT)),
        }
        Ok(())
    }

    pub(super) fn record_metric(&mut self, metric: u32, value: u64) -> Result<(), HostError> {
        match self.value("proxy_record_metric", metric)? {
            (MetricType::Counter, sum) => *sum = sum.wrapping_add(value),
            (MetricType::Gauge, gauge) => *gauge = value,
            (MetricType::Histogram, count) => *count += 1,
        }
        Ok(())
    }

    pub(super) fn metric(&self, metric: u32) -> Result<u64, HostError> {
        let call = "proxy_get_metric";
        let found = usize::try_from(metric).ok().and_then(|index| self.metrics.get(index));
        match found {
            None => Err(HostError::new(call, NOT_FOUND)),
            Some((MetricType::Histogram, ..)) => Err(HostError::new(call, BAD_ARGUMENT)),
            Some((_, _, value)) => Ok(*value),
        }
    }
}

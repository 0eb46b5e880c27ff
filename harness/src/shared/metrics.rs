//! The process's metrics, and the ids under which one VM knows them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{Shared, SharedError, lock};

const MAX_METRICS: usize = 65_536;
const MAX_NAME: usize = 4096;

/// Envoy's default upper bounds; what is more is in `+Inf` only.
pub(crate) const BUCKETS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1000.0,
    2500.0,
    5000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum MetricType {
    Counter,
    Gauge,
    Histogram,
}

/// Type, name and labels.
type Key = (MetricType, Vec<u8>, Vec<(String, String)>);

#[derive(Debug, Default)]
pub(super) struct Metrics {
    metrics: Vec<Metric>,
    /// In the order in which they come out.
    indices: BTreeMap<Key, usize>,
}

#[derive(Debug)]
struct Metric {
    kind: MetricType,
    value: u64,
    /// Of a histogram: how many values each bucket has (the last one is what fits none), and their sum.
    buckets: Vec<u64>,
    sum: f64,
}

/// A metric of the process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MetricIndex(usize);

/// The metrics that one VM has defined. Defining a name again gives another id for the same metric.
#[derive(Debug, Default)]
pub(crate) struct VmMetrics {
    by_type: [Vec<MetricIndex>; 3],
}

impl VmMetrics {
    /// Ids are 4, 8, … for counters, 5, 9, … for gauges, 6, 10, … for histograms.
    pub(crate) fn define(&mut self, shared: &Shared, kind: MetricType, name: &[u8]) -> Result<u32, SharedError> {
        let known = &mut self.by_type[kind as usize];
        if known.len() >= MAX_METRICS {
            return Err(SharedError::TooMuch);
        }
        known.push(shared.metric(kind, name, &[])?);
        u32::try_from(known.len() * 4 + kind as usize).map_err(|_| SharedError::TooMuch)
    }

    fn find(&self, id: u32) -> Option<MetricIndex> {
        let nth = (id as usize / 4).checked_sub(1)?;
        self.by_type.get(id as usize % 4)?.get(nth).copied()
    }

    pub(crate) fn increment(&self, shared: &Shared, id: u32, offset: i64) -> Result<(), SharedError> {
        match (id % 4, self.find(id)) {
            (0 | 1, None) => Err(SharedError::Unknown),
            (0, Some(_)) if offset <= 0 => Err(SharedError::NotForThisType),
            (0 | 1, Some(metric)) => {
                shared.change(metric, |metric| metric.value = metric.value.wrapping_add_signed(offset));
                Ok(())
            }
            _ => Err(SharedError::NotForThisType),
        }
    }

    pub(crate) fn record(&self, shared: &Shared, id: u32, value: u64) -> Result<(), SharedError> {
        shared.record(self.find(id).ok_or(SharedError::Unknown)?, value);
        Ok(())
    }

    pub(crate) fn get(&self, shared: &Shared, id: u32) -> Result<u64, SharedError> {
        if id % 4 > 1 {
            return Err(SharedError::NotForThisType);
        }
        let mut value = 0;
        shared.change(self.find(id).ok_or(SharedError::Unknown)?, |metric| value = metric.value);
        Ok(value)
    }
}

impl Shared {
    /// The metric of that name and labels, created if it does not exist.
    pub(crate) fn metric(
        &self,
        kind: MetricType,
        name: &[u8],
        labels: &[(&str, &str)],
    ) -> Result<MetricIndex, SharedError> {
        let metrics = &mut *lock(&self.metrics);
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let key = (kind, name.to_vec(), labels);
        if let Some(index) = metrics.indices.get(&key) {
            return Ok(MetricIndex(*index));
        }
        let index = metrics.metrics.len();
        if index >= MAX_METRICS || name.len() > MAX_NAME {
            return Err(SharedError::TooMuch);
        }
        let buckets = if kind == MetricType::Histogram { vec![0; BUCKETS.len() + 1] } else { Vec::new() };
        metrics.metrics.push(Metric { kind, value: 0, buckets, sum: 0.0 });
        metrics.indices.insert(key, index);
        Ok(MetricIndex(index))
    }

    /// The value of the counter or gauge of that name.
    pub(crate) fn metric_named(&self, name: &[u8]) -> Option<u64> {
        let metrics = lock(&self.metrics);
        let index = [MetricType::Counter, MetricType::Gauge]
            .iter()
            .find_map(|kind| metrics.indices.get(&(*kind, name.to_vec(), Vec::new())))?;
        metrics.metrics.get(*index).map(|metric| metric.value)
    }

    fn change(&self, index: MetricIndex, f: impl FnOnce(&mut Metric)) {
        if let Some(metric) = lock(&self.metrics).metrics.get_mut(index.0) {
            f(metric);
        }
    }

    /// Adds to a counter, sets a gauge, records a histogram's value.
    pub(crate) fn record(&self, index: MetricIndex, value: u64) {
        self.change(index, |metric| match metric.kind {
            MetricType::Counter => metric.value = metric.value.wrapping_add(value),
            MetricType::Gauge => metric.value = value,
            MetricType::Histogram => {
                #[expect(clippy::cast_precision_loss, reason = "Prometheus has nothing but doubles")]
                let value = value as f64;
                let bucket = BUCKETS.iter().position(|bound| value <= *bound).unwrap_or(BUCKETS.len());
                metric.buckets[bucket] += 1;
                metric.sum += value;
            }
        });
    }

    /// Everything in Prometheus' text format, sorted. Names are the plugins' own, without Envoy's prefix; what cannot
    /// be a name there is left out, as Envoy does.
    pub(crate) fn prometheus(&self) -> String {
        let metrics = lock(&self.metrics);
        let mut out = String::new();
        let mut last = None;
        for ((kind, name, labels), index) in &metrics.indices {
            let (Some(name), Some(metric)) = (sanitized(name), metrics.metrics.get(*index)) else { continue };
            if last.as_ref() != Some(&(kind, name.clone())) {
                let kind = match kind {
                    MetricType::Counter => "counter",
                    MetricType::Gauge => "gauge",
                    MetricType::Histogram => "histogram",
                };
                let _ = writeln!(out, "# TYPE {name} {kind}");
            }
            match kind {
                MetricType::Counter | MetricType::Gauge => {
                    let _ = writeln!(out, "{name}{} {}", label_list(labels, None), metric.value);
                }
                MetricType::Histogram => histogram(&mut out, &name, labels, metric),
            }
            last = Some((kind, name));
        }
        out + &self.requests.prometheus()
    }
}

fn histogram(out: &mut String, name: &str, labels: &[(String, String)], metric: &Metric) {
    let mut count = 0;
    for (in_bucket, bound) in metric.buckets.iter().zip(BUCKETS.iter().map(f64::to_string).chain(["+Inf".to_owned()])) {
        count += in_bucket;
        let _ = writeln!(out, "{name}_bucket{} {count}", label_list(labels, Some(&bound)));
    }
    let labels = label_list(labels, None);
    let _ = writeln!(out, "{name}_sum{labels} {}\n{name}_count{labels} {count}", metric.sum);
}

/// A label's value within its quotes.
pub(crate) fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn label_list(labels: &[(String, String)], le: Option<&str>) -> String {
    let labels = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value)));
    let all: Vec<String> = labels.chain(le.map(|bound| format!("le=\"{bound}\""))).collect();
    if all.is_empty() { String::new() } else { format!("{{{}}}", all.join(",")) }
}

fn sanitized(name: &[u8]) -> Option<String> {
    let allowed = |b: &u8| if b.is_ascii_alphanumeric() || *b == b'_' { char::from(*b) } else { '_' };
    let name: String = name.iter().map(allowed).collect();
    name.starts_with(|c: char| !c.is_ascii_digit()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_has_its_own_ids_and_a_name_may_have_several() {
        let (shared, mut vm) = (Shared::default(), VmMetrics::default());
        let mut define = |kind, name: &str| vm.define(&shared, kind, name.as_bytes()).unwrap();
        assert_eq!([define(MetricType::Counter, "c"), define(MetricType::Gauge, "g")], [4, 5]);
        assert_eq!([define(MetricType::Histogram, "h"), define(MetricType::Counter, "c")], [6, 8]);
        assert_eq!([4, 8].map(|id| vm.increment(&shared, id, 2)), [Ok(()), Ok(())]);
        assert_eq!([4, 8].map(|id| vm.get(&shared, id)), [Ok(4), Ok(4)]);
    }

    #[test]
    fn metrics_follow_their_type() {
        let (shared, mut vm) = (Shared::default(), VmMetrics::default());
        for (kind, id) in [(MetricType::Counter, 4), (MetricType::Gauge, 5), (MetricType::Histogram, 6)] {
            assert_eq!(vm.define(&shared, kind, b"m"), Ok(id));
        }
        let wrong = Err(SharedError::NotForThisType);
        assert_eq!([0, -1].map(|by| vm.increment(&shared, 4, by)), [wrong, Err(SharedError::NotForThisType)]);
        assert_eq!(
            [6, 7, 10].map(|id| vm.increment(&shared, id, 1).is_err_and(|e| e == SharedError::NotForThisType)),
            [true; 3]
        );
        assert_eq!(
            [0, 8, 9].map(|id| vm.increment(&shared, id, 1).is_err_and(|e| e == SharedError::Unknown)),
            [true; 3]
        );
        assert_eq!(vm.increment(&shared, 5, -1), Ok(()));
        assert_eq!(vm.get(&shared, 5), Ok(u64::MAX));
        assert_eq!((vm.record(&shared, 4, 3), vm.record(&shared, 4, 3), vm.get(&shared, 4)), (Ok(()), Ok(()), Ok(6)));
        assert_eq!(
            (vm.record(&shared, 7, 3), vm.record(&shared, 10, 3)),
            (Err(SharedError::Unknown), Err(SharedError::Unknown))
        );
        assert_eq!(
            (vm.get(&shared, 6), vm.get(&shared, 8)),
            (Err(SharedError::NotForThisType), Err(SharedError::Unknown))
        );
    }

    #[test]
    fn prometheus_text_has_every_metric_under_its_own_name() {
        let (shared, mut vm) = (Shared::default(), VmMetrics::default());
        for (kind, name) in
            [(MetricType::Counter, "my.requests"), (MetricType::Histogram, "ms"), (MetricType::Gauge, "9")]
        {
            vm.define(&shared, kind, name.as_bytes()).unwrap();
        }
        vm.increment(&shared, 4, 7).unwrap();
        for value in [1, 400, 4_000_000] {
            vm.record(&shared, 6, value).unwrap();
        }
        shared.record(shared.metric(MetricType::Counter, b"l", &[("a", "x\"y")]).unwrap(), 1);
        let text = shared.prometheus();
        let start = "# TYPE l counter\nl{a=\"x\\\"y\"} 1\n# TYPE my_requests counter\nmy_requests 7\n# TYPE ms histogram\n\
            ms_bucket{le=\"0.5\"} 0\nms_bucket{le=\"1\"} 1\n";
        assert!(text.starts_with(start), "{text}");
        let end = "ms_bucket{le=\"3600000\"} 2\nms_bucket{le=\"+Inf\"} 3\nms_sum 4000401\nms_count 3\n";
        assert!(text.ends_with(end), "{text}");
    }
}

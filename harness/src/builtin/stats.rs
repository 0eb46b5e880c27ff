//! `istio.stats`: Istio's standard request metrics, with what is known here in their labels.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mesh::model::ProxyKind;

use super::STATS;
use crate::native::{NativeFilter, NativePlugin, NativeWorker, Services, StreamHandle};
use crate::properties::grpc_status_of_http;
use crate::shared::{BUCKETS, Shared, escaped};
use crate::stream::state::{ProxyFacts, StreamState};

/// What tells the requests of one proxy apart. Nothing that a client can choose freely is in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Labels {
    proxy: Arc<str>,
    grpc: bool,
    /// 0: none went downstream.
    code: u16,
    /// As text, since a gRPC status is an upstream's to choose; empty for what is not gRPC.
    grpc_status: Option<u8>,
    flags: &'static str,
    peer: Option<Arc<str>>,
}

#[derive(Debug, Default)]
struct Recorded {
    requests: u64,
    milliseconds: Histogram,
    request_bytes: Histogram,
    response_bytes: Histogram,
}

#[derive(Debug, Default)]
struct Histogram {
    /// By bound, not cumulative; the last is for what is beyond them.
    buckets: [u64; BUCKETS.len() + 1],
    sum: f64,
}

/// The request metrics of a process.
#[derive(Debug, Default)]
pub(crate) struct RequestMetrics(Mutex<BTreeMap<Labels, Recorded>>);

impl RequestMetrics {
    fn record(&self, labels: Labels, took: Duration, request_bytes: u64, response_bytes: u64) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let recorded = all.entry(labels).or_default();
        recorded.requests += 1;
        recorded.milliseconds.record(took.as_secs_f64() * 1e3);
        #[expect(clippy::cast_precision_loss, reason = "a sum of sizes")]
        for (histogram, bytes) in
            [(&mut recorded.request_bytes, request_bytes), (&mut recorded.response_bytes, response_bytes)]
        {
            histogram.record(bytes as f64);
        }
    }

    /// All of them in Prometheus' text format, as Istio's proxies show them.
    pub(crate) fn prometheus(&self) -> String {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut out = String::new();
        if !all.is_empty() {
            out.push_str("# TYPE istio_requests_total counter\n");
        }
        for (labels, recorded) in &*all {
            // Writing to a string cannot fail.
            let _ = writeln!(out, "istio_requests_total{{{}}} {}", labels.text(), recorded.requests);
        }
        for name in ["istio_request_duration_milliseconds", "istio_request_bytes", "istio_response_bytes"] {
            if !all.is_empty() {
                let _ = writeln!(out, "# TYPE {name} histogram");
            }
            for (labels, recorded) in &*all {
                let histogram = match name {
                    "istio_request_bytes" => &recorded.request_bytes,
                    "istio_response_bytes" => &recorded.response_bytes,
                    _ => &recorded.milliseconds,
                };
                histogram.write(name, &labels.text(), &mut out);
            }
        }
        out
    }
}

impl Histogram {
    fn record(&mut self, value: f64) {
        let bucket = BUCKETS.iter().position(|bound| value <= *bound).unwrap_or(BUCKETS.len());
        self.buckets[bucket] += 1;
        self.sum += value;
    }

    fn write(&self, name: &str, labels: &str, out: &mut String) {
        let mut total = 0;
        let bounds = BUCKETS.iter().map(ToString::to_string).chain(["+Inf".to_owned()]);
        for (bound, count) in bounds.zip(self.buckets) {
            total += count;
            let _ = writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {total}");
        }
        let _ = writeln!(out, "{name}_sum{{{labels}}} {}", self.sum);
        let _ = writeln!(out, "{name}_count{{{labels}}} {total}");
    }
}

impl Labels {
    fn of(stream: &StreamState, proxy: &Arc<str>) -> Self {
        let grpc = stream.is_grpc();
        let code = stream.status().unwrap_or(0);
        let sent = [stream.response_trailers.as_ref(), stream.response_headers.as_ref()];
        let sent = sent.into_iter().flatten().find_map(|map| map.text("grpc-status")).and_then(|s| s.parse().ok());
        let status = sent.unwrap_or_else(|| u8::try_from(grpc_status_of_http(code.into())).unwrap_or(2));
        // More statuses than there are would let an upstream make up labels.
        let grpc_status = grpc.then_some(if status <= 16 { status } else { 2 });
        Self { proxy: proxy.clone(), grpc, code, grpc_status, flags: flags(&stream.details), peer: stream.peer.clone() }
    }

    fn text(&self) -> String {
        let Self { proxy, grpc, code, grpc_status, flags, peer } = self;
        let protocol = if *grpc { "grpc" } else { "http" };
        let grpc_status = grpc_status.map(|status| status.to_string()).unwrap_or_default();
        let source = peer.as_deref().map_or_else(|| "unknown".to_owned(), escaped);
        format!(
            "{proxy},source_principal=\"{source}\",request_protocol=\"{protocol}\",response_code=\"{code}\",\
             grpc_response_status=\"{grpc_status}\",response_flags=\"{flags}\""
        )
    }
}

/// Envoy's response flags, from the details that go with them.
fn flags(details: &str) -> &'static str {
    match details {
        "downstream_remote_disconnect" => "DC",
        "route_not_found" => "NR",
        "stream_idle_timeout" => "SI",
        _ if details.starts_with("upstream_reset_before_response_started") => {
            if details.contains("remote_connection_failure") || details.contains("connection_timeout") {
                "UF"
            } else if details.contains("connection_termination") {
                "UC"
            } else {
                "UPE"
            }
        }
        _ => "-",
    }
}

/// The labels that are the same for all requests of a proxy. The workload is this proxy's on the side that it is on.
fn proxy_labels(proxy: &ProxyFacts) -> String {
    let unknown = |value: &str| if value.is_empty() { "unknown".to_owned() } else { escaped(value) };
    let label = |names: &[&str]| {
        let found = names.iter().find_map(|name| proxy.labels.iter().find(|(key, _)| key == name));
        found.map_or("", |(_, value)| value)
    };
    let service = label(&["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"]);
    let revision = label(&["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"]);
    let own = [
        ("workload", unknown(&proxy.name)),
        ("workload_namespace", unknown(&proxy.namespace)),
        ("app", unknown(label(&["app"]))),
        ("version", unknown(label(&["version"]))),
        ("canonical_service", unknown(if service.is_empty() { &proxy.name } else { service })),
        ("canonical_revision", if revision.is_empty() { "latest".to_owned() } else { escaped(revision) }),
    ];
    let inbound = proxy.direction == 1;
    let reporter = match proxy.kind {
        Some(ProxyKind::Waypoint) => "waypoint",
        _ if inbound => "destination",
        _ => "source",
    };
    let security = if inbound { "none" } else { "unknown" };
    let (ours, theirs) = if inbound { ("destination", "source") } else { ("source", "destination") };
    let mut text = format!("reporter=\"{reporter}\",connection_security_policy=\"{security}\"");
    for (name, value) in own {
        let _ = write!(text, ",{ours}_{name}=\"{value}\",{theirs}_{name}=\"unknown\"");
    }
    for name in ["principal", "service", "service_name", "service_namespace"] {
        let _ = write!(text, ",destination_{name}=\"unknown\"");
    }
    text + ",source_cluster=\"unknown\",destination_cluster=\"unknown\""
}

pub(crate) struct Filter {
    proxy: Arc<str>,
    shared: Arc<Shared>,
}

impl Filter {
    pub(crate) fn new(proxy: &ProxyFacts, shared: Arc<Shared>) -> Self {
        Self { proxy: proxy_labels(proxy).into(), shared }
    }
}

impl NativePlugin for Filter {
    fn name(&self) -> &str {
        STATS
    }

    fn start(&self, _: &Rc<Services>) -> Result<Rc<dyn NativeWorker>, String> {
        Ok(Rc::new(Worker { proxy: self.proxy.clone(), shared: self.shared.clone() }))
    }
}

struct Worker {
    proxy: Arc<str>,
    shared: Arc<Shared>,
}

impl NativeWorker for Worker {
    fn stream(self: Rc<Self>, handle: StreamHandle) -> Box<dyn NativeFilter> {
        Box::new(OneRequest { worker: self, handle })
    }
}

struct OneRequest {
    worker: Rc<Worker>,
    handle: StreamHandle,
}

impl NativeFilter for OneRequest {
    fn log(&mut self) {
        let stream = self.handle.state();
        let labels = Labels::of(&stream, &self.worker.proxy);
        let took = stream.ended.map_or_else(|| stream.started.elapsed(), |ended| ended - stream.started);
        let heads = |map: Option<&crate::header_map::HeaderMap>| map.map_or(0, |map| map.byte_size() as u64);
        let request = stream.request_bytes + heads(Some(&stream.request_headers));
        let response = stream.response_bytes + heads(stream.response_headers.as_ref());
        drop(stream);
        self.worker.shared.requests.record(labels, took, request, response);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_and_measured_by_label() {
        let facts = ProxyFacts {
            name: "reviews".to_owned(),
            namespace: "shop".to_owned(),
            labels: vec![("app".to_owned(), "re\"views".to_owned())],
            direction: 1,
            kind: Some(ProxyKind::Sidecar),
            ..ProxyFacts::default()
        };
        let metrics = RequestMetrics::default();
        assert_eq!(metrics.prometheus(), "");
        let labels = |code, flags| Labels {
            proxy: proxy_labels(&facts).into(),
            grpc: false,
            code,
            grpc_status: None,
            flags,
            peer: None,
        };
        for milliseconds in [1, 30, 4_000_000] {
            metrics.record(labels(200, flags("via_upstream")), Duration::from_millis(milliseconds), 100, 10_001);
        }
        metrics.record(labels(0, flags("downstream_remote_disconnect")), Duration::ZERO, 0, 0);
        let text = metrics.prometheus();
        let line = |start: &str, contents: &[&str]| {
            let found = text.lines().find(|line| line.starts_with(start) && contents.iter().all(|c| line.contains(c)));
            found.unwrap_or_else(|| panic!("{start} {contents:?} in {text}")).rsplit(' ').next().unwrap()
        };
        let good = "response_code=\"200\"";
        let own = [
            good,
            "reporter=\"destination\"",
            "destination_workload=\"reviews\"",
            "destination_workload_namespace=\"shop\"",
            "destination_app=\"re\\\"views\"",
            "destination_canonical_revision=\"latest\"",
            "source_workload=\"unknown\"",
            "connection_security_policy=\"none\"",
            "response_flags=\"-\"",
        ];
        assert_eq!(line("istio_requests_total{", &own), "3");
        assert_eq!(line("istio_requests_total{", &["response_code=\"0\"", "response_flags=\"DC\""]), "1");
        let duration = "istio_request_duration_milliseconds";
        assert_eq!(line(&format!("{duration}_bucket"), &[good, "le=\"0.5\""]), "0");
        assert_eq!(line(&format!("{duration}_bucket"), &[good, "le=\"50\""]), "2");
        assert_eq!(line(&format!("{duration}_bucket"), &[good, "le=\"3600000\""]), "2");
        assert_eq!(line(&format!("{duration}_bucket"), &[good, "le=\"+Inf\""]), "3");
        assert_eq!(line(&format!("{duration}_sum"), &[good]), "4000031");
        assert_eq!(line("istio_request_bytes_sum", &[good]), "300");
        assert_eq!(line("istio_response_bytes_count", &[good]), "3");
    }
}

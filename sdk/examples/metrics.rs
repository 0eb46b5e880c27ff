//! Metrics: counts responses by class, watches how many are under way, and how large their bodies are.

use plugwright_sdk::{ConfigError, Counter, Flow, Gauge, Histogram, Host, HostError, MapType, Plugin};
use serde::de::IgnoredAny;

/// Measures responses.
pub struct Measure {
    under_way: Gauge,
    sizes: Histogram,
    good: Counter,
    bad: Counter,
}

impl Plugin for Measure {
    type Config = IgnoredAny;

    fn configure(_: IgnoredAny, host: &mut impl Host) -> Result<Self, ConfigError> {
        Self::define(host).map_err(|error| ConfigError::new(error.to_string()))
    }

    fn on_request_headers(&self, host: &mut impl Host, _end_of_stream: bool) -> Flow {
        let added = self.under_way.add(host, 1);
        report(host, added);
        Flow::Continue
    }

    fn on_response_body(&self, host: &mut impl Host, size: usize, _end_of_stream: bool) -> Flow {
        let recorded = self.sizes.record(host, size as u64);
        report(host, recorded);
        Flow::Continue
    }

    fn on_log(&self, host: &mut impl Host) {
        let measured = self.measure(host);
        report(host, measured);
    }
}

impl Measure {
    fn define(host: &mut impl Host) -> Result<Self, HostError> {
        Ok(Self {
            under_way: Gauge::define(host, "under_way", &[])?,
            sizes: Histogram::define(host, "chunk_bytes", &[])?,
            good: Counter::define(host, "responses", &[("class", "good")])?,
            bad: Counter::define(host, "responses", &[("class", "bad")])?,
        })
    }

    fn measure(&self, host: &mut impl Host) -> Result<(), HostError> {
        self.under_way.add(host, -1)?;
        let status = host.header(MapType::ResponseHeaders, ":status")?.unwrap_or_default();
        let counter = if status.starts_with(b"5") { self.bad } else { self.good };
        counter.increment(host, 1)
    }
}

fn report(host: &impl Host, result: Result<(), HostError>) {
    if let Err(error) = result {
        host.warn(&error.to_string());
    }
}

plugwright_sdk::register!(Measure);

#[cfg(test)]
mod tests {
    use plugwright_sdk::testing::{get, response};

    use super::Measure;

    #[test]
    fn responses_are_counted_by_class() {
        let setup = plugwright_sdk::proxy!(Measure, "examples/metrics");
        let mut proxy = setup.configure("{}").unwrap().upstream(response(200).body("fine"));
        proxy.send(get("/"));
        proxy.send(get("/"));
        let mut proxy = proxy.upstream(response(503));
        proxy.send(get("/"));
        assert_eq!(proxy.metric("class=.=good;.;responses"), Some(2));
        assert_eq!(proxy.metric("class=.=bad;.;responses"), Some(1));
        assert_eq!(proxy.metric("under_way"), Some(0));
        assert_eq!(proxy.metric("nothing"), None);
        assert_eq!(proxy.logs(), []);
    }
}

//! Metrics as typed handles.

use crate::host::{Host, HostError, MetricType};

/// Names a metric with its labels, as Istio's proxies read them: `label=.=value;.;` in front of the name.
///
/// Envoy's bootstrap turns such a part into a label when it has a `stats_tags` entry for it; Istio writes one for each
/// `sidecar.istio.io/extraStatTags`. Without one the part stays in the name.
fn full_name(name: &str, labels: &[(&str, &str)]) -> String {
    let mut full = String::new();
    for (label, value) in labels {
        for part in [label, "=.=", value, ";.;"] {
            full.push_str(part);
        }
    }
    full.push_str(name);
    full
}

macro_rules! handle {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name(u32);

        impl $name {
            /// Defines the metric, whose name the proxy may prefix (Envoy: `wasmcustom.`). The same name is the same
            /// metric, whoever defines it.
            ///
            /// A label `key` with the value `value` becomes `key=.=value;.;` in front of the name, which Istio's proxies
            /// turn into a label.
            pub fn define(host: &mut impl Host, name: &str, labels: &[(&str, &str)]) -> Result<Self, HostError> {
                let name = full_name(name, labels);
                host.define_metric(MetricType::$name, &name).map(Self)
            }
        }
    };
}

handle! {
    /// A number that only grows.
    ///
    /// ```
    /// use plugwright_sdk::testing::InMemoryHost;
    /// use plugwright_sdk::{Counter, HostError};
    ///
    /// # fn main() -> Result<(), HostError> {
    /// let mut host = InMemoryHost::default();
    /// let denied = Counter::define(&mut host, "denied", &[("reason", "expired")])?;
    /// denied.increment(&mut host, 1)?;
    /// assert_eq!(denied.value(&host)?, 1);
    /// # Ok(())
    /// # }
    /// ```
    Counter
}

handle! {
    /// A number that goes up and down.
    ///
    /// ```
    /// use plugwright_sdk::testing::InMemoryHost;
    /// use plugwright_sdk::{Gauge, HostError};
    ///
    /// # fn main() -> Result<(), HostError> {
    /// let mut host = InMemoryHost::default();
    /// let waiting = Gauge::define(&mut host, "waiting", &[])?;
    /// waiting.set(&mut host, 5)?;
    /// waiting.add(&mut host, -2)?;
    /// assert_eq!(waiting.value(&host)?, 3);
    /// # Ok(())
    /// # }
    /// ```
    Gauge
}

handle! {
    /// How values are spread.
    ///
    /// ```
    /// use plugwright_sdk::testing::InMemoryHost;
    /// use plugwright_sdk::{Histogram, HostError};
    ///
    /// # fn main() -> Result<(), HostError> {
    /// let mut host = InMemoryHost::default();
    /// let sizes = Histogram::define(&mut host, "token_bytes", &[])?;
    /// sizes.record(&mut host, 412)?;
    /// # Ok(())
    /// # }
    /// ```
    Histogram
}

impl Counter {
    /// Adds to it; nothing is added when that is 0.
    pub fn increment(self, host: &mut impl Host, by: u32) -> Result<(), HostError> {
        // Envoy refuses to add nothing.
        if by == 0 { Ok(()) } else { host.increment_metric(self.0, by.into()) }
    }

    /// Returns its value, which all plugins and workers add to.
    pub fn value(self, host: &impl Host) -> Result<u64, HostError> {
        host.metric(self.0)
    }
}

impl Gauge {
    /// Sets it.
    pub fn set(self, host: &mut impl Host, value: u64) -> Result<(), HostError> {
        host.record_metric(self.0, value)
    }

    /// Adds to it, or takes from it.
    pub fn add(self, host: &mut impl Host, by: i64) -> Result<(), HostError> {
        host.increment_metric(self.0, by)
    }

    /// Returns its value.
    pub fn value(self, host: &impl Host) -> Result<u64, HostError> {
        host.metric(self.0)
    }
}

impl Histogram {
    /// Adds a value.
    pub fn record(self, host: &mut impl Host, value: u64) -> Result<(), HostError> {
        host.record_metric(self.0, value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::InMemoryHost;

    #[test]
    fn labels_are_part_of_the_name() {
        assert_eq!(full_name("denied", &[]), "denied");
        assert_eq!(full_name("denied", &[("a", "1"), ("b", "x.y")]), "a=.=1;.;b=.=x.y;.;denied");
    }

    #[test]
    fn the_same_name_is_the_same_metric() {
        let mut host = InMemoryHost::default();
        let one = Counter::define(&mut host, "n", &[("a", "1")]).unwrap();
        let again = Counter::define(&mut host, "n", &[("a", "1")]).unwrap();
        let other = Counter::define(&mut host, "n", &[("a", "2")]).unwrap();
        one.increment(&mut host, 2).unwrap();
        again.increment(&mut host, 3).unwrap();
        again.increment(&mut host, 0).unwrap();
        assert_eq!((one.value(&host), other.value(&host)), (Ok(5), Ok(0)));
    }
}

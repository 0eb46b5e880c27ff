//! Which Envoy each Istio release carries.
//!
//! Every Istio minor release tracks one Envoy release branch; `istio/test-infra` has the job that does it, and its pull
//! requests are the sources here (read November 2026). A release for which no source was found is left out.

use crate::module::EnvoyVersion;

/// An Istio minor release and its Envoy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IstioRelease {
    minor: u8,
    /// The Envoy release that its proxy is built from.
    pub envoy: EnvoyVersion,
}

impl std::fmt::Display for IstioRelease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "1.{}", self.minor)
    }
}

const fn release(minor: u8, envoy: u8) -> IstioRelease {
    IstioRelease { minor, envoy: EnvoyVersion::v1(envoy) }
}

/// The releases whose Envoy is known, oldest first.
#[rustfmt::skip]
pub const RELEASES: &[IstioRelease] = &[
    release(25, 33), // istio/test-infra#5608
    release(26, 34), // istio/test-infra#5649
    release(27, 35), // openshift/openshift-docs#114418: Service Mesh 3.2.7 is Istio 1.27.9 with Envoy 1.35.12
    release(28, 36), // istio/test-infra#5758
    release(29, 37), // istio/test-infra#5812
    release(30, 38), // istio/test-infra#5899 and #5903; #5883 had it at 1.37 before the release
    release(31, 39), // istio/test-infra#5987
];

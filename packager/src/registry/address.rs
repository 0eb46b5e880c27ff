//! Which addresses are dialled: checked after name resolution, on every connection, so that no name gets around it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// An address that was asked for and is not dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{address} is {} address", kind.text())]
pub struct ForbiddenAddress {
    /// The address.
    pub address: IpAddr,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Link-local, or where a cloud serves credentials to its machines.
    Metadata,
    Loopback,
    Private,
    Unusable,
}

impl Kind {
    fn text(self) -> &'static str {
        match self {
            Self::Metadata => "a link-local or cloud metadata",
            Self::Loopback => "a loopback",
            Self::Private => "a private",
            Self::Unusable => "an unusable",
        }
    }
}

/// What may be dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// Anything but link-local and metadata addresses.
    Any,
    /// Neither private nor loopback addresses either: a realm is the registry's choice, not the user's.
    Public,
}

impl Reach {
    /// What can be said of a host whose name is looked up by a proxy: an address is checked as ever, and names that
    /// stand for this machine, its neighbours or a cloud's metadata by definition are refused to strangers.
    pub(super) fn check_name(self, host: &str) -> Result<(), NameError> {
        if let Ok(address) = host.parse() {
            return self.check(address).map_err(NameError::Address);
        }
        let ends = |suffix: &str| host == suffix || host.strip_suffix(suffix).is_some_and(|front| front.ends_with('.'));
        let metadata = ends("metadata.google.internal") || host == "metadata" || host == "instance-data";
        let inside =
            !host.contains('.') || ["localhost", "local", "internal", "lan", "home.arpa"].into_iter().any(ends);
        if metadata || (self == Self::Public && inside) { Err(NameError::Name) } else { Ok(()) }
    }

    fn check(self, address: IpAddr) -> Result<(), ForbiddenAddress> {
        let kind = match (kind(address), self) {
            (None, _) | (Some(Kind::Loopback | Kind::Private), Self::Any) => return Ok(()),
            (Some(kind), _) => kind,
        };
        Err(ForbiddenAddress { address, kind })
    }
}

/// Why a host is not asked for through a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NameError {
    Address(ForbiddenAddress),
    Name,
}

const CLOUD_METADATA: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

fn kind(address: IpAddr) -> Option<Kind> {
    let address = unwrapped(address);
    if CLOUD_METADATA.contains(&address) {
        return Some(Kind::Metadata);
    }
    match address {
        IpAddr::V4(v4) if v4.is_link_local() => Some(Kind::Metadata),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some(Kind::Metadata),
        // Connecting to the unspecified address reaches this machine.
        address if address.is_loopback() || address.is_unspecified() => Some(Kind::Loopback),
        address if address.is_multicast() => Some(Kind::Unusable),
        IpAddr::V4(v4) if v4.is_broadcast() => Some(Kind::Unusable),
        IpAddr::V4(v4) if v4.is_private() || is_shared(v4) || v4.octets()[0] == 0 => Some(Kind::Private),
        IpAddr::V6(v6) if v6.is_unique_local() => Some(Kind::Private),
        _ => None,
    }
}

/// The IPv4 address inside an IPv4-mapped or NAT64 address.
fn unwrapped(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) if v6.segments()[..6] == [0x64, 0xff9b, 0, 0, 0, 0] => {
            let [.., a, b, c, d] = v6.octets();
            IpAddr::V4(Ipv4Addr::new(a, b, c, d))
        }
        address => address,
    }
}

/// 100.64.0.0/10 (RFC 6598).
fn is_shared(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    first == 100 && second & 0xc0 == 64
}

/// How long an answer of the system's resolver is used again: a push is a handful of requests.
const LOOKUP_LIFETIME: Duration = Duration::from_secs(30);

/// The system's resolver, and then the check.
#[derive(Debug)]
pub(super) struct GuardedResolver {
    pub(super) reach: Reach,
    /// The proxy's `host:port`, which is the user's choice and not checked.
    pub(super) proxy: Option<String>,
    inner: DefaultResolver,
    known: Mutex<HashMap<String, (Instant, Vec<SocketAddr>)>>,
}

impl GuardedResolver {
    pub(super) fn new(reach: Reach, proxy: Option<String>) -> Self {
        Self { reach, proxy, inner: DefaultResolver::default(), known: Mutex::default() }
    }

    fn lookup(&self, uri: &Uri, place: &str, config: &Config, timeout: NextTimeout) -> Result<Vec<SocketAddr>, Error> {
        // An address needs no lookup, for which the system's resolver would start a thread.
        if let Ok(address) = place.parse() {
            return Ok(vec![address]);
        }
        let known = |known: &Mutex<HashMap<_, (Instant, Vec<SocketAddr>)>>| {
            let known = known.lock().unwrap_or_else(PoisonError::into_inner);
            known.get(place).filter(|(since, _)| since.elapsed() < LOOKUP_LIFETIME).map(|(_, found)| found.clone())
        };
        if let Some(found) = known(&self.known) {
            return Ok(found);
        }
        let found = self.inner.resolve(uri, config, timeout)?[..].to_vec();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(place.to_owned(), (Instant::now(), found.clone()));
        Ok(found)
    }
}

impl Resolver for GuardedResolver {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let place = uri.scheme().zip(uri.authority());
        let place = place.and_then(|(scheme, authority)| DefaultResolver::host_and_port(scheme, authority));
        let place = place.ok_or_else(|| Error::BadUri("it has no host".to_owned()))?;
        let mut addresses = self.inner.empty();
        for address in self.lookup(uri, &place, config, timeout)? {
            if self.proxy.as_ref() != Some(&place) {
                self.reach.check(address.ip()).map_err(|forbidden| Error::Other(Box::new(forbidden)))?;
            }
            addresses.push(address);
        }
        Ok(addresses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(address: &str, any: bool, public: bool) {
        let address = address.parse().unwrap();
        assert_eq!(
            (Reach::Any.check(address).is_ok(), Reach::Public.check(address).is_ok()),
            (any, public),
            "{address}"
        );
    }

    #[test]
    fn metadata_is_never_dialled_and_private_only_by_the_users_choice() {
        for address in ["169.254.169.254", "fe80::1", "fd00:ec2::254", "100.100.100.200", "::ffff:169.254.169.254"] {
            check(address, false, false);
        }
        check("64:ff9b::a9fe:a9fe", false, false);
        check("255.255.255.255", false, false);
        for address in ["127.0.0.1", "::1", "0.0.0.0", "::", "10.1.2.3", "172.16.0.1", "192.168.0.1", "100.64.0.1"] {
            check(address, true, false);
        }
        check("fd12::1", true, false);
        check("1.1.1.1", true, true);
        check("2606:4700::1111", true, true);
    }

    #[test]
    fn names_behind_a_proxy_are_told_by_what_they_are() {
        let check = |host: &str, any: bool, public: bool| {
            let outcome = (Reach::Any.check_name(host).is_ok(), Reach::Public.check_name(host).is_ok());
            assert_eq!(outcome, (any, public), "{host}");
        };
        check("ghcr.io", true, true);
        for host in ["registry", "a.registry.lan", "x.localhost", "db.internal", "10.0.0.1"] {
            check(host, true, false);
        }
        for host in ["169.254.169.254", "metadata.google.internal", "metadata"] {
            check(host, false, false);
        }
    }
}

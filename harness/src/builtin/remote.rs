//! The client's address as far as it is known: Envoy's `remote_ip`.

use std::net::{IpAddr, SocketAddr};

use crate::header_map::HeaderMap;

/// A gateway trusts nobody and takes the connection's peer (`use_remote_address`, no trusted hops); every other proxy
/// trusts the last entry of `x-forwarded-for`, if that is an address.
pub(crate) fn address(gateway: bool, peer: Option<SocketAddr>, headers: &HeaderMap) -> Option<IpAddr> {
    let forwarded = || {
        let value = headers.joined(b"x-forwarded-for")?;
        let last = std::str::from_utf8(&value).ok()?.rsplit(',').next()?.trim().to_owned();
        last.parse().ok()
    };
    let peer = peer.map(|peer| peer.ip());
    if gateway { peer } else { forwarded().or(peer) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(gateway: bool, forwarded: &str, expected: &str) {
        let mut headers = HeaderMap::default();
        headers.add(b"x-forwarded-for", forwarded.as_bytes()).unwrap();
        let peer = "192.0.2.1:5".parse().ok();
        assert_eq!(address(gateway, peer, &headers), expected.parse().ok(), "{forwarded}");
    }

    #[test]
    fn the_last_forwarded_address_counts_where_it_is_trusted() {
        check(false, "10.0.0.1, 10.0.0.2", "10.0.0.2");
        check(false, "10.0.0.1,::1", "::1");
        check(false, "10.0.0.3:99", "192.0.2.1");
        check(false, "10.0.0.1, unknown", "192.0.2.1");
        check(true, "10.0.0.1", "192.0.2.1");
    }
}

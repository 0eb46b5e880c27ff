//! Realms that Istio's agent refuses, whatever they are for: it looks at those of every challenge, a Basic one's too, as
//! if a token were to be had there (`pkg/wasm/imagefetcher.go`, `validateRealmURL`).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};

use super::printable;

/// What Istio has against registries' challenges, by registry.
#[derive(Default)]
pub(super) struct Objections(Mutex<HashMap<String, String>>);

impl Objections {
    /// Look at the challenges of a 401.
    pub(super) fn note<'a>(&self, registry: &str, mut lines: impl Iterator<Item = &'a str>) {
        if let Some(objection) = lines.find_map(objection) {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            all.insert(registry.to_owned(), objection);
        }
    }

    pub(super) fn of(&self, registry: &str) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(registry).cloned()
    }
}

/// What there is against one `WWW-Authenticate`. Only realms in quotes, and written small, are looked at.
fn objection(line: &str) -> Option<String> {
    line.split("realm=\"").skip(1).filter_map(|rest| rest.split_once('"')).find_map(|(realm, _)| {
        let reason = against(realm)?;
        Some(format!("the realm `{}` {reason}", printable(realm, 100)))
    })
}

fn against(realm: &str) -> Option<&'static str> {
    let (scheme, rest) = realm.split_once(':').unwrap_or(("", realm));
    if !["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return Some("is no http or https URL");
    }
    let authority = rest.strip_prefix("//").unwrap_or_default().split(['/', '?', '#']).next().unwrap_or_default();
    let place = authority.rsplit('@').next().unwrap_or_default();
    let host = match place.strip_prefix('[') {
        Some(bracketed) => bracketed.split(']').next().unwrap_or_default(),
        None => place.split(':').next().unwrap_or_default(),
    };
    let inside = match host.parse() {
        Ok(IpAddr::V4(address)) => is_inside(address),
        Ok(IpAddr::V6(address)) => address.to_ipv4_mapped().map_or(is_inside_v6(address), is_inside),
        Err(_) => false,
    };
    match host {
        "" => Some("names no host"),
        "metadata.google.internal" => Some("is a cloud's metadata service"),
        "localhost" => Some("is on the agent's own machine"),
        _ if inside => Some("has a private, loopback or link-local address"),
        _ => None,
    }
}

fn is_inside(address: Ipv4Addr) -> bool {
    address.is_private() || address.is_loopback() || address.is_link_local()
}

fn is_inside_v6(address: Ipv6Addr) -> bool {
    address.is_unique_local() || address.is_loopback() || address.is_unicast_link_local()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn realms_are_refused_as_istio_does() {
        for (line, refused) in [
            (r#"Bearer realm="https://auth.example.com/token",service="r""#, false),
            (r#"Bearer realm="http://auth.example.com:5000/token""#, false),
            (r#"Basic realm="https://registry.example.com""#, false),
            (r#"Basic realm="plugwright""#, true),
            (r#"Basic realm="Registry Realm""#, true),
            (r#"Basic realm="""#, true),
            ("Basic realm=plugwright", false),
            ("Basic", false),
            (r#"Bearer realm="http:token""#, true),
            (r#"Bearer realm="ftp://auth.example.com/""#, true),
            (r#"Bearer realm="http://localhost:8080/""#, true),
            (r#"Bearer realm="http://ann@127.0.0.5/""#, true),
            (r#"Bearer realm="http://10.0.0.1/token""#, true),
            (r#"Bearer realm="http://[::1]:80/""#, true),
            (r#"Bearer realm="http://[fd12::1]/""#, true),
            (r#"Bearer realm="http://[2606:4700::1111]/""#, false),
            (r#"Bearer realm="http://metadata.google.internal/x""#, true),
            (r#"Bearer realm="https://auth.example.com/", Basic realm="x""#, true),
        ] {
            assert_eq!(objection(line).is_some(), refused, "{line}");
        }
    }
}

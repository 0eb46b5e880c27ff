//! Which requests go through a proxy: the rules of Go's clients (`golang.org/x/net/http/httpproxy`), so that an
//! environment that suits docker, crane or kubectl suits us.

use std::fmt;
use std::net::IpAddr;

use ureq::ProxyProtocol;

use super::url::{Url, is_loopback};

/// A proxy: `http`, `https`, `socks4`, `socks4a`, `socks5` or `socks5h`. Its password never shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy(pub(super) ureq::Proxy);

/// Why a text is not a [`Proxy`]. The text may hold a password and is not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "it is not a proxy's URL: expected `[SCHEME://][USER:PASSWORD@]HOST[:PORT]`, SCHEME being http, https or socks5"
)]
pub struct ProxyError;

impl std::str::FromStr for Proxy {
    type Err = ProxyError;

    fn from_str(text: &str) -> Result<Self, ProxyError> {
        let text = text.trim();
        let text = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let proxy = ureq::Proxy::new(&text).map_err(|_| ProxyError)?;
        if proxy.host().is_empty() { Err(ProxyError) } else { Ok(Self(proxy)) }
    }
}

/// Without user and password.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.0.protocol().to_string().to_ascii_lowercase();
        write!(f, "{scheme}://{}:{}", self.0.host(), self.0.port())
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Proxy {
    /// Whether it is the proxy that looks up names, so that we do not know which address is dialled.
    pub(super) fn resolves(&self) -> bool {
        !matches!(self.0.protocol(), ProxyProtocol::Socks4 | ProxyProtocol::Socks5)
    }
}

/// Proxies by the scheme of what is asked for. All is tunnelled, plain HTTP too: a proxy sees where to, and of TLS
/// nothing more. Registries on this machine are always met directly.
#[derive(Debug, Clone, Default)]
pub struct Proxies {
    /// For `https` URLs.
    pub https: Option<Proxy>,
    /// For `http` URLs.
    pub http: Option<Proxy>,
    /// What is met directly.
    pub except: NoProxy,
}

impl Proxies {
    pub(super) fn of(&self, url: &Url) -> Option<&Proxy> {
        let proxy = if url.is_tls() { &self.https } else { &self.http };
        proxy.as_ref().filter(|_| !is_loopback(&url.host()) && !self.except.covers(&url.host(), url.port()))
    }
}

/// Hosts that are met directly: a list of `*`, names (`example.com` with all below it, `.example.com` only what is
/// below), addresses and networks (`10.0.0.0/8`), each but the last with a port where only that one is meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NoProxy(Vec<Entry>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Entry {
    All,
    Network(IpAddr, u8),
    Name { name: String, itself: bool, port: Option<u16> },
    Address(IpAddr, Option<u16>),
}

impl NoProxy {
    /// Read a list that is separated by commas or spaces. Whatever is no entry is left out, as everybody does.
    pub fn parse(text: &str) -> Self {
        let entries = text.split([',', ' ', '\t']).filter(|entry| !entry.is_empty());
        Self(entries.filter_map(|text| entry(&text.to_ascii_lowercase())).collect())
    }

    fn covers(&self, host: &str, port: u16) -> bool {
        let address = host.parse::<IpAddr>().ok().map(|address| address.to_canonical());
        self.0.iter().any(|entry| match entry {
            Entry::All => true,
            Entry::Network(network, bits) => address.is_some_and(|address| within(address, *network, *bits)),
            Entry::Address(covered, only) => address == Some(*covered) && only.is_none_or(|only| only == port),
            Entry::Name { name, itself, port: only } => {
                let below = host.strip_suffix(name.as_str()).is_some_and(|front| front.ends_with('.'));
                (below || (*itself && host == name)) && only.is_none_or(|only| only == port)
            }
        })
    }
}

fn entry(text: &str) -> Option<Entry> {
    if text == "*" {
        return Some(Entry::All);
    }
    if let Some((network, bits)) = text.split_once('/') {
        let (network, bits): (IpAddr, u8) = (network.parse().ok()?, bits.parse().ok()?);
        return (bits <= if network.is_ipv4() { 32 } else { 128 }).then_some(Entry::Network(network, bits));
    }
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Some(Entry::Address(address.to_canonical(), None));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, Some(port.parse().ok()?)),
        None => (text, None),
    };
    if let Ok(address) = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        return Some(Entry::Address(address.to_canonical(), port));
    }
    let name = host.trim_start_matches('*').trim_start_matches('.').trim_end_matches('.');
    let itself = !host.starts_with(['.', '*']);
    (!name.is_empty()).then(|| Entry::Name { name: name.to_owned(), itself, port })
}

fn within(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    let mask = |value: u128, width: u32| value >> (width - u32::from(bits).min(width)).min(127);
    match (address, network) {
        _ if bits == 0 => address.is_ipv4() == network.is_ipv4(),
        (IpAddr::V4(address), IpAddr::V4(network)) => {
            mask(address.to_bits().into(), 32) == mask(network.to_bits().into(), 32)
        }
        (IpAddr::V6(address), IpAddr::V6(network)) => mask(address.to_bits(), 128) == mask(network.to_bits(), 128),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(list: &str, url: &str, direct: bool) {
        let proxy: Proxy = "proxy.lan:3128".parse().unwrap();
        let proxies = Proxies { https: Some(proxy.clone()), http: Some(proxy), except: NoProxy::parse(list) };
        let url = Url::parse(url).unwrap();
        assert_eq!(proxies.of(&url).is_none(), direct, "{list}: {url}");
    }

    #[test]
    fn exceptions_are_names_addresses_networks_and_ports() {
        check("", "https://r.io/", false);
        check("*", "https://r.io/", true);
        for (list, url, direct) in [
            ("r.io", "https://r.io/", true),
            ("r.io", "https://a.R.io/", true),
            ("r.io", "https://rr.io/", false),
            ("r.io", "https://r.io.evil/", false),
            (".r.io", "https://a.r.io/", true),
            (".r.io", "https://r.io/", false),
            ("*.r.io", "https://a.b.r.io/", true),
            ("*.r.io", "https://r.io/", false),
            ("a.io, R.IO", "https://r.io/", true),
            ("r.io:5000", "https://r.io:5000/", true),
            ("r.io:5000", "https://r.io/", false),
            ("10.0.0.0/8", "http://10.255.1.2/", true),
            ("10.0.0.0/8", "http://11.0.0.1/", false),
            ("10.0.0.0/8", "http://[::a00:1]/", false),
            ("fd00::/8", "http://[fd12::1]:5000/", true),
            ("0.0.0.0/0", "http://8.8.8.8/", true),
            ("192.0.2.7", "http://192.0.2.7:5000/", true),
            ("192.0.2.7:80", "http://192.0.2.7:5000/", false),
            ("[2001:db8::1]:80", "http://[2001:db8::1]/", true),
            ("2001:db8::1", "http://[2001:db8::1]/", true),
            ("10.0.0.0/99, :, ., r.io:x", "https://r.io/", false),
        ] {
            check(list, url, direct);
        }
    }

    #[test]
    fn this_machine_is_never_behind_a_proxy() {
        for url in ["http://localhost:5000/", "http://127.0.0.1/", "https://[::1]:5000/"] {
            check("", url, true);
        }
    }

    #[test]
    fn a_proxy_shows_everything_but_its_password() {
        for (text, shown) in [
            ("http://ann:very-secret@proxy.lan:3128", "http://proxy.lan:3128"),
            ("proxy.lan:8080", "http://proxy.lan:8080"),
            ("proxy.lan", "http://proxy.lan:80"),
            ("https://proxy.lan", "https://proxy.lan:443"),
            ("socks5h://proxy.lan", "socks5h://proxy.lan:1080"),
        ] {
            let proxy: Proxy = text.parse().unwrap();
            assert_eq!(format!("{proxy} {proxy:?}"), format!("{shown} {shown}"));
        }
        for bad in ["", "ftp://ann:very-secret@x", "http://", "http://a b", "://"] {
            let error = bad.parse::<Proxy>().unwrap_err();
            assert!(!error.to_string().contains("secret"));
        }
    }
}

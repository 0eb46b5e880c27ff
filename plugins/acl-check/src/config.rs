//! The configuration as it is written, and the policy server that it names.

use std::time::Duration;

use plugwright_sdk::{ConfigError, is_field_value, is_token};
use serde::Deserialize;

/// How long an answer may be waited for at most, in milliseconds: the client is held meanwhile.
const MAX_TIMEOUT: u64 = 60_000;

/// How long an answer may be kept at most, in seconds: a permission that is withdrawn lives on for as long.
const MAX_CACHE: u64 = 300;

/// Headers that say where a message goes or ends, or that the plugin itself reads.
const NOT_TO_SET: [&str; 12] = [
    "authorization",
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// The plugin's configuration.
#[derive(Debug, Deserialize)]
#[cfg_attr(
    not(target_family = "wasm"),
    derive(plugwright_sdk::schemars::JsonSchema),
    schemars(crate = "plugwright_sdk::schemars")
)]
#[serde(deny_unknown_fields, expecting = "an object with acl_server and set_header")]
pub struct Config {
    /// Where the policy server is: `http://HOST:PORT/PATH`. Scheme, port and path may be left out.
    acl_server: String,
    /// The request header that gets the policy server's signed token.
    set_header: String,
    /// The proxy's name of the policy server's cluster; by default Istio's for the host and port of `acl_server`.
    cluster: Option<String>,
    /// How long the policy server may take, 1 to 60000.
    #[serde(default = "default_timeout")]
    #[cfg_attr(not(target_family = "wasm"), schemars(range(min = 1, max = 60_000)))]
    timeout_ms: u64,
    /// How long a permission is kept for the same token, method, host and path, 0 to 300; 0 asks every time.
    #[serde(default)]
    #[cfg_attr(not(target_family = "wasm"), schemars(range(max = 300)))]
    cache_seconds: u64,
}

fn default_timeout() -> u64 {
    1000
}

/// What the plugin does to each request.
#[derive(Debug)]
pub(crate) struct Policy {
    pub(crate) server: Server,
    /// In lower case.
    pub(crate) header: String,
    pub(crate) timeout: Duration,
    pub(crate) cache: Duration,
}

/// Where the policy server is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) cluster: String,
    pub(crate) authority: String,
    pub(crate) path: String,
}

impl Config {
    /// Checks everything that the types do not, or says which field is wrong.
    pub(crate) fn into_policy(self) -> Result<Policy, ConfigError> {
        let mut server =
            Server::parse(&self.acl_server).map_err(|reason| ConfigError::new(reason).field("acl_server"))?;
        if let Some(cluster) = self.cluster {
            if cluster.is_empty() || !is_field_value(&cluster) {
                return Err(ConfigError::new("is not a cluster's name").field("cluster"));
            }
            server.cluster = cluster;
        }
        let header = self.set_header.to_ascii_lowercase();
        if !is_token(&header) {
            return Err(ConfigError::new("is not a header's name").field("set_header"));
        }
        if NOT_TO_SET.contains(&header.as_str()) {
            return Err(ConfigError::new("is a header with a meaning of its own").field("set_header"));
        }
        if !(1..=MAX_TIMEOUT).contains(&self.timeout_ms) {
            return Err(ConfigError::new("is not 1 to 60000").field("timeout_ms"));
        }
        if self.cache_seconds > MAX_CACHE {
            return Err(ConfigError::new("is more than 300").field("cache_seconds"));
        }
        let (timeout, cache) = (Duration::from_millis(self.timeout_ms), Duration::from_secs(self.cache_seconds));
        Ok(Policy { server, header, timeout, cache })
    }
}

impl Server {
    /// Reads `http://HOST:PORT/PATH`, of which only the host must be there.
    fn parse(text: &str) -> Result<Self, &'static str> {
        let (standard, rest) = match text.split_once("://") {
            Some(("http", rest)) => ("80", rest),
            Some(("https", rest)) => ("443", rest),
            Some(_) => return Err("has another scheme than http and https"),
            None => ("80", text),
        };
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        if authority.contains('@') {
            return Err("has a user, which is sent to no policy server");
        }
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port),
            _ => (authority, standard),
        };
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'[' | b']' | b':');
        if host.is_empty() || !host.bytes().all(plain) {
            return Err("is not http://HOST:PORT/PATH");
        }
        if port.starts_with('0') || !port.bytes().all(|b| b.is_ascii_digit()) || port.parse::<u16>().is_err() {
            return Err("has a port that is not 1 to 65535");
        }
        if path.contains('#') || !path.bytes().all(|b| b.is_ascii_graphic()) {
            return Err("has a fragment, a space or something beyond ASCII in its path");
        }
        Ok(Self { cluster: format!("outbound|{port}||{host}"), authority: authority.to_owned(), path: path.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::Server;

    #[track_caller]
    fn check(text: &str, cluster: &str, authority: &str, path: &str) {
        let server = Server { cluster: cluster.to_owned(), authority: authority.to_owned(), path: path.to_owned() };
        assert_eq!(Server::parse(text), Ok(server), "{text}");
    }

    #[test]
    fn a_cluster_is_named_as_istio_names_it() {
        check("some_server", "outbound|80||some_server", "some_server", "/");
        check(
            "http://acl.ns.svc.cluster.local",
            "outbound|80||acl.ns.svc.cluster.local",
            "acl.ns.svc.cluster.local",
            "/",
        );
        check("acl.ns:8080/v1/token?x=1", "outbound|8080||acl.ns", "acl.ns:8080", "/v1/token?x=1");
        check("https://policy.example/ask", "outbound|443||policy.example", "policy.example", "/ask");
        check("http://[::1]:9000", "outbound|9000||[::1]", "[::1]:9000", "/");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "http://",
            "http:///x",
            "ftp://a",
            "http:/a",
            "a b",
            "a:0",
            "a:080",
            "a:",
            "a:65536",
            "a:x",
            "a:+1",
            "http://u:p@a",
            "a/#x",
            "a/é",
            "é",
            "a\nb",
            "a?b",
            "a|b",
        ] {
            assert!(Server::parse(text).is_err(), "{text}");
        }
    }
}

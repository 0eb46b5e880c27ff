//! A client for the OCI distribution specification: synchronous, small, and failing closed.
//!
//! TLS unless the registry is this machine or plain HTTP is asked for; credentials only where they belong; every byte
//! checked against its digest and size on the way; everything bounded in size, time and number.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::credentials::Credentials;

mod address;
mod auth;
mod blobs;
mod challenge;
mod download;
mod error;
mod manifests;
mod parallel;
mod progress;
mod proxy;
mod pull;
mod push;
mod realm;
mod referrers;
mod retry;
mod session;
mod tokens;
mod transport;
mod upload;
mod url;
mod verified;

pub use address::ForbiddenAddress;
pub use error::RegistryError;
pub use manifests::Manifest;
pub use progress::{Moved, Progress};
pub use proxy::{NoProxy, Proxies, Proxy, ProxyError};
pub use referrers::Artifact;
pub use retry::Retry;
pub use url::UrlError;

pub(crate) use error::printable;

/// Which registries are spoken to without TLS. There is no falling back from one to the other.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum PlainHttp {
    /// Registries on this machine, told by `localhost` or a loopback address.
    #[default]
    Loopback,
    /// These (`host:port`) and those on this machine.
    Hosts(Vec<String>),
    /// All of them.
    Always,
    /// None, not even on this machine.
    Never,
}

impl PlainHttp {
    /// Whether `host:port` is spoken to without TLS.
    pub fn allows(&self, registry: &str) -> bool {
        let loopback = url::is_loopback(&url::host_of(registry));
        match self {
            Self::Loopback => loopback,
            Self::Hosts(hosts) => loopback || hosts.iter().any(|host| host == registry),
            Self::Always => true,
            Self::Never => false,
        }
    }
}

/// How to talk to registries.
#[derive(Clone)]
pub struct Options {
    /// Where plain HTTP is spoken.
    pub plain_http: PlainHttp,
    /// PEM files whose certificates are trusted beside the public roots.
    pub ca_certificates: Vec<Vec<u8>>,
    /// What registries are shown when they ask.
    pub credentials: Credentials,
    /// Let a registry that is not on this machine name a token realm on a private or loopback address.
    pub private_realms: bool,
    /// Limit for name resolution, and again for the connection.
    pub connect_timeout: Duration,
    /// Limit for any single read or write, and for the answer to begin.
    pub read_timeout: Duration,
    /// Repetition of what may be repeated.
    pub retry: Retry,
    /// Limit in bytes for all blobs of an image together.
    pub image_limit: u64,
    /// How many blobs move at a time.
    pub parallel: usize,
    /// In how large pieces a blob is sent that did not go through in one.
    pub chunk: u64,
    /// What is met through a proxy.
    pub proxies: Proxies,
    /// `User-Agent`.
    pub user_agent: String,
    /// Who watches.
    pub progress: Arc<dyn Progress>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            plain_http: PlainHttp::default(),
            ca_certificates: Vec::new(),
            credentials: Credentials::none(),
            private_realms: false,
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_mins(1),
            retry: Retry::default(),
            image_limit: 512 * 1024 * 1024,
            parallel: 4,
            chunk: 16 * 1024 * 1024,
            proxies: Proxies::default(),
            user_agent: concat!("plugwright/", env!("CARGO_PKG_VERSION")).to_owned(),
            progress: Arc::new(()),
        }
    }
}

/// A client for any number of registries. Cloning it shares its connections and tokens.
#[derive(Clone)]
pub struct Client {
    transport: Arc<transport::Transport>,
    tokens: Arc<tokens::Tokens>,
    places: Arc<upload::Places>,
    attaching: Arc<Mutex<()>>,
    objections: Arc<realm::Objections>,
    options: Options,
}

impl Client {
    /// Make a client. Certificates that cannot be used are an error.
    pub fn new(options: Options) -> Result<Self, RegistryError> {
        Ok(Self {
            transport: Arc::new(transport::Transport::new(&options)?),
            tokens: Arc::default(),
            places: Arc::default(),
            attaching: Arc::default(),
            objections: Arc::default(),
            options,
        })
    }

    /// The same client with these credentials in the place of its own. What was granted to the one is not used by the
    /// other.
    #[must_use]
    pub fn with_credentials(&self, credentials: Credentials) -> Self {
        Self {
            transport: Arc::clone(&self.transport),
            tokens: Arc::default(),
            places: Arc::default(),
            attaching: Arc::clone(&self.attaching),
            objections: Arc::clone(&self.objections),
            options: Options { credentials, ..self.options.clone() },
        }
    }

    fn progress(&self) -> &dyn Progress {
        &*self.options.progress
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("plain_http", &self.options.plain_http).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_this_machine_and_for_those_that_are_named() {
        let named = PlainHttp::Hosts(vec!["registry.lan:5000".to_owned()]);
        for (registry, loopback, hosts) in [
            ("localhost:5000", true, true),
            ("127.0.0.1", true, true),
            ("[::1]:5000", true, true),
            ("registry.lan:5000", false, true),
            ("registry.lan", false, false),
            ("localhost.example.com", false, false),
            ("127.0.0.1.example.com:5000", false, false),
        ] {
            assert_eq!(PlainHttp::default().allows(registry), loopback, "{registry}");
            assert_eq!(named.allows(registry), hosts, "{registry}");
            assert!(PlainHttp::Always.allows(registry) && !PlainHttp::Never.allows(registry));
        }
    }
}

//! The provider as its metadata and keys describe it (OpenID Connect Discovery), fetched by callout.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

use jose::json::{JsonError, Object};
use jose::{JwkError, Keys};
use plugwright_sdk::{Call, CallError, CallResponse, Root};

use crate::settings::{ProviderSettings, Settings};
use crate::url::{Endpoint, Secure};

/// How large the metadata may be, in bytes.
const MAX_METADATA: usize = 256 * 1024;

/// A provider that has been discovered.
pub(crate) struct Provider {
    pub(crate) issuer: String,
    /// URLs that browsers are sent to.
    pub(crate) authorization: String,
    pub(crate) end_session: Option<String>,
    pub(crate) token: Target,
    jwks: Target,
    keys: RefCell<Rc<Keys>>,
}

/// Where to call the provider.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) cluster: String,
    pub(crate) authority: String,
    pub(crate) path: String,
}

/// Why there is no metadata, or no keys.
#[derive(Debug)]
pub(crate) enum DiscoveryError {
    Call {
        cluster: String,
        error: CallError,
    },
    Status {
        cluster: String,
        status: u16,
    },
    TooLarge,
    Json(JsonError),
    /// A field that is missing or not what it should be.
    Field(&'static str),
    Issuer,
    Keys(JwkError),
    /// None of the keys can be used.
    NoKey(usize),
}

impl fmt::Display for DiscoveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call { cluster, error } => write!(f, "cluster {cluster}: {error}"),
            Self::Status { cluster, status } => write!(f, "cluster {cluster} answered {status}"),
            Self::TooLarge => write!(f, "the provider's metadata has more than {MAX_METADATA} bytes"),
            Self::Json(error) => write!(f, "the provider's metadata: {error}"),
            Self::Field(field) => write!(f, "the provider's metadata: {field} is missing or no URL that can be used"),
            Self::Issuer => f.write_str("the provider's metadata is of another issuer than the configured one"),
            Self::Keys(error) => write!(f, "the provider's keys: {error}"),
            Self::NoKey(others) => {
                write!(f, "none of the provider's keys is for RS256 or ES256; it has {others} others")
            }
        }
    }
}

impl Provider {
    /// Fetches metadata and keys.
    pub(crate) async fn discover(root: &Root, settings: &Settings) -> Result<Self, DiscoveryError> {
        let at = &settings.provider;
        let home =
            Endpoint { is_https: true, authority: at.authority.clone(), path_and_query: at.discovery_path.clone() };
        let target = target(home, at, &at.authority);
        let response = fetch(root, &target, settings).await?;
        if response.body().len() > MAX_METADATA {
            return Err(DiscoveryError::TooLarge);
        }
        let metadata = Object::parse(response.body()).map_err(DiscoveryError::Json)?;
        let provider = Self::read(&metadata, at)?;
        provider.fetch_keys(root, settings).await?;
        Ok(provider)
    }

    fn read(metadata: &Object, at: &ProviderSettings) -> Result<Self, DiscoveryError> {
        let issuer =
            metadata.text("issuer").filter(|issuer| at.issuer.accepts(issuer)).ok_or(DiscoveryError::Issuer)?;
        let issuer_url = Endpoint::parse(issuer, Secure::Preferred).ok_or(DiscoveryError::Issuer)?;
        // What begins with TLS goes on with it.
        let secure = if issuer_url.is_https { Secure::Required } else { Secure::Preferred };
        let url = |name: &'static str| {
            let text = metadata.text(name).ok_or(DiscoveryError::Field(name))?;
            let endpoint = Endpoint::parse(text, secure).ok_or(DiscoveryError::Field(name))?;
            Ok((text.to_owned(), endpoint))
        };
        let called = |name| Ok(target(url(name)?.1, at, &issuer_url.authority));
        let has_end_session = metadata.has("end_session_endpoint");
        Ok(Self {
            issuer: issuer.to_owned(),
            authorization: url("authorization_endpoint")?.0,
            end_session: has_end_session.then(|| url("end_session_endpoint")).transpose()?.map(|(text, _)| text),
            token: called("token_endpoint")?,
            jwks: called("jwks_uri")?,
            keys: RefCell::default(),
        })
    }

    /// The keys that were fetched last.
    pub(crate) fn keys(&self) -> Rc<Keys> {
        Rc::clone(&self.keys.borrow())
    }

    /// Fetches the keys again. What cannot be used leaves those that are there.
    pub(crate) async fn fetch_keys(&self, root: &Root, settings: &Settings) -> Result<(), DiscoveryError> {
        let response = fetch(root, &self.jwks, settings).await?;
        let (keys, others) = Keys::from_set(response.body()).map_err(DiscoveryError::Keys)?;
        if keys.is_empty() {
            return Err(DiscoveryError::NoKey(others));
        }
        self.keys.replace(Rc::new(keys));
        Ok(())
    }
}

fn target(endpoint: Endpoint, at: &ProviderSettings, issuer_authority: &str) -> Target {
    let cluster = at.cluster(&endpoint, issuer_authority);
    Target { cluster, authority: endpoint.authority, path: endpoint.path_and_query }
}

async fn fetch(root: &Root, target: &Target, settings: &Settings) -> Result<CallResponse, DiscoveryError> {
    let Target { cluster, authority, path } = target;
    let call = Call::get(authority, path).header("accept", "application/json").timeout(settings.timeout);
    let cluster = cluster.clone();
    match root.call(&cluster, call).await {
        Ok(response) if response.status() == 200 => Ok(response),
        Ok(response) => Err(DiscoveryError::Status { cluster, status: response.status() }),
        Err(error) => Err(DiscoveryError::Call { cluster, error }),
    }
}

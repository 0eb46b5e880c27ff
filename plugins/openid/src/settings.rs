//! What the configuration means, checked once.

use std::collections::BTreeMap;
use std::time::Duration;

use plugwright_sdk::{ConfigError, Host, is_field_value, is_token};

use crate::config::{ClientAuthentication, Config, Forward, Redirect};
use crate::seal::Sealer;
use crate::url::{self, Origin, Secure};

const CLIENT_SECRET_ENV: &str = "OPENID_CLIENT_SECRET";
const COOKIE_KEYS_ENV: &str = "OPENID_COOKIE_KEYS";

/// Parameters of the authorization request that are the plugin's own.
const RESERVED: [&str; 9] = [
    "client_id",
    "code_challenge",
    "code_challenge_method",
    "nonce",
    "redirect_uri",
    "request",
    "response_mode",
    "response_type",
    "state",
];

/// Everything that is configured, ready for use.
pub(crate) struct Settings {
    pub(crate) provider: ProviderSettings,
    pub(crate) client: Client,
    pub(crate) scope: String,
    pub(crate) authorization_parameters: BTreeMap<String, String>,
    pub(crate) public_origin: Option<Origin>,
    pub(crate) callback_path: String,
    pub(crate) logout_path: String,
    pub(crate) logged_out_path: String,
    pub(crate) sealer: Sealer,
    pub(crate) cookie_name: String,
    pub(crate) session: Duration,
    pub(crate) forward: Forward,
    pub(crate) forward_cookies: bool,
    pub(crate) redirect: Redirect,
    pub(crate) skew: Duration,
    pub(crate) refresh_ahead: Duration,
    pub(crate) hold: Duration,
    pub(crate) held_requests: u32,
    pub(crate) timeout: Duration,
    pub(crate) metadata: Duration,
}

/// Where the provider is.
pub(crate) struct ProviderSettings {
    pub(crate) issuer: Issuer,
    /// The authority of the host that `cluster` leads to.
    pub(crate) authority: String,
    pub(crate) discovery_path: String,
    cluster: String,
    clusters: BTreeMap<String, String>,
}

/// What the provider's metadata must name as its issuer.
pub(crate) enum Issuer {
    Exactly(String),
    /// In the short form only the realm is known; whose host the issuer has is the provider's to say.
    EndingIn(String),
}

impl Issuer {
    pub(crate) fn accepts(&self, issuer: &str) -> bool {
        match self {
            Self::Exactly(expected) => issuer == expected,
            Self::EndingIn(end) => issuer.ends_with(end.as_str()),
        }
    }

    fn text(&self) -> &str {
        match self {
            Self::Exactly(text) | Self::EndingIn(text) => text,
        }
    }
}

impl ProviderSettings {
    /// The cluster for an endpoint of the provider, whose issuer is on the host `issuer_authority`.
    pub(crate) fn cluster(&self, endpoint: &url::Endpoint, issuer_authority: &str) -> String {
        let authority = endpoint.authority.as_str();
        if let Some(cluster) = self.clusters.get(authority) {
            return cluster.clone();
        }
        if authority == self.authority || authority == issuer_authority {
            return self.cluster.clone();
        }
        endpoint.default_cluster()
    }
}

/// What the plugin is to the provider.
pub(crate) struct Client {
    pub(crate) id: String,
    pub(crate) authentication: Authentication,
}

pub(crate) enum Authentication {
    Basic(Secret),
    Post(Secret),
    Public,
}

/// A client's secret. It has no `Debug`.
pub(crate) struct Secret(String);

impl Secret {
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl Settings {
    pub(crate) fn new(config: Config, host: &impl Host) -> Result<Self, ConfigError> {
        let provider = provider(&config)?;
        let id = config.client_id.as_ref().or(config.openid_realm.as_ref());
        let id = id.ok_or_else(|| ConfigError::new("is missing").field("client_id"))?;
        text(id, 256).map_err(|e| e.field("client_id"))?;
        let client = Client { id: id.clone(), authentication: authentication(&config, host)? };
        let keys = cookie_keys(&config, host)?;
        let sealer = Sealer::new(&keys, &[provider.issuer.text(), &client.id])
            .map_err(|(index, error)| keys_error(&config, error, Some(index)))?;
        let public_origin = match &config.public_origin {
            None => None,
            Some(text) => Some(Origin::parse(text).ok_or_else(|| {
                ConfigError::new("is not an origin, such as `https://shop.example.com`").field("public_origin")
            })?),
        };
        paths(&config)?;
        if !is_token(&config.cookie_name) || config.cookie_name.len() > 64 {
            return Err(ConfigError::new("is not a cookie's name of up to 64 characters").field("cookie_name"));
        }
        let second = |value: u64, least: u64, most: u64, field: &str| {
            if (least..=most).contains(&value) {
                return Ok(Duration::from_secs(value));
            }
            Err(ConfigError::new(format!("is not between {least} and {most}")).field(field))
        };
        Ok(Self {
            provider,
            client,
            scope: scope(&config.scopes)?,
            authorization_parameters: parameters(config.authorization_parameters)?,
            public_origin,
            session: second(config.session_seconds, 60, 31_536_000, "session_seconds")?,
            skew: second(config.clock_skew_seconds, 0, 600, "clock_skew_seconds")?,
            refresh_ahead: second(config.refresh_ahead_seconds, 0, 3600, "refresh_ahead_seconds")?,
            hold: second(config.hold_seconds, 0, 300, "hold_seconds")?,
            timeout: second(config.timeout_seconds, 1, 60, "timeout_seconds")?,
            metadata: second(config.metadata_seconds, 10, 86_400, "metadata_seconds")?,
            callback_path: config.callback_path,
            logout_path: config.logout_path,
            logged_out_path: config.logged_out_path,
            sealer,
            cookie_name: config.cookie_name,
            forward: config.forward,
            forward_cookies: config.forward_cookies,
            redirect: config.redirect,
            held_requests: config.held_requests,
        })
    }
}

fn provider(config: &Config) -> Result<ProviderSettings, ConfigError> {
    let mut clusters = BTreeMap::new();
    for (authority, cluster) in &config.clusters {
        let place = |reason| ConfigError::new(reason).field(authority).field("clusters");
        let known = url::authority(authority).ok_or_else(|| place("is not a host with or without a port"))?;
        if cluster.is_empty() {
            return Err(place("is empty"));
        }
        clusters.insert(known, cluster.clone());
    }
    if config.cluster.as_ref().is_some_and(String::is_empty) {
        return Err(ConfigError::new("is empty").field("cluster"));
    }
    match (&config.issuer, &config.openid_server, &config.openid_realm) {
        (Some(issuer), None, None) => {
            let endpoint = url::Endpoint::parse(issuer, Secure::Preferred)
                .filter(|endpoint| !endpoint.path_and_query.contains('?') && !issuer.contains('#'))
                .ok_or_else(|| {
                    ConfigError::new("is not a URL such as `https://login.example.com`, without query and fragment")
                        .field("issuer")
                })?;
            let cluster = config.cluster.clone().unwrap_or_else(|| endpoint.default_cluster());
            let path = endpoint.path_and_query.trim_end_matches('/');
            let discovery_path = format!("{path}/.well-known/openid-configuration");
            let issuer = Issuer::Exactly(issuer.clone());
            Ok(ProviderSettings { issuer, authority: endpoint.authority, discovery_path, cluster, clusters })
        }
        (None, Some(server), Some(realm)) => {
            let authority = url::authority(server)
                .ok_or_else(|| ConfigError::new("is not a host with or without a port").field("openid_server"))?;
            let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
            if realm.is_empty() || realm.len() > 128 || !realm.bytes().all(plain) || realm.starts_with('.') {
                return Err(
                    ConfigError::new("is not a realm of letters, digits, `-`, `_` and `.`").field("openid_realm")
                );
            }
            let issuer = format!("/realms/{realm}");
            let home = url::Endpoint { is_https: false, authority, path_and_query: issuer.clone() };
            Ok(ProviderSettings {
                discovery_path: format!("{issuer}/.well-known/openid-configuration"),
                issuer: Issuer::EndingIn(issuer),
                cluster: config.cluster.clone().unwrap_or_else(|| home.default_cluster()),
                authority: home.authority,
                clusters,
            })
        }
        (None, None, None) => {
            Err(ConfigError::new("is missing, and so are openid_server and openid_realm").field("issuer"))
        }
        (None, Some(_), None) => Err(ConfigError::new("is missing beside openid_server").field("openid_realm")),
        (None, None, Some(_)) => Err(ConfigError::new("is missing beside openid_realm").field("openid_server")),
        (Some(_), _, _) => {
            Err(ConfigError::new("is given beside openid_server or openid_realm, its short form").field("issuer"))
        }
    }
}

fn authentication(config: &Config, host: &impl Host) -> Result<Authentication, ConfigError> {
    let variable = config.client_secret_env.as_deref();
    let from_env = host.env(variable.unwrap_or(CLIENT_SECRET_ENV)).filter(|secret| !secret.is_empty());
    let secret = match (&config.client_secret, variable, from_env) {
        (Some(_), Some(_), _) => {
            return Err(ConfigError::new("is given beside client_secret").field("client_secret_env"));
        }
        (Some(secret), None, _) => Some(secret.clone()),
        (None, Some(_), None) => {
            return Err(
                ConfigError::new("names a variable that the VM's environment does not have").field("client_secret_env")
            );
        }
        (None, _, from_env) => from_env,
    };
    if secret.as_ref().is_some_and(|secret| secret.is_empty() || !is_field_value(secret) || secret.len() > 4096) {
        return Err(ConfigError::new("is empty, too long or has a control character").field("client_secret"));
    }
    let wrong = |reason: &str| Err(ConfigError::new(reason).field("client_authentication"));
    match (config.client_authentication, secret) {
        (Some(ClientAuthentication::None), Some(_)) => wrong("is `none`, but there is a client secret"),
        (None | Some(ClientAuthentication::None), None) => Ok(Authentication::Public),
        (None | Some(ClientAuthentication::ClientSecretBasic), Some(secret)) => {
            Ok(Authentication::Basic(Secret(secret)))
        }
        (Some(ClientAuthentication::ClientSecretPost), Some(secret)) => Ok(Authentication::Post(Secret(secret))),
        (Some(_), None) => wrong("asks for a client secret, and there is none"),
    }
}

fn cookie_keys(config: &Config, host: &impl Host) -> Result<Vec<String>, ConfigError> {
    let variable = config.cookie_keys_env.as_deref();
    if !config.cookie_keys.is_empty() {
        if variable.is_some() {
            return Err(ConfigError::new("is given beside cookie_keys").field("cookie_keys_env"));
        }
        return Ok(config.cookie_keys.clone());
    }
    let name = variable.unwrap_or(COOKIE_KEYS_ENV);
    let text = host.env(name).unwrap_or_default();
    let keys: Vec<String> = text.split(',').map(str::trim).filter(|key| !key.is_empty()).map(str::to_owned).collect();
    if keys.is_empty() {
        let reason =
            format!("is missing, and the VM's environment has no {name}: `openssl rand -base64 32` makes a key");
        return Err(ConfigError::new(reason).field("cookie_keys"));
    }
    Ok(keys)
}

fn keys_error(config: &Config, reason: &str, index: Option<usize>) -> ConfigError {
    let error = ConfigError::new(reason);
    let error = index.map_or(error.clone(), |index| error.index(index));
    if config.cookie_keys.is_empty() {
        error.field(config.cookie_keys_env.as_deref().unwrap_or(COOKIE_KEYS_ENV))
    } else {
        error.field("cookie_keys")
    }
}

fn paths(config: &Config) -> Result<(), ConfigError> {
    let paths = [
        ("callback_path", &config.callback_path),
        ("logout_path", &config.logout_path),
        ("logged_out_path", &config.logged_out_path),
    ];
    for (index, (field, path)) in paths.iter().enumerate() {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"/-_.~".contains(&b);
        let good = path.len() > 1 && path.len() <= 256 && path.starts_with('/') && !path.contains("//");
        if !good || !path.bytes().all(plain) || path.split('/').any(|segment| matches!(segment, "." | "..")) {
            let reason = "is not a plain absolute path, such as `/_openid/callback`";
            return Err(ConfigError::new(reason).field(field));
        }
        if paths.iter().take(index).any(|(_, other)| other == path) {
            return Err(ConfigError::new("is the same as another of the plugin's paths").field(field));
        }
    }
    Ok(())
}

fn scope(scopes: &[String]) -> Result<String, ConfigError> {
    let mut all = vec!["openid"];
    for (index, scope) in scopes.iter().enumerate() {
        // RFC 6749, section 3.3.
        let token = |b: u8| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\');
        if scope.is_empty() || !scope.bytes().all(token) {
            return Err(ConfigError::new("is not a scope").index(index).field("scopes"));
        }
        if !all.contains(&scope.as_str()) {
            all.push(scope);
        }
    }
    Ok(all.join(" "))
}

fn parameters(given: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, ConfigError> {
    for name in given.keys() {
        let place = |reason| ConfigError::new(reason).field(name).field("authorization_parameters");
        if name.is_empty() {
            return Err(place("has no name"));
        }
        if name == "scope" {
            return Err(place("is what scopes is for"));
        }
        if RESERVED.contains(&name.as_str()) {
            return Err(place("is the plugin's own"));
        }
    }
    Ok(given)
}

fn text(value: &str, most: usize) -> Result<(), ConfigError> {
    if value.is_empty() || value.len() > most || !is_field_value(value) {
        return Err(ConfigError::new("is empty, too long or has a control character"));
    }
    Ok(())
}

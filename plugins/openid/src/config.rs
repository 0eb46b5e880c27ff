//! The configuration as it is written.

use std::collections::BTreeMap;
use std::fmt;

use plugwright_sdk::{ConfigError, Host};
use serde::Deserialize;

use crate::settings::Settings;

/// The plugin's configuration. The provider is named by `issuer`, or in short by `openid_server` and `openid_realm`.
#[derive(Deserialize)]
#[cfg_attr(
    not(target_family = "wasm"),
    derive(plugwright_sdk::schemars::JsonSchema),
    schemars(crate = "plugwright_sdk::schemars", extend("oneOf" = [
        {"required": ["issuer", "client_id"], "properties": {"openid_server": false, "openid_realm": false}},
        {"required": ["openid_server", "openid_realm"], "properties": {"issuer": false}},
    ]))
)]
#[serde(deny_unknown_fields, expecting = "an object with issuer, or with openid_server and openid_realm")]
pub struct Config {
    /// The provider's issuer identifier, such as `https://login.example.com`.
    pub(crate) issuer: Option<String>,
    /// Short form: the provider's host, with its port unless that is 80.
    pub(crate) openid_server: Option<String>,
    /// Short form: the realm, whose issuer ends in `/realms/REALM`.
    pub(crate) openid_realm: Option<String>,
    /// The proxy's cluster for the provider; by default `outbound|PORT||HOST` of the issuer or of `openid_server`.
    pub(crate) cluster: Option<String>,
    /// Clusters for endpoints of the provider on other hosts, by `host` or `host:port`.
    #[serde(default)]
    pub(crate) clusters: BTreeMap<String, String>,
    /// The client's identifier at the provider; in the short form the realm by default.
    pub(crate) client_id: Option<String>,
    /// The client's secret. Better leave it to the environment, since whoever reads the resource reads it.
    pub(crate) client_secret: Option<String>,
    /// The variable of the VM's environment that has the client's secret; `OPENID_CLIENT_SECRET` by default.
    pub(crate) client_secret_env: Option<String>,
    /// How the client shows its secret; `client_secret_basic` by default where there is one.
    pub(crate) client_authentication: Option<ClientAuthentication>,
    /// The scopes to ask for; `openid` is always among them.
    #[serde(default)]
    pub(crate) scopes: Vec<String>,
    /// Further parameters of the authorization request, such as `prompt`.
    #[serde(default)]
    pub(crate) authorization_parameters: BTreeMap<String, String>,
    /// The origin that browsers see, such as `https://shop.example.com`; by default what each request says.
    pub(crate) public_origin: Option<String>,
    /// Where the provider sends browsers back to. It must be registered there.
    #[serde(default = "callback_path")]
    pub(crate) callback_path: String,
    /// Where browsers sign out.
    #[serde(default = "logout_path")]
    pub(crate) logout_path: String,
    /// Where the provider sends browsers that have signed out. It must be registered there.
    #[serde(default = "logged_out_path")]
    pub(crate) logged_out_path: String,
    /// Keys that seal cookies, each base64 of 32 bytes or more. The first seals, all open. Better leave them to the
    /// environment.
    #[serde(default)]
    #[cfg_attr(not(target_family = "wasm"), schemars(length(max = 8)))]
    pub(crate) cookie_keys: Vec<String>,
    /// The variable of the VM's environment that has the keys, separated by commas; `OPENID_COOKIE_KEYS` by default.
    pub(crate) cookie_keys_env: Option<String>,
    /// What the session's cookie is called.
    #[serde(default = "cookie_name")]
    pub(crate) cookie_name: String,
    /// How long a session may last, however often it is refreshed.
    #[serde(default = "session_seconds")]
    #[cfg_attr(not(target_family = "wasm"), schemars(range(min = 60, max = 31_536_000)))]
    pub(crate) session_seconds: u64,
    /// The token that requests carry as `Authorization: Bearer`.
    #[serde(default)]
    pub(crate) forward: Forward,
    /// Leaves the plugin's own cookies in requests that go on.
    #[serde(default)]
    pub(crate) forward_cookies: bool,
    /// Which requests without a session are sent to the provider; the others get 401.
    #[serde(default)]
    pub(crate) redirect: Redirect,
    /// How far the provider's clock may be from the proxy's.
    #[serde(default = "clock_skew_seconds")]
    #[cfg_attr(not(target_family = "wasm"), schemars(range(max = 600)))]
    pub(crate) clock_skew_seconds: u64,
    /// How long before its token expires a session is refreshed.
    #[serde(default = "refresh_ahead_seconds")]
    #[cfg_attr(not(target_family = "wasm"), schemars(range(max = 3600)))]
    pub(crate) refresh_ahead_seconds: u64,
    /// How long a request waits for the provider's metadata before it gets 503.
    #[serde(default = "hold_seconds")]
    #[cfg_attr(not(target_family = "wasm"), schemars(range(max = 300)))]
    pub(crate) hold_seconds: u64,
    /// How many requests of a worker may wait at once.
    #[serde(default = "held_requests")]
    pub(crate) held_requests: u32,
    /// How long the provider may take to answer a call.
    #[serde(default = "timeout_seconds")]
    #[cfg_attr(not(target_family = "wasm"), schemars(range(min = 1, max = 60)))]
    pub(crate) timeout_seconds: u64,
    /// How often metadata and keys are fetched again.
    #[serde(default = "metadata_seconds")]
    #[cfg_attr(not(target_family = "wasm"), schemars(range(min = 10, max = 86_400)))]
    pub(crate) metadata_seconds: u64,
}

// Secrets are never printed.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("issuer", &self.issuer)
            .field("client_id", &self.client_id)
            .finish_non_exhaustive()
    }
}

/// How a client proves at the token endpoint who it is.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[cfg_attr(
    not(target_family = "wasm"),
    derive(plugwright_sdk::schemars::JsonSchema),
    schemars(crate = "plugwright_sdk::schemars")
)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ClientAuthentication {
    /// The secret is in the authorization header.
    ClientSecretBasic,
    /// The secret is in the body.
    ClientSecretPost,
    /// There is no secret: a public client, which PKCE protects.
    None,
}

/// Which token requests carry.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[cfg_attr(
    not(target_family = "wasm"),
    derive(plugwright_sdk::schemars::JsonSchema),
    schemars(crate = "plugwright_sdk::schemars")
)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Forward {
    /// The ID token, which is always a JWT.
    #[default]
    IdToken,
    /// The access token, which has to be a JWT.
    AccessToken,
}

/// Which requests without a session are redirected.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[cfg_attr(
    not(target_family = "wasm"),
    derive(plugwright_sdk::schemars::JsonSchema),
    schemars(crate = "plugwright_sdk::schemars")
)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Redirect {
    /// A browser's navigation.
    #[default]
    Navigation,
    /// Every GET and HEAD.
    Always,
    /// None.
    Never,
}

fn callback_path() -> String {
    "/_openid/callback".to_owned()
}

fn logout_path() -> String {
    "/_openid/logout".to_owned()
}

fn logged_out_path() -> String {
    "/_openid/logged-out".to_owned()
}

fn cookie_name() -> String {
    "__Host-openid".to_owned()
}

fn session_seconds() -> u64 {
    8 * 60 * 60
}

fn clock_skew_seconds() -> u64 {
    30
}

fn refresh_ahead_seconds() -> u64 {
    30
}

fn hold_seconds() -> u64 {
    10
}

fn held_requests() -> u32 {
    1000
}

fn timeout_seconds() -> u64 {
    5
}

fn metadata_seconds() -> u64 {
    60 * 60
}

impl Config {
    /// Checks everything that the types do not, and takes from the environment what is left to it.
    pub(crate) fn into_settings(self, host: &impl Host) -> Result<Settings, ConfigError> {
        Settings::new(self, host)
    }
}

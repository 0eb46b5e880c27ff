//! The configuration as it is written, and the policy that it becomes.

use plugwright_sdk::{ConfigError, is_field_value, is_token, quoted};
use serde::Deserialize;

use crate::credential::{self, Credentials};
use crate::path::{Kind, RequestPath};
use crate::{host, path};

/// The plugin's configuration.
#[derive(Debug, Deserialize)]
#[cfg_attr(
    not(target_family = "wasm"),
    derive(plugwright_sdk::schemars::JsonSchema),
    schemars(crate = "plugwright_sdk::schemars")
)]
#[serde(deny_unknown_fields, expecting = "an object with basic_auth_rules")]
pub struct Config {
    /// Every rule that applies to a request must be satisfied; without rules nothing is protected.
    #[serde(default)]
    basic_auth_rules: Vec<Rule>,
    /// Sent in the challenge.
    #[serde(default = "default_realm")]
    realm: String,
}

/// Which requests need which credentials. It has exactly one of prefix, suffix and exact.
#[derive(Deserialize)]
#[cfg_attr(
    not(target_family = "wasm"),
    derive(plugwright_sdk::schemars::JsonSchema),
    schemars(crate = "plugwright_sdk::schemars", extend("oneOf" = [
        {"required": ["prefix"], "properties": {"prefix": {"type": "string"}}},
        {"required": ["suffix"], "properties": {"suffix": {"type": "string"}}},
        {"required": ["exact"], "properties": {"exact": {"type": "string"}}},
    ]))
)]
#[serde(deny_unknown_fields, expecting = "a rule object")]
struct Rule {
    /// `example.com`, `*.example.com` or `example.*`; all hosts by default.
    #[serde(default)]
    hosts: Vec<String>,
    /// The path starts so.
    prefix: Option<String>,
    /// The path ends so.
    suffix: Option<String>,
    /// The path is this.
    exact: Option<String>,
    /// In any case.
    #[cfg_attr(not(target_family = "wasm"), schemars(length(min = 1)))]
    request_methods: Vec<String>,
    /// `user:password`, or base64 of that.
    #[cfg_attr(not(target_family = "wasm"), schemars(length(min = 1)))]
    credentials: Vec<String>,
}

// Credentials are never printed.
impl std::fmt::Debug for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rule").field("hosts", &self.hosts).finish_non_exhaustive()
    }
}

fn default_realm() -> String {
    "istio".to_owned()
}

/// What is asked of requests.
#[derive(Debug)]
pub(crate) struct Policy {
    pub(crate) rules: Vec<PolicyRule>,
    /// The value of the `www-authenticate` header.
    pub(crate) challenge: String,
}

#[derive(Debug)]
pub(crate) struct PolicyRule {
    hosts: Vec<host::Pattern>,
    path: path::Pattern,
    methods: Vec<String>,
    pub(crate) credentials: Credentials,
}

impl PolicyRule {
    /// Tells whether the rule applies to a request. What the request leaves out matches every rule.
    pub(crate) fn applies(&self, method: Option<&[u8]>, host: Option<&[u8]>, path: &RequestPath) -> bool {
        let method_matches = method.is_none_or(|method| {
            let is_it = |known: &String| known.as_bytes().eq_ignore_ascii_case(method);
            self.methods.iter().any(is_it)
        });
        let host_matches =
            self.hosts.is_empty() || host.is_none_or(|host| self.hosts.iter().any(|pattern| pattern.matches(host)));
        method_matches && host_matches && self.path.matches(path)
    }
}

impl Config {
    /// Checks everything that the types do not, or says which field is wrong.
    pub(crate) fn into_policy(self) -> Result<Policy, ConfigError> {
        if !is_field_value(&self.realm) || self.realm.contains('\t') {
            return Err(ConfigError::new("has a control character").field("realm"));
        }
        let rules = each(self.basic_auth_rules, Rule::into_policy).map_err(|e| e.field("basic_auth_rules"))?;
        Ok(Policy { rules, challenge: format!("Basic realm={}", quoted(&self.realm)) })
    }
}

impl Rule {
    fn into_policy(self) -> Result<PolicyRule, ConfigError> {
        let (kind, field, pattern) = match (self.prefix, self.suffix, self.exact) {
            (Some(text), None, None) => (Kind::Prefix, "prefix", text),
            (None, Some(text), None) => (Kind::Suffix, "suffix", text),
            (None, None, Some(text)) => (Kind::Exact, "exact", text),
            (None, None, None) => return Err(ConfigError::new("has none of prefix, suffix and exact")),
            (Some(_), Some(_), _) => return Err(second("suffix", "prefix")),
            (Some(_), None, Some(_)) => return Err(second("exact", "prefix")),
            (None, Some(_), Some(_)) => return Err(second("exact", "suffix")),
        };
        let path = path::Pattern::new(kind, &pattern).map_err(|reason| ConfigError::new(reason).field(field))?;
        let hosts = each(self.hosts, |text| host::Pattern::new(&text).map_err(ConfigError::new))
            .map_err(|e| e.field("hosts"))?;
        let methods = at_least_one(self.request_methods)
            .and_then(|methods| each(methods, method))
            .map_err(|e| e.field("request_methods"))?;
        let credentials = at_least_one(self.credentials)
            .and_then(|texts| each(texts, |text| credential::parse(&text).map_err(ConfigError::new)))
            .map_err(|e| e.field("credentials"))?;
        Ok(PolicyRule { hosts, path, methods, credentials: Credentials::new(&credentials) })
    }
}

fn second(field: &str, first: &str) -> ConfigError {
    ConfigError::new(format!("is given beside {first}; a rule has one of prefix, suffix and exact")).field(field)
}

fn method(text: String) -> Result<String, ConfigError> {
    if is_token(&text) { Ok(text) } else { Err(ConfigError::new("is not a request method")) }
}

fn at_least_one<T>(items: Vec<T>) -> Result<Vec<T>, ConfigError> {
    if items.is_empty() { Err(ConfigError::new("is empty")) } else { Ok(items) }
}

/// Converts every item, placing an error at its index.
fn each<T, U>(items: Vec<T>, convert: impl Fn(T) -> Result<U, ConfigError>) -> Result<Vec<U>, ConfigError> {
    items.into_iter().enumerate().map(|(index, item)| convert(item).map_err(|e| e.index(index))).collect()
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;

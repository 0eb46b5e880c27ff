//! What can be wrong with a policy.

/// What is wrong with a policy, one variant per rule of Istio's webhook and CRDs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyFault {
    /// `from: []`, which could mean everybody and nobody.
    #[error("must not be an empty list; leave it out to match everything")]
    EmptyList,
    /// `source: {}` and the like.
    #[error("must set at least one field")]
    NothingSet,
    /// Two ways to name an identity.
    #[error("`serviceAccounts` cannot be used with `principals` or `namespaces`")]
    ServiceAccountsWithOthers,
    /// A service account that is neither `name` nor `namespace/name`.
    #[error("`{value}` is not a service account: expected NAME or NAMESPACE/NAME, without wildcards")]
    ServiceAccount {
        /// The value.
        value: String,
    },
    /// Neither an IP address nor a CIDR range.
    #[error("`{value}` is neither an IP address nor a CIDR range")]
    Address {
        /// The value.
        value: String,
    },
    /// Not a port.
    #[error("`{value}` is not a port between 0 and 65535")]
    Port {
        /// The value.
        value: String,
    },
    /// A path template that Envoy cannot have.
    #[error("`{value}` is not a path template: {reason}")]
    PathTemplate {
        /// The value.
        value: String,
        /// Why not.
        reason: &'static str,
    },
    /// A condition that compares with nothing.
    #[error("at least one of `values` and `notValues` must be set")]
    NoValues,
    /// An attribute that does not exist.
    #[error("`{key}` is not an attribute that a condition can use")]
    UnknownKey {
        /// The key.
        key: String,
    },
    /// A key that needs a name in brackets.
    #[error("`{key}` must have the form {form}")]
    KeyForm {
        /// The key.
        key: String,
        /// The form.
        form: &'static str,
    },
    /// A policy that can never act.
    #[error("{action} without `rules` never matches; write `rules: [{{}}]` to match every request")]
    WithoutRules {
        /// The action.
        action: &'static str,
    },
    /// `provider` where nobody is asked.
    #[error("`provider` needs `action: CUSTOM`")]
    ProviderWithoutCustom,
    /// A field that has to wait for an identity, which CUSTOM does not.
    #[error("cannot be used with `action: CUSTOM`")]
    NotWithCustom,
    /// Text that is no JSON object with keys.
    #[error("is not a JSON Web Key Set: {reason}")]
    Jwks {
        /// Why not. It does not quote the keys, which may be secret.
        reason: String,
    },
    /// Two sources of keys.
    #[error("only one of `jwks` and `jwksUri` can be set")]
    JwksAndUri,
    /// No way to find the keys.
    #[error("one of `issuer` and `jwksUri` must be set")]
    IssuerOrUri,
    /// Not `http://` or `https://`.
    #[error("`{value}` is not an http or https URL")]
    Uri {
        /// The value.
        value: String,
    },
    /// A header name that cannot be sent.
    #[error("`{value}` is not a header name: letters, digits, `-` and `_`")]
    HeaderName {
        /// The value.
        value: String,
    },
    /// Not a duration as protobuf writes it.
    #[error("`{value}` is not a duration of at least 1 ms: expected seconds, for example `5s` or `0.5s`")]
    Duration {
        /// The value.
        value: String,
    },
    /// Warning: an annotation that does not say what it seems to.
    #[error("`{value}` is not a boolean, so Istio enforces the policy")]
    DryRun {
        /// The value.
        value: String,
    },
    /// Warning: what a policy with HTTP attributes does to other traffic.
    #[error("the rule has HTTP attributes only, so Istio denies all traffic to TCP ports; name the ports it is for")]
    DeniesTcp,
}

//! What policies say, ready to be executed.

use serde::{Deserialize, Serialize};

/// What the filters of one chain enforce.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policies {
    /// The rules of every `RequestAuthentication` that applies, by issuer, as Istio's control plane sorts them.
    pub jwt_rules: Vec<JwtRule>,
    /// Every `AuthorizationPolicy` that applies: the root namespace's first, then in the order they were read.
    pub authorization: Vec<AuthorizationPolicy>,
}

impl Policies {
    /// Nothing is enforced.
    pub fn is_empty(&self) -> bool {
        self.jwt_rules.is_empty() && self.authorization.is_empty()
    }
}

/// The part of a policy that decides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PolicySpec {
    /// Of a `RequestAuthentication`.
    Jwt(Vec<JwtRule>),
    /// Of an `AuthorizationPolicy`.
    Authorization(AuthorizationPolicy),
}

/// One entry of `jwtRules`: which tokens of an issuer are good, and what becomes of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JwtRule {
    /// The policy it is from, `namespace/name`.
    pub policy: String,
    /// What `iss` must be; empty allows any issuer.
    pub issuer: String,
    /// One of which `aud` must have; empty allows any.
    pub audiences: Vec<String>,
    /// The keys themselves: a JSON Web Key Set, or a map of key ids to certificates.
    pub jwks: Option<String>,
    /// Where the keys are. With neither, the issuer's `OpenID` discovery document says it.
    pub jwks_uri: Option<String>,
    /// How long fetching the keys may take, in milliseconds; `None` is 5 s.
    pub timeout: Option<u64>,
    /// Headers that may carry the token. When no place is named at all, it is `authorization` with `Bearer ` and the
    /// query parameter `access_token`.
    pub from_headers: Vec<JwtHeader>,
    /// Query parameters that may carry the token.
    pub from_params: Vec<String>,
    /// Cookies that may carry the token.
    pub from_cookies: Vec<String>,
    /// Leave the token in the request.
    pub forward_original_token: bool,
    /// The header that gets a good token's payload, in base64url.
    pub output_payload_to_header: Option<String>,
    /// The headers that get claims of a good token.
    pub output_claim_to_headers: Vec<ClaimHeader>,
    /// Claims that hold several words, beside `scope` and `permission`.
    pub space_delimited_claims: Vec<String>,
}

/// A header that may carry a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JwtHeader {
    /// Its name.
    pub name: String,
    /// What stands before the token, for example `Bearer `; may be empty.
    pub prefix: String,
}

/// A header that gets a claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimHeader {
    /// Its name.
    pub header: String,
    /// The claim, nested ones with dots: `a.b`.
    pub claim: String,
}

/// An `AuthorizationPolicy`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorizationPolicy {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// What follows from a match.
    pub action: Action,
    /// The annotation `istio.io/dry-run`: decides nothing, and what it would have decided is recorded.
    pub dry_run: bool,
    /// Any one that matches is enough. Without rules the policy matches nothing.
    pub rules: Vec<Rule>,
}

/// What follows from a match of an [`AuthorizationPolicy`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Action {
    /// The request may pass; when there is any such policy, all others may not.
    Allow,
    /// The request may not pass, whatever else allows it.
    Deny,
    /// The request is marked for the log.
    Audit,
    /// An external authorizer is asked.
    Custom,
}

/// One entry of `rules`: any of `from`, and any of `to`, and all of `when`. An empty list matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Sources, each with conditions that must all hold.
    pub from: Vec<Vec<Condition>>,
    /// Operations, each with conditions that must all hold.
    pub to: Vec<Vec<Condition>>,
    /// Conditions that must all hold.
    pub when: Vec<Condition>,
}

/// One attribute with what it must be (any of `values`, if there are any) and must not be (none of `not_values`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// The attribute.
    pub key: Key,
    /// Patterns as written: exact, `prefix*`, `*suffix` or `*`; addresses, ports and paths have their own forms.
    pub values: Vec<String>,
    /// As `values`.
    pub not_values: Vec<String>,
}

/// An attribute of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Key {
    /// The identity of the peer's certificate, without `spiffe://`.
    SourcePrincipal,
    /// The namespace in that identity.
    SourceNamespace,
    /// The service account in that identity: `name` or `namespace/name`.
    SourceServiceAccount,
    /// The connection's peer: an address or CIDR range.
    SourceIp,
    /// The client as far as it is known, from `x-forwarded-for` where that is trusted.
    RemoteIp,
    /// `iss` and `sub` of the token with a `/` between.
    RequestPrincipal,
    /// `aud` of the token.
    RequestAudiences,
    /// `azp` of the token.
    RequestPresenter,
    /// A claim of the token, by path.
    RequestClaim(Vec<String>),
    /// A request header.
    RequestHeader(String),
    /// `:authority`, whatever its case.
    Host,
    /// `:method`.
    Method,
    /// The path without its query; also templates with `{*}` and `{**}`.
    Path,
    /// The address the connection was made to.
    DestinationIp,
    /// The port the connection was made to.
    DestinationPort,
    /// The server name of the TLS handshake.
    ConnectionSni,
    /// Dynamic metadata of a filter: `experimental.envoy.filters.FILTER[KEY]`.
    FilterMetadata {
        /// The filter, with `envoy.filters.`.
        filter: String,
        /// The key.
        key: String,
    },
}

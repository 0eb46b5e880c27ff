//! What can be wrong with the operator's input, and where.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::envoy::SERVERS;
use crate::policy::PolicyFault;

/// A place in the operator's input.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// The file as given on the command line (`-` is standard input).
    pub file: String,
    /// Zero-based document number within the file.
    pub document: usize,
    /// One-based line.
    pub line: usize,
    /// One-based column, in characters.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// One error or warning about the input: `file:line:column: field.path: what is wrong`.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{place}: {}{fault}", Prefix(.path))]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// The field, for example `spec.match[0].ports[1].number`; empty when the whole document is meant.
    pub path: String,
    /// What is wrong.
    pub fault: Fault,
}

impl Problem {
    /// Says what to do about it, where there is something better to say than the message itself.
    pub fn hint(&self) -> Option<String> {
        self.fault.hint()
    }
}

struct Prefix<'p>(&'p str);

impl fmt::Display for Prefix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "`{}`: ", self.0) }
    }
}

/// What is wrong, one variant per rule.
///
/// The rules are those of the YAML reader behind kubectl, of the API server with Istio's CRDs, and of Istio's webhook.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Fault {
    /// The text is not YAML.
    #[error("not valid YAML: {0}")]
    Syntax(String),
    /// Collections nested deeper than any resource needs.
    #[error("nested deeper than {limit} levels")]
    TooDeep {
        /// The limit.
        limit: usize,
    },
    /// Aliases that expand to more than the limit (a "billion laughs" document).
    #[error("aliases expand to more than {limit} bytes")]
    AliasesTooLarge {
        /// The limit.
        limit: usize,
    },
    /// An alias to an anchor of another document, or to a value that contains the alias.
    #[error("the alias refers to no complete value before it in this document")]
    DanglingAlias,
    /// A mapping has the same key twice.
    #[error("the key `{key}` is given twice, first on line {first}")]
    DuplicateKey {
        /// The key.
        key: String,
        /// One-based line of its first appearance.
        first: usize,
    },
    /// A mapping key that is itself a collection.
    #[error("a mapping key must be a scalar")]
    CollectionAsKey,
    /// `<<` with something other than mappings.
    #[error("`<<` merges a mapping or a list of mappings")]
    MergeOfNonMapping,
    /// A tag that says one thing about a value that is another, for example `!!int x`.
    #[error("`{value}` is not a `{tag}`")]
    TagMismatch {
        /// The tag.
        tag: String,
        /// The scalar.
        value: String,
    },
    /// A document that is not a mapping.
    #[error("a resource must be a mapping, this is {actual}")]
    NotAResource {
        /// What it is.
        actual: &'static str,
    },
    /// A field that must be there is missing.
    #[error("required, but missing")]
    Required,
    /// A field has a value of the wrong type.
    #[error("must be {expected}, is {actual}")]
    WrongType {
        /// The type the field has.
        expected: &'static str,
        /// The value's type.
        actual: &'static str,
    },
    /// A field that the resource does not have.
    #[error("unknown field{}", DidYouMean(*.nearest))]
    UnknownField {
        /// The known field with the most similar name.
        nearest: Option<&'static str>,
    },
    /// A string outside the field's enumeration.
    #[error("`{value}` is not one of {}{}", known.join(", "), DidYouMean(*.nearest))]
    UnknownValue {
        /// The value.
        value: String,
        /// The enumeration.
        known: Vec<&'static str>,
        /// The known value with the most similar name.
        nearest: Option<&'static str>,
    },
    /// A kind that is read, in a version that does not exist.
    #[error("{kind} has no version `{version}`, only `{supported}`")]
    UnknownVersion {
        /// The kind.
        kind: String,
        /// `apiVersion` as written.
        version: String,
        /// The version there is.
        supported: &'static str,
    },
    /// The same resource twice.
    #[error("{kind} {namespace}/{name} is given twice, first at {first}")]
    DuplicateResource {
        /// The kind.
        kind: String,
        /// `metadata.namespace`.
        namespace: String,
        /// `metadata.name`.
        name: String,
        /// The first one.
        first: Box<Place>,
    },
    /// A name that Kubernetes does not accept.
    #[error("`{value}` is not a valid name: lower-case letters, digits, {allowed}, at most {max} characters")]
    InvalidName {
        /// The name.
        value: String,
        /// What may stand beside letters and digits.
        allowed: &'static str,
        /// The longest there may be.
        max: usize,
    },
    /// A time that is not RFC 3339.
    #[error("`{value}` is not an RFC 3339 time such as 2024-01-31T12:00:00Z")]
    InvalidTime {
        /// The value.
        value: String,
    },
    /// A number outside its range.
    #[error("{value} is not between {min} and {max}")]
    OutOfRange {
        /// The number.
        value: String,
        /// Smallest allowed.
        min: i64,
        /// Largest allowed.
        max: i64,
    },
    /// A string that is too short or too long.
    #[error("has {length} characters, must have {min} to {max}")]
    Length {
        /// Its length in characters.
        length: usize,
        /// Shortest allowed.
        min: usize,
        /// Longest allowed.
        max: usize,
    },
    /// An empty string.
    #[error("must not be empty")]
    Empty,
    /// A list or map with too many entries.
    #[error("has {count} entries, at most {max} are allowed")]
    TooMany {
        /// How many there are.
        count: usize,
        /// How many there may be.
        max: usize,
    },
    /// More than one way of attaching.
    #[error("at most one of `selector`, `targetRef` and `targetRefs` can be set")]
    SelectorAndTargetRefs,
    /// A label with a wildcard.
    #[error("`{value}` has a `*`: wildcards are not allowed in a selector")]
    Wildcard {
        /// The key or value.
        value: String,
    },
    /// A target in another namespace.
    #[error("a target must be in the resource's own namespace, `namespace` is not allowed")]
    TargetNamespace,
    /// A target of a kind that nothing can attach to.
    #[error("cannot attach to kind `{kind}` of group `{group}`: targets are {TARGETS}")]
    TargetKind {
        /// `group` as written.
        group: String,
        /// `kind` as written.
        kind: String,
    },
    /// A module URL with a scheme that Istio does not know.
    #[error("scheme `{scheme}` is not one of oci, http, https, file (or none, which means oci)")]
    UrlScheme {
        /// The URL.
        url: String,
        /// Its scheme.
        scheme: String,
    },
    /// A schemeless `host:port/…`, which is no reference to a URL parser.
    #[error("Istio reads what stands before the first `:` of `{url}` as a URL scheme, and rejects it")]
    UrlHostPort {
        /// The URL.
        url: String,
    },
    /// A module URL that does not parse.
    #[error("`{url}` is not a URL: {reason}")]
    UrlSyntax {
        /// The URL.
        url: String,
        /// Why not.
        reason: &'static str,
    },
    /// What should be a server is no URL of one.
    #[error("`{url}` is not of the form {SERVERS}")]
    ServerUrl {
        /// As given, without credentials.
        url: String,
    },
    /// A checksum of the wrong shape.
    #[error("`{value}` is not a checksum of 64 lower-case hex digits")]
    Sha256 {
        /// The value.
        value: String,
    },
    /// The URL's digest and the field disagree.
    #[error("differs from the digest in `url`, sha256:{in_url}")]
    DigestMismatch {
        /// The URL's digest, without `sha256:`.
        in_url: String,
    },
    /// The same environment variable twice.
    #[error("the variable `{name}` is given twice")]
    DuplicateVariable {
        /// Its name.
        name: String,
    },
    /// A value beside `valueFrom: HOST`.
    #[error("`value` is not allowed with `valueFrom: HOST`, which takes the proxy's own")]
    ValueWithHost,
    /// The same port twice in one entry.
    #[error("port {number} is given twice")]
    DuplicatePort {
        /// The port.
        number: u16,
    },
    /// Neither or both of `wasm` and `lua`.
    #[error("exactly one of `wasm` and `lua` must be set")]
    WasmOrLua,
    /// A script that Envoy would never call.
    #[error("the script must define `envoy_on_request` or `envoy_on_response`")]
    LuaWithoutCallback,
    /// Text in front of a container image where only a registry can stand.
    #[error("`{image}` is not a container image: no scheme can stand before its registry")]
    ImageWithScheme {
        /// The image.
        image: String,
    },
    /// Tetrate's catalogue has OCI images only.
    #[error("must start with `oci://`, is `{image}`")]
    NotOci {
        /// The image.
        image: String,
    },
    /// Neither or both of `image` and `url`.
    #[error("exactly one of `image` and `url` must be set")]
    ImageOrUrl,
    /// A variable name with other characters than an identifier's.
    #[error("`{name}` does not match [A-Za-z_][A-Za-z0-9_]*")]
    NotAnIdentifier {
        /// The name.
        name: String,
    },
    /// A resource of Tetrate's that does not say what it belongs to.
    #[error("required: `metadata.{key}` (tctl) or the annotation `tsb.tetrate.io/{annotation}` (kubectl)")]
    HierarchyMissing {
        /// The key in `metadata`.
        key: &'static str,
        /// The annotation's name, after the prefix.
        annotation: &'static str,
    },
    /// A name that is not fully qualified.
    #[error("`{fqn}` is not of the form {form}")]
    NotAnFqn {
        /// The name.
        fqn: String,
        /// What it should look like.
        form: &'static str,
    },
    /// An extension that no catalogue entry of the input has.
    #[error("there is no WasmExtension `{fqn}` in the input, and leaving it out would give another chain")]
    UnknownExtension {
        /// The fully qualified name.
        fqn: String,
    },
    /// The same extension twice in one place.
    #[error("the extension `{fqn}` is given twice")]
    DuplicateUse {
        /// The fully qualified name.
        fqn: String,
    },
    /// A tenant that the extension is not for.
    #[error("`{tenant}` may not use this extension: its `allowedIn` has {allowed}")]
    NotAllowedIn {
        /// The tenant, fully qualified.
        tenant: String,
        /// The tenants that may.
        allowed: String,
    },
    /// A setting whose effect on extensions is not modelled.
    #[error("extensions under propagation strategy {strategy} are not supported, only under REPLACE")]
    Propagation {
        /// The strategy.
        strategy: String,
    },
    /// Migration: there is a resource of that kind and name.
    #[error("would become {resource}, which is already there, at {other}")]
    Collision {
        /// Kind, namespace and name.
        resource: String,
        /// The other one.
        other: Box<Place>,
    },
    /// Migration: the other kind has no way to say the same.
    #[error("cannot be written as a {kind} that means the same")]
    NotMigrated {
        /// The other kind.
        kind: &'static str,
    },
    /// NaN or an infinity where JSON is needed.
    #[error("{value} has no JSON form")]
    NotFinite {
        /// The value as YAML writes it.
        value: &'static str,
    },
    /// Text that is not base64. It is not quoted, since it is a secret.
    #[error("is not base64")]
    NotBase64,
    /// A rule for policies.
    #[error(transparent)]
    Policy(PolicyFault),
    /// Warning: a selector that selects everything.
    #[error("the selector is empty, so it selects every workload in scope")]
    EmptySelector,
    /// Warning: a field that Istio accepts and does not use.
    #[error("Istio does not verify signatures: it accepts this field and ignores it")]
    VerificationKeyIgnored,
    /// Warning: a phase that only the image knows.
    #[error("without `phase`, the manifest.yaml of the image decides; here it counts as unspecified")]
    PhaseOfImage,
    /// Warning: a value that is never used.
    #[error("`value` is ignored with `valueFrom: HOST`")]
    ValueIgnored,
    /// Warning: Istio takes one secret.
    #[error("only the first of several pull secrets is used")]
    SeveralSecrets,
    /// Warning: a variable name that the API forbids and the control plane lets through.
    #[error("`{name}` is not a C identifier, as the API requires; Istio does not reject it")]
    VariableName {
        /// The name.
        name: String,
    },
}

const TARGETS: &str = "Gateway and GatewayClass of gateway.networking.k8s.io, Service of the core group, and \
                       ServiceEntry of networking.istio.io";

impl Fault {
    /// Says what to do, apart from the message.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::UrlHostPort { url } => format!("write `oci://{url}`"),
            Self::UrlScheme { url, scheme } if scheme == "docker" => {
                format!("write `oci://{}`", url.split_once("://").map_or(url.as_str(), |(_, rest)| rest))
            }
            Self::TargetKind { kind, .. } => match kind.as_str() {
                "Gateway" | "GatewayClass" => "write `group: gateway.networking.k8s.io`".to_owned(),
                "Service" => "leave `group` out".to_owned(),
                "ServiceEntry" => "write `group: networking.istio.io`".to_owned(),
                _ => return None,
            },
            Self::Sha256 { value } => {
                let hex = value.strip_prefix("sha256:").unwrap_or(value).to_ascii_lowercase();
                if !is_sha256(&hex) {
                    return None;
                }
                format!("write `{hex}`")
            }
            Self::EmptySelector => "leave `selector` out, which means the same".to_owned(),
            Self::WrongType { expected: "a string", actual: "a number" | "a boolean" } => {
                "put the value in quotes".to_owned()
            }
            Self::NotOci { image } => {
                format!("write `oci://{}`", image.split_once("://").map_or(image.as_str(), |(_, rest)| rest))
            }
            Self::ImageWithScheme { image } => {
                format!("write `{}`", image.split_once("://").map_or(image.as_str(), |(_, rest)| rest))
            }
            Self::UnknownExtension { .. } => "give the file with that WasmExtension as well".to_owned(),
            Self::NotAllowedIn { .. } => "add the tenant to the extension's `allowedIn`".to_owned(),
            Self::PhaseOfImage => "set `phase` to what the image's manifest.yaml says".to_owned(),
            _ => return None,
        })
    }
}

/// Says whether these are 64 lower-case hex digits.
pub(crate) fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

struct DidYouMean(Option<&'static str>);

impl fmt::Display for DidYouMean {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |name| write!(f, ", did you mean `{name}`?"))
    }
}

/// Finds the known name that was probably meant.
pub fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let plain = |text: &str| text.replace(['_', '-'], "").to_ascii_lowercase();
    let wanted = plain(name);
    let likeness = |candidate: &str| {
        let candidate = plain(candidate);
        let part =
            wanted.len() >= 3 && candidate.contains(&wanted) || candidate.len() >= 5 && wanted.contains(&candidate);
        strsim::normalized_damerau_levenshtein(&wanted, &candidate).max(if part { 0.6 } else { 0.0 })
    };
    known
        .iter()
        .map(|&candidate| (likeness(candidate), candidate))
        .filter(|&(likeness, _)| likeness >= 0.6)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[track_caller]
    fn check(written: &str, expected: Option<&str>) {
        assert_eq!(nearest(written, &["url", "pluginConfig", "pluginName", "targetRefs"]), expected);
    }

    #[test]
    fn nearest_name_forgives_case_underscores_and_typos() {
        check("plugin_config", Some("pluginConfig"));
        check("pluginconfig", Some("pluginConfig"));
        check("pluginNam", Some("pluginName"));
        check("targetRef", Some("targetRefs"));
        check("URL", Some("url"));
        check("config", Some("pluginConfig"));
        check("theTargetRefs", Some("targetRefs"));
    }

    #[test]
    fn unlike_names_suggest_nothing() {
        check("workload", None);
        check("", None);
    }
}

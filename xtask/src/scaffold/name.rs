//! The name of a new plugin: that of a crate, an image and a resource at once, so that the rules of all of them hold.

use std::collections::BTreeSet;
use std::fmt;

use packager::reference::{Reference, ReferenceError};

/// The longest name of a Kubernetes resource that is a DNS label (RFC 1123).
const LONGEST: usize = 63;

/// Words that no crate can be called, in any edition (The Rust Reference, "Keywords").
const KEYWORDS: &[&str] = &[
    "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "crate", "do", "dyn", "else",
    "enum", "extern", "false", "final", "fn", "for", "gen", "if", "impl", "in", "let", "loop", "macro", "match", "mod",
    "move", "mut", "override", "priv", "pub", "ref", "return", "self", "static", "struct", "super", "trait", "true",
    "try", "type", "typeof", "unsafe", "unsized", "use", "virtual", "where", "while", "yield",
];

/// Crates that come with Rust, and folders that cargo has for itself beside its outputs.
const CARGO: &[&str] = &["alloc", "build", "core", "deps", "examples", "incremental", "proc-macro", "std", "test"];

/// What the plugin itself is made of: `cargo --package NAME` could not tell one from the other.
const SDK: &[&str] = &[
    "allocator-api2",
    "dyn-clone",
    "equivalent",
    "foldhash",
    "hashbrown",
    "hifijson",
    "itoa",
    "log",
    "memchr",
    "plugwright-sdk",
    "proc-macro2",
    "proxy-wasm",
    "quote",
    "ref-cast",
    "ref-cast-impl",
    "schemars",
    "serde",
    "sha2",
    "syn",
    "unicode-ident",
    "zmij",
];

/// A name that was checked, in the spellings that files need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name(String);

/// Why a name is none.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NameError {
    Empty,
    TooLong { length: usize },
    Label { name: String, suggestion: Option<String> },
    Start { name: String },
    Keyword { name: String },
    Cargo { name: String },
    Sdk { name: String },
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "the name is empty"),
            Self::TooLong { length } => write!(
                f,
                "the name has {length} characters: a Kubernetes resource's may have {LONGEST} (DNS label, RFC 1123)"
            ),
            Self::Label { name, .. } => write!(
                f,
                "`{name}` cannot be a Kubernetes resource's name: a DNS label (RFC 1123) has lower-case letters, digits \
                 and hyphens, and no hyphen at either end"
            ),
            Self::Start { name } => write!(f, "`{name}` cannot be a crate's name: it starts with a digit"),
            Self::Keyword { name } => write!(f, "`{name}` cannot be a crate's name: it is a keyword of Rust"),
            Self::Cargo { name } => {
                write!(f, "`{name}` cannot be a crate's name: Rust or cargo has something of that name already")
            }
            Self::Sdk { name } => write!(f, "`{name}` is the name of a crate that every plugin is made of"),
        }
    }
}

impl std::error::Error for NameError {}

impl NameError {
    /// What to write instead, where that can be said.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Label { suggestion, .. } => suggestion.as_ref().map(|name| format!("write `{name}`")),
            Self::Keyword { name } | Self::Cargo { name } | Self::Sdk { name } => {
                Some(format!("write `{name}-plugin`"))
            }
            Self::Start { .. } | Self::Empty | Self::TooLong { .. } => None,
        }
    }
}

impl Name {
    /// Checks a name by the rules of Kubernetes (of which images and root ids take every name), cargo and Rust.
    pub(crate) fn new(name: &str) -> Result<Self, NameError> {
        let owned = || name.to_owned();
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        if !is_label(name) {
            return Err(NameError::Label { name: owned(), suggestion: suggestion(name) });
        }
        if name.len() > LONGEST {
            return Err(NameError::TooLong { length: name.len() });
        }
        if name.starts_with(|first: char| first.is_ascii_digit()) {
            return Err(NameError::Start { name: owned() });
        }
        if KEYWORDS.contains(&name) {
            return Err(NameError::Keyword { name: owned() });
        }
        if CARGO.contains(&name) {
            return Err(NameError::Cargo { name: owned() });
        }
        if SDK.contains(&name) {
            return Err(NameError::Sdk { name: owned() });
        }
        Ok(Self(owned()))
    }

    /// As it is written: the package, the image, the resource.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// As Rust writes the crate.
    pub(crate) fn identifier(&self) -> String {
        self.0.replace('-', "_")
    }

    /// As Rust writes a type, which must not be one of `taken`.
    pub(crate) fn type_name(&self, taken: &BTreeSet<&str>) -> String {
        let capital = |part: &str| {
            let mut characters = part.chars();
            characters
                .next()
                .map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + characters.as_str())
        };
        let name: String = self.0.split('-').map(capital).collect();
        if taken.contains(name.as_str()) { format!("{name}Filter") } else { name }
    }

    /// The image repository below a prefix such as `ghcr.io/acme/plugins`.
    pub(crate) fn image(&self, prefix: &str) -> Result<String, ReferenceError> {
        let image = format!("{}/{}", prefix.trim_end_matches('/'), self.0);
        match Reference::parse(&image)? {
            Reference::Image(parsed) if parsed.tag().is_none() && parsed.digest().is_none() => Ok(image),
            _ => Err(ReferenceError::Registry { registry: prefix.to_owned() }),
        }
    }
}

fn is_label(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    name.bytes().all(allowed) && !name.starts_with('-') && !name.ends_with('-')
}

/// The nearest label, when what is wrong is the letters' case or what stands between them.
fn suggestion(name: &str) -> Option<String> {
    let lower: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
    let candidate = lower.trim_matches('-');
    Name::new(candidate).ok().map(|name| name.0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::process::Command;

    use super::{Name, NameError, SDK};

    #[track_caller]
    fn refused(name: &str, rule: &str, hint: Option<&str>) {
        let error = Name::new(name).unwrap_err();
        assert!(error.to_string().contains(rule), "{error}");
        assert_eq!(error.hint().as_deref(), hint);
    }

    #[test]
    fn each_rule_is_said_by_name() {
        refused("", "empty", None);
        refused("Header_Append", "DNS label", Some("write `header-append`"));
        refused("a/../../b", "DNS label", Some("write `a-------b`"));
        refused("-x", "no hyphen at either end", Some("write `x`"));
        refused("é", "DNS label", None);
        refused("2fa", "starts with a digit", None);
        refused("match", "keyword", Some("write `match-plugin`"));
        refused("gen", "keyword", Some("write `gen-plugin`"));
        refused("core", "cargo", Some("write `core-plugin`"));
        refused("serde", "every plugin is made of", Some("write `serde-plugin`"));
        assert_eq!(Name::new(&"x".repeat(64)), Err(NameError::TooLong { length: 64 }));
        assert!(Name::new(&"x".repeat(63)).is_ok());
    }

    #[test]
    fn a_name_has_its_spellings() {
        let name = Name::new("rate-limit-2").unwrap();
        assert_eq!((name.as_str(), name.identifier().as_str()), ("rate-limit-2", "rate_limit_2"));
        assert_eq!(name.type_name(&BTreeSet::new()), "RateLimit2");
        assert_eq!(Name::new("host").unwrap().type_name(&BTreeSet::from(["Host"])), "HostFilter");
    }

    #[test]
    fn an_image_is_a_repository_of_a_registry() {
        let name = Name::new("x").unwrap();
        assert_eq!(name.image("ghcr.io/acme/").unwrap(), "ghcr.io/acme/x");
        assert_eq!(name.image("localhost:5000").unwrap(), "localhost:5000/x");
        for prefix in ["ghcr.io/Acme", "", "ghcr.io/a:1", "https://ghcr.io/acme", "oci:dist", "ghcr.io/a b"] {
            assert!(name.image(prefix).is_err(), "{prefix}");
        }
    }

    #[test]
    fn no_crate_of_the_sdk_is_left_out() {
        let mut command = Command::new(env!("CARGO"));
        command.args(["tree", "--offline", "--prefix=none", "--edges=normal", "--all-features", "--target=all"]);
        let tree = command.args(["--package", "plugwright-sdk"]).output().unwrap();
        let tree = String::from_utf8(tree.stdout).unwrap();
        let names: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
        assert!(names.len() > 8, "{names:?}");
        for name in names.into_iter().filter(|name| !name.is_empty() && !name.contains('_')) {
            assert!(SDK.contains(&name), "{name}");
        }
    }
}

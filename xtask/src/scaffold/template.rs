//! The templates: each a small crate that can be read where it lies, in `xtask/templates/NAME`.

/// The shapes that a new plugin can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Template {
    /// Sets and removes headers.
    Headers,
    /// Decides who may pass.
    Auth,
    /// Asks another service about each request.
    Callout,
    /// Reads and changes bodies.
    Body,
    /// Sees connections, not requests.
    Network,
    /// A script in a resource; no crate.
    Lua,
}

/// A file by its path in the project.
pub(super) type File = (&'static str, &'static str);

/// What a template that is a crate has for itself.
pub(super) struct Parts {
    pub(super) lib: &'static str,
    pub(super) config: &'static str,
    pub(super) traffic: &'static str,
    pub(super) example: &'static str,
    pub(super) schema: &'static str,
    pub(super) table: &'static str,
    pub(super) about: &'static str,
    /// The declarative test, for those that see requests.
    pub(super) suite: Option<&'static str>,
}

macro_rules! parts {
    ($name:literal, $suite:expr) => {
        Parts {
            lib: include_str!(concat!("../../templates/", $name, "/src/lib.rs")),
            config: include_str!(concat!("../../templates/", $name, "/src/config.rs")),
            traffic: include_str!(concat!("../../templates/", $name, "/tests/traffic.rs")),
            example: include_str!(concat!("../../templates/", $name, "/tests/config.example.json")),
            schema: include_str!(concat!("../../templates/", $name, "/config.schema.json")),
            table: include_str!(concat!("../../templates/", $name, "/table.md")),
            about: include_str!(concat!("../../templates/", $name, "/README.md")),
            suite: $suite,
        }
    };
}

macro_rules! suite {
    ($name:literal) => {
        Some(include_str!(concat!("../../templates/", $name, "/tests/plugin.yaml")))
    };
}

/// What all crates have.
pub(super) const SCHEMA_TEST: &str = include_str!("../../templates/common/schema.rs");
pub(super) const README: &str = include_str!("../../templates/common/README.md");
pub(super) const WASM_PLUGIN: &str = include_str!("../../templates/common/wasmplugin.yaml");
pub(super) const TRAFFIC_EXTENSION: &str = include_str!("../../templates/common/trafficextension.yaml");

/// What a script has.
pub(super) const LUA: &[File] = &[
    ("README.md", include_str!("../../templates/lua/README.md")),
    ("extension.yaml", include_str!("../../templates/lua/extension.yaml")),
];

/// What a project of its own has besides.
pub(super) const WORKFLOW: &str = include_str!("../../templates/common/workflow.yaml");
pub(super) const LUA_WORKFLOW: &str = include_str!("../../templates/lua/workflow.yaml");
pub(super) const CLIPPY: &str = include_str!("../../templates/common/clippy.in");
pub(super) const GITIGNORE: &str = include_str!("../../templates/common/gitignore");
pub(super) const LICENSE: &str = include_str!("../../../LICENSE");

/// A dependency beyond the SDK, and how a manifest outside of a workspace names it.
pub(super) const SERDE: (&str, &str) = ("serde", r#"{ version = "1", features = ["derive"] }"#);
const SHA2: (&str, &str) = ("sha2", r#"{ version = "0.11", default-features = false }"#);

impl Template {
    /// What it does, in a sentence without its end.
    pub(crate) fn description(self) -> &'static str {
        match self {
            Self::Headers => "Sets headers of requests and removes headers of responses",
            Self::Auth => "Lets requests with a known bearer token pass",
            Self::Callout => "Asks a policy server about each request",
            Self::Body => "Limits requests and replaces words in responses",
            Self::Network => "Limits what a connection may carry",
            Self::Lua => "Says who the client is",
        }
    }

    /// The phase it belongs in.
    pub(crate) fn phase(self) -> Option<&'static str> {
        match self {
            Self::Auth => Some("AUTHN"),
            Self::Callout => Some("AUTHZ"),
            Self::Headers | Self::Body | Self::Network | Self::Lua => None,
        }
    }

    /// What `run` needs to know beyond the resources.
    pub(super) fn run_flags(self) -> &'static str {
        match self {
            Self::Callout => " \\\n  --cluster 'outbound|80||policy.default.svc.cluster.local=http://127.0.0.1:9000'",
            Self::Network => " \\\n  --upstream tcp://127.0.0.1:9000",
            Self::Headers | Self::Auth | Self::Body | Self::Lua => "",
        }
    }

    /// Where `run` serves it.
    pub(super) fn served(self) -> &'static str {
        match self {
            Self::Callout => "Served beside a policy server of yours, and before an upstream that echoes what it gets:",
            Self::Network => "Served before a server of yours:",
            Self::Headers | Self::Auth | Self::Body | Self::Lua => {
                "Served before an upstream that echoes what it gets:"
            }
        }
    }

    /// What it depends on beyond the SDK and serde.
    pub(super) fn dependencies(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Auth => &[SHA2],
            Self::Headers | Self::Callout | Self::Body | Self::Network | Self::Lua => &[],
        }
    }

    /// Its crate; a script has none.
    pub(super) fn parts(self) -> Option<Parts> {
        Some(match self {
            Self::Headers => parts!("headers", suite!("headers")),
            Self::Auth => parts!("auth", suite!("auth")),
            Self::Callout => parts!("callout", suite!("callout")),
            Self::Body => parts!("body", suite!("body")),
            Self::Network => parts!("network", None),
            Self::Lua => return None,
        })
    }
}

//! Where a new plugin goes: into a workspace that keeps plugins under `plugins/`, or into a project of its own.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::environment;
use crate::report::Failure;

/// What every member of the workspace may take from it.
pub(crate) const INHERITED: &[&str] = &["version", "edition", "rust-version", "license", "repository", "publish"];

/// Where the registry is when nobody says; whoever publishes has a name of their own.
const REGISTRY: &str = "ghcr.io/owner";

/// A cargo workspace that takes whatever is in `plugins/`.
#[derive(Debug)]
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    manifest: toml::Table,
    packages: BTreeSet<String>,
    /// Where the plugins that are there are published.
    registry: Option<String>,
}

/// Where the SDK of a project of its own comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sdk {
    /// The folder of the crate.
    Path(PathBuf),
    /// A repository, and what of it: `rev` or `tag`, and its value.
    Git { url: String, at: Option<(&'static str, String)> },
}

impl Workspace {
    /// The workspace that holds a folder; none when there is no cargo project.
    pub(crate) fn find(folder: &Path) -> Result<Option<Self>, Failure> {
        let mut nearest = None;
        for folder in folder.ancestors() {
            let file = folder.join("Cargo.toml");
            if !file.is_file() {
                continue;
            }
            let manifest = read(&file)?;
            if manifest.contains_key("workspace") {
                return Self::open(folder, manifest).map(Some);
            }
            nearest = nearest.or(Some(file));
        }
        nearest.map_or(Ok(None), |file| Err(no_place(&file)))
    }

    fn open(root: &Path, manifest: toml::Table) -> Result<Self, Failure> {
        let members = manifest.get("workspace").and_then(|workspace| workspace.get("members")?.as_array());
        if !members.is_some_and(|members| members.iter().any(|member| member.as_str() == Some("plugins/*"))) {
            return Err(no_place(&root.join("Cargo.toml")));
        }
        let (mut packages, mut registry) = (BTreeSet::new(), None);
        for package in packages_of(root)? {
            let Some(name) = package.get("name").and_then(Value::as_str) else { continue };
            let image = package.pointer("/metadata/plugin/image").and_then(Value::as_str);
            if let Some(prefix) = image.and_then(|image| image.strip_suffix(name)?.strip_suffix('/')) {
                registry.get_or_insert_with(|| prefix.to_owned());
            }
            packages.insert(name.to_owned());
        }
        Ok(Self { root: root.to_owned(), manifest, packages, registry })
    }

    fn workspace(&self, table: &str) -> Option<&toml::Value> {
        self.manifest.get("workspace")?.get(table)
    }

    /// Whether members can take this key of `[package]` from the workspace.
    pub(crate) fn gives(&self, key: &str) -> bool {
        self.workspace("package").is_some_and(|package| package.get(key).is_some())
    }

    /// The version that members take.
    pub(crate) fn version(&self) -> Option<&str> {
        self.workspace("package")?.get("version")?.as_str()
    }

    /// Whether members can take this dependency.
    pub(crate) fn has_dependency(&self, name: &str) -> bool {
        self.workspace("dependencies").is_some_and(|dependencies| dependencies.get(name).is_some())
    }

    /// Whether members can take its lints.
    pub(crate) fn has_lints(&self) -> bool {
        self.workspace("lints").is_some()
    }

    /// Whether a package of that name is there.
    pub(crate) fn has_package(&self, name: &str) -> bool {
        self.packages.contains(name)
    }

    /// Where its plugins are published.
    pub(crate) fn registry(&self) -> &str {
        self.registry.as_deref().unwrap_or(REGISTRY)
    }
}

fn no_place(manifest: &Path) -> Failure {
    let shown = manifest.display();
    Failure::usage(format!("{shown} has no place for another plugin: its workspace has no member `plugins/*`"))
        .hint("--standalone DIR makes a project of its own, in a folder outside of this one")
}

fn read(file: &Path) -> Result<toml::Table, Failure> {
    let shown = file.display();
    let text = std::fs::read_to_string(file).map_err(|error| Failure::environment(format!("{shown}: {error}")))?;
    text.parse().map_err(|error: toml::de::Error| {
        let line =
            error.span().map_or(1, |span| 1 + text.bytes().take(span.start).filter(|byte| *byte == b'\n').count());
        Failure::bad(format!("{shown}:{line}: {}", error.message()))
    })
}

/// What cargo says of the packages, without resolving what they depend on.
fn packages_of(root: &Path) -> Result<Vec<Value>, Failure> {
    // Before its first plugin, cargo cannot read such a workspace.
    let plugins = std::fs::read_dir(root.join("plugins")).ok();
    if !plugins.into_iter().flatten().flatten().any(|entry| entry.path().join("Cargo.toml").is_file()) {
        return Ok(Vec::new());
    }
    let mut command = Command::new(environment::cargo());
    command.current_dir(root).args(["metadata", "--no-deps", "--format-version", "1", "--offline"]);
    let output = command.output().map_err(|error| Failure::environment(format!("failed to run cargo: {error}")))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Failure::bad(said).context(&format!("failed to read the workspace {}", root.display())));
    }
    let metadata: Value = serde_json::from_slice(&output.stdout).map_err(Failure::environment)?;
    Ok(metadata.get("packages").and_then(Value::as_array).cloned().unwrap_or_default())
}

impl Sdk {
    /// A folder, or a repository's URL with, perhaps, `#REVISION`.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        if text.contains("://") || text.starts_with("git@") {
            let (url, revision) = text.split_once('#').map_or((text, None), |(url, revision)| (url, Some(revision)));
            return Ok(Self::Git { url: url.to_owned(), at: revision.map(|revision| ("rev", revision.to_owned())) });
        }
        let folder = Path::new(text);
        let is_sdk = |folder: &Path| {
            let manifest = read(&folder.join("Cargo.toml")).ok()?;
            (manifest.get("package")?.get("name")?.as_str()? == "plugwright-sdk").then(|| folder.canonicalize().ok())?
        };
        is_sdk(folder).or_else(|| is_sdk(&folder.join("sdk"))).map(Self::Path).ok_or_else(|| {
            Failure::usage(format!("--sdk `{text}`: neither this folder nor its `sdk` is the crate `plugwright-sdk`"))
                .hint("give the folder of a checkout of Plugwright, or the URL of a git repository")
        })
    }

    /// The repository that this program is from, at its commit where that is known, else at its version's tag.
    pub(crate) fn of_this_program() -> Self {
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR"));
        let output = Command::new("git").arg("-C").arg(checkout).args(["rev-parse", "--verify", "HEAD"]).output();
        let commit = output.ok().filter(|output| output.status.success());
        let commit = commit.and_then(|output| String::from_utf8(output.stdout).ok()).map(|text| text.trim().to_owned());
        let at = commit.map_or_else(|| ("tag", format!("v{}", env!("CARGO_PKG_VERSION"))), |commit| ("rev", commit));
        Self::Git { url: env!("CARGO_PKG_REPOSITORY").to_owned(), at: Some(at) }
    }

    /// How `cargo install` gets the command line that belongs to it.
    pub(crate) fn cargo_install(&self) -> String {
        match self {
            Self::Path(folder) => {
                let tool = folder.parent().unwrap_or(folder).join("xtask");
                format!("cargo install --locked --path {}", quoted(&tool.to_string_lossy()))
            }
            Self::Git { url, at } => {
                let at = at.as_ref().map(|(kind, value)| format!(" --{kind} {}", quoted(value))).unwrap_or_default();
                format!("cargo install --locked --git {}{at} xtask", quoted(url))
            }
        }
    }
}

/// A word as a shell reads it.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:@=+,%".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// The registry of a project of its own.
pub(crate) fn default_registry() -> &'static str {
    REGISTRY
}

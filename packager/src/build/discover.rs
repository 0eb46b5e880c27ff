//! Finds the plugin crates of a cargo workspace by their `[package.metadata.plugin]` table.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cargo_metadata::{CrateType, Metadata, MetadataCommand, Package, Target};
use serde::Deserialize;

use super::{Plugin, TARGET};

/// A cargo workspace and the plugin crates in it.
#[derive(Debug)]
pub struct Workspace {
    /// The workspace's root folder.
    pub root: PathBuf,
    /// Where cargo puts what it builds.
    pub target: PathBuf,
    /// Plugin crates by name.
    pub plugins: BTreeMap<String, Plugin>,
    /// Source folders that must not show in a module, and the name each goes by instead.
    pub(super) remap: Vec<(PathBuf, String)>,
    /// The manifests of the workspace and of whatever it takes from a path.
    pub(super) manifests: Vec<PathBuf>,
    /// One of those has a build script, whose inputs only cargo knows.
    pub(super) has_build_script: bool,
}

/// Why the plugin crates could not be listed.
#[derive(Debug, thiserror::Error)]
pub enum DiscoverError {
    /// No Cargo.toml in the folder, in any above it, or at the path given.
    #[error("no cargo project: there is no {}", .looked_for.display())]
    NoProject {
        /// What was looked for.
        looked_for: PathBuf,
    },
    /// `cargo metadata` failed: a broken manifest, no compiler, or no network for the first resolution.
    #[error("failed to read the cargo workspace")]
    Metadata(#[source] cargo_metadata::Error),
    /// A `[package.metadata.plugin]` table that does not fit.
    #[error("{manifest}: `package.metadata.plugin.{path}`: {reason}")]
    Table {
        /// The crate's Cargo.toml.
        manifest: PathBuf,
        /// Key path within the table.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A plugin crate must be a `cdylib`, or cargo writes no module.
    #[error("{manifest}: a plugin needs `crate-type = [\"cdylib\"]` under `[lib]`")]
    NotCdylib {
        /// The crate's Cargo.toml.
        manifest: PathBuf,
    },
    /// A name that is no plugin of this workspace.
    #[error("no plugin `{name}` in {root}: {}", known_plugins(.known))]
    Unknown {
        /// What was asked for.
        name: String,
        /// The workspace.
        root: PathBuf,
        /// What there is.
        known: Vec<String>,
    },
    /// The workspace has no plugin crate at all.
    #[error("no crate in {root} has a `[package.metadata.plugin]` table")]
    NoPlugins {
        /// The workspace.
        root: PathBuf,
    },
}

fn known_plugins(known: &[String]) -> String {
    match known {
        [] => "it has no plugin crates".to_owned(),
        names => format!("it has {}", names.join(", ")),
    }
}

/// The table as written.
#[derive(Debug, Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Table {
    description: Option<String>,
    #[serde(default)]
    root_ids: Vec<String>,
    phase: Option<PluginPhase>,
    priority: Option<i32>,
    image: Option<String>,
    config_schema: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum PluginPhase {
    Authn,
    Authz,
    Stats,
}

impl PluginPhase {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Authn => "AUTHN",
            Self::Authz => "AUTHZ",
            Self::Stats => "STATS",
        }
    }
}

/// Read the workspace that holds `directory` (or the given manifest) with the given cargo.
pub fn discover(cargo: &Path, directory: &Path, manifest: Option<&Path>) -> Result<Workspace, DiscoverError> {
    let missing = match manifest {
        Some(manifest) => (!directory.join(manifest).is_file()).then(|| manifest.to_owned()),
        None => {
            let found = directory.ancestors().any(|folder| folder.join("Cargo.toml").is_file());
            (!found).then(|| directory.join("Cargo.toml"))
        }
    };
    if let Some(looked_for) = missing {
        return Err(DiscoverError::NoProject { looked_for });
    }
    let mut command = MetadataCommand::new();
    command.cargo_path(cargo).current_dir(directory).other_options(["--filter-platform".to_owned(), TARGET.to_owned()]);
    if let Some(manifest) = manifest {
        command.manifest_path(manifest);
    }
    let metadata = command.exec().map_err(DiscoverError::Metadata)?;
    let mut plugins = BTreeMap::new();
    for package in metadata.workspace_packages() {
        if let Some(plugin) = plugin(package)? {
            plugins.insert(plugin.name.clone(), plugin);
        }
    }
    let local: Vec<_> = metadata.packages.iter().filter(|package| package.source.is_none()).collect();
    let root_manifest = metadata.workspace_root.as_std_path().join("Cargo.toml");
    let manifests = local.iter().map(|package| package.manifest_path.clone().into()).chain([root_manifest]);
    Ok(Workspace {
        manifests: manifests.collect::<BTreeSet<_>>().into_iter().collect(),
        has_build_script: local.iter().any(|package| package.targets.iter().any(Target::is_custom_build)),
        root: metadata.workspace_root.clone().into(),
        target: metadata.target_directory.clone().into(),
        plugins,
        remap: remap(&metadata),
    })
}

impl Workspace {
    /// The named plugins in the order given, or all of them by name when none are named.
    pub fn select(&self, names: &[String]) -> Result<Vec<Plugin>, DiscoverError> {
        if self.plugins.is_empty() {
            return Err(DiscoverError::NoPlugins { root: self.root.clone() });
        }
        if names.is_empty() {
            return Ok(self.plugins.values().cloned().collect());
        }
        let mut selected: Vec<Plugin> = Vec::new();
        for name in names {
            let plugin = self.plugins.get(name).ok_or_else(|| DiscoverError::Unknown {
                name: name.clone(),
                root: self.root.clone(),
                known: self.plugins.keys().cloned().collect(),
            })?;
            if !selected.contains(plugin) {
                selected.push(plugin.clone());
            }
        }
        Ok(selected)
    }
}

fn plugin(package: &Package) -> Result<Option<Plugin>, DiscoverError> {
    let Some(table) = package.metadata.get("plugin") else { return Ok(None) };
    let manifest: PathBuf = package.manifest_path.clone().into();
    let table: Table = serde_path_to_error::deserialize(table).map_err(|error| DiscoverError::Table {
        manifest: manifest.clone(),
        path: error.path().to_string(),
        reason: error.inner().to_string(),
    })?;
    let cdylib = package.targets.iter().any(|target| target.crate_types.contains(&CrateType::CDyLib));
    if !cdylib {
        return Err(DiscoverError::NotCdylib { manifest });
    }
    let root = manifest.parent().map(Path::to_owned).unwrap_or_default();
    Ok(Some(Plugin {
        name: package.name.to_string(),
        version: package.version.to_string(),
        description: table.description.or_else(|| package.description.clone()),
        license: package.license.clone(),
        source: package.repository.clone(),
        config_schema: table.config_schema.map(|path| root.join(path)),
        root,
        root_ids: table.root_ids,
        phase: table.phase.map(|phase| phase.as_str().to_owned()),
        priority: table.priority,
        image: table.image,
    }))
}

/// The folders that package sources are in. A registry package's folder is one of many in one parent (whose name
/// depends on the mirror in use), so the parent is what is renamed.
fn remap(metadata: &Metadata) -> Vec<(PathBuf, String)> {
    let root = metadata.workspace_root.as_std_path();
    let mut folders = BTreeMap::new();
    for package in &metadata.packages {
        let Some(folder) = package.manifest_path.parent() else { continue };
        let folder = folder.as_std_path();
        match &package.source {
            Some(source) if source.is_crates_io() || source.repr.starts_with("registry+") => {
                if let Some(parent) = folder.parent() {
                    folders.insert(parent.to_owned(), "/registry".to_owned());
                }
            }
            _ if folder.starts_with(root) => {}
            _ => {
                folders.insert(folder.to_owned(), format!("/source/{}-{}", package.name, package.version));
            }
        }
    }
    let mut remap = vec![(root.to_owned(), "/workspace".to_owned())];
    remap.extend(folders);
    remap
}

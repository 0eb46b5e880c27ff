//! Knows without asking cargo that nothing has changed since the last build.
//!
//! A record beside the modules names everything the build's outcome depended on. It is believed only while all of that is
//! as it was; in any doubt cargo is asked, which knows better and takes longer.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::toolchain::Toolchain;
use super::{Built, Preference, Profile, Workspace};
use crate::digest::Digest;

/// Raised when what is recorded changes its meaning.
const VERSION: u32 = 2;

/// Variables that change what cargo builds, by prefix.
const VARIABLES: &[&str] = &[
    "CARGO_BUILD_",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_HOME",
    "CARGO_PROFILE_",
    "CARGO_REGISTR",
    "CARGO_SOURCE_",
    "CARGO_TARGET_",
    "CARGO_UNSTABLE_",
    "RUSTC",
    "RUSTFLAGS",
    "RUSTUP_HOME",
    "RUSTUP_TOOLCHAIN",
    "PATH",
];

/// File systems and kernels round times; what was written this shortly before a build may have been written within it.
const CLOCK_GRAIN: Duration = Duration::from_millis(50);

/// What a build was asked for, and where.
#[derive(Debug, Clone)]
pub struct Question {
    /// The current folder.
    pub directory: PathBuf,
    /// `--manifest-path`
    pub manifest: Option<PathBuf>,
    /// The cargo that would be run.
    pub cargo: PathBuf,
    /// Which toolchains may be used.
    pub preference: Preference,
    /// The whole environment.
    pub variables: BTreeMap<String, String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    version: u32,
    root: PathBuf,
    cargo: PathBuf,
    preference: Preference,
    /// What cargo is told of the profile, which may differ between versions of this program.
    profile: Vec<String>,
    variables: BTreeMap<String, String>,
    /// Digests of variables that sources read at compile time; `None` was not set.
    read_by_sources: BTreeMap<String, Option<String>>,
    watched: Vec<Watched>,
    /// All plugins of the workspace.
    names: Vec<String>,
    built: BTreeMap<String, Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    built: Built,
    sources: Vec<Watched>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Watched {
    /// A file by what is in it; `None` for one that is not there.
    Content { path: PathBuf, sha256: Option<String> },
    /// A file too large to read each time.
    Stamp { path: PathBuf, size: u64, modified: u128 },
    /// A folder by the names in it.
    Names { path: PathBuf, names: Vec<String> },
    /// A folder by which of its folders are crates.
    Crates { path: PathBuf, names: Vec<String> },
}

impl Watched {
    fn content(path: &Path) -> io::Result<Self> {
        let sha256 = match fs::read(path) {
            Ok(bytes) => Some(Digest::of(&bytes).hex().to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(Self::Content { path: path.to_owned(), sha256 })
    }

    fn stamp(path: &Path) -> io::Result<Self> {
        let file = fs::metadata(path)?;
        let modified = file.modified()?.duration_since(UNIX_EPOCH).map_err(io::Error::other)?.as_nanos();
        Ok(Self::Stamp { path: path.to_owned(), size: file.len(), modified })
    }

    fn names(path: &Path) -> io::Result<Self> {
        Ok(Self::Names { path: path.to_owned(), names: names(path, |_| true)? })
    }

    fn crates(path: &Path) -> io::Result<Self> {
        let names = names(path, |folder| folder.join("Cargo.toml").is_file())?;
        Ok(Self::Crates { path: path.to_owned(), names })
    }

    fn holds(&self) -> bool {
        let now = match self {
            Self::Content { path, .. } => Self::content(path),
            Self::Stamp { path, .. } => Self::stamp(path),
            Self::Names { path, .. } => Self::names(path),
            Self::Crates { path, .. } => Self::crates(path),
        };
        now.is_ok_and(|now| now == *self)
    }
}

fn names(folder: &Path, keep: impl Fn(&Path) -> bool) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if keep(&entry.path()) {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// The modules of the last build, and the workspace's root, when nothing that they depend on has changed. `plugins` as
/// for [`Workspace::select`].
pub fn up_to_date(question: &Question, plugins: &[String]) -> Option<(PathBuf, Vec<Built>)> {
    let (root, mut record) = find(question)?;
    let asked = (&record.root, &record.cargo, record.preference);
    if record.version != VERSION || asked != (&root, &question.cargo, question.preference) {
        return None;
    }
    let changed = |(name, value): (&String, &Option<String>)| digest(question, name) != *value;
    if record.variables != relevant(&question.variables)
        || !record.profile.iter().cloned().eq(Profile::arguments())
        || record.read_by_sources.iter().any(changed)
        || !record.watched.iter().all(Watched::holds)
    {
        return None;
    }
    let plugins = if plugins.is_empty() { record.names.clone() } else { plugins.to_vec() };
    let mut built = Vec::new();
    for name in &plugins {
        if built.iter().any(|built: &Built| built.plugin.name == *name) {
            continue;
        }
        let entry = record.built.remove(name)?;
        if !entry.sources.iter().all(Watched::holds) {
            return None;
        }
        built.push(entry.built);
    }
    Some((root, built))
}

/// Record a build that began at `started`. What cannot be recorded is asked of cargo again the next time.
pub fn remember(
    question: &Question,
    workspace: &Workspace,
    toolchain: &Toolchain,
    built: &[Built],
    started: SystemTime,
) -> io::Result<()> {
    if workspace.has_build_script {
        return Ok(());
    }
    let mut record = Record {
        version: VERSION,
        root: workspace.root.clone(),
        cargo: question.cargo.clone(),
        preference: question.preference,
        profile: Profile::arguments().collect(),
        variables: relevant(&question.variables),
        read_by_sources: BTreeMap::new(),
        watched: surroundings(question, workspace, toolchain)?,
        names: workspace.plugins.keys().cloned().collect(),
        built: BTreeMap::new(),
    };
    let path = place(&workspace.target);
    if let Some(old) = read(&path)
        && old.profile == record.profile
        && (&old.root, &old.watched, &old.variables) == (&record.root, &record.watched, &record.variables)
        && (&old.cargo, old.preference, &old.names) == (&record.cargo, record.preference, &record.names)
    {
        record.built = old.built;
        record.read_by_sources = old.read_by_sources;
    }
    for built in built {
        let Some(sources) = sources(built, workspace)? else { return Ok(()) };
        record.built.insert(built.plugin.name.clone(), Entry { built: built.clone(), sources });
    }
    for name in variables_of_sources(workspace)? {
        let value = digest(question, &name);
        record.read_by_sources.insert(name, value);
    }
    let inputs = record.watched.iter().chain(record.built.values().flat_map(|entry| &entry.sources));
    if inputs.into_iter().any(|input| written_since(input, started, &workspace.target)) {
        return Ok(());
    }
    crate::file::write_atomically(&path, &serde_json::to_vec(&record)?)
}

/// Changed while cargo ran: what it has built may be of the older text.
fn written_since(input: &Watched, started: SystemTime, target: &Path) -> bool {
    let Watched::Content { path, .. } = input else { return false };
    let modified = fs::metadata(path).and_then(|file| file.modified());
    !path.starts_with(target) && modified.is_ok_and(|modified| modified + CLOCK_GRAIN >= started)
}

/// What every plugin's module depends on: manifests, cargo's configuration, the toolchain.
fn surroundings(question: &Question, workspace: &Workspace, toolchain: &Toolchain) -> io::Result<Vec<Watched>> {
    let mut files = vec![workspace.root.join("Cargo.lock")];
    files.extend(workspace.manifests.iter().cloned());
    for folder in workspace.root.ancestors() {
        files.extend(
            [".cargo/config.toml", ".cargo/config", "rust-toolchain.toml", "rust-toolchain"].map(|f| folder.join(f)),
        );
    }
    let home = question.variables.get("HOME").map(PathBuf::from);
    let named = |variable: &str, beneath: &str| {
        let named = question.variables.get(variable).map(PathBuf::from);
        named.or_else(|| Some(home.as_ref()?.join(beneath)))
    };
    if let Some(cargo) = named("CARGO_HOME", ".cargo") {
        files.extend([cargo.join("config.toml"), cargo.join("config")]);
    }
    if let Some(rustup) = named("RUSTUP_HOME", ".rustup") {
        files.push(rustup.join("settings.toml"));
    }
    let mut watched = files.iter().map(|file| Watched::content(file)).collect::<Result<Vec<_>, _>>()?;
    let mut folders: Vec<_> = workspace.manifests.iter().filter_map(|file| file.parent()?.parent()).collect();
    folders.push(&workspace.root);
    folders.sort_unstable();
    folders.dedup();
    for folder in folders.into_iter().filter(|folder| folder.starts_with(&workspace.root)) {
        watched.push(Watched::crates(folder)?);
    }
    for path in toolchain.watch.iter().chain(question.cargo.is_absolute().then_some(&question.cargo)) {
        watched.push(if path.is_dir() { Watched::names(path)? } else { Watched::stamp(path)? });
    }
    Ok(watched)
}

/// The module and the sources that cargo says it was built from; `None` when cargo does not say.
fn sources(built: &Built, workspace: &Workspace) -> io::Result<Option<Vec<Watched>>> {
    let Some(listed) = listed(&built.artifact) else { return Ok(None) };
    let mut sources = vec![Watched::content(&built.module)?];
    for path in listed {
        let path = workspace.root.join(path);
        sources.push(if path.is_dir() { Watched::names(&path)? } else { Watched::content(&path)? });
    }
    Ok(Some(sources))
}

/// The sources that cargo lists beside what it has built.
pub(super) fn listed(artifact: &Path) -> Option<Vec<PathBuf>> {
    let listed = fs::read_to_string(artifact.with_extension("d")).ok()?;
    listed.lines().find_map(|line| line.split_once(".wasm: ")).map(|(_, list)| unescape(list))
}

/// Paths of a make rule: separated by spaces, spaces within them escaped.
fn unescape(list: &str) -> Vec<PathBuf> {
    let mut paths = vec![String::new()];
    let mut characters = list.chars();
    while let Some(character) = characters.next() {
        match (character, paths.last_mut()) {
            ('\\', Some(path)) => path.extend(characters.next()),
            (' ', _) => paths.push(String::new()),
            (other, Some(path)) => path.push(other),
            (_, None) => {}
        }
    }
    paths.into_iter().filter(|path| !path.is_empty()).map(PathBuf::from).collect()
}

/// Names of the variables that sources read with `env!`, as rustc lists them.
fn variables_of_sources(workspace: &Workspace) -> io::Result<Vec<String>> {
    let folder = workspace.target.join(super::TARGET).join(Profile::NAME).join("deps");
    let mut variables = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "d") {
            continue;
        }
        let text = fs::read_to_string(&path)?;
        let lines = text.lines().filter_map(|line| line.strip_prefix("# env-dep:"));
        // Cargo sets its own ones from the manifests, which are watched.
        let names = lines.map(|line| line.split('=').next().unwrap_or(line)).filter(|name| !name.starts_with("CARGO"));
        variables.extend(names.filter(|name| *name != "OUT_DIR").map(str::to_owned));
    }
    variables.sort_unstable();
    variables.dedup();
    Ok(variables)
}

fn relevant(variables: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let relevant = variables.iter().filter(|(name, _)| VARIABLES.iter().any(|prefix| name.starts_with(prefix)));
    relevant.map(|(name, value)| (name.clone(), digest_of(value))).collect()
}

fn digest(question: &Question, variable: &str) -> Option<String> {
    question.variables.get(variable).map(|value| digest_of(value))
}

/// A value may be a token: its digest tells as well whether it is the same.
fn digest_of(value: &str) -> String {
    Digest::of(value.as_bytes()).hex().to_owned()
}

fn place(target: &Path) -> PathBuf {
    target.join("plugins").join(".fresh.json")
}

fn read(path: &Path) -> Option<Record> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// The record of the workspace that the question is about. A nearer Cargo.toml that is not of that workspace is another
/// project's.
fn find(question: &Question) -> Option<(PathBuf, Record)> {
    let start = match &question.manifest {
        Some(manifest) => question.directory.join(manifest).canonicalize().ok()?.parent()?.to_owned(),
        None => question.directory.clone(),
    };
    let target =
        question.variables.get("CARGO_TARGET_DIR").or_else(|| question.variables.get("CARGO_BUILD_TARGET_DIR"));
    let mut nearer = Vec::new();
    for folder in start.ancestors() {
        let manifest = folder.join("Cargo.toml");
        if !manifest.is_file() {
            continue;
        }
        nearer.push(manifest);
        let target = target.map_or_else(|| folder.join("target"), |target| question.directory.join(target));
        if let Some(record) = read(&place(&target))
            && record.root == folder
        {
            let watches = |manifest: &PathBuf| {
                record
                    .watched
                    .iter()
                    .any(|watched| matches!(watched, Watched::Content { path, .. } if path == manifest))
            };
            return nearer.iter().all(watches).then(|| (folder.to_owned(), record));
        }
    }
    None
}

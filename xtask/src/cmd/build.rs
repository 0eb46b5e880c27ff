//! `cargo xtask build`.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use packager::build::{
    self, Built, CompileError, DiscoverError, Foreign, ForeignError, Installer, Plugin, Preference, ToolchainError,
    fresh,
};

use crate::environment;
use crate::report::{Failure, data, note};
use crate::scaffold::place::quoted;

/// Build plugins into wasm modules: crates into target/plugins/NAME.wasm, others as their plugin.toml says.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Plugins to build, by name or, where they have a plugin.toml, by its folder; all of the workspace's when none is named.
    #[arg(value_name = "PLUGIN")]
    pub(crate) plugins: Vec<String>,
    #[command(flatten)]
    pub(crate) toolchain: ToolchainFlags,
}

/// Which project, and which compiler for it.
#[derive(clap::Args)]
pub(crate) struct ToolchainFlags {
    /// Cargo.toml of the plugin's project; by default the one of the current folder.
    #[arg(long, value_name = "PATH")]
    pub(crate) manifest_path: Option<PathBuf>,
    /// Where the wasm32-wasip1 target may come from.
    #[arg(long, value_enum, default_value_t = Way::Auto)]
    pub(crate) toolchain: Way,
    /// Install nothing: fail with the command to run when the target is missing.
    #[arg(long)]
    pub(crate) no_install: bool,
}

/// [`Preference`] as a flag.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum Way {
    /// The first that works of the following.
    Auto,
    /// The active toolchain, with rustup's help.
    Rustup,
    /// The distribution's compiler, its standard library built from source.
    Distribution,
}

impl From<Way> for Preference {
    fn from(way: Way) -> Self {
        match way {
            Way::Auto => Self::Auto,
            Way::Rustup => Self::Rustup,
            Way::Distribution => Self::Distribution,
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    for built in build(&args.plugins, &args.toolchain)?.1 {
        let size = std::fs::metadata(&built.module).map_or(0, |file| file.len());
        data(format!("{} {} {size}", built.plugin.name, built.module.display()));
    }
    Ok(())
}

/// What modules are built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To be packaged.
    Package,
    /// To find out which of their code is executed: crates in a place of their own, with names and lines.
    Coverage,
}

/// Build the named plugins, and say which workspace's root they are under.
pub(crate) fn build(names: &[String], flags: &ToolchainFlags) -> Result<(PathBuf, Vec<Built>), Failure> {
    build_for(Purpose::Package, names, flags)
}

/// Build the named plugins for a purpose, and say which workspace's root they are under.
pub(crate) fn build_for(
    purpose: Purpose,
    names: &[String],
    flags: &ToolchainFlags,
) -> Result<(PathBuf, Vec<Built>), Failure> {
    let directory = std::env::current_dir().map_err(|e| Failure::environment(format!("no current folder: {e}")))?;
    let asked = Asked::new(names, &directory, flags)?;
    let (mut root, mut built) = (asked.root, Vec::new());
    if let Some(crates) = &asked.crates {
        let (workspace, modules) = build_crates(purpose, crates, flags, &directory)?;
        root = workspace;
        built = modules;
    }
    for foreign in &asked.foreign {
        built.push(build_foreign(foreign)?);
    }
    Ok((root, built))
}

/// Which plugins are meant, by what builds them.
pub(super) struct Asked {
    pub(super) foreign: Vec<Foreign>,
    /// Names of crates, none of them being all; nothing when no crate is meant.
    crates: Option<Vec<String>>,
    /// The folder that plugins without a crate are in.
    pub(super) root: PathBuf,
}

impl Asked {
    pub(super) fn new(names: &[String], directory: &Path, flags: &ToolchainFlags) -> Result<Self, Failure> {
        let (paths, names): (Vec<_>, Vec<_>) = names.iter().partition(|name| is_path(name));
        let mut foreign = Vec::new();
        for path in &paths {
            foreign.push(Foreign::read(Path::new(path)).map_err(|error| of_a_folder(foreign_failure(error), path))?);
        }
        let (mut root, mut crates) = (directory.to_owned(), Vec::new());
        // With a manifest or a path, what is meant has been said.
        let found = if flags.manifest_path.is_none() && (paths.is_empty() || !names.is_empty()) {
            build::find_foreign(directory).map_err(foreign_failure)?
        } else {
            None
        };
        let is_project = |folder: &Path| folder.ancestors().any(|folder| folder.join("Cargo.toml").is_file());
        let Some(found) = found else {
            let crates = (paths.is_empty() || !names.is_empty()).then(|| names.into_iter().cloned().collect());
            return Ok(Self { foreign, crates, root });
        };
        root.clone_from(&found.root);
        if names.is_empty() {
            foreign.extend(found.plugins);
            let crates = (!found.is_own && is_project(directory)).then(Vec::new);
            return Ok(Self { foreign, crates, root });
        }
        for name in names {
            match found.plugins.iter().find(|foreign| foreign.plugin.name == *name) {
                Some(plugin) => foreign.push(plugin.clone()),
                None if is_project(directory) => crates.push(name.clone()),
                None => {
                    let known = found.plugins.iter().map(|foreign| foreign.plugin.name.clone()).collect();
                    let (name, root) = (name.clone(), found.root);
                    return Err(discover_failure(DiscoverError::Unknown { name, root, known }));
                }
            }
        }
        Ok(Self { foreign, crates: (!crates.is_empty()).then_some(crates), root })
    }
}

/// Whether an argument is the folder of a plugin.toml, or the file, rather than a plugin's name.
fn is_path(text: &str) -> bool {
    text == "." || text.contains(std::path::is_separator) || text.ends_with("plugin.toml")
}

fn build_foreign(foreign: &Foreign) -> Result<Built, Failure> {
    announce(foreign);
    foreign.build().map_err(foreign_failure)
}

/// Shows what is about to be run.
pub(super) fn announce(foreign: &Foreign) {
    if !foreign.build.is_empty() {
        let (name, folder) = (&foreign.plugin.name, foreign.plugin.root.display());
        let variables = foreign.env.iter().map(|(name, value)| format!("{name}={}", quoted(value)));
        let command: Vec<_> = variables.chain(foreign.build.iter().map(|word| quoted(word))).collect();
        note(format!("{name}: running `{}` in {folder}", command.join(" ")));
    }
}

pub(crate) fn foreign_failure(error: ForeignError) -> Failure {
    match error {
        ForeignError::NoModule { built: true, .. } => {
            Failure::bad(error).hint("`build` in plugin.toml ran, and made another file than `module` says")
        }
        ForeignError::NoModule { built: false, .. } => {
            Failure::bad(error).hint("build it, or name the program that does as `build` in plugin.toml")
        }
        ForeignError::Read { .. } | ForeignError::Spawn { .. } | ForeignError::Output { .. } => {
            Failure::environment(error)
        }
        ForeignError::File { .. } | ForeignError::Twice { .. } | ForeignError::Failed { .. } => Failure::bad(error),
    }
}

fn build_crates(
    purpose: Purpose,
    names: &[String],
    flags: &ToolchainFlags,
    directory: &Path,
) -> Result<(PathBuf, Vec<Built>), Failure> {
    let cargo = environment::cargo();
    let question = fresh::Question {
        directory: directory.to_owned(),
        manifest: flags.manifest_path.clone(),
        cargo: cargo.clone(),
        preference: flags.toolchain.into(),
        variables: environment::variables(),
    };
    if purpose == Purpose::Package
        && let Some(built) = fresh::up_to_date(&question, names)
    {
        return Ok(built);
    }
    let workspace = build::discover(&cargo, directory, flags.manifest_path.as_deref())
        .map_err(|error| of_folders(discover_failure(error), names))?;
    let plugins = workspace.select(names).map_err(|error| of_folders(discover_failure(error), names))?;

    let tools = environment::tools(&workspace.root);
    let mut talk = |sentence: &str| note(sentence);
    let mut installer = Installer { allowed: !flags.no_install, talk: &mut talk };
    let toolchain = build::prepare(&tools, flags.toolchain.into(), &mut installer).map_err(toolchain_failure)?;
    if purpose == Purpose::Coverage {
        let built = build::covered(&cargo, &workspace, &plugins, &toolchain).map_err(compile_failure)?;
        return Ok((workspace.root, built));
    }
    let started = SystemTime::now();
    let built = build::compile(&cargo, &workspace, &plugins, &toolchain).map_err(compile_failure)?;
    // Without a record the next build asks cargo, and is slower for it.
    let _ = fresh::remember(&question, &workspace, &toolchain, &built, started);
    Ok((workspace.root, built))
}

/// The named plugins without building them, or all: crates, and those of other languages.
pub(crate) fn plugins(names: &[String], flags: &ToolchainFlags) -> Result<Vec<Plugin>, Failure> {
    let directory = std::env::current_dir().map_err(|e| Failure::environment(format!("no current folder: {e}")))?;
    let asked = Asked::new(names, &directory, flags)?;
    let mut plugins = Vec::new();
    if let Some(crates) = &asked.crates {
        let cargo = environment::cargo();
        let workspace = build::discover(&cargo, &directory, flags.manifest_path.as_deref());
        plugins = workspace.and_then(|workspace| workspace.select(crates)).map_err(discover_failure)?;
    }
    plugins.extend(asked.foreign.into_iter().map(|foreign| foreign.plugin));
    Ok(plugins)
}

/// Of a folder that was named and has a crate in it: names of crates are those of the project that one is in.
pub(super) fn of_a_folder(failure: Failure, folder: &str) -> Failure {
    let manifest = Path::new(folder).join("Cargo.toml");
    let hint =
        || format!("{folder} is a cargo project: run this in it, or with --manifest-path {}", manifest.display());
    failure.hints(manifest.is_file().then(hint))
}

/// The same of the first such among names.
pub(super) fn of_folders(failure: Failure, names: &[String]) -> Failure {
    names.iter().fold(failure, |failure, name| of_a_folder(failure, name))
}

pub(super) fn discover_failure(error: DiscoverError) -> Failure {
    match error {
        DiscoverError::Unknown { .. } => Failure::usage(error),
        DiscoverError::NoPlugins { .. } => Failure::usage(error)
            .hint("add a `[package.metadata.plugin]` table to the Cargo.toml of each plugin crate; it may be empty"),
        DiscoverError::NoProject { .. } => Failure::usage(error).hint(
            "run this in a cargo project or beside a plugin.toml, or name one with --manifest-path or by its folder",
        ),
        // Cargo's own words say whether it is the manifest, the compiler or the network.
        DiscoverError::Metadata(_) => Failure::environment(error),
        DiscoverError::Table { .. } | DiscoverError::NotCdylib { .. } => Failure::bad(error),
    }
}

pub(super) fn toolchain_failure(error: ToolchainError) -> Failure {
    let hint = format!("run: {}", error.command());
    Failure::environment(error).hint(hint)
}

pub(super) fn compile_failure(error: CompileError) -> Failure {
    match error {
        CompileError::Failed { .. } | CompileError::NoModule { .. } => Failure::bad(error),
        CompileError::Spawn { .. } | CompileError::Io { .. } => Failure::environment(error),
    }
}

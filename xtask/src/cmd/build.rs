//! `cargo xtask build`.

use std::path::PathBuf;
use std::time::SystemTime;

use packager::build::{self, Built, CompileError, DiscoverError, Installer, Preference, ToolchainError, fresh};

use crate::environment;
use crate::report::{Failure, data, note};

/// Build plugin crates into wasm modules, target/plugins/NAME.wasm.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Plugins to build; all of the workspace's when none is named.
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

/// Build the named plugins, and say which workspace's root they are under.
pub(crate) fn build(names: &[String], flags: &ToolchainFlags) -> Result<(PathBuf, Vec<Built>), Failure> {
    let cargo = environment::cargo();
    let directory = std::env::current_dir().map_err(|e| Failure::environment(format!("no current folder: {e}")))?;
    let question = fresh::Question {
        directory: directory.clone(),
        manifest: flags.manifest_path.clone(),
        cargo: cargo.clone(),
        preference: flags.toolchain.into(),
        variables: environment::variables(),
    };
    if let Some(built) = fresh::up_to_date(&question, names) {
        return Ok(built);
    }
    let workspace = build::discover(&cargo, &directory, flags.manifest_path.as_deref()).map_err(discover_failure)?;
    let plugins = workspace.select(names).map_err(discover_failure)?;

    let tools = environment::tools(&workspace.root);
    let mut talk = |sentence: &str| note(sentence);
    let mut installer = Installer { allowed: !flags.no_install, talk: &mut talk };
    let toolchain = build::prepare(&tools, flags.toolchain.into(), &mut installer).map_err(toolchain_failure)?;
    let started = SystemTime::now();
    let built = build::compile(&cargo, &workspace, &plugins, &toolchain).map_err(compile_failure)?;
    // Without a record the next build asks cargo, and is slower for it.
    let _ = fresh::remember(&question, &workspace, &toolchain, &built, started);
    Ok((workspace.root, built))
}

pub(super) fn discover_failure(error: DiscoverError) -> Failure {
    match error {
        DiscoverError::Unknown { .. } => Failure::usage(error),
        DiscoverError::NoPlugins { .. } => Failure::usage(error)
            .hint("add a `[package.metadata.plugin]` table to the Cargo.toml of each plugin crate; it may be empty"),
        DiscoverError::NoProject { .. } => {
            Failure::usage(error).hint("run this in a cargo project, or name one with --manifest-path")
        }
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

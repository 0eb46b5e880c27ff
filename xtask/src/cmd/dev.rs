//! `cargo xtask dev`: a plugin that is served while somebody works on it.
//!
//! The first process builds the plugin, starts the watching one as `run --reload` does, and becomes the harness. The
//! watching one builds on each change, has the harness swap, and only then runs the tests.

mod manifest;
mod project;
#[cfg(unix)]
mod tests;
#[cfg(unix)]
mod work;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::build::ToolchainFlags;
use super::run::{ChainFlags, PageAt, ShowFlags, harness_arguments};
use super::watch::{self, First};
use crate::report::{Failure, note};
use project::Project;

/// Serve a plugin while you work on it: on each save it is built, swapped into the running chain and tested.
///
/// Without `-f` the chain is the plugin alone: as the manifest in its folder that names its image has it, else as its Cargo.toml or
/// plugin.toml and tests/config.example.json do. A page at /__plugwright shows what the filters did to each request.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The plugin, by name or, where it has a plugin.toml, by its folder.
    #[arg(value_name = "PLUGIN")]
    plugin: String,
    /// Resources that make the chain: YAML or JSON files, or folders of them. One of them is the plugin's.
    #[arg(short = 'f', long = "filename", value_name = "FILE", num_args = 1..)]
    files: Vec<PathBuf>,
    /// The url of the resource that is the plugin's, when its image's name does not say so.
    #[arg(long = "as", value_name = "URL", requires = "files")]
    url: Option<String>,
    /// Where the trace page is.
    #[arg(long, value_enum, value_name = "WHERE", default_value_t = PageAt::Admin)]
    page: PageAt,
    /// Do not run the plugin's tests.
    #[arg(long)]
    no_tests: bool,
    #[command(flatten)]
    chain: ChainFlags,
    #[command(flatten)]
    show: ShowFlags,
    #[command(flatten)]
    toolchain: ToolchainFlags,
    /// This process watches for the one that serves.
    #[arg(long, hide = true)]
    watching: bool,
}

/// What the watching process starts with.
#[derive(Serialize, Deserialize)]
struct Begun {
    first: First,
    built: Built,
    /// What was said of files that are left alone.
    told: BTreeSet<String>,
}

/// A module that was built.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Built {
    took_ms: u64,
    bytes: u64,
}

pub(crate) fn run(mut args: Args) -> Result<(), Failure> {
    if args.files.iter().any(|file| file.as_os_str() == "-") {
        return Err(Failure::usage("-f -: standard input cannot be watched"));
    }
    #[cfg(unix)]
    if args.watching {
        args.chain.brief = true;
        return work::watch(&args);
    }
    let project = Project::open(&args)?;
    args.chain.is_free()?;
    note(format!("building {} for development", project.plugin.name));
    project.announce();
    let began = Instant::now();
    let mut watched = project.inputs(&args);
    let Some(built) = project.build(&mut watched)? else {
        return Err(Failure::bad(format!("`{}` does not compile", project.plugin.name)));
    };
    let built = Built { took_ms: milliseconds(began), bytes: built };
    note(format!("built in {}: {}", seconds(built.took_ms), size(built.bytes)));
    let plan = project.plan(&args, &mut watched)?;
    args.chain.brief = true;
    let arguments = harness_arguments(&args.show, Some(args.page), &["--reload", "--answers"])?;
    Err(watch::exec(&Begun { first: First { plan, watched }, built, told: project.told.take() }, arguments, true))
}

fn milliseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn seconds(milliseconds: u64) -> String {
    format!("{}.{} s", milliseconds / 1000, milliseconds % 1000 / 100)
}

fn size(bytes: u64) -> String {
    format!("{} KiB", bytes.div_ceil(1024))
}

//! `cargo xtask package`.

use std::path::{Path, PathBuf};
use std::process::Command;

use packager::build::{Built, Plugin};
use packager::image::{PackageError, package};
use packager::layout::Layout;
use packager::module::EnvoyVersion;

use super::build::{ToolchainFlags, build};
use super::registry_flags::{RegistryFlags, layout_failure};
use crate::environment;
use crate::report::{Failure, data, note, program};

/// Build plugins, check their modules, and write them as images into an OCI image layout.
///
/// Prints a line for each image: name, manifest digest, size in bytes. An image of that name is replaced, others stay.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Plugins to package; all of the workspace's when none is named.
    #[arg(value_name = "PLUGIN")]
    plugins: Vec<String>,
    /// Package this module, from any language, instead of building one; needs --name.
    #[arg(long, value_name = "FILE", conflicts_with = "plugins", requires = "name")]
    module: Option<PathBuf>,
    /// The image's name, for --module.
    #[arg(long, value_name = "NAME", requires = "module")]
    name: Option<String>,
    /// The image's version, for --module.
    #[arg(long, value_name = "VERSION", requires = "module", default_value = "0.0.0")]
    module_version: String,
    /// The layout to write; by default `dist` beside the workspace's Cargo.toml.
    #[arg(long, value_name = "DIR")]
    layout: Option<PathBuf>,
    /// The oldest Envoy that must load the modules.
    #[arg(long, value_name = "VERSION", default_value_t = EnvoyVersion::NEWEST)]
    envoy: EnvoyVersion,
    /// Source revision to record; by default the commit, when there is one and nothing is changed since.
    #[arg(long, value_name = "REVISION")]
    revision: Option<String>,
    /// Push each image to PREFIX/NAME:VERSION as well.
    #[arg(long, value_name = "PREFIX")]
    push: Option<String>,
    #[command(flatten)]
    toolchain: ToolchainFlags,
    #[command(flatten)]
    registry: RegistryFlags,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let (folder, built) = match (&args.module, &args.name) {
        (Some(module), Some(name)) => (PathBuf::from("."), vec![foreign(module, name, &args.module_version)]),
        _ => {
            let (workspace, built) = build(&args.plugins, &args.toolchain)?;
            (workspace.root, built)
        }
    };
    let epoch = environment::source_date_epoch()?;
    let revision = args.revision.clone().or_else(|| commit(&folder));
    let root = args.layout.clone().unwrap_or_else(|| folder.join("dist"));
    let layout = Layout::open_or_create(&root).map_err(layout_failure)?;
    let destination = args.push.as_deref().map(|prefix| args.registry.destination(prefix)).transpose()?;

    let mut changed = false;
    for built in &built {
        let packaged = package(built, revision.clone(), epoch, args.envoy, &layout, &built.plugin.name)
            .map_err(|error| failure(error, built))?;
        changed |= !packaged.unchanged;
        data(format!("{} {} {}", packaged.name, packaged.digest, packaged.size));
        if let Some(destination) = &destination {
            let pushed = destination.push(&layout, &packaged.name, &built.plugin.version)?;
            note(format!("pushed {pushed}"));
        } else if packaged.unchanged {
            note(format!("{}: up to date in {}", packaged.name, root.display()));
        }
    }
    if changed && args.push.is_none() && args.module.is_none() {
        next_steps(&folder, &root, &built);
    }
    Ok(())
}

/// A module that was not built here: all that is known of it is what the command line says.
fn foreign(module: &Path, name: &str, version: &str) -> Built {
    let plugin = Plugin {
        name: name.to_owned(),
        version: version.to_owned(),
        description: None,
        license: None,
        source: None,
        root: PathBuf::from("."),
        root_ids: Vec::new(),
        phase: None,
        priority: None,
        image: None,
    };
    Built { plugin, module: module.to_owned(), toolchain: None }
}

/// The commit that the sources are at. Sources that differ from it have no revision to name.
fn commit(folder: &Path) -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(folder).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let changed = git(&["status", "--porcelain", "--untracked-files=no", "--", "."])?;
    if changed.is_empty() { git(&["rev-parse", "--verify", "HEAD"]) } else { None }
}

/// Say what can be done with the images.
fn next_steps(folder: &Path, layout: &Path, built: &[Built]) {
    let Some(first) = built.first() else { return };
    let name = &first.plugin.name;
    let layout = std::env::current_dir()
        .ok()
        .and_then(|here| layout.strip_prefix(here).ok().map(Path::to_owned))
        .unwrap_or_else(|| layout.to_owned());
    let program = program();
    note(format!(
        "\n{} in {}; next:",
        if built.len() == 1 { "the image is" } else { "the images are" },
        layout.display()
    ));
    if folder.join("examples/ambient/gateway.yaml").is_file() && built.iter().any(|b| b.plugin.name == "basic-auth") {
        note(format!(
            "  {program} run -f examples/ambient/gateway.yaml --listen 127.0.0.1:8080 \\\n    --image \
             oci://ghcr.io/istio-ecosystem/wasm-extensions/basic_auth:1.12.0=oci:{}:basic-auth",
            layout.display()
        ));
    }
    note(format!("  {program} push oci:{}:{name} REGISTRY/REPOSITORY:TAG", layout.display()));
}

fn failure(error: PackageError, built: &Built) -> Failure {
    let hint = error.hint();
    match error {
        PackageError::Layout(error) => layout_failure(error),
        error => Failure::bad(error)
            .context(&format!("failed to package `{}` ({})", built.plugin.name, built.module.display()))
            .hints(hint),
    }
}

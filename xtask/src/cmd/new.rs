//! `cargo xtask new`.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;

use crate::environment;
use crate::report::{Failure, data, note, program};
use crate::scaffold::Template;
use crate::scaffold::name::Name;
use crate::scaffold::place::{Sdk, Workspace, default_registry, quoted};
use crate::scaffold::render::{Home, Order, Rendered};

/// Make a new plugin, with configuration, tests, manifests and documents that work as they are.
///
/// In a workspace that keeps plugins it becomes plugins/NAME; elsewhere, or with --standalone, a project of its own with a
/// workflow that publishes it. Prints each file. Nothing that is there already is touched.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What the crate, the image and the resources are called: lower-case letters, digits and hyphens.
    name: String,
    /// What it is like.
    #[arg(long, value_enum, default_value_t = Template::Headers)]
    template: Template,
    /// Make a project of its own in this folder, which must not be there yet; outside of a cargo project by default NAME.
    #[arg(long, value_name = "DIR")]
    standalone: Option<PathBuf>,
    /// One line on what it does, without the full stop.
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// The phase it runs in; by default what its template is for.
    #[arg(long, value_parser = ["AUTHN", "AUTHZ", "STATS"])]
    phase: Option<String>,
    /// Where images are published; by default where the workspace's others are, else ghcr.io/owner.
    #[arg(long, value_name = "PREFIX")]
    registry: Option<String>,
    /// Where a project of its own has the SDK from: a folder, or the URL of a git repository with or without `#REVISION`;
    /// by default this program's own repository and revision.
    #[arg(long, value_name = "PATH|URL")]
    sdk: Option<String>,
    /// Only print which files there would be.
    #[arg(long)]
    dry_run: bool,
    /// Print JSON: the folder, its files, and the commands that are next.
    #[arg(long)]
    json: bool,
}

/// Where it goes.
enum Place {
    Member(Workspace),
    Project(PathBuf),
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let name = Name::new(&args.name).map_err(|error| {
        let hint = error.hint();
        Failure::usage(error).hints(hint)
    })?;
    let description = described(args)?;
    let here = std::env::current_dir().map_err(|e| Failure::environment(format!("no current folder: {e}")))?;
    let place = place(args, &name, &here)?;
    let (target, staging) = match &place {
        // Whatever has a Cargo.toml below `plugins/` is a member at once, however short its life.
        Place::Member(workspace) => {
            (workspace.root.join(below(args.template)).join(name.as_str()), workspace.root.clone())
        }
        Place::Project(folder) => (folder.clone(), folder.parent().unwrap_or(folder).to_owned()),
    };
    refuse_existing(&target)?;
    let sdk = match (&args.sdk, &place) {
        (Some(_), Place::Member(_)) => {
            return Err(Failure::usage("--sdk: a workspace names its SDK itself").hint("use --standalone DIR with it"));
        }
        (Some(sdk), Place::Project(_)) => Sdk::parse(sdk)?,
        (None, _) => Sdk::of_this_program(),
    };
    let registry = match (&args.registry, &place) {
        (Some(registry), _) => registry.as_str(),
        (None, Place::Member(workspace)) => workspace.registry(),
        (None, Place::Project(_)) => default_registry(),
    };
    let image = name.image(registry).map_err(|error| {
        let hint =
            error.hint().unwrap_or_else(|| "give a registry and a path, such as ghcr.io/acme/plugins".to_owned());
        Failure::usage(error).context(&format!("--registry `{registry}`")).hint(hint)
    })?;
    let order = Order {
        name: &name,
        template: args.template,
        description,
        phase: args.phase.as_deref().or(args.template.phase()),
        image: &image,
        home: match &place {
            Place::Member(workspace) => Home::Member(workspace),
            Place::Project(_) => Home::Project(&sdk),
        },
        program: if matches!(place, Place::Project(_)) { "cargo plugwright" } else { program() },
    };
    let rendered = order.render();
    if !args.dry_run {
        write(&rendered.files, &target, &staging)?;
    }
    say(args, &here, &place, &target, &rendered);
    if matches!(place, Place::Project(_)) && args.registry.is_none() && args.template != Template::Lua && !args.json {
        note(format!("\nthe manifests name {image}: put your own registry there, or give --registry ghcr.io/YOU"));
    }
    if let (Sdk::Path(folder), Place::Project(_)) = (&sdk, &place) {
        note(format!("\nthe SDK is in {}, which no other machine has: its workflow cannot work", folder.display()));
    }
    Ok(())
}

fn below(template: Template) -> &'static str {
    // What has no crate would be in the way of cargo below `plugins/`.
    if template == Template::Lua { "extensions" } else { "plugins" }
}

fn described(args: &Args) -> Result<&str, Failure> {
    let text = args.description.as_deref().unwrap_or_else(|| args.template.description()).trim().trim_end_matches('.');
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err(Failure::usage("--description: expected one line of text"));
    }
    Ok(text)
}

fn place(args: &Args, name: &Name, here: &Path) -> Result<Place, Failure> {
    if let Some(folder) = &args.standalone {
        return Ok(Place::Project(here.join(folder)));
    }
    let Some(workspace) = Workspace::find(here)? else { return Ok(Place::Project(here.join(name.as_str()))) };
    if workspace.has_package(name.as_str()) {
        let root = workspace.root.display();
        return Err(Failure::usage(format!("the workspace {root} has a package `{}` already", name.as_str())));
    }
    Ok(Place::Member(workspace))
}

fn refuse_existing(target: &Path) -> Result<(), Failure> {
    match target.symlink_metadata() {
        Ok(_) => Err(Failure::usage(format!("{} is there already, and is not touched", target.display()))
            .hint("give another name, or remove it")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Failure::environment(error).context(&target.display().to_string())),
    }
}

/// Everything or nothing: the files are made in a folder beside the target, which takes its name when all are there.
fn write(files: &BTreeMap<String, String>, target: &Path, staging: &Path) -> Result<(), Failure> {
    let failed =
        |error: io::Error| Failure::environment(error).context(&format!("failed to write {}", target.display()));
    let parent = target.parent().unwrap_or(staging);
    std::fs::create_dir_all(staging).map_err(failed)?;
    let scratch = tempfile::Builder::new().prefix(".new-plugin-").tempdir_in(staging).map_err(failed)?;
    for (path, text) in files {
        let path = scratch.path().join(path);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        std::fs::write(&path, text).map_err(failed)?;
    }
    format(scratch.path(), files);
    readable(scratch.path()).map_err(failed)?;
    std::fs::create_dir_all(parent).map_err(failed)?;
    refuse_existing(target)?;
    std::fs::rename(scratch.path(), target).map_err(failed)?;
    // What it was called is gone, and there is nothing to remove.
    let _ = scratch.keep();
    Ok(())
}

/// Temporary folders are their owner's alone; a project is not.
#[cfg(unix)]
fn readable(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))
}

#[cfg(not(unix))]
fn readable(_: &Path) -> io::Result<()> {
    Ok(())
}

/// Lines that have become longer or shorter with the name are broken as the folder's rustfmt has it.
fn format(folder: &Path, files: &BTreeMap<String, String>) {
    let paths = files.keys().map(|path| folder.join(path));
    let sources: Vec<_> = paths.filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect();
    if sources.is_empty() {
        return;
    }
    let program = format!("rustfmt{}", std::env::consts::EXE_SUFFIX);
    let beside = environment::cargo().with_file_name(&program);
    let program = if beside.is_file() { Some(beside) } else { environment::on_path(&program) };
    let formatted = program.is_some_and(|program| {
        let mut command = Command::new(program);
        command.current_dir(folder).args(["--edition", "2024"]).args(sources);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    });
    if !formatted {
        note("rustfmt is not there or does not work: `cargo fmt` may want other line breaks");
    }
}

fn say(args: &Args, here: &Path, place: &Place, target: &Path, rendered: &Rendered) {
    let shown = target.strip_prefix(here).unwrap_or(target);
    if args.json {
        let document = json!({
            "folder": target,
            "written": !args.dry_run,
            "files": rendered.files.keys().collect::<Vec<_>>(),
            "next": rendered.commands,
        });
        data(document.to_string());
        return;
    }
    for path in rendered.files.keys() {
        data(shown.join(path).display().to_string());
    }
    if args.dry_run {
        note("nothing was written");
        return;
    }
    let folder = match place {
        Place::Member(workspace) => &workspace.root,
        Place::Project(_) => target,
    };
    note(format!("\n{} is there; next:", shown.display()));
    if folder != here {
        let folder = folder.strip_prefix(here).unwrap_or(folder);
        note(format!("  cd {}", quoted(&folder.to_string_lossy())));
    }
    for command in &rendered.commands {
        note(format!("  {}", command.replace('\n', "\n  ")));
    }
}

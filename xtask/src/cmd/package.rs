//! `cargo xtask package`.

use std::path::{Path, PathBuf};
use std::process::Command;

use packager::build::Built;
use packager::fetch::FetchOptions;
use packager::image::{
    AssembleError, CarryError, CheckedModule, Metadata, PackageError, Packaged, Variant, carry, metadata_beside,
    package,
};
use packager::layout::Layout;
use packager::module::{EnvoyVersion, ReadError, Source};
use packager::reference::Reference;

use super::build::{ToolchainFlags, build};
use super::metadata_flags::MetadataFlags;
use super::registry_flags::{Destination, RegistryFlags, layout_failure, reference};
use crate::environment;
use crate::report::{Failure, data, note, program};

/// Build plugins, check their modules, and write them as images into an OCI image layout.
///
/// Prints a line for each image: name, manifest digest, size in bytes. An image of that name is replaced, others stay.
#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("foreign").args(["module", "from"]))]
pub(crate) struct Args {
    /// Plugins to package, by name or, where they have a plugin.toml, by its folder; all of the workspace's when none is
    /// named.
    #[arg(value_name = "PLUGIN")]
    plugins: Vec<String>,
    /// Package this module, from any language, instead of building one; needs --name. A `runtime-config.json` beside it,
    /// or a Maistra `manifest.yaml` that names it, is taken into account.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["plugins", "from"], requires = "name")]
    module: Option<PathBuf>,
    /// Repackage what others have published, in whatever form: REGISTRY/REPOSITORY[:TAG][@DIGEST], oci:DIR:NAME, a
    /// .wasm file or a URL. The module, its runtime configuration and what is said about it are carried over.
    #[arg(long, value_name = "REF", conflicts_with = "plugins")]
    from: Option<String>,
    /// How the images carry their modules.
    #[arg(long, value_enum, default_value_t = Format::Compat)]
    format: Format,
    /// The layout to write; by default `dist` beside the workspace's Cargo.toml, or here with --module or --from.
    #[arg(long, value_name = "DIR")]
    layout: Option<PathBuf>,
    /// The oldest Envoy that must load the modules.
    #[arg(long, value_name = "VERSION", default_value_t = EnvoyVersion::NEWEST)]
    envoy: EnvoyVersion,
    /// Source revision to record; by default the commit, when there is one and nothing is changed since, or with --from
    /// what is recorded there.
    #[arg(long, value_name = "REVISION")]
    revision: Option<String>,
    /// Push each image to PREFIX/NAME:VERSION as well.
    #[arg(long, value_name = "PREFIX")]
    push: Option<String>,
    #[command(flatten)]
    toolchain: ToolchainFlags,
    #[command(flatten)]
    metadata: MetadataFlags,
    #[command(flatten)]
    registry: RegistryFlags,
}

/// [`Variant`] as a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// A container image of one layer; what Istio, Envoy Gateway and container tools read.
    Compat,
    /// The same with Docker's media types, for registries that take no others.
    Docker,
    /// An artifact of two layers, not compressed; the registry must take custom media types.
    Oci,
    #[value(help = "For OpenShift Service Mesh 2.2 and older")]
    Maistra,
}

impl From<Format> for Variant {
    fn from(format: Format) -> Self {
        match format {
            Format::Compat => Self::Compat,
            Format::Docker => Self::Docker,
            Format::Oci => Self::Oci,
            Format::Maistra => Self::Maistra,
        }
    }
}

/// What is packaged.
pub(crate) struct Subject {
    /// The image's name in the layout.
    pub(crate) name: String,
    /// Where the module comes from, for messages.
    origin: String,
    pub(crate) metadata: Metadata,
    module: Module,
}

/// Where its module is.
enum Module {
    Bytes(Vec<u8>),
    File(PathBuf),
}

impl Subject {
    /// The module, which the oldest Envoy asked for loads.
    fn checked(&self, envoy: EnvoyVersion) -> Result<CheckedModule<'_>, Failure> {
        let source = match &self.module {
            Module::Bytes(bytes) => Source::Bytes(bytes),
            Module::File(path) => Source::File(path),
        };
        CheckedModule::new(&self.name, source, envoy).map_err(|error| failure(error.into(), self))
    }

    /// Make the image and put it into the layout.
    pub(crate) fn put(&self, format: Variant, envoy: EnvoyVersion, layout: &Layout) -> Result<Packaged, Failure> {
        self.put_checked(format, &self.checked(envoy)?, layout)
    }

    fn put_checked(&self, format: Variant, module: &CheckedModule<'_>, layout: &Layout) -> Result<Packaged, Failure> {
        package(format, &self.metadata, module, layout, &self.name).map_err(|error| failure(error, self))
    }
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let destination = args.push.as_deref().map(|prefix| args.registry.destination(prefix)).transpose()?;
    match (&args.from, &args.module, &args.metadata.name) {
        (Some(from), _, _) => one(args, destination.as_ref(), &published(args, from)?),
        (_, Some(module), Some(name)) => one(args, destination.as_ref(), &foreign(args, module, name)?),
        _ => crates(args, destination.as_ref()),
    }
}

/// Package what was not built here.
fn one(args: &Args, destination: Option<&Destination>, subject: &Subject) -> Result<(), Failure> {
    let root = args.layout.clone().unwrap_or_else(|| PathBuf::from("dist"));
    // A module that is refused leaves no new folder.
    let module = subject.checked(args.envoy)?;
    let layout = Layout::open_or_create(&root).map_err(layout_failure)?;
    write(args, subject, &module, &layout, destination)?;
    about_format(args, &root, &subject.name);
    Ok(())
}

/// Build and package crates.
fn crates(args: &Args, destination: Option<&Destination>) -> Result<(), Failure> {
    let (folder, built) = build(&args.plugins, &args.toolchain)?;
    let epoch = environment::source_date_epoch()?;
    let revision = args.revision.clone().or_else(|| commit(&folder));
    // What has no crate may be anywhere.
    let revision_of = |built: &Built| match built.toolchain {
        None => args.revision.clone().or_else(|| commit(&built.plugin.root)),
        Some(_) => revision.clone(),
    };
    let root = args.layout.clone().unwrap_or_else(|| folder.join("dist"));
    let layout = Layout::open_or_create(&root).map_err(layout_failure)?;
    let mut changed = false;
    for built in &built {
        let subject = Subject {
            name: built.plugin.name.clone(),
            origin: built.module.display().to_string(),
            metadata: Metadata::of(built, revision_of(built), epoch).map_err(Failure::bad)?,
            module: Module::File(built.module.clone()),
        };
        changed |= write(args, &subject, &subject.checked(args.envoy)?, &layout, destination)?;
    }
    if let Some(first) = built.first() {
        about_format(args, &root, &first.plugin.name);
    }
    if changed && args.push.is_none() {
        next_steps(&folder, &root, &built);
    }
    Ok(())
}

/// Make the image and put it where it belongs; says whether the layout has changed.
fn write(
    args: &Args,
    subject: &Subject,
    module: &CheckedModule<'_>,
    layout: &Layout,
    destination: Option<&Destination>,
) -> Result<bool, Failure> {
    let Subject { name, metadata, .. } = subject;
    let packaged = subject.put_checked(args.format.into(), module, layout)?;
    data(format!("{} {} {}", packaged.name, packaged.digest, packaged.size));
    if let Some(destination) = destination {
        let pushed = destination.push(layout, name, metadata.version.as_deref().unwrap_or("0.0.0"))?;
        note(format!("pushed {pushed}"));
    } else if packaged.unchanged {
        note(format!("{name}: up to date in {}", layout.root().display()));
    }
    Ok(!packaged.unchanged)
}

/// A module that was not built here: what is known of it is what the command line says, and what lies beside it.
fn foreign(args: &Args, path: &Path, name: &str) -> Result<Subject, Failure> {
    let (mut metadata, beside) = metadata_beside(path).map_err(|error| carry_failure(error.into()))?;
    for file in beside {
        note(format!("{}: taken into account", file.display()));
    }
    metadata.version.get_or_insert_with(|| "0.0.0".to_owned());
    args.metadata.apply(&mut metadata);
    // Where the command runs says nothing about where the module comes from.
    if args.revision.is_some() {
        metadata.revision.clone_from(&args.revision);
    }
    metadata.source_date_epoch = environment::source_date_epoch()?;
    let (origin, module) = (path.display().to_string(), Module::File(path.to_owned()));
    Ok(Subject { name: name.to_owned(), origin, metadata, module })
}

/// What others have published, in whatever form.
fn published(args: &Args, from: &str) -> Result<Subject, Failure> {
    let reference = reference(from)?;
    let mut subject = carried(&reference, &args.registry.fetch_options()?)?;
    args.metadata.apply(&mut subject.metadata);
    if let Some(name) = &args.metadata.name {
        subject.name.clone_from(name);
    }
    if subject.metadata.name.is_empty() {
        subject.metadata.name.clone_from(&subject.name);
    }
    subject.metadata.revision = args.revision.clone().or(subject.metadata.revision);
    subject.metadata.source_date_epoch = environment::source_date_epoch()?;
    Ok(subject)
}

/// What can be taken out of a reference; named by where it was published.
pub(crate) fn carried(reference: &Reference, options: &FetchOptions) -> Result<Subject, Failure> {
    let carried = carry(reference, options).map_err(carry_failure)?;
    let form = carried.form.map_or_else(|| "a module".to_owned(), |form| form.to_string());
    note(format!("{reference} is {form}"));
    let mut metadata = carried.metadata;
    if metadata.version.is_none()
        && let Reference::Image(image) = reference
    {
        metadata.version = image.tag().filter(|tag| *tag != "latest").map(str::to_owned);
    }
    let (name, origin) = (name_of(reference), format!("{reference}, {form}"));
    Ok(Subject { name, origin, metadata, module: Module::Bytes(carried.module) })
}

/// What something is called where it was published.
fn name_of(reference: &Reference) -> String {
    let last = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    let stem = |path: &str| last(path).trim_end_matches(".gz").trim_end_matches(".wasm").to_owned();
    match reference {
        Reference::Layout(layout) => layout.name.clone(),
        Reference::Image(image) => last(image.repository()),
        Reference::File(path) => stem(&path.to_string_lossy()),
        Reference::Url(url) => stem(url.split(['?', '#']).next().unwrap_or_default()),
    }
}

/// Say what else has to be known about images of a format.
fn about_format(args: &Args, layout: &Path, name: &str) {
    let (layout, program) = (layout.display(), program());
    match args.format {
        Format::Docker if args.push.is_none() => note(format!(
            "docker images are for registries: other tools do not look for them in a layout; \
             `{program} push oci:{layout}:{name} REGISTRY/REPOSITORY:TAG` brings them there"
        )),
        Format::Maistra => note(
            "maistra images are for OpenShift Service Mesh 2.2 and older; they have no runtime configuration, so root \
             ids and the like are left out",
        ),
        Format::Compat | Format::Oci | Format::Docker => {}
    }
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

fn read_failure(error: ReadError, name: &str) -> Failure {
    let hint = error.hint().map(str::to_owned);
    match error {
        ReadError::Read { .. } => Failure::environment(error),
        ReadError::NotAFile { .. } | ReadError::TooLarge { .. } | ReadError::Changed { .. } => Failure::bad(error),
    }
    .context(&format!("failed to package `{name}`"))
    .hints(hint)
}

fn carry_failure(error: CarryError) -> Failure {
    let hint = error.hint();
    if error.is_bad_content() { Failure::bad(error) } else { Failure::environment(error) }.hints(hint)
}

fn failure(error: PackageError, subject: &Subject) -> Failure {
    let hint = error.hint();
    match error {
        PackageError::Layout(error) => layout_failure(error),
        PackageError::Assemble(AssembleError::Read(error)) => read_failure(error, &subject.name),
        PackageError::Assemble(error) => Failure::bad(error)
            .context(&format!("failed to package `{}` ({})", subject.name, subject.origin))
            .hints(hint),
    }
}

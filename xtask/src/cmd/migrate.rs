//! `cargo xtask migrate`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use clap::builder::NonEmptyStringValueParser;
use mesh::migrate::{Kind, NewImage, Options, migrate};
use mesh::model::{Dialect, Phase};
use mesh::{Problem, Resources};
use packager::image::Variant;
use packager::layout::Layout;
use packager::module::EnvoyVersion;
use packager::reference::Reference;

use super::images::images;
use super::package::carried;
use super::registry_flags::{Destination, RegistryFlags, layout_failure, reference};
use crate::report::{Failure, data, note, program};
use crate::{environment, input};

const ABOUT: &str = "\
Write extension resources of older kinds as newer ones

ServiceMeshExtension becomes WasmPlugin, WasmPlugin becomes TrafficExtension (with --to TrafficExtension), and each use \
of a WasmExtension by a gateway or setting becomes a WasmPlugin. Prints all resources as YAML; what is not migrated is \
printed as it was. What cannot be carried over, and where a proxy's filter chain is another afterwards, is said on \
standard error.";

/// Write extension resources of older kinds as newer ones.
#[derive(clap::Args)]
#[command(long_about = ABOUT)]
pub(crate) struct Args {
    /// Resources: YAML or JSON files, folders of them, or `-` for standard input.
    #[arg(short = 'f', long = "filename", value_name = "FILE", required = true, num_args = 1..)]
    files: Vec<PathBuf>,
    /// The kind to arrive at.
    #[arg(long, value_enum, default_value_t = To::WasmPlugin)]
    to: To,
    /// Put what is in namespace OLD into namespace NEW; may be repeated.
    #[arg(long = "namespace-map", value_name = "OLD=NEW")]
    namespaces: Vec<String>,
    #[arg(long, help = "Keep each ServiceMeshExtension to inbound traffic, with `match: [{mode: SERVER}]`")]
    keep_inbound: bool,
    /// The control plane's namespace, whose extensions count for every namespace.
    #[arg(long, visible_alias = "root-namespace", value_name = "NAMESPACE", value_parser = NonEmptyStringValueParser::new(), default_value = "istio-system")]
    control_plane_namespace: String,
    /// Repackage the images as well; the manifest.yaml in them gives the phase and priority that a resource leaves out.
    #[arg(long)]
    images: bool,
    /// Take the image of this url from elsewhere: `oci:DIR:NAME`, a file, or another registry's reference.
    #[arg(long = "image", value_name = "URL=REF", requires = "images")]
    from: Vec<String>,
    /// The layout that repackaged images are put into.
    #[arg(long, value_name = "DIR", default_value = "dist", requires = "images")]
    layout: PathBuf,
    /// Push repackaged images to PREFIX/NAME:TAG, and name them there in the resources.
    #[arg(long, value_name = "PREFIX", requires = "images")]
    push: Option<String>,
    /// The oldest Envoy that must load the repackaged modules.
    #[arg(long, value_name = "VERSION", default_value_t = EnvoyVersion::NEWEST, requires = "images")]
    envoy: EnvoyVersion,
    #[command(flatten)]
    registry: RegistryFlags,
}

/// [`Kind`] as a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum To {
    #[value(name = "WasmPlugin", help = "Read by every Istio that has WebAssembly")]
    WasmPlugin,
    #[value(name = "TrafficExtension", help = "Its successor")]
    TrafficExtension,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let mut options = Options {
        to: match args.to {
            To::WasmPlugin => Kind::WasmPlugin,
            To::TrafficExtension => Kind::TrafficExtension,
        },
        namespaces: namespaces(&args.namespaces)?,
        keep_inbound: args.keep_inbound,
        root_namespace: args.control_plane_namespace.clone(),
        images: BTreeMap::new(),
    };
    let sources = input::sources(&args.files)?;
    let resources = input::checked(&sources)?;
    if args.images {
        // Whether the resources can be migrated at all is found out before anything is fetched or written.
        migrate(&sources, &options).map_err(|problems| refused(&problems))?;
        options.images = repackage(args, &resources)?;
    }
    let migration = migrate(&sources, &options).map_err(|problems| refused(&problems))?;
    for remark in &migration.remarks {
        note(format!("note: {remark}"));
    }
    for difference in &migration.differences {
        note(format!("note: another chain: {difference}"));
    }
    if migration.migrated == 0 {
        note("nothing to migrate");
    }
    if !migration.text.is_empty() {
        data(migration.text.strip_suffix('\n').unwrap_or(&migration.text));
    }
    Ok(())
}

fn refused(problems: &[Problem]) -> Failure {
    let line = |problem: &Problem| match problem.hint() {
        Some(hint) => format!("{problem}\n  hint: {hint}"),
        None => problem.to_string(),
    };
    let lines: Vec<String> = problems.iter().map(line).collect();
    Failure::bad(lines.join("\nerror: ")).context("failed to migrate")
}

fn namespaces(flags: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let mut namespaces = BTreeMap::new();
    for flag in flags {
        let Some((old, new)) = flag.split_once('=').filter(|(old, new)| !old.is_empty() && !new.is_empty()) else {
            return Err(Failure::usage(format!("--namespace-map `{flag}`: expected OLD=NEW")));
        };
        if namespaces.insert(old.to_owned(), new.to_owned()).is_some() {
            return Err(Failure::usage(format!("--namespace-map: `{old}` is given twice")));
        }
    }
    Ok(namespaces)
}

/// Repackages each image once; gives what stands for it.
fn repackage(args: &Args, resources: &Resources) -> Result<BTreeMap<String, NewImage>, Failure> {
    let elsewhere = images(&args.from, resources)?;
    let destination = args.push.as_deref().map(|prefix| args.registry.destination(prefix)).transpose()?;
    let options = args.registry.fetch_options()?;
    let older = resources.extensions.iter().filter(|extension| matches!(extension.dialect, Dialect::Maistra { .. }));
    let urls: BTreeSet<&str> = older.filter_map(|extension| Some(extension.wasm()?.url.as_str())).collect();
    let mut subjects = Vec::new();
    let mut names = BTreeSet::new();
    for url in urls {
        let published = reference(url)?;
        if let (Reference::Image(image), None) = (&published, &destination)
            && image.digest().is_some()
        {
            let message = format!("{url} is pinned to a digest, which a repackaged image does not have");
            return Err(Failure::usage(message).hint("give a place for it with --push"));
        }
        let mut subject = carried(elsewhere.get(url).unwrap_or(&published), &options)?;
        let tag = tag(&published);
        subject.name = unused(&published, tag.as_deref(), &names);
        names.insert(subject.name.clone());
        if subject.metadata.name.is_empty() {
            subject.metadata.name.clone_from(&subject.name);
        }
        subject.metadata.source_date_epoch = environment::source_date_epoch()?;
        subjects.push((url, tag, subject));
    }
    if subjects.is_empty() {
        return Ok(BTreeMap::new());
    }
    let layout = Layout::open_or_create(&args.layout).map_err(layout_failure)?;
    let mut found = BTreeMap::new();
    for (url, tag, subject) in subjects {
        let packaged = subject.put(Variant::Compat, args.envoy, &layout)?;
        let new = match &destination {
            Some(destination) => push(destination, &layout, &packaged.name, tag.as_deref())?,
            None => {
                later(&args.layout, url, &packaged.name);
                url.to_owned()
            }
        };
        let metadata = subject.metadata;
        let image = NewImage { url: new, phase: phase(metadata.phase.as_deref()), priority: metadata.priority };
        found.insert(url.to_owned(), image);
    }
    Ok(found)
}

fn push(destination: &Destination, layout: &Layout, name: &str, tag: Option<&str>) -> Result<String, Failure> {
    let pushed = destination.push(layout, name, tag.unwrap_or("latest"))?;
    note(format!("pushed {pushed}"));
    Ok(format!("oci://{pushed}"))
}

/// Says what is left to do when the image was not pushed.
fn later(layout: &Path, url: &str, name: &str) {
    let (layout, program, place) = (layout.display(), program(), url.trim_start_matches("oci://"));
    note(format!(
        "note: {url} is repackaged as oci:{layout}:{name}; the resources still name {url}, so push it there \
         (`{program} push oci:{layout}:{name} {place}`) or use --push"
    ));
}

fn tag(reference: &Reference) -> Option<String> {
    match reference {
        Reference::Image(image) => image.tag().map(str::to_owned),
        _ => None,
    }
}

/// A name for the image in the layout: its own, with as much of its address as others leave necessary.
fn unused(reference: &Reference, tag: Option<&str>, taken: &BTreeSet<String>) -> String {
    let repository = match reference {
        Reference::Image(image) => image.repository().to_owned(),
        _ => "plugin".to_owned(),
    };
    let short = repository.rsplit('/').next().unwrap_or_default().to_owned();
    let long = repository.replace('/', "-");
    let tagged = |name: &str| format!("{name}-{}", tag.unwrap_or("latest"));
    let names = [short.clone(), tagged(&short), long.clone(), tagged(&long)];
    let numbered = (2..).map(|number| format!("{long}-{number}"));
    names.into_iter().chain(numbered).find(|name| !taken.contains(name)).unwrap_or(short)
}

/// Istio's name of a phase.
fn phase(name: Option<&str>) -> Phase {
    match name {
        Some("AUTHN") => Phase::Authn,
        Some("AUTHZ") => Phase::Authz,
        Some("STATS") => Phase::Stats,
        _ => Phase::Unspecified,
    }
}

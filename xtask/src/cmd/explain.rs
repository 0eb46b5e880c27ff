//! `cargo xtask explain`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use mesh::model::{Direction, Extension, FilterChain, FilterKind, Layer, Listener, Protocol, Proxy, ProxyKind};
use mesh::warnings::{self, Warning};
use mesh::{AttachedService, Locator, MeshOptions, ProxyError, Resources, ServiceKind};
use packager::fetch::Explanation;

use super::requests;
use crate::input;
use crate::report::{Failure, data, note, printable};

mod json;
mod text;

/// Show the filter chain that Istio builds for a proxy: what runs, in which order, why, and what does not run.
///
/// The first line is the chain as Istio's documentation writes it: extensions by their own names, the filters that
/// policies put there (`istio.authn` for `RequestAuthentication`, `istio.authz` for `AuthorizationPolicy`,
/// `istio.ext_authz` for its action CUSTOM), and the last filter. The table below it, and --json, have every filter by
/// Envoy's name.
#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("proxy").args(["workload", "namespace"]))]
pub(crate) struct Args {
    /// Resources: YAML or JSON files, folders of them, or `-` for standard input.
    #[arg(short = 'f', long = "filename", value_name = "FILE", required = true, num_args = 1..)]
    files: Vec<PathBuf>,
    /// The pod, workload or Gateway of the resources whose proxy it is; by default the one that the resources themselves
    /// name, as with `run`.
    #[arg(long, value_name = "NS/NAME", conflicts_with_all = ["label", "kind"])]
    workload: Option<String>,
    /// A proxy in this namespace, of a kind and with labels that are not among the resources.
    #[arg(long, value_name = "NAMESPACE", value_parser = NonEmptyStringValueParser::new(), requires = "kind")]
    namespace: Option<String>,
    /// A label of that proxy's pod; may be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = label, requires = "namespace")]
    label: Vec<(String, String)>,
    /// What that proxy does in the mesh.
    #[arg(long, value_enum, requires = "namespace")]
    kind: Option<Kind>,
    /// The traffic's direction at a sidecar. With neither direction nor port, every `match` entry counts.
    #[arg(long, value_enum)]
    direction: Option<Way>,
    /// The listener's port.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Which of the listener's chains; `http` unless all extensions are network filters and no proxy is named.
    #[arg(long, value_enum)]
    layer: Option<Chain>,
    /// What the port carries, which decides how its network chain ends; by default what the Services and Gateways say.
    #[arg(long, value_enum)]
    protocol: Option<Carries>,
    /// A Service whose requests the waypoint's chain is for; by default all that use it.
    #[arg(long, value_name = "NS/NAME", value_parser = qualified)]
    service: Vec<(String, String)>,
    /// A `ServiceEntry` whose requests the waypoint's chain is for.
    #[arg(long, value_name = "NS/NAME", value_parser = qualified)]
    service_entry: Vec<(String, String)>,
    /// Istio's root namespace, whose extensions count for every namespace.
    #[arg(long, value_name = "NAMESPACE", value_parser = NonEmptyStringValueParser::new(), default_value = "istio-system")]
    root_namespace: String,
    /// Print the first line with every filter, by Envoy's names.
    #[arg(long, conflicts_with = "json")]
    all: bool,
    /// Print JSON: `chain`, `left_out`, `warnings`; with --before also `changes`, with --fetch a `fetch` for each image.
    #[arg(long)]
    json: bool,
    /// The resources as they are now: tell what changes in the chain when those of -f take their place.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    before: Vec<PathBuf>,
    /// Say for each extension of the chain whether its module would be pulled, under which key the cache has it, and with
    /// which secret. Nothing is asked of any registry.
    #[arg(long)]
    fetch: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Kind {
    Sidecar,
    Gateway,
    Waypoint,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Way {
    Inbound,
    Outbound,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Chain {
    /// What sees requests.
    Http,
    /// What sees connections.
    Network,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Carries {
    Http,
    Tcp,
}

/// A chain and everything that is said about it.
struct Explained {
    chain: FilterChain,
    warnings: Vec<Warning>,
    changes: Option<Vec<mesh::Change>>,
    /// By [`Extension::id`].
    fetches: BTreeMap<String, Fetch>,
}

/// A proxy, and what is meant of it where no flag says so.
#[derive(Clone)]
struct Asked {
    proxy: Proxy,
    listener: Option<Listener>,
    services: Vec<AttachedService>,
}

/// How an extension's module would be had.
struct Fetch {
    explanation: Result<Explanation, String>,
    pull_secret: Option<String>,
    /// Whether the secret is among the resources.
    secret_given: bool,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let is_stdin = |file: &PathBuf| file.as_os_str() == "-";
    if args.files.iter().any(is_stdin) && args.before.iter().any(is_stdin) {
        return Err(Failure::usage("standard input can be what is before or what is after, not both"));
    }
    let (resources, locator) = input::read_located(&args.files)?;
    let explained = if args.before.is_empty() {
        let asked = asked(args, &resources)?;
        Explained { changes: None, ..explain(args, &locator, &resources, &asked)? }
    } else {
        let before = input::read(&args.before)?;
        // A workload may be in one of the two only: what is changed are the extensions.
        let (old, new) = match (named(args, &before), named(args, &resources)) {
            _ if args.workload.is_none() && args.namespace.is_none() => {
                let assumed = asked(args, &resources)?;
                (assumed.clone(), assumed)
            }
            (Ok(old), Ok(new)) => (old, new),
            (Ok(only), Err(_)) | (Err(_), Ok(only)) => (only.clone(), only),
            (Err(_), Err(error)) => return Err(not_found(error, &resources, args)),
        };
        let old = chain(args, &before, &old).0;
        let explained = explain(args, &locator, &resources, &new)?;
        Explained { changes: Some(mesh::diff(&old, &explained.chain)), ..explained }
    };
    if args.json {
        let text = serde_json::to_string_pretty(&json::document(&explained))
            .map_err(|error| Failure::environment(error).context("failed to write the report"))?;
        data(text);
    } else {
        for line in text::lines(&explained, args.all) {
            data(printable(&line));
        }
    }
    Ok(())
}

fn explain(args: &Args, locator: &Locator, resources: &Resources, asked: &Asked) -> Result<Explained, Failure> {
    let (chain, mesh) = chain(args, resources, asked);
    tell(args, &chain, &mesh, resources);
    let mut warnings = warnings::of_chain(resources, &chain, &mesh);
    warnings::locate(&mut warnings, locator);
    let fetches = if args.fetch { fetches(&chain, resources)? } else { BTreeMap::new() };
    Ok(Explained { chain, warnings, changes: None, fetches })
}

/// The proxy that was asked for, else the one that the extensions are for, which is said.
fn asked(args: &Args, resources: &Resources) -> Result<Asked, Failure> {
    if args.workload.is_some() || args.namespace.is_some() {
        return named(args, resources).map_err(|error| not_found(error, resources, args));
    }
    let mesh = MeshOptions { root_namespace: args.root_namespace.clone(), ..MeshOptions::default() };
    let assumed = mesh::assume_proxy(resources, &mesh).map_err(|error| match error {
        ProxyError::Ambient(_) => input::no_proxy(error),
        ProxyError::NoExtensions => Failure::bad(error),
        _ => Failure::usage(error),
    })?;
    note(assumed.sentence);
    Ok(Asked { proxy: assumed.proxy, listener: Some(assumed.listener), services: assumed.services })
}

/// The proxy that the flags name.
fn named(args: &Args, resources: &Resources) -> Result<Asked, ProxyError> {
    let proxy = match (&args.workload, &args.namespace, args.kind) {
        (Some(name), _, _) => mesh::workload(resources, name),
        (None, namespace, kind) => {
            let kind = match kind {
                Some(Kind::Gateway) => ProxyKind::Gateway,
                Some(Kind::Waypoint) => ProxyKind::Waypoint,
                Some(Kind::Sidecar) | None => ProxyKind::Sidecar,
            };
            let labels = args.label.iter().cloned().collect();
            Ok(mesh::stated(resources, namespace.as_deref().unwrap_or("default"), labels, kind))
        }
    };
    proxy.map(|proxy| Asked { proxy, listener: None, services: Vec::new() })
}

fn not_found(error: ProxyError, resources: &Resources, args: &Args) -> Failure {
    if matches!(error, ProxyError::Ambient(_)) {
        return input::no_proxy(error);
    }
    let mesh = MeshOptions { root_namespace: args.root_namespace.clone(), ..MeshOptions::default() };
    let hint = mesh::assume_proxy(resources, &mesh).ok().map(|assumed| {
        format!("the extensions are for `--workload {}/{}`", assumed.proxy.namespace, assumed.proxy.name)
    });
    Failure::usage(error).hints(hint)
}

/// The chain of the listener that was asked for.
fn chain(args: &Args, resources: &Resources, asked: &Asked) -> (FilterChain, MeshOptions) {
    let Asked { proxy, listener: assumed, services: meant } = asked;
    let of_kind = |kind, names: &[(String, String)]| {
        let service = |(namespace, name): &(String, String)| AttachedService {
            kind,
            namespace: namespace.clone(),
            name: name.clone(),
        };
        names.iter().map(service).collect::<Vec<_>>()
    };
    let mut services = of_kind(ServiceKind::Service, &args.service);
    services.extend(of_kind(ServiceKind::ServiceEntry, &args.service_entry));
    if services.is_empty() {
        services.clone_from(meant);
    }
    if services.is_empty() && proxy.kind == ProxyKind::Waypoint {
        services = mesh::services_of(resources, proxy);
    }
    let mesh = MeshOptions { root_namespace: args.root_namespace.clone(), services };
    let mut listener = Listener {
        direction: match args.direction {
            Some(Way::Inbound) => Some(Direction::Inbound),
            Some(Way::Outbound) => Some(Direction::Outbound),
            None => assumed.and_then(|assumed| assumed.direction),
        },
        port: args.port,
        layer: match (args.layer, assumed) {
            (Some(Chain::Network), _) => Layer::Network,
            (Some(Chain::Http), _) | (None, None) => Layer::Http,
            (None, Some(assumed)) => assumed.layer,
        },
        protocol: None,
    };
    listener.protocol = match args.protocol {
        Some(Carries::Http) => Some(Protocol::Http),
        Some(Carries::Tcp) => Some(Protocol::Tcp),
        None => mesh::protocol(resources, proxy, listener),
    };
    (mesh::resolve(resources, proxy, &listener, &mesh), mesh)
}

/// Says what the chain stands for where the flags leave it open.
fn tell(args: &Args, chain: &FilterChain, mesh: &MeshOptions, resources: &Resources) {
    let is_waypoint = chain.proxy.kind == ProxyKind::Waypoint;
    let asked = !args.service.is_empty() || !args.service_entry.is_empty();
    if asked && !is_waypoint {
        note("--service and --service-entry count at waypoints only");
    }
    let given = [
        ("Service", &args.service, &resources.services),
        ("ServiceEntry", &args.service_entry, &resources.service_entries),
    ];
    for (kind, asked, given) in given {
        for (namespace, name) in asked {
            if !given.iter().any(|service| service.namespace == *namespace && service.name == *name) {
                note(format!("no {kind} of the input is called `{namespace}/{name}`"));
            }
        }
    }
    if is_waypoint && !asked && mesh.services.len() > 1 {
        note(format!(
            "this is what all {} services together get that use the waypoint; Istio builds a chain for each, which \
             --service shows",
            mesh.services.len()
        ));
    }
    if chain.listener.layer == Layer::Network && chain.listener.protocol.is_none() {
        note("nothing says what the port carries, so this is the chain of TCP; --protocol http shows the other");
    }
}

/// What the cache would do for each module of the chain.
fn fetches(chain: &FilterChain, resources: &Resources) -> Result<BTreeMap<String, Fetch>, Failure> {
    let cache = requests::cache()?;
    let mut fetches = BTreeMap::new();
    for extension in chain.filters.iter().filter_map(|filter| extension(&filter.kind)) {
        let Some(wasm) = extension.wasm() else { continue };
        let asked = requests::asked(extension, wasm, resources);
        let explanation = cache.explain(&asked.request).map_err(|error| error.to_string());
        let secret_given = asked.request.credentials.is_some();
        fetches.insert(extension.id(), Fetch { explanation, pull_secret: asked.pull_secret, secret_given });
    }
    Ok(fetches)
}

fn extension(kind: &FilterKind) -> Option<&Extension> {
    match kind {
        FilterKind::Extension(extension) => Some(extension),
        FilterKind::BuiltIn(_) => None,
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

fn qualified(text: &str) -> Result<(String, String), String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok((namespace.to_owned(), name.to_owned()))
        }
        _ => Err("expected NAMESPACE/NAME".to_owned()),
    }
}

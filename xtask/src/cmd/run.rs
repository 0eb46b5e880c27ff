//! `cargo xtask run`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Seek, Write};
use std::path::PathBuf;

use mesh::model::{EnvValue, Extension, FailStrategy, FilterChain, FilterKind, WasmFilter};
use mesh::plan::{Module, Plan};
use mesh::{MeshOptions, ProxyError, Resources};
use packager::fetch::{Cache, FetchOptions};
use packager::reference::Reference;
use packager::verify::Asked;

use super::registry_flags::{RegistryFlags, fetch_failure};
use super::requests;
use crate::report::{Failure, note};
use crate::{handover, input};

/// Serve the filter chain that the given resources make, on a real HTTP listener.
///
/// Prints `listening on http://ADDRESS` on standard output once it serves; SIGTERM and SIGINT drain it.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    flags: PlanFlags,
    /// Do not print a line for each request.
    #[arg(long, short)]
    quiet: bool,
}

/// Which chain, with which modules, where: what `run` and `envoy` have in common.
#[derive(clap::Args)]
pub(crate) struct PlanFlags {
    /// Resources: YAML or JSON files, folders of them, or `-` for standard input.
    #[arg(short = 'f', long = "filename", value_name = "FILE", required = true, num_args = 1..)]
    files: Vec<PathBuf>,
    /// The pod, workload or Gateway to be; by default the one that the resources themselves name.
    #[arg(long, value_name = "NS/NAME")]
    workload: Option<String>,
    /// Take the module of this url from elsewhere: `oci:DIR:NAME`, a file, or another registry's reference.
    #[arg(long = "image", value_name = "URL=REF")]
    images: Vec<String>,
    /// Address to listen on; port 0 picks a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: String,
    /// Where requests go after the chain; by default an echo that is built in.
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
    /// A server that filters may call by this name: `http://HOST:PORT`.
    #[arg(long = "cluster", value_name = "NAME=URL")]
    clusters: Vec<String>,
    /// Worker threads, each with its own VMs; by default one per core.
    #[arg(long, value_name = "N")]
    workers: Option<usize>,
    /// Istio's root namespace, whose extensions count for every namespace.
    #[arg(long, value_name = "NAMESPACE", default_value = "istio-system")]
    root_namespace: String,
    /// Say for each extension why its module was pulled or not, and under which key the cache has it.
    #[arg(long)]
    explain_fetch: bool,
    #[command(flatten)]
    registry: RegistryFlags,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let plan = plan(&args.flags)?;
    let plan = serde_json::to_vec(&plan)
        .map_err(std::io::Error::from)
        .and_then(|plan| unnamed_file(&plan))
        .map_err(|error| Failure::environment(format!("failed to pass the chain to the harness: {error}")))?;
    let mut arguments = vec!["serve".into()];
    if args.quiet {
        arguments.push("--quiet".into());
    }
    Err(handover::exec("harness", "plugwright-harness", arguments, Some(plan)))
}

/// Resolves the chain and fetches its modules.
pub(crate) fn plan(args: &PlanFlags) -> Result<Plan, Failure> {
    let resources = input::read(&args.files)?;
    let chain = resolve(&resources, args)?;
    let images = images(&args.images, &resources)?;
    let clusters = clusters(&args.clusters)?;
    let options = args.registry.fetch_options()?;
    let cache = requests::cache()?;
    let mut modules = BTreeMap::new();
    for (extension, filter) in wasm(&chain) {
        let asked = requests::asked(extension, filter, &resources);
        let module =
            fetch(&asked, filter, images.get(&with_scheme(&filter.url)), &cache, &options, args.explain_fetch)?;
        modules.insert(extension.id(), module);
    }
    Ok(Plan {
        host_env: host_environment(&chain),
        chain,
        modules,
        listen: args.listen.clone(),
        upstream: args.upstream.clone(),
        clusters,
        workers: args.workers,
    })
}

/// `--cluster NAME=URL`, by name.
fn clusters(flags: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let mut clusters = BTreeMap::new();
    for flag in flags {
        let split = flag.split_once('=').filter(|(name, url)| !name.is_empty() && url.contains("://"));
        let (name, url) = split.ok_or_else(|| Failure::usage(format!("--cluster `{flag}`: expected NAME=URL")))?;
        if clusters.insert(name.to_owned(), url.to_owned()).is_some() {
            return Err(Failure::usage(format!("--cluster: `{name}` is given twice")));
        }
    }
    Ok(clusters)
}

/// The chain for the workload that was asked for, or for the one that the resources name.
fn resolve(resources: &Resources, args: &PlanFlags) -> Result<FilterChain, Failure> {
    let mut mesh = MeshOptions { root_namespace: args.root_namespace.clone(), ..MeshOptions::default() };
    let (proxy, listener) = if let Some(name) = &args.workload {
        let proxy = mesh::workload(resources, name).map_err(Failure::usage)?;
        mesh.services = mesh::services_of(resources, &proxy);
        let listener = mesh::assumed_listener(resources, &proxy);
        (proxy, listener)
    } else {
        let assumption = mesh::assume_proxy(resources, &mesh).map_err(|error| match error {
            ProxyError::NoExtensions => Failure::bad(error),
            _ => Failure::usage(error),
        })?;
        note(assumption.sentence);
        mesh.services = assumption.services;
        (assumption.proxy, assumption.listener)
    };
    let chain = mesh::resolve(resources, &proxy, &listener, &mesh);
    for left_out in &chain.left_out {
        let mesh::model::LeftOut { kind, namespace, name, reason } = left_out;
        note(format!("not in the chain: {kind} {namespace}/{name}: {reason}"));
    }
    Ok(chain)
}

/// The chain's wasm extensions, in order.
fn wasm(chain: &FilterChain) -> impl Iterator<Item = (&Extension, &WasmFilter)> {
    chain.filters.iter().filter_map(|filter| match &filter.kind {
        FilterKind::Extension(extension) => Some((&**extension, extension.wasm()?)),
        FilterKind::BuiltIn(_) => None,
    })
}

/// `--image URL=REF`, by URL with its scheme. A URL that no resource has is a typing error.
fn images(flags: &[String], resources: &Resources) -> Result<BTreeMap<String, Reference>, Failure> {
    let wasm = resources.extensions.iter().filter_map(Extension::wasm);
    let known: BTreeSet<String> = wasm.map(|wasm| with_scheme(&wasm.url)).collect();
    let mut images = BTreeMap::new();
    for flag in flags {
        // A query in the URL may have a `=` too; references have none.
        let (url, reference) =
            flag.rsplit_once('=').ok_or_else(|| Failure::usage(format!("--image `{flag}`: expected URL=REF")))?;
        let url = with_scheme(url);
        if !known.contains(&url) {
            let known = known.iter().cloned().collect::<Vec<_>>().join(", ");
            return Err(Failure::usage(format!("--image: no resource has the url `{url}`; they have {known}")));
        }
        let reference =
            Reference::parse(reference).map_err(|error| Failure::usage(error).context(&format!("--image `{flag}`")))?;
        if images.insert(url.clone(), reference).is_some() {
            return Err(Failure::usage(format!("--image: `{url}` is given twice")));
        }
    }
    Ok(images)
}

fn with_scheme(url: &str) -> String {
    if url.contains("://") { url.to_owned() } else { format!("oci://{url}") }
}

/// A module in the cache. Like Istio's agent, a fetch that fails is survived only by an extension that says FAIL_OPEN.
fn fetch(
    asked: &Asked,
    filter: &WasmFilter,
    replacement: Option<&Reference>,
    cache: &Cache,
    options: &FetchOptions,
    explain: bool,
) -> Result<Module, Failure> {
    let who = &asked.request.resource;
    let fetched = if let Some(replacement) = replacement {
        // Pin, policy and secret are of the image that the resource names, not of the one put in its place.
        cache.fetch_reference(replacement, options)
    } else {
        if let Some(error) = &asked.secret_error {
            return Err(Failure::bad(error.clone()).context(who));
        }
        if let (Some(secret), None) = (&asked.pull_secret, &asked.request.credentials) {
            note(format!(
                "{who}: Secret {secret} is not in the given files; this machine's docker config stands in for it"
            ));
        }
        cache.fetch(&asked.request, options)
    };
    match fetched {
        Ok(fetched) => {
            note(format!("{who}: {}", fetched.source));
            if explain {
                note(format!("{who}: {}", fetched.explanation));
            }
            Ok(Module::File { path: fetched.path, sha256: fetched.content.hex().to_owned() })
        }
        Err(error) if filter.fail_strategy == FailStrategy::FailOpen => {
            let reason = error.to_string();
            note(format!("{who}: {reason}; it says FAIL_OPEN, so traffic passes without it"));
            Ok(Module::FetchFailed { reason })
        }
        Err(error) => Err(fetch_failure(error).context(who)),
    }
}

/// The variables of this process that the chain's extensions ask for with `valueFrom: HOST`.
fn host_environment(chain: &FilterChain) -> BTreeMap<String, String> {
    let wanted = wasm(chain).flat_map(|(_, filter)| &filter.env).filter(|variable| variable.value == EnvValue::Host);
    wanted.filter_map(|variable| Some((variable.name.clone(), std::env::var(&variable.name).ok()?))).collect()
}

/// A file that has no name: what is in it may be secret, and nothing is left behind whatever happens next.
fn unnamed_file(bytes: &[u8]) -> std::io::Result<File> {
    let mut file = tempfile::tempfile()?;
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file)
}

//! `cargo xtask run`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Seek, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use clap::builder::NonEmptyStringValueParser;
use mesh::model::{
    EnvValue, Extension, FailStrategy, FilterChain, FilterKind, Layer, LeftOut, Listener, Protocol, WasmFilter,
};
use mesh::plan::{Module, Plan};
use mesh::{MeshOptions, ProxyError, Resources};
use packager::fetch::{Cache, FetchOptions};
use packager::reference::Reference;
use packager::verify::Asked;

use super::images::{images, with_scheme};
use super::registry_flags::{RegistryFlags, fetch_failure};
use super::requests;
use super::surroundings::{Surroundings, address};
use super::watch::{self, First, Watched};
use crate::report::{Failure, note};
use crate::{environment, handover, input};

/// Serve the filter chain that the given resources make, on a real HTTP listener.
///
/// Prints `listening on http://ADDRESS` on standard output once it serves; SIGTERM and SIGINT drain it.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    flags: PlanFlags,
    #[command(flatten)]
    show: ShowFlags,
    /// Serve a page with what the filters did to each request, at `/__plugwright` and to this machine only: on the
    /// administration endpoint, or on the listener, in front of the chain.
    #[arg(long, value_enum, value_name = "WHERE", num_args = 0..=1, default_missing_value = "admin", require_equals = true)]
    page: Option<PageAt>,
    /// Follow changes of the resources, clusters, node and local modules: the chain is made anew, and takes the old one's
    /// place for requests that come then. What cannot be served leaves the old one where it is.
    #[arg(long)]
    reload: bool,
    /// This process watches for the one that serves.
    #[arg(long, hide = true, requires = "reload")]
    watching: bool,
}

/// What is told of requests.
#[derive(clap::Args)]
#[command(next_help_heading = None::<&str>)]
pub(crate) struct ShowFlags {
    /// What is told of each request on standard error. `full` and `json` have everything that the filters did to it.
    #[arg(long, value_enum, value_name = "MODE", default_value_t = Trace::Line)]
    trace: Trace,
    /// Do not mask credentials in what is told of requests and in plugins' log lines.
    #[arg(long)]
    show_secrets: bool,
    /// The same as `--trace off`.
    #[arg(long, short, conflicts_with = "trace")]
    quiet: bool,
    /// End with exit code 1 if a plugin did what Envoy answers with a hang, a crash or a broken response.
    #[arg(long)]
    strict: bool,
}

/// Where the trace page is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum PageAt {
    /// At `--admin`, else at a free port.
    Admin,
    /// At `--listen`.
    Listener,
}

/// How much is told of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Trace {
    /// Nothing.
    Off,
    /// One line: method, path without its query, status, who answered, how long it took.
    Line,
    /// A tree: every callback, what it changed, calls, logs, times.
    Full,
    /// The same as one JSON object on a line.
    Json,
}

/// Which chain, with which modules, where: what `run` and `envoy` have in common.
#[derive(clap::Args)]
pub(crate) struct PlanFlags {
    /// Resources: YAML or JSON files, folders of them, or `-` for standard input.
    #[arg(short = 'f', long = "filename", value_name = "FILE", required = true, num_args = 1..)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    chain: ChainFlags,
}

/// The same, without the resources.
#[derive(clap::Args)]
pub(crate) struct ChainFlags {
    /// The pod, workload or Gateway to be; by default the one that the resources themselves name.
    #[arg(long, value_name = "NS/NAME")]
    workload: Option<String>,
    /// Take the module of this url from elsewhere: `oci:DIR:NAME`, a file, or another registry's reference.
    #[arg(long = "image", value_name = "URL=REF")]
    images: Vec<String>,
    /// Address to listen on; port 0 picks a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080", value_parser = address)]
    listen: String,
    /// Where requests go after the chain, `http://`, `https://` or `h2c://HOST[:PORT]`; by default an echo that is
    /// built in. `fixed:STATUS[:BODY]` answers all alike. With `tcp://HOST:PORT` connections are served and not requests: the network chain runs.
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
    /// Trust the certificates in this PEM file too, for `https://` upstreams, clusters and `jwksUri`.
    #[arg(long, value_name = "PEM")]
    upstream_ca: Option<PathBuf>,
    /// Worker threads, each with its own VMs; by default one per core.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: Option<u16>,
    /// Istio's root namespace, whose extensions count for every namespace.
    #[arg(long, value_name = "NAMESPACE", value_parser = NonEmptyStringValueParser::new(), default_value = "istio-system")]
    root_namespace: String,
    /// Say for each extension why its module was pulled or not, and under which key the cache has it.
    #[arg(long)]
    explain_fetch: bool,
    #[command(flatten)]
    surroundings: Surroundings,
    #[command(flatten)]
    registry: RegistryFlags,
    /// Whoever makes plan after plan does not say the same each time.
    #[arg(skip)]
    pub(crate) brief: bool,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    if args.watching {
        return watch::watch(|watched| plan(&args.flags, watched));
    }
    if args.reload && args.flags.files.iter().any(|file| file.as_os_str() == "-") {
        return Err(Failure::usage("--reload: standard input cannot be watched"));
    }
    let mut watched = Watched::default();
    let plan = plan(&args.flags, &mut watched)?;
    if args.reload {
        let arguments = harness_arguments(&args.show, args.page, &["--reload"])?;
        return Err(watch::exec(&First { plan, watched }, arguments, false));
    }
    let plan = serde_json::to_vec(&plan)
        .map_err(std::io::Error::from)
        .and_then(|plan| unnamed_file(&plan))
        .map_err(|error| Failure::environment(format!("failed to pass the chain to the harness: {error}")))?;
    Err(handover::exec(
        "harness",
        "plugwright-harness",
        harness_arguments(&args.show, args.page, &[])?,
        Some(plan.into()),
    ))
}

/// What the harness is called with.
pub(crate) fn harness_arguments(
    args: &ShowFlags,
    page: Option<PageAt>,
    more: &[&str],
) -> Result<Vec<OsString>, Failure> {
    let told = match args.trace {
        _ if args.quiet => "off",
        Trace::Off => "off",
        Trace::Line => "line",
        Trace::Full => "full",
        Trace::Json => "json",
    };
    let mut arguments: Vec<OsString> = ["serve", "--trace", told].map(OsString::from).into();
    for (flag, given) in [("--show-secrets", args.show_secrets), ("--strict", args.strict)] {
        if given {
            arguments.push(flag.into());
        }
    }
    arguments.extend(more.iter().map(OsString::from));
    if let Some(page) = page {
        arguments.extend(["--page", if page == PageAt::Admin { "admin" } else { "listener" }].map(OsString::from));
    }
    arguments.extend(["--code-cache".into(), environment::cache()?.join("code").into_os_string()]);
    Ok(arguments)
}

/// Resolves the chain and fetches its modules, and notes what it reads on the way.
pub(crate) fn plan(args: &PlanFlags, watched: &mut Watched) -> Result<Plan, Failure> {
    for file in &args.files {
        watched.note(file);
    }
    let resources = input::read(&args.files)?;
    plan_of(&resources, BTreeMap::new(), &args.chain, watched)
}

/// The same for resources that are read already. `modules` are in the place of those at these urls.
pub(crate) fn plan_of(
    resources: &Resources,
    modules: BTreeMap<String, Reference>,
    args: &ChainFlags,
    watched: &mut Watched,
) -> Result<Plan, Failure> {
    for file in args.surroundings.files() {
        watched.note(file);
    }
    let (clusters, node) = (args.surroundings.clusters()?, args.surroundings.node()?);
    let wanted = args.wanted();
    let (chain, network) = wanted.resolve(resources)?;
    let mut images = images(&args.images, resources)?;
    images.extend(modules);
    let options = args.registry.fetch_options()?;
    let modules = wanted.modules((&chain, network.as_ref()), resources, &images, &options, watched)?;
    Ok(Plan {
        host_env: host_environment(chains(&chain, network.as_ref())),
        chain,
        network,
        modules,
        listen: args.listen.clone(),
        upstream: args.upstream.clone(),
        clusters,
        node,
        admin: args.surroundings.admin.clone(),
        ca_certificates: args.upstream_ca.as_deref().map(certificates).transpose()?.into_iter().collect(),
        workers: args.workers.map(usize::from),
    })
}

impl ChainFlags {
    /// Whether the addresses can be listened on, for who is not to learn it after a build.
    pub(crate) fn is_free(&self) -> Result<(), Failure> {
        for (flag, address) in [("--listen", Some(&self.listen)), ("--admin", self.surroundings.admin.as_ref())] {
            if let Some(address) = address {
                TcpListener::bind(address).map_err(|error| {
                    Failure::environment(error)
                        .context(&format!("listen on {address}"))
                        .hint(format!("{flag} takes another address; port 0 takes a free one"))
                })?;
            }
        }
        Ok(())
    }

    fn wanted(&self) -> Wanted<'_> {
        Wanted {
            workload: self.workload.as_deref(),
            root_namespace: &self.root_namespace,
            is_tcp: self.upstream.as_deref().is_some_and(|upstream| upstream.starts_with("tcp://")),
            explain_fetch: self.explain_fetch,
            talk: if self.brief { Talk::Exceptions } else { Talk::All },
        }
    }
}

/// What is said on the way to a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Talk {
    /// What was assumed, and where modules came from, too.
    All,
    /// What is not as the resources have it.
    Exceptions,
    Nothing,
}

/// Which chain, of the resources'.
pub(crate) struct Wanted<'a> {
    /// The workload; by default the one that the resources name.
    pub(crate) workload: Option<&'a str>,
    pub(crate) root_namespace: &'a str,
    /// Connections are served and not requests.
    pub(crate) is_tcp: bool,
    pub(crate) explain_fetch: bool,
    pub(crate) talk: Talk,
}

impl Wanted<'_> {
    fn say(&self, from: Talk, line: impl AsRef<str>) {
        if self.talk == Talk::All || self.talk == from {
            note(line);
        }
    }

    /// The chain for the workload that was asked for, or for the one that the resources name; and the network filters in
    /// front of it. Whether it is HTTP at all is for the upstream to say.
    pub(crate) fn resolve(&self, resources: &Resources) -> Result<(FilterChain, Option<FilterChain>), Failure> {
        let mut mesh = MeshOptions { root_namespace: self.root_namespace.to_owned(), ..MeshOptions::default() };
        let (proxy, listener) = if let Some(name) = self.workload {
            let proxy = mesh::workload(resources, name).map_err(input::no_proxy)?;
            mesh.services = mesh::services_of(resources, &proxy);
            let listener = mesh::assumed_listener(resources, &proxy);
            (proxy, listener)
        } else {
            let assumption = mesh::assume_proxy(resources, &mesh).map_err(|error| match error {
                ProxyError::NoExtensions => Failure::bad(error),
                _ => Failure::usage(error),
            })?;
            self.say(Talk::All, &assumption.sentence);
            mesh.services = assumption.services;
            (assumption.proxy, assumption.listener)
        };
        let (layer, protocol) =
            if self.is_tcp { (Layer::Network, Protocol::Tcp) } else { (Layer::Http, Protocol::Http) };
        let listener = Listener { layer, protocol: Some(protocol), ..listener };
        let chain = mesh::resolve(resources, &proxy, &listener, &mesh);
        let network = if self.is_tcp { None } else { mesh::resolve_in_front(resources, &proxy, &listener, &mesh) };
        let in_front = |left_out: &LeftOut| {
            let mut filters = network.iter().flat_map(|network| &network.filters);
            filters.any(|filter| match &filter.kind {
                FilterKind::Extension(extension) => {
                    (&extension.origin.kind, &extension.namespace, &extension.name)
                        == (&left_out.kind, &left_out.namespace, &left_out.name)
                }
                FilterKind::BuiltIn(_) => false,
            })
        };
        for left_out in chain.left_out.iter().filter(|left_out| !in_front(left_out)) {
            let LeftOut { kind, namespace, name, reason } = left_out;
            self.say(Talk::Exceptions, format!("not in the chain: {kind} {namespace}/{name}: {reason}"));
        }
        Ok((chain, network))
    }

    /// Fetches the modules of the chains, by extension.
    pub(crate) fn modules(
        &self,
        (chain, network): (&FilterChain, Option<&FilterChain>),
        resources: &Resources,
        images: &BTreeMap<String, Reference>,
        options: &FetchOptions,
        watched: &mut Watched,
    ) -> Result<BTreeMap<String, Module>, Failure> {
        let cache = requests::cache()?;
        let mut modules = BTreeMap::new();
        for (extension, filter) in chains(chain, network).flat_map(wasm) {
            let asked = requests::asked(extension, filter, resources);
            let replacement = images.get(&with_scheme(&filter.url));
            match replacement.cloned().or_else(|| Reference::parse_istio(&filter.url).ok()) {
                Some(Reference::File(path)) => watched.note(&path),
                Some(Reference::Layout(layout)) => watched.note(&layout.directory.join("index.json")),
                _ => {}
            }
            let module = self.fetch(&asked, filter, replacement, (&cache, options))?;
            modules.insert(extension.id(), module);
        }
        Ok(modules)
    }

    /// A module in the cache. Like Istio's agent, a fetch that fails is survived only by an extension that says FAIL_OPEN.
    fn fetch(
        &self,
        asked: &Asked,
        filter: &WasmFilter,
        replacement: Option<&Reference>,
        (cache, options): (&Cache, &FetchOptions),
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
                self.say(Talk::Exceptions, format!(
                    "{who}: Secret {secret} is not in the given files; this machine's docker config stands in for it"
                ));
            }
            cache.fetch(&asked.request, options)
        };
        match fetched {
            Ok(fetched) => {
                self.say(Talk::All, format!("{who}: {}", fetched.source));
                if self.explain_fetch {
                    self.say(Talk::Exceptions, format!("{who}: {}", fetched.explanation));
                }
                Ok(Module::File { path: fetched.path, sha256: fetched.content.hex().to_owned() })
            }
            Err(error) if filter.fail_strategy == FailStrategy::FailOpen => {
                let reason = error.to_string();
                self.say(Talk::Exceptions, format!("{who}: {reason}; it says FAIL_OPEN, so traffic passes without it"));
                Ok(Module::FetchFailed { reason })
            }
            Err(error) => {
                let elsewhere = replacement.is_none() && self.talk != Talk::Nothing && error.hint().is_none();
                let hint = || {
                    format!(
                        "to take it from elsewhere, such as where `package` put it: --image {}=oci:dist:NAME",
                        filter.url
                    )
                };
                Err(fetch_failure(error).context(who).hints(elsewhere.then(hint)))
            }
        }
    }
}

/// All chains that are to run.
fn chains<'a>(chain: &'a FilterChain, network: Option<&'a FilterChain>) -> impl Iterator<Item = &'a FilterChain> {
    network.into_iter().chain([chain])
}

fn certificates(path: &Path) -> Result<String, Failure> {
    Ok(input::source(path)?.text)
}

/// The chain's wasm extensions, in order.
fn wasm(chain: &FilterChain) -> impl Iterator<Item = (&Extension, &WasmFilter)> {
    chain.filters.iter().filter_map(|filter| match &filter.kind {
        FilterKind::Extension(extension) => Some((&**extension, extension.wasm()?)),
        FilterKind::BuiltIn(_) => None,
    })
}

/// The variables of this process that the chains' extensions ask for with `valueFrom: HOST`.
fn host_environment<'a>(chains: impl Iterator<Item = &'a FilterChain>) -> BTreeMap<String, String> {
    let wanted =
        chains.flat_map(wasm).flat_map(|(_, filter)| &filter.env).filter(|variable| variable.value == EnvValue::Host);
    wanted.filter_map(|variable| Some((variable.name.clone(), std::env::var(&variable.name).ok()?))).collect()
}

/// A file that has no name: what is in it may be secret, and nothing is left behind whatever happens next.
fn unnamed_file(bytes: &[u8]) -> std::io::Result<File> {
    let mut file = tempfile::tempfile()?;
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file)
}

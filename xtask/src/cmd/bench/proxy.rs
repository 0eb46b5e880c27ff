//! The harness beside Envoy, with the same chains, under the same load.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Seek, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use mesh::model::FilterKind;
use mesh::plan::{Module, Plan};
use mesh::{MeshOptions, Source};
use serde_json::{Value, json};

use super::process::Server;
use super::{checkout, release};
use crate::cmd::build::{ToolchainFlags, Way, build};
use crate::report::{Failure, data, note};
use crate::{environment, tools};

/// Serve requests by the harness and by Envoy: one worker each, 16 kept connections, chains of 0, 1 and 5 wasm filters
/// (in VMs of their own) and of one Lua filter.
///
/// Prints a markdown table of medians, with the harness's ratio to Envoy. The harness starts with modules that it has
/// compiled before. Both answer with a fixed response of 300 bytes, and neither logs requests. Needs wrk: `cargo xtask ci --prepare` installs it.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How often each is run; the median counts.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// How long each run is, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    seconds: u16,
    /// Only this chain.
    #[arg(long, value_name = "NAME", value_parser = CHAINS.map(|(name, ..)| name))]
    chain: Option<String>,
}

/// Filters of a chain, by name: how many wasm, how many Lua.
const CHAINS: [(&str, usize, usize); 4] = [("no filter", 0, 0), ("1 wasm", 1, 0), ("5 wasm", 5, 0), ("1 Lua", 0, 1)];

const LUA: &str = "function envoy_on_response(handle) handle:headers():add('x-frame-options', 'DENY') end";

/// What one run showed.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Figures {
    /// Requests per second.
    rate: f64,
    /// Milliseconds.
    p50: f64,
    p99: f64,
    /// Microseconds of processor time per request.
    cpu: f64,
    /// MiB, under load.
    memory: f64,
    /// Milliseconds from the process's start.
    first: f64,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let root = checkout()?;
    if environment::on_path("wrk").is_none() {
        return Err(Failure::environment("`wrk` is missing").hint("cargo xtask ci --prepare"));
    }
    let bench = Bench {
        envoy: tools::envoy(&root.join("target/tools"))?,
        harness: release(root, "harness", "--bin", "plugwright-harness")?,
        module: module()?,
        folder: tempfile::tempdir().map_err(Failure::environment)?,
        seconds: args.seconds,
    };
    data("| chain | proxy | requests/s | p50 | p99 | CPU per request | memory | first response |");
    data("|---|---|---|---|---|---|---|---|");
    for (name, wasm, lua) in CHAINS.into_iter().filter(|chain| args.chain.as_ref().is_none_or(|only| only == chain.0)) {
        // What is measured is a warm start: a module is compiled once on a machine.
        drop(bench.start_harness(wasm, lua)?);
        let (mut envoy, mut harness) = (Vec::new(), Vec::new());
        for round in 1..=args.rounds {
            note(format!("{name}, round {round} of {}", args.rounds));
            // In turn, so that what else the machine does meets both.
            envoy.push(bench.envoy(wasm, lua)?);
            harness.push(bench.harness(wasm, lua)?);
        }
        let (envoy, harness) = (median(&envoy), median(&harness));
        data(format!("| {name} | Envoy | {} |", cells(&envoy, None)));
        data(format!("| | harness | {} |", cells(&harness, Some(&envoy))));
    }
    Ok(())
}

struct Bench {
    envoy: PathBuf,
    harness: PathBuf,
    /// The module and its sha256.
    module: (PathBuf, String),
    folder: tempfile::TempDir,
    seconds: u16,
}

/// The sample plugin that appends headers to responses.
fn module() -> Result<(PathBuf, String), Failure> {
    let flags = ToolchainFlags { manifest_path: None, toolchain: Way::Auto, no_install: false };
    let (_, built) = build(&["header-append".to_owned()], &flags)?;
    let path = built.first().map(|built| built.module.clone()).ok_or_else(|| Failure::bad("nothing was built"))?;
    let bytes =
        std::fs::read(&path).map_err(|error| Failure::environment(error).context(&path.display().to_string()))?;
    Ok((path, packager::digest::Digest::of(&bytes).hex().to_owned()))
}

/// A port that is free now. Both proxies take it again as soon as it is given back.
fn free_port() -> Result<SocketAddr, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(Failure::environment)?;
    listener.local_addr().map_err(Failure::environment)
}

impl Bench {
    fn plan(&self, wasm: usize, lua: usize, address: SocketAddr) -> Result<Plan, Failure> {
        let mut text = String::new();
        for index in 0..wasm {
            // The environment is part of a VM's identity: each filter gets a VM of its own.
            let _ = write!(
                text,
                "---\napiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata: {{name: w{index}, namespace: \
                 apps}}\nspec:\n  url: oci://bench.example/header-append:1\n  pluginConfig: {{x-w{index}: \"1\"}}\n  \
                 vmConfig: {{env: [{{name: INDEX, value: \"{index}\"}}]}}\n"
            );
        }
        for index in 0..lua {
            let _ = write!(
                text,
                "---\napiVersion: extensions.istio.io/v1alpha1\nkind: TrafficExtension\nmetadata: {{name: l{index}, \
                 namespace: apps}}\nspec: {{lua: {{inlineCode: \"{LUA}\"}}}}\n"
            );
        }
        let reading = mesh::read(&[Source { file: "bench".to_owned(), text }]);
        if let Some(error) = reading.errors.first() {
            return Err(Failure::bad(error.to_string()));
        }
        let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: web, namespace: apps, labels: {app: web}}\n";
        let pod = mesh::read(&[Source { file: "pod".to_owned(), text: pod.to_owned() }]);
        let proxy = mesh::workload(&pod.resources, "apps/web").map_err(Failure::bad)?;
        let listener = mesh::assumed_listener(&pod.resources, &proxy);
        let chain = mesh::resolve(&reading.resources, &proxy, &listener, &MeshOptions::default());
        let ids = chain.filters.iter().filter_map(|filter| match &filter.kind {
            FilterKind::Extension(extension) if extension.wasm().is_some() => Some(extension.id()),
            _ => None,
        });
        let (path, sha256) = self.module.clone();
        let modules: BTreeMap<String, Module> =
            ids.map(|id| (id, Module::File { path: path.clone(), sha256: sha256.clone() })).collect();
        let plan = json!({
            "chain": chain,
            "modules": modules,
            "host_env": {},
            "listen": address.to_string(),
            "upstream": format!("fixed:200:{}", "x".repeat(300)),
            "workers": 1,
        });
        serde_json::from_value(plan).map_err(|error| Failure::bad(error.to_string()))
    }

    fn harness(&self, wasm: usize, lua: usize) -> Result<Figures, Failure> {
        let (server, address) = self.start_harness(wasm, lua)?;
        self.measure(&server, address)
    }

    fn start_harness(&self, wasm: usize, lua: usize) -> Result<(Server, SocketAddr), Failure> {
        let address = free_port()?;
        let plan = serde_json::to_vec(&self.plan(wasm, lua, address)?).map_err(Failure::bad)?;
        let mut input = tempfile::tempfile().map_err(Failure::environment)?;
        input.write_all(&plan).and_then(|()| input.rewind()).map_err(Failure::environment)?;
        let mut command = Command::new(&self.harness);
        command.args(["serve", "--quiet", "--code-cache"]).arg(self.folder.path().join("code"));
        Ok((Server::start(command, Some(input), address)?, address))
    }

    fn envoy(&self, wasm: usize, lua: usize) -> Result<Figures, Failure> {
        let address = free_port()?;
        let bootstrap = mesh::envoy::bootstrap(&self.plan(wasm, lua, address)?).map_err(Failure::bad)?;
        let file = self.folder.path().join("envoy.json");
        std::fs::write(&file, quiet(bootstrap)?.to_string()).map_err(Failure::environment)?;
        let mut command = Command::new(&self.envoy);
        command.arg("--config-path").arg(&file);
        command.args(["--concurrency", "1", "--use-dynamic-base-id", "--log-level", "error"]);
        self.measure(&Server::start(command, None, address)?, address)
    }

    fn measure(&self, server: &Server, address: SocketAddr) -> Result<Figures, Failure> {
        wrk(1, address)?;
        let before = server.ticks().unwrap_or_default();
        let load = wrk(self.seconds, address)?;
        let spent = server.ticks().unwrap_or_default().saturating_sub(before);
        let ticks = u32::try_from(spent).unwrap_or(u32::MAX);
        let memory = u32::try_from(server.memory().unwrap_or_default()).unwrap_or(u32::MAX);
        Ok(Figures {
            rate: load.requests / load.seconds,
            p50: load.p50,
            p99: load.p99,
            cpu: f64::from(ticks) * 10_000.0 / load.requests,
            memory: f64::from(memory) / 1024.0,
            first: milliseconds(server.first_response),
        })
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Without its line for each request, as the harness is quiet, too.
fn quiet(mut bootstrap: Value) -> Result<Value, Failure> {
    let odd = || Failure::bad("the bootstrap does not have its connection manager where it was");
    let manager = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";
    let manager = bootstrap.pointer_mut(manager).and_then(Value::as_object_mut).ok_or_else(odd)?;
    manager.remove("access_log");
    Ok(bootstrap)
}

/// What wrk counted.
#[derive(Debug, PartialEq)]
struct Load {
    requests: f64,
    seconds: f64,
    p50: f64,
    p99: f64,
}

fn wrk(seconds: u16, address: SocketAddr) -> Result<Load, Failure> {
    let duration = format!("{seconds}s");
    let output = Command::new("wrk")
        .args(["--latency", "--threads", "1", "--connections", "16", "--duration", &duration])
        .arg(format!("http://{address}/"))
        .output()
        .map_err(|error| Failure::environment(format!("failed to run wrk: {error}")))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    load(&text).ok_or_else(|| Failure::environment(format!("wrk saw failures, or nothing at all:\n{text}")))
}

/// Reads wrk's report; `None` when a request failed.
fn load(text: &str) -> Option<Load> {
    if text.contains("Non-2xx") || text.contains("Socket errors") {
        return None;
    }
    let after = |label: &str| text.lines().find_map(|line| line.trim().strip_prefix(label));
    let mut total = text.lines().find(|line| line.contains(" requests in "))?.split_whitespace();
    let requests: f64 = total.next()?.parse().ok()?;
    let seconds = time(total.nth(2)?.trim_end_matches(','))? / 1000.0;
    let (p50, p99) = (time(after("50%")?)?, time(after("99%")?)?);
    (requests > 0.0).then_some(Load { requests, seconds, p50, p99 })
}

/// `541.00us`, `1.29ms`, `5.01s`, in milliseconds.
fn time(text: &str) -> Option<f64> {
    let text = text.trim();
    let (number, scale) = if let Some(number) = text.strip_suffix("us") {
        (number, 0.001)
    } else if let Some(number) = text.strip_suffix("ms") {
        (number, 1.0)
    } else {
        (text.strip_suffix('s')?, 1000.0)
    };
    Some(number.parse::<f64>().ok()? * scale)
}

/// Of each figure its own.
fn median(runs: &[Figures]) -> Figures {
    let of = |figure: fn(&Figures) -> f64| {
        let mut values: Vec<f64> = runs.iter().map(figure).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    };
    Figures {
        rate: of(|run| run.rate),
        p50: of(|run| run.p50),
        p99: of(|run| run.p99),
        cpu: of(|run| run.cpu),
        memory: of(|run| run.memory),
        first: of(|run| run.first),
    }
}

fn cells(figures: &Figures, envoy: Option<&Figures>) -> String {
    let cell = |figure: fn(&Figures) -> f64, digits: usize, unit: &str| {
        let own = figure(figures);
        let ratio = envoy.map(|envoy| format!(" (×{:.2})", own / figure(envoy))).unwrap_or_default();
        format!("{own:.digits$}{unit}{ratio}")
    };
    [
        cell(|f| f.rate, 0, ""),
        cell(|f| f.p50, 2, " ms"),
        cell(|f| f.p99, 2, " ms"),
        cell(|f| f.cpu, 1, " µs"),
        cell(|f| f.memory, 0, " MiB"),
        cell(|f| f.first, 0, " ms"),
    ]
    .join(" | ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = "Running 5s test @ http://127.0.0.1:1/\n  1 threads and 16 connections\n  Thread Stats   Avg\n  \
                          Latency Distribution\n     50%  541.00us\n     75%    0.70ms\n     90%    1.00ms\n     99%    \
                          1.29ms\n  123456 requests in 5.01s, 20.00MB read\nRequests/sec:  24641.92\n";

    #[test]
    fn wrks_report_is_read() {
        let read = load(REPORT).unwrap();
        assert_eq!(read, Load { requests: 123_456.0, seconds: 5.01, p50: 0.541, p99: 1.29 });
    }

    #[test]
    fn a_report_with_failures_is_none() {
        assert_eq!(load(&REPORT.replace("Requests/sec", "  Non-2xx or 3xx responses: 1\nRequests/sec")), None);
        assert_eq!(load(""), None);
    }

    #[test]
    fn medians_are_taken_of_each_figure_apart() {
        let run = |rate, cpu| Figures { rate, p50: 1.0, p99: 2.0, cpu, memory: 3.0, first: 4.0 };
        let middle = median(&[run(3.0, 10.0), run(1.0, 30.0), run(2.0, 20.0)]);
        assert_eq!((middle.rate, middle.cpu), (2.0, 20.0));
    }
}

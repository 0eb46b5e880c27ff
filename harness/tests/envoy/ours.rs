//! A scenario in the harness.

use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use harness::abi::LogLevel;
use harness::chain::Chain;
use harness::engine::Engine;
use harness::log::{ConnectionSummary, RequestSummary, Sink};
use harness::server::{Options, Server};

use crate::scenario::Scenario;
use crate::site::{Site, id};
use crate::view::{View, log_line};

#[derive(Default)]
struct Recorder(Mutex<Lines>, Condvar);

#[derive(Default)]
struct Lines {
    logs: Vec<(LogLevel, String)>,
    access: Vec<String>,
    connections: usize,
}

impl Sink for Recorder {
    fn log(&self, level: LogLevel, line: &str) {
        self.0.lock().unwrap().logs.push((level, line.to_owned()));
        self.1.notify_all();
    }

    fn connection(&self, _: &ConnectionSummary<'_>) {
        self.0.lock().unwrap().connections += 1;
        self.1.notify_all();
    }

    fn request(&self, summary: &RequestSummary<'_>) {
        let status = summary.status.unwrap_or(0);
        let line = format!("{} {} {}", summary.method, status, summary.details);
        self.0.lock().unwrap().access.push(line);
        self.1.notify_all();
    }
}

impl Recorder {
    fn wait(&self, until: impl Fn(&Lines) -> bool) {
        let lines = self.0.lock().unwrap();
        // What is missing shows in the comparison.
        drop(self.1.wait_timeout_while(lines, Duration::from_secs(5), |lines| !until(lines)).unwrap());
    }
}

/// Runs a scenario; `drive` makes the requests at an address and waits for lines.
pub(crate) fn run(
    engine: &Engine,
    index: usize,
    scenario: &Scenario,
    site: &Site,
    drive: impl FnOnce(SocketAddr, &dyn Fn(&str)) -> Vec<String>,
) -> View {
    let log = Arc::new(Recorder::default());
    let mut view = View::default();
    let plan = &site.plan;
    let chain = Chain::load(engine, &plan.chain, plan, &plan.host_env, log.clone(), LogLevel::Info);
    let chain = match (chain, &plan.network) {
        (Ok(chain), Some(network)) => chain.in_front(engine, network, plan, &plan.host_env),
        (chain, _) => chain,
    };
    let chain = match chain {
        Ok(chain) => chain,
        Err(error) => {
            view.refused = Some(chained(&error));
            return view;
        }
    };
    // What the canary logged is not compared.
    log.0.lock().unwrap().logs.clear();
    let options = Options {
        upstream: plan.upstream.clone(),
        clusters: plan.clusters.clone(),
        workers: plan.workers,
        idle_timeout: scenario.idle_ms.map_or(Duration::from_mins(5), Duration::from_millis),
        drain: Duration::from_millis(100),
        ..Options::listen_on(&plan.listen)
    };
    let server = match Server::start(chain, options) {
        Ok(server) => server,
        Err(error) => {
            view.refused = Some(chained(&error));
            return view;
        }
    };
    let logged = |text: &str| log.wait(|lines| lines.logs.iter().any(|(_, line)| line.contains(text)));
    view.responses = drive(server.address(), &logged);
    let requests = scenario.requests();
    if !scenario.is_tcp() {
        log.wait(|lines| lines.access.len() >= requests);
    }
    if scenario.has_network_filters() {
        log.wait(|lines| lines.connections >= requests);
    }
    let lines = log.0.lock().unwrap();
    let id = id(index);
    view.logs = lines.logs.iter().filter_map(|(level, line)| log_line(level.as_str(), line, &id)).collect();
    view.access.clone_from(&lines.access);
    view
}

fn chained(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}

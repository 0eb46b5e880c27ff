//! The harness beside a real Envoy: the same chains, upstreams and requests, and everything that can be seen of them.
//!
//! All scenarios run in one Envoy process, one listener each. Set `SCENARIO` to a part of a section's or scenario's
//! name to run only those; `SHOW=1` prints what Envoy did.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test says so by failing")]
#![expect(clippy::format_push_string, clippy::format_collect, reason = "short texts, put together once")]
#![expect(clippy::print_stdout, reason = "the table of the comparison")]

mod client;
mod envoy;
mod http2;
mod http2_server;
mod ours;
mod probe;
mod scenario;
mod site;
#[path = "../suite/tokens.rs"]
#[expect(dead_code, reason = "the suite's own tests use more of it")]
mod tokens;
mod upstream;
mod view;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use harness::engine::{Engine, Limits};
use scenario::{Scenario, Step};
use serde_json::Value;
use site::{Site, id};
use view::{View, without_incidental};

impl Scenario {
    fn requests(&self) -> usize {
        self.steps.iter().filter(|step| matches!(step, Step::Send(_))).count()
    }

    fn expects_refusal(&self) -> Option<&str> {
        self.steps.iter().find_map(|step| match step {
            Step::Refused(text) => Some(text.as_str()),
            _ => None,
        })
    }

    fn drive(&self, address: SocketAddr, logged: &dyn Fn(&str)) -> Vec<String> {
        let mut responses = Vec::new();
        for step in &self.steps {
            match step {
                Step::Send(request) => {
                    responses.push(without_incidental(&client::send(address, request, logged)));
                }
                Step::Wait(text) => logged(text),
                Step::Sleep(ms) => std::thread::sleep(Duration::from_millis(*ms)),
                Step::Refused(_) => {}
            }
        }
        responses
    }
}

/// The product's bootstrap, with what a test needs beside it.
fn bootstrap(site: &Site, index: usize, scenario: &Scenario) -> Value {
    let bootstrap = mesh::envoy::bootstrap(&site.plan).unwrap_or_else(|error| panic!("{}: {error}", scenario.name));
    let mut text = bootstrap.to_string();
    let line = "%REQ(:METHOD)% %PATH(NQ)% → %RESPONSE_CODE% (%RESPONSE_CODE_DETAILS%) %DURATION% ms";
    assert!(scenario.is_tcp() || text.contains(line));
    text = text
        .replace(line, &format!("[[0|access|{}]] %REQ(:METHOD)% %RESPONSE_CODE% %RESPONSE_CODE_DETAILS%", id(index)));
    if let Some(ms) = scenario.idle_ms {
        #[expect(clippy::cast_precision_loss, reason = "a few seconds")]
        let seconds = ms as f64 / 1000.0;
        text = text.replace("\"stream_idle_timeout\":\"300s\"", &format!("\"stream_idle_timeout\":\"{seconds}s\""));
    }
    serde_json::from_str(&text).unwrap()
}

struct Outcome {
    envoy: View,
    ours: View,
}

fn run(folder: &Path, scenarios: &[Scenario]) -> Vec<Outcome> {
    let sites: Vec<(Site, Site)> = scenarios
        .iter()
        .enumerate()
        .map(|(index, scenario)| (Site::new(folder, index, scenario), Site::new(folder, index, scenario)))
        .collect();
    let bootstraps =
        scenarios.iter().zip(&sites).enumerate().map(|(index, (scenario, site))| bootstrap(&site.0, index, scenario));
    let started = std::time::Instant::now();
    let envoy = envoy::Envoy::start(folder, bootstraps.collect());
    println!("Envoy started in {:.1} s", started.elapsed().as_secs_f64());
    let engine = Engine::new(Limits::default()).unwrap();
    let next = AtomicUsize::new(0);
    let mut outcomes: Vec<Mutex<Option<Outcome>>> = Vec::new();
    outcomes.resize_with(scenarios.len(), Mutex::default);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                while let Some((index, scenario)) = {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    scenarios.get(index).map(|scenario| (index, scenario))
                } {
                    let (_, ours) = &sites[index];
                    let mut view = View::default();
                    match envoy.listener(20_000 + u16::try_from(index).unwrap()) {
                        Ok(address) => {
                            view.responses = scenario.drive(address, &|text| envoy.wait_for(&id(index), text));
                        }
                        Err(reason) => view.refused = Some(reason),
                    }
                    let ours =
                        ours::run(&engine, index, scenario, ours, |address, logged| scenario.drive(address, logged));
                    *outcomes[index].lock().unwrap() = Some(Outcome { envoy: view, ours });
                }
            });
        }
    });
    // Envoy writes its access log every 10 ms; streams that clients left end with the loop's next round.
    std::thread::sleep(Duration::from_millis(200));
    let mut outcomes: Vec<Outcome> =
        outcomes.into_iter().map(|outcome| outcome.into_inner().unwrap().unwrap()).collect();
    let mut views: Vec<View> = outcomes.iter().map(|outcome| outcome.envoy.clone()).collect();
    envoy.logs(&mut views);
    for ((outcome, view), (theirs, ours)) in outcomes.iter_mut().zip(views).zip(&sites) {
        outcome.envoy = view;
        outcome.envoy.take_seen(theirs);
        outcome.ours.take_seen(ours);
    }
    outcomes
}

/// Makes both comparable by what the scenario says about itself.
fn settle(scenario: &Scenario, view: &mut View) {
    if scenario.upstream_varies {
        view.upstream.clear();
        view.called.clear();
    }
    // Of a request without a method or an answer.
    for line in &mut view.access {
        let words = line.split(' ').map(|word| if word.is_empty() { "-" } else { word }).chain(["-", "-"]);
        let filled = words.take(3).collect::<Vec<_>>().join(" ");
        *line = filled;
    }
    view.logs.retain(|line| !scenario.ignored.iter().any(|ignored| line.contains(ignored)));
    if let (Some(wanted), Some(refused)) = (scenario.expects_refusal(), &mut view.refused)
        && refused.contains(wanted)
    {
        wanted.clone_into(refused);
    }
}

/// Both did the same, or are known not to.
fn as_expected(scenario: &Scenario, outcome: &Outcome) -> bool {
    let (mut envoy, mut ours) = (outcome.envoy.clone(), outcome.ours.clone());
    settle(scenario, &mut envoy);
    settle(scenario, &mut ours);
    (envoy == ours) == scenario.differs.is_none()
}

#[test]
fn the_harness_does_what_envoy_does() {
    let folder = tempfile::tempdir().unwrap();
    let scenarios = scenario::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/envoy/scenarios"));
    let mut names: Vec<&str> = scenarios.iter().map(|scenario| scenario.name.as_str()).collect();
    names.sort_unstable();
    names.windows(2).for_each(|pair| assert_ne!(pair[0], pair[1], "two scenarios have one name"));
    let only = std::env::var("SCENARIO").unwrap_or_default();
    let show = std::env::var_os("SHOW").is_some();
    let (hazards, scenarios): (Vec<Scenario>, Vec<Scenario>) =
        scenarios.into_iter().partition(|scenario| scenario.hazard.is_some());
    let chosen: Vec<Scenario> = scenarios
        .into_iter()
        .filter(|scenario| scenario.section.contains(&only) || scenario.name.contains(&only))
        .collect();
    let mut outcomes = run(folder.path(), &chosen);
    // On a busy machine a tick or a timeout may fall elsewhere: what did not come out as it should gets a second look.
    let doubtful: Vec<usize> =
        (0..chosen.len()).filter(|index| !as_expected(&chosen[*index], &outcomes[*index])).collect();
    if !doubtful.is_empty() {
        let again = tempfile::tempdir().unwrap();
        let second: Vec<Scenario> = doubtful.iter().map(|index| chosen[*index].clone()).collect();
        for (index, outcome) in doubtful.into_iter().zip(run(again.path(), &second)) {
            outcomes[index] = outcome;
        }
    }
    let mut table: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    let mut failures = Vec::new();
    for (scenario, mut outcome) in chosen.iter().zip(outcomes) {
        settle(scenario, &mut outcome.envoy);
        settle(scenario, &mut outcome.ours);
        if show {
            println!("{} / {}: {:#?}", scenario.section, scenario.name, outcome.envoy);
        }
        let name = format!("{} / {}", scenario.section, scenario.name);
        let agree = outcome.envoy == outcome.ours;
        let row = table.entry(&scenario.section).or_default();
        row.0 += 1;
        row.1 += usize::from(!agree);
        let refusal_missed = match (scenario.expects_refusal(), &outcome.envoy.refused) {
            (Some(wanted), refused) => refused.as_deref() != Some(wanted),
            (None, refused) => refused.is_some(),
        };
        if refusal_missed {
            failures.push(format!("{name}: Envoy refused it with {:?}", outcome.envoy.refused));
        }
        match (&scenario.differs, agree) {
            (None, false) => {
                failures.push(format!("{name}\n{}", outcome.envoy.difference(&outcome.ours)));
            }
            (Some(reason), false) if show => {
                println!("{name} differs: {reason}\n{}", outcome.envoy.difference(&outcome.ours));
            }
            (Some(reason), true) => failures.push(format!("{name}: agrees now; it was to differ: {reason}")),
            _ => {}
        }
    }
    println!("| section | scenarios | agree | differ | hazards, not run |\n|---|---|---|---|---|");
    for (section, (all, differ)) in &table {
        let hazards = hazards.iter().filter(|scenario| scenario.section == *section).count();
        println!("| {section} | {all} | {} | {differ} | {hazards} |", all - differ);
    }
    assert!(failures.is_empty(), "{} of {} scenarios:\n{}", failures.len(), chosen.len(), failures.join("\n"));
}

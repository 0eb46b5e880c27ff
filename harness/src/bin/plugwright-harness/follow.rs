//! `serve --reload`: plans that come after the first one, a line each on standard input.

use std::io::{BufRead, Write};
use std::sync::Arc;
use std::time::Instant;

use harness::engine::Engine;
use harness::reload::Reloader;
use harness::trace::text::printable;
use mesh::model::FilterChain;
use mesh::plan::{Answer, Line, Module, Plan};

use crate::chained;
use crate::stderr::{Stderr, say};

/// Serves each plan that comes, in a thread that ends with its input. `answers`: who is told what came of it, instead of
/// whoever reads standard error.
pub(crate) fn follow(
    mut input: impl BufRead + Send + 'static,
    mut served: Plan,
    engine: Engine,
    sink: Arc<Stderr>,
    (reloader, address): (Reloader, String),
    mut answers: Option<impl Write + Send + 'static>,
) -> std::io::Result<()> {
    let follow = move || {
        let mut text = String::new();
        while input.read_line(&mut text).is_ok_and(|read| read > 0) {
            let began = Instant::now();
            let line = serde_json::from_str(&text).map_err(|error| format!("the plan on stdin: {error}").into());
            text.clear();
            let outcome = match line {
                Ok(Line::Page { name, value }) => {
                    sink.know(&name, &value);
                    continue;
                }
                Ok(Line::Plan(plan)) => swap(&plan, &engine, &sink, &reloader).map(|()| *plan),
                Err(error) => Err(error),
            };
            let answer = match outcome {
                Ok(plan) => {
                    let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
                    let changes = changes(&served, &plan);
                    sink.show(&plan, &address);
                    served = plan;
                    Answer::Served { took_ms, changes }
                }
                Err(error) => Answer::Refused { error: chained(&*error) },
            };
            match &mut answers {
                Some(answers) => {
                    // Whoever does not listen any more has ended, and so does this input.
                    let _ = serde_json::to_string(&answer).map(|answer| answers.write_all((answer + "\n").as_bytes()));
                }
                None => tell(&answer),
            }
        }
    };
    std::thread::Builder::new().name("reload".to_owned()).spawn(follow).map(drop)
}

fn tell(answer: &Answer) {
    match answer {
        Answer::Served { took_ms, changes } => {
            let nothing = if changes.is_empty() { "; nothing changes in the chain" } else { "" };
            let changes = changes.iter().map(|change| format!("\n  {}", printable(change)));
            say(&format!("reloaded in {took_ms} ms{nothing}{}", changes.collect::<String>()));
        }
        Answer::Refused { error } => {
            say(&format!("not reloaded, what was served before still is:\nerror: {}", printable(error)));
        }
    }
}

fn swap(plan: &Plan, engine: &Engine, sink: &Stderr, reloader: &Reloader) -> Result<(), Box<dyn std::error::Error>> {
    // Its secrets are masked before anything of it runs.
    sink.learn(plan);
    let chains = (&plan.chain, plan.network.as_ref());
    let chain = reloader.chain().succeed(engine, chains, plan, &plan.host_env, plan.node.clone())?;
    reloader.swap(chain, plan.clusters.clone())?;
    Ok(())
}

/// What is another way than before, a line each.
fn changes(before: &Plan, after: &Plan) -> Vec<String> {
    let mut changes = of_chain(&before.chain, &after.chain);
    let nothing = FilterChain { filters: Vec::new(), left_out: Vec::new(), ..after.chain.clone() };
    let network = |plan: &Plan| plan.network.clone().unwrap_or_else(|| nothing.clone());
    changes
        .extend(of_chain(&network(before), &network(after)).into_iter().map(|change| change + " (in front of HTTP)"));
    for (extension, module) in &after.modules {
        if before.modules.get(extension).is_some_and(|before| digest(before) != digest(module)) {
            let now = digest(module).map_or("no module, since it could not be fetched", |sha256| sha256);
            changes.push(format!("~ {extension}: another module, {now}"));
        }
    }
    for (what, before, after) in
        [("cluster", &before.clusters, &after.clusters), ("variable", &before.host_env, &after.host_env)]
    {
        for (name, value) in after {
            match before.get(name) {
                None => changes.push(format!("+ {what} {name}")),
                Some(before) if before != value => changes.push(format!("~ {what} {name}")),
                Some(_) => {}
            }
        }
        changes.extend(before.keys().filter(|name| !after.contains_key(*name)).map(|name| format!("- {what} {name}")));
    }
    if before.node != after.node {
        changes.push("~ the node".to_owned());
    }
    if before.chain.proxy != after.chain.proxy || before.chain.listener != after.chain.listener {
        let proxy = &after.chain.proxy;
        changes.push(format!("~ the proxy: {}/{}, all its filters start anew", proxy.namespace, proxy.name));
    }
    if before.chain.policies != after.chain.policies {
        changes.push("~ policies".to_owned());
    }
    changes
}

fn of_chain(before: &FilterChain, after: &FilterChain) -> Vec<String> {
    mesh::diff(before, after).iter().map(ToString::to_string).collect()
}

fn digest(module: &Module) -> Option<&str> {
    match module {
        Module::File { sha256, .. } => Some(sha256),
        Module::FetchFailed { .. } => None,
    }
}

//! `serve --reload`: plans that come after the first one, a line each on standard input.

use std::io::BufRead;
use std::sync::Arc;
use std::time::Instant;

use harness::engine::Engine;
use harness::reload::Reloader;
use harness::trace::text::printable;
use mesh::model::FilterChain;
use mesh::plan::{Module, Plan};

use crate::chained;
use crate::stderr::{Stderr, say};

/// Serves each plan that comes, in a thread that ends with its input.
pub(crate) fn follow(
    mut input: impl BufRead + Send + 'static,
    mut served: Plan,
    engine: Engine,
    sink: Arc<Stderr>,
    reloader: Reloader,
) -> std::io::Result<()> {
    let follow = move || {
        let mut line = String::new();
        while input.read_line(&mut line).is_ok_and(|read| read > 0) {
            let began = Instant::now();
            match swap(&line, &engine, &sink, &reloader) {
                Ok(plan) => {
                    let changes = changes(&served, &plan);
                    let took = began.elapsed().as_millis();
                    let nothing = if changes.is_empty() { "; nothing changes in the chain" } else { "" };
                    let changes = changes.iter().map(|change| format!("\n  {}", printable(change)));
                    say(&format!("reloaded in {took} ms{nothing}{}", changes.collect::<String>()));
                    served = plan;
                }
                Err(error) => {
                    let error = printable(&chained(&*error));
                    say(&format!("not reloaded, what was served before still is:\nerror: {error}"));
                }
            }
            line.clear();
        }
    };
    std::thread::Builder::new().name("reload".to_owned()).spawn(follow).map(drop)
}

fn swap(line: &str, engine: &Engine, sink: &Stderr, reloader: &Reloader) -> Result<Plan, Box<dyn std::error::Error>> {
    let plan: Plan = serde_json::from_str(line).map_err(|error| format!("the plan on stdin: {error}"))?;
    // Its secrets are masked before anything of it runs.
    sink.know(&plan);
    let chains = (&plan.chain, plan.network.as_ref());
    let chain = reloader.chain().succeed(engine, chains, &plan, &plan.host_env, plan.node.clone())?;
    reloader.swap(chain, plan.clusters.clone())?;
    Ok(plan)
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

//! `cargo xtask toolchain`.

use packager::build::{Preference, TARGET};
use serde_json::json;

use super::build::Way;
use crate::environment;
use crate::report::{Failure, data};

/// Print which toolchains for wasm32-wasip1 were found, and which one a build takes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where the target may come from.
    #[arg(long, value_enum, default_value_t = Way::Auto)]
    toolchain: Way,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let directory = std::env::current_dir().map_err(|e| Failure::environment(format!("no current folder: {e}")))?;
    let probes = environment::tools(&directory).probe();
    let preference = Preference::from(args.toolchain);
    let open = |way: &str| match preference {
        Preference::Auto => true,
        Preference::Rustup => way != "distribution",
        Preference::Distribution => way == "distribution",
    };
    let chosen = probes.iter().filter(|probe| open(probe.way)).find_map(|probe| probe.toolchain.as_ref());
    if args.json {
        let found: Vec<_> = probes
            .iter()
            .map(|probe| json!({"way": probe.way, "ready": probe.toolchain.is_some(), "found": probe.found}))
            .collect();
        data(json!({"target": TARGET, "found": found, "chosen": chosen.map(|c| &c.description)}).to_string());
    } else {
        for probe in &probes {
            let state = if probe.toolchain.is_some() { "ready" } else { "-" };
            data(format!("{:<13} {state:<6} {}", probe.way, probe.found));
        }
        data(match chosen {
            Some(toolchain) => format!("chosen: {}", toolchain.description),
            None => "chosen: none yet; a build tries to install one".to_owned(),
        });
    }
    Ok(())
}

//! `cargo xtask inspect`.

use std::path::Path;

use packager::build::Foreign;
use packager::inspect::{Finding, Inspection, inspect};
use packager::reference::Reference;

use super::build::foreign_failure;
use super::registry_flags::{self, RegistryFlags, fetch_failure};
use crate::report::{Failure, data, printable, program};

mod sheet;
mod text;

/// Show what is in an image or a module: digests, layers, imports, exports, size by crate, which Envoy and Istio load it.
///
/// Whatever can be said is printed. Exit code 1 when Istio would not take it, or when no Envoy known here loads it.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What to inspect: REGISTRY/REPOSITORY[:TAG][@DIGEST], oci:DIR:NAME, a file, a URL, or the folder of a plugin.toml.
    #[arg(value_name = "REF|FILE")]
    reference: String,
    /// Print JSON: sizes in bytes, memory in pages of 64 KiB; absent values are null.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    registry: RegistryFlags,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let reference = reference(&args.reference)?;
    let found = inspect(&reference, &args.registry.fetch_options()?).map_err(fetch_failure)?;
    if args.json {
        let text = serde_json::to_string_pretty(&found)
            .map_err(|error| Failure::environment(error).context("failed to write the report"))?;
        data(text);
    } else {
        text::lines(&found).iter().for_each(data);
    }
    if found.is_ok() { Ok(()) } else { Err(failure(&found)) }
}

/// A folder may be a plugin's, too.
fn reference(text: &str) -> Result<Reference, Failure> {
    let path = Path::new(text);
    if path.join("plugin.toml").is_file() {
        let plugin = Foreign::read(path).map_err(foreign_failure)?;
        return if plugin.module.is_file() {
            Ok(Reference::File(plugin.module))
        } else {
            Err(Failure::environment(format!(
                "`{}` has no module yet: {}",
                plugin.plugin.name,
                plugin.module.display()
            ))
            .hint(format!("{} build {text}/", program())))
        };
    }
    registry_flags::here_or_there(text)
}

fn failure(found: &Inspection) -> Failure {
    let not_loaded = found.module.iter().filter(|module| !module.loads.any());
    let objections = not_loaded.filter_map(|module| module.loads.envoy.last()).flat_map(|range| &range.problems);
    let findings: Vec<&Finding> = found.problems.iter().chain(objections).collect();
    let what = if found.problems.is_empty() { "no Envoy known here loads" } else { "Istio would not take" };
    let mut reasons: Vec<String> = findings.iter().take(3).map(|finding| printable(&finding.reason)).collect();
    if findings.len() > reasons.len() {
        reasons.push(format!("and {} more", findings.len() - reasons.len()));
    }
    // Repackaging does not help what no Envoy loads.
    let hint = findings.iter().rev().find_map(|finding| finding.hint.clone());
    Failure::bad(format!("{what} {}: {}", found.reference, reasons.join("; "))).hints(hint)
}

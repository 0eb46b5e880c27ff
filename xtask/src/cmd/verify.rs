//! `cargo xtask verify`.

use packager::module::EnvoyVersion;
use packager::verify::{Check, Outcome, verify};

use super::registry_flags::{self, RegistryFlags, fetch_failure};
use crate::report::{Failure, data, program};

/// Check what Istio's agent checks before it loads an image, in its order, and what it does not check but should.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What to verify: REGISTRY/REPOSITORY[:TAG][@DIGEST], oci:DIR:NAME, a file or a URL.
    #[arg(value_name = "REF")]
    reference: String,
    /// The resource's `sha256`: of an image, the digest of its manifest.
    #[arg(long, value_name = "HEX")]
    sha256: Option<String>,
    /// The oldest Envoy that must load the module.
    #[arg(long, value_name = "VERSION", default_value_t = EnvoyVersion::NEWEST)]
    envoy: EnvoyVersion,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    registry: RegistryFlags,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let reference = registry_flags::reference(&args.reference)?;
    let report = verify(&reference, args.sha256.as_deref(), &args.registry.fetch_options()?, args.envoy)
        .map_err(fetch_failure)?;
    if args.json {
        let text = serde_json::to_string_pretty(&report)
            .map_err(|error| Failure::environment(error).context("failed to write the report"))?;
        data(text);
    } else {
        report.checks.iter().for_each(|check| data(line(check)));
    }
    if report.is_ok() {
        return Ok(());
    }
    let failed = report.checks.iter().filter(|check| check.outcome == Outcome::Failed);
    let names: Vec<&str> = failed.map(|check| check.name).collect();
    let repackaging = ["not-index", "layer-media-type", "plugin.wasm"].iter().any(|name| names.contains(name));
    let hint = || format!("repackage it: `{} package --from {} --format compat`", program(), report.reference);
    Err(Failure::bad(format!("{} fails verification: {}", report.reference, names.join(", ")))
        .hints(repackaging.then(hint)))
}

fn line(check: &Check) -> String {
    let outcome = match check.outcome {
        Outcome::Passed => "ok",
        Outcome::Warning => "warning",
        Outcome::Failed => "FAILED",
        Outcome::Skipped => "-",
    };
    let who = if check.istio { "istio" } else { "" };
    format!("{outcome:8}{who:7}{:17} {}", check.name, check.detail.replace('\n', " "))
}

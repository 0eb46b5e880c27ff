//! `cargo xtask verify`.

use std::path::PathBuf;

use mesh::model::{Extension, WasmFilter};
use packager::fetch::FetchOptions;
use packager::module::EnvoyVersion;
use packager::verify::{Check, Outcome, Report, verify, verify_request};
use serde_json::json;

use super::registry_flags::{self, RegistryFlags, fetch_failure};
use super::requests::{self, UnknownRootId};
use crate::input;
use crate::report::{Failure, data, note, printable, program};

/// Check what Istio's agent checks before it loads an image, in its order, and what it does not check but should.
///
/// With -f, for each extension of the resources: their url, sha256, pull policy and secret count then.
#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["reference", "files"]))]
pub(crate) struct Args {
    /// What to verify: REGISTRY/REPOSITORY[:TAG][@DIGEST], oci:DIR:NAME, a file or a URL.
    #[arg(value_name = "REF")]
    reference: Option<String>,
    /// The resource's `sha256`: of an image, the digest of its manifest.
    #[arg(long, value_name = "HEX", conflicts_with = "files")]
    sha256: Option<String>,
    /// Resources: YAML or JSON files, folders of them, or `-` for standard input.
    #[arg(short = 'f', long = "filename", value_name = "FILE", num_args = 1..)]
    files: Vec<PathBuf>,
    /// Only this extension of the resources.
    #[arg(long, value_name = "NS/NAME", conflicts_with = "reference")]
    extension: Option<String>,
    /// Say for each extension whether it would be pulled now, and under which key the cache has it.
    #[arg(long, conflicts_with = "reference")]
    explain_fetch: bool,
    /// The oldest Envoy that must load the module.
    #[arg(long, value_name = "VERSION", default_value_t = EnvoyVersion::NEWEST)]
    envoy: EnvoyVersion,
    /// Print the report as JSON; with -f, a list of reports.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    registry: RegistryFlags,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    match &args.reference {
        Some(reference) => {
            let reference = registry_flags::here_or_there(reference)?;
            let report = verify(&reference, args.sha256.as_deref(), &args.registry.fetch_options()?, args.envoy)
                .map_err(fetch_failure)?;
            if args.json {
                data(pretty(&json!(report))?);
            } else {
                print(&report);
            }
            result(&[report])
        }
        None => resources(args),
    }
}

fn resources(args: &Args) -> Result<(), Failure> {
    let resources = input::read(&args.files)?;
    let extensions = wanted(&resources.extensions, args.extension.as_deref())?;
    let options = args.registry.fetch_options()?;
    let mut reports = Vec::new();
    let mut unreachable = None;
    for (extension, filter) in extensions {
        let asked = requests::asked(extension, filter, &resources);
        match report(args, &asked, &options) {
            Ok(mut report) => {
                report.checks.extend(root_id(extension, filter, &report));
                if !args.json {
                    print(&report);
                }
                reports.push(report);
            }
            // What could not be looked at does not keep the others from being looked at.
            Err(failure) => {
                let failure = failure.context(&extension.id());
                if let Some(earlier) = unreachable.replace(failure) {
                    earlier.report();
                }
            }
        }
    }
    if args.json {
        data(pretty(&json!(reports))?);
    }
    match unreachable {
        Some(failure) => Err(failure),
        None => result(&reports),
    }
}

fn report(args: &Args, asked: &packager::verify::Asked, options: &FetchOptions) -> Result<Report, Failure> {
    let explanation = if args.explain_fetch {
        // A url that Istio does not read is one of the report's findings.
        requests::cache()?.explain(&asked.request).ok()
    } else {
        None
    };
    let report = verify_request(asked, options, args.envoy).map_err(fetch_failure)?;
    Ok(Report { explanation, ..report })
}

/// Whether the module answers to the resource's root id, where the image says to which it does.
fn root_id(extension: &Extension, filter: &WasmFilter, report: &Report) -> Option<Check> {
    if report.root_ids.is_empty() {
        return None;
    }
    let (outcome, detail) = match UnknownRootId::of(extension, filter, &report.root_ids) {
        None => (Outcome::Passed, printable(&filter.plugin_name)),
        Some(UnknownRootId { path, what, fix }) => {
            let fix = fix.map(|fix| format!("; {fix}")).unwrap_or_default();
            (Outcome::Warning, format!("`{path}` {what}{fix}"))
        }
    };
    Some(Check { name: "root-id", istio: false, outcome, detail })
}

/// The extensions with a module, or the one that was asked for.
fn wanted<'r>(
    extensions: &'r [Extension],
    only: Option<&str>,
) -> Result<Vec<(&'r Extension, &'r WasmFilter)>, Failure> {
    let wasm: Vec<_> =
        extensions.iter().filter_map(|extension| extension.wasm().map(|filter| (extension, filter))).collect();
    if wasm.is_empty() {
        return Err(Failure::bad("the resources have no extension with a wasm module"));
    }
    let Some(only) = only else { return Ok(wasm) };
    let name = |extension: &Extension| format!("{}/{}", extension.namespace, extension.name);
    let found: Vec<_> = wasm.iter().copied().filter(|(extension, _)| name(extension) == only).collect();
    if found.is_empty() {
        let known = wasm.iter().map(|(extension, _)| name(extension)).collect::<Vec<_>>().join(", ");
        return Err(Failure::usage(format!("--extension: there is no `{only}`; there are {known}")));
    }
    Ok(found)
}

fn print(report: &Report) {
    if let Some(resource) = &report.resource {
        data(format!("{resource}: {}", report.reference));
    }
    report.checks.iter().for_each(|check| data(line(check)));
    if let Some(explanation) = &report.explanation {
        let who = report.resource.as_deref().unwrap_or(&report.reference);
        note(format!("{who}: {explanation}"));
    }
}

fn pretty(value: &serde_json::Value) -> Result<String, Failure> {
    serde_json::to_string_pretty(value)
        .map_err(|error| Failure::environment(error).context("failed to write the report"))
}

fn result(reports: &[Report]) -> Result<(), Failure> {
    let failures = reports.iter().filter(|report| !report.is_ok()).map(|report| {
        let failed = report.checks.iter().filter(|check| check.outcome == Outcome::Failed);
        let names: Vec<&str> = failed.map(|check| check.name).collect();
        let who = report.resource.as_ref().unwrap_or(&report.reference);
        format!("{who} fails verification: {}", names.join(", "))
    });
    let failures: Vec<String> = failures.collect();
    if failures.is_empty() {
        return Ok(());
    }
    let other_form = |check: &Check| {
        check.outcome == Outcome::Failed && ["not-index", "layer-media-type", "plugin.wasm"].contains(&check.name)
    };
    let repackage = reports.iter().find(|report| report.checks.iter().any(other_form));
    let hint = repackage
        .map(|report| format!("repackage it: `{} package --from {} --format compat`", program(), report.reference));
    Err(Failure::bad(failures.join("\nerror: ")).hints(hint))
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

//! `cargo xtask lint`.

use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use mesh::warnings::{self, Rule, Warning};
use mesh::{Locator, MeshOptions, Place, Problem};
use serde::Serialize;
use serde_json::json;

use super::registry_flags::RegistryFlags;
use crate::input;
use crate::report::{Failure, data, note, printable};

mod images;

/// Check resources as Istio does, and warn of what it accepts and somebody will trip over.
///
/// Each finding has a place, a rule's name, what there is, why it matters and what to do. Errors give exit code 1.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Resources: YAML or JSON files, folders of them, or `-` for standard input.
    #[arg(short = 'f', long = "filename", value_name = "FILE", required = true, num_args = 1..)]
    files: Vec<PathBuf>,
    /// Print JSON: `errors`, `warnings` and how many resources of which kinds were `skipped`.
    #[arg(long)]
    json: bool,
    /// `warnings` makes them errors as far as the exit code goes.
    #[arg(long, value_enum, value_name = "WHAT")]
    deny: Option<Deny>,
    /// Leave out the warnings of this rule; may be given several times.
    #[arg(long, value_name = "RULE")]
    allow: Vec<String>,
    /// Look at each image as Istio's agent would, and hold each pluginConfig against the schema that its image carries.
    #[arg(long)]
    fetch: bool,
    /// Take the image of this url from elsewhere: `oci:DIR:NAME`, a file, or another registry's reference.
    #[arg(long = "image", value_name = "URL=REF", requires = "fetch")]
    images: Vec<String>,
    /// Istio's root namespace, whose extensions count for every namespace.
    #[arg(long, value_name = "NAMESPACE", value_parser = NonEmptyStringValueParser::new(), default_value = "istio-system")]
    root_namespace: String,
    #[command(flatten)]
    registry: RegistryFlags,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Deny {
    Warnings,
}

/// What is said of a place in the resources.
#[derive(Debug, Clone, Serialize)]
struct Finding {
    rule: String,
    #[serde(flatten)]
    place: Place,
    resource: Option<String>,
    path: String,
    what: String,
    why: Option<String>,
    fix: Option<String>,
}

/// Everything that was found.
#[derive(Debug, Default)]
struct Findings {
    errors: Vec<Finding>,
    warnings: Vec<Finding>,
}

impl Finding {
    fn of_problem(problem: &Problem, locator: &Locator, why: Option<&str>) -> Self {
        Self {
            rule: problem.rule(),
            place: problem.place.clone(),
            resource: locator.resource(&problem.place),
            path: problem.path.clone(),
            what: problem.fault.to_string(),
            why: why.map(str::to_owned),
            fix: problem.hint(),
        }
    }

    fn of_warning(warning: Warning) -> Self {
        Self {
            rule: warning.rule.id().to_owned(),
            place: warning.place,
            resource: Some(warning.resource),
            path: warning.path.to_string(),
            what: warning.what,
            why: Some(warning.why),
            fix: Some(warning.fix),
        }
    }

    /// What is printed; a reason that was said just before is not said again.
    fn lines(&self, severity: &str, said: Option<&str>) -> Vec<String> {
        let Self { rule, place, resource, path, what, why, fix } = self;
        let resource = resource.as_ref().map(|resource| format!("{resource}: ")).unwrap_or_default();
        let path = if path.is_empty() { String::new() } else { format!("`{path}`: ") };
        let mut lines = vec![format!("{place}: {severity}[{rule}]: {resource}{path}{what}")];
        lines.extend(why.as_ref().filter(|why| said != Some(why.as_str())).map(|why| format!("  why: {why}")));
        lines.extend(fix.as_ref().map(|fix| format!("  fix: {fix}")));
        lines
    }
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let allowed = args.allow.iter().map(|rule| rule.parse()).collect::<Result<Vec<Rule>, String>>();
    let allowed = allowed.map_err(|error| Failure::usage(format!("--allow: {error}")))?;
    let sources = input::sources(&args.files)?;
    let (reading, locator) = mesh::read_located(&sources);
    let mesh = MeshOptions { root_namespace: args.root_namespace.clone(), ..MeshOptions::default() };
    let mut traps = warnings::all(&reading.resources, &mesh);
    traps.retain(|warning| !allowed.contains(&warning.rule));
    warnings::locate(&mut traps, &locator);
    let refused = "a resource with an error is refused, and is in no chain";
    let mut found = Findings {
        errors: reading.errors.iter().map(|error| Finding::of_problem(error, &locator, Some(refused))).collect(),
        warnings: reading.warnings.iter().map(|warning| Finding::of_problem(warning, &locator, None)).collect(),
    };
    found.warnings.extend(traps.into_iter().map(Finding::of_warning));
    let unreachable =
        if args.fetch { images::check(args, &reading.resources, &locator, &mut found)? } else { Vec::new() };
    found.errors.sort_by(|a, b| a.place.cmp(&b.place));
    found.warnings.sort_by(|a, b| a.place.cmp(&b.place));
    if args.json {
        let document =
            json!({"errors": found.errors, "warnings": found.warnings, "skipped": reading.resources.skipped});
        let text = serde_json::to_string_pretty(&document)
            .map_err(|error| Failure::environment(error).context("failed to write the report"))?;
        data(text);
    } else {
        print(&found);
        input::tell_skipped(&reading.resources);
    }
    let nothing = if reading.resources.extensions.is_empty() && reading.resources.unattached.is_empty() {
        "nothing to say: the input has no extension"
    } else {
        "nothing to say"
    };
    verdict(args, &found, unreachable, nothing)
}

fn print(found: &Findings) {
    let errors = found.errors.iter().map(|finding| ("error", finding));
    let warnings = found.warnings.iter().map(|finding| ("warning", finding));
    let mut all: Vec<_> = errors.chain(warnings).collect();
    all.sort_by(|(_, a), (_, b)| a.place.cmp(&b.place));
    let mut said = None;
    for (severity, finding) in all {
        finding.lines(severity, said).iter().for_each(|line| data(printable(line)));
        said = finding.why.as_deref();
    }
}

/// Fine, or why not. What could not be looked at is told, and counts when nothing else is wrong.
fn verdict(args: &Args, found: &Findings, unreachable: Vec<Failure>, nothing: &str) -> Result<(), Failure> {
    let count = |number: usize, what: &str| match number {
        0 => None,
        1 => Some(format!("1 {what}")),
        more => Some(format!("{more} {what}s")),
    };
    let counts = [count(found.errors.len(), "error"), count(found.warnings.len(), "warning")];
    let counts = counts.into_iter().flatten().collect::<Vec<_>>().join(", ");
    let denied = args.deny == Some(Deny::Warnings) && !found.warnings.is_empty();
    let is_bad = !found.errors.is_empty() || denied;
    let mut unreachable = unreachable.into_iter();
    let last = if is_bad { None } else { unreachable.next() };
    for failure in unreachable {
        _ = failure.report();
    }
    match last {
        _ if is_bad => Err(Failure::bad(counts)),
        Some(failure) => Err(failure),
        None => {
            note(if counts.is_empty() { nothing } else { &counts });
            Ok(())
        }
    }
}

//! What the images themselves say: whether Istio would load them, and what configuration their plugins take.

use std::collections::BTreeMap;

use mesh::model::{Extension, WasmFilter};
use mesh::{FieldPath, Locator, Place, Resources, Step};
use packager::fetch::FetchOptions;
use packager::image::{CONFIG_SCHEMA, carry};
use packager::module::EnvoyVersion;
use packager::reference::Reference;
use packager::verify::{Asked, Outcome, verify_request};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::images::{images, with_scheme};
use super::super::requests::{self, UnknownRootId};
use super::{Args, Finding, Findings};
use crate::handover;
use crate::report::{Failure, note};

/// What `plugwright-schema` answers.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    BadSchema(String),
    Violations(Vec<Violation>),
}

#[derive(Deserialize)]
struct Violation {
    path: Vec<PathStep>,
    what: String,
    fix: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum PathStep {
    Index(usize),
    Key(String),
}

/// Adds what each extension's image says to what was found. Gives why some could not be looked at.
pub(super) fn check(
    args: &Args,
    resources: &Resources,
    locator: &Locator,
    found: &mut Findings,
) -> Result<Vec<Failure>, Failure> {
    let options = args.registry.fetch_options()?;
    let replaced = images(&args.images, resources)?;
    let mut unreachable = Vec::new();
    // Many resources may ask for one image.
    let mut images: BTreeMap<String, Said> = BTreeMap::new();
    let mut questions = Vec::new();
    for (extension, wasm) in resources.extensions.iter().filter_map(|e| Some((e, e.wasm()?))) {
        let asked = requests::asked(extension, wasm, resources);
        let replacement = replaced.get(&with_scheme(&wasm.url));
        let usable = match replacement {
            Some(_) => Ok(true),
            None => verified(extension, &asked, &options, locator, found),
        };
        let said = match usable {
            Ok(true) => said(wasm, &asked, replacement, &options, &mut images),
            Ok(false) => continue,
            Err(failure) => Err(failure),
        };
        if let Ok(said) = &said {
            found.warnings.extend(root_id(extension, wasm, &said.root_ids, locator));
        }
        match said.map(|said| said.schema) {
            Ok(Some(schema)) => {
                let config = wasm.plugin_config.as_deref().unwrap_or("{}");
                // It was written as JSON by the reader.
                let config: Value = serde_json::from_str(config).unwrap_or(Value::Null);
                questions.push((extension, json!({"schema": schema, "config": config})));
            }
            Ok(None) => {
                note(format!("{}: its image has no schema, so its pluginConfig is not checked", extension.id()));
            }
            Err(failure) => unreachable.push(failure.context(&extension.id())),
        }
    }
    judge(questions, locator, found)?;
    Ok(unreachable)
}

/// Adds what the image fails; says whether there is an image to look into.
fn verified(
    extension: &Extension,
    asked: &Asked,
    options: &FetchOptions,
    locator: &Locator,
    found: &mut Findings,
) -> Result<bool, Failure> {
    let report =
        verify_request(asked, options, EnvoyVersion::NEWEST).map_err(super::super::registry_flags::fetch_failure)?;
    let at = path(extension, "url");
    for check in &report.checks {
        let istio =
            if check.istio { "Istio checks this before it loads the module" } else { "Istio does not check this" };
        let finding = || Finding {
            rule: check.name.to_owned(),
            place: place(extension, &at, locator),
            resource: Some(extension.id()),
            path: at.to_string(),
            what: check.detail.clone(),
            why: Some(istio.to_owned()),
            fix: None,
        };
        match check.outcome {
            Outcome::Failed => found.errors.push(finding()),
            Outcome::Warning => found.warnings.push(finding()),
            Outcome::Passed | Outcome::Skipped => {}
        }
    }
    let on_proxy = matches!(Reference::parse_istio(&asked.request.url), Ok(Reference::File(file)) if !file.is_file());
    Ok(report.is_ok() && !on_proxy)
}

/// The root id, where the image says that its module answers to others.
fn root_id(extension: &Extension, wasm: &WasmFilter, known: &[String], locator: &Locator) -> Option<Finding> {
    let UnknownRootId { path, what, fix } = UnknownRootId::of(extension, wasm, known)?;
    Some(Finding {
        rule: "unknown-root-id".to_owned(),
        place: place(extension, &path, locator),
        resource: Some(extension.id()),
        path: path.to_string(),
        what,
        why: Some(UnknownRootId::WHY.to_owned()),
        fix,
    })
}

/// What an image says of how its plugin is configured.
#[derive(Debug, Clone)]
struct Said {
    schema: Option<Value>,
    root_ids: Vec<String>,
}

/// What the image says that a resource asks for, or the one put in its place.
fn said(
    wasm: &WasmFilter,
    asked: &Asked,
    replacement: Option<&Reference>,
    options: &FetchOptions,
    known: &mut BTreeMap<String, Said>,
) -> Result<Said, Failure> {
    let key = format!("{} {:?} {:?}", wasm.url, wasm.sha256, asked.pull_secret);
    if let Some(said) = known.get(&key) {
        return Ok(said.clone());
    }
    let reference = match replacement {
        Some(replacement) => replacement.clone(),
        None => Reference::parse_istio(&wasm.url).map_err(Failure::bad)?,
    };
    let options = match &asked.request.credentials {
        Some(credentials) if replacement.is_none() => &options.with_credentials(credentials.clone()),
        _ => options,
    };
    let carried = carry(&reference, options).map_err(|error| {
        let hint = error.hint();
        if error.is_bad_content() { Failure::bad(error) } else { Failure::environment(error) }.hints(hint)
    })?;
    let mut metadata = carried.metadata;
    let said = Said { schema: metadata.config.remove(CONFIG_SCHEMA), root_ids: metadata.root_ids };
    known.insert(key, said.clone());
    Ok(said)
}

/// Holds each configuration against its schema.
fn judge(questions: Vec<(&Extension, Value)>, locator: &Locator, found: &mut Findings) -> Result<(), Failure> {
    if questions.is_empty() {
        return Ok(());
    }
    let (extensions, questions): (Vec<_>, Vec<_>) = questions.into_iter().unzip();
    let input = json!(questions).to_string().into_bytes();
    let output = handover::answer("config-schema", "plugwright-schema", input)?;
    let answers: Vec<Answer> = serde_json::from_slice(&output)
        .map_err(|error| Failure::environment(error).context("failed to read what `plugwright-schema` says"))?;
    for (extension, answer) in extensions.into_iter().zip(answers) {
        let base = path(extension, "pluginConfig");
        match answer {
            Answer::BadSchema(reason) => found.warnings.push(Finding {
                rule: "bad-schema".to_owned(),
                place: place(extension, &path(extension, "url"), locator),
                resource: Some(extension.id()),
                path: path(extension, "url").to_string(),
                what: format!("the schema in the image cannot be used: {reason}"),
                why: Some("without it, a mistake in pluginConfig is found only by the plugin".to_owned()),
                fix: Some("tell the plugin's author".to_owned()),
            }),
            Answer::Violations(violations) => {
                for Violation { path, what, fix } in violations {
                    let at = path.into_iter().fold(base.clone(), |at, step| {
                        at.then(match step {
                            PathStep::Index(index) => Step::Index(index),
                            PathStep::Key(key) => Step::Key(key),
                        })
                    });
                    found.errors.push(Finding {
                        rule: "plugin-config".to_owned(),
                        place: place(extension, &at, locator),
                        resource: Some(extension.id()),
                        path: at.to_string(),
                        what,
                        why: Some(
                            "the plugin refuses such a configuration, and the proxy then refuses the chain".to_owned(),
                        ),
                        fix,
                    });
                }
            }
        }
    }
    Ok(())
}

fn place(extension: &Extension, path: &FieldPath, locator: &Locator) -> Place {
    locator.place(&extension.origin, &extension.namespace, &extension.name, path)
}

fn path(extension: &Extension, field: &str) -> FieldPath {
    mesh::wasm_field(extension, field)
}

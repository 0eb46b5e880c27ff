//! Holds the configurations of suites against the schemas of their plugins.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use mesh::model::{Extension, FilterKind};
use packager::digest::Digest;
use packager::image::{CONFIG_SCHEMA, carry};
use packager::reference::Reference;
use serde_json::{Value, json};
use suites::chain::{self, Planned};
use suites::job::{Job, Kind};
use suites::outcome::Suite;
use suites::plugin;

use super::coverage::Builds;
use crate::cmd::images::with_scheme;
use crate::cmd::registry_flags::RegistryFlags;
use crate::report::{self, Failure};
use crate::{environment, handover};

/// What is asked about one configuration.
struct Question {
    /// The suite's place in the job.
    suite: usize,
    /// Whose it is.
    of: String,
    text: Value,
    /// Where it is kept that the answer was good.
    good: PathBuf,
}

/// Adds a warning to each suite that has a configuration which is not what the schema of its plugin says. It is no failure:
/// what the plugin takes is for the plugin to say, and the cluster does not ask the schema either.
pub(super) fn warn(
    job: &Job,
    builds: &Builds<'_>,
    registry: &RegistryFlags,
    suites: &mut [Suite],
) -> Result<(), Failure> {
    let good = environment::cache()?.join("schema");
    let mut questions = Vec::new();
    for (index, (task, suite)) in job.suites.iter().zip(suites.iter_mut()).enumerate() {
        let found = match &task.kind {
            Kind::Plugin(task) => of_plugin(task, suite),
            Kind::Chain(task) => of_chain(task, builds, registry)?,
            Kind::Broken(_) => Vec::new(),
        };
        for (of, text) in found {
            let good = good.join(Digest::of(text.to_string().as_bytes()).hex());
            if !good.is_file() {
                questions.push(Question { suite: index, of, text, good });
            }
        }
    }
    if questions.is_empty() {
        return Ok(());
    }
    let texts: Vec<&Value> = questions.iter().map(|question| &question.text).collect();
    let answers = handover::answer("config-schema", "plugwright-schema", json!(texts).to_string().into_bytes())?;
    let answers: Vec<Value> = serde_json::from_slice(&answers).map_err(|error| {
        Failure::environment(format!("failed to read what the check of schemas says: {}", report::chain(&error)))
    })?;
    for (Question { suite, of, good, .. }, answer) in questions.into_iter().zip(&answers) {
        let found = warnings(answer);
        if found.is_empty() {
            // Not kept, it is asked again.
            let _ = good.parent().map(std::fs::create_dir_all);
            let _ = std::fs::write(good, "");
        }
        if let Some(suite) = suites.get_mut(suite) {
            suite.warnings.extend(found.iter().map(|found| format!("{of}: {found}")));
        }
    }
    Ok(())
}

/// The configuration of a suite's one plugin.
fn of_plugin(task: &plugin::Task, suite: &mut Suite) -> Vec<(String, Value)> {
    let (Some(schema), Some(configuration)) = (&task.schema, &task.configuration) else { return Vec::new() };
    // What cannot be read is said by the tests, and of a schema by `package`.
    let (Ok(schema), Ok(given)) = (std::fs::read(schema), std::fs::read(configuration)) else { return Vec::new() };
    let Ok(schema) = serde_json::from_slice::<Value>(&schema) else { return Vec::new() };
    match serde_json::from_slice::<Value>(&given) {
        Ok(config) => vec![(configuration.display().to_string(), json!({"schema": schema, "config": config}))],
        Err(error) => {
            suite.warnings.push(format!("{}: it is not JSON: {error}", configuration.display()));
            Vec::new()
        }
    }
}

/// The configurations of the plugins in a suite's chains, each once.
fn of_chain(
    task: &chain::Task,
    builds: &Builds<'_>,
    registry: &RegistryFlags,
) -> Result<Vec<(String, Value)>, Failure> {
    let mut schemas = BTreeMap::new();
    for image in &task.suite.images {
        let schema = match (&image.plugin, &image.reference) {
            (Some(plugin), _) => {
                let file = builds.plugin(plugin).and_then(|plugin| plugin.config_schema);
                file.and_then(|file| serde_json::from_slice(&std::fs::read(file).ok()?).ok())
            }
            (None, Some(reference)) => match super::chain::elsewhere(reference, &task.folder) {
                // A registry is asked for what is run, and for nothing else.
                Ok(layout @ Reference::Layout(_)) => {
                    let carried = carry(&layout, &registry.fetch_options()?);
                    carried.ok().and_then(|mut carried| carried.metadata.config.remove(CONFIG_SCHEMA))
                }
                _ => None,
            },
            (None, None) => None,
        };
        schemas.extend(schema.map(|schema: Value| (with_scheme(&image.url), schema)));
    }
    if schemas.is_empty() {
        return Ok(Vec::new());
    }
    let (mut seen, mut found) = (BTreeSet::new(), Vec::new());
    for planned in &task.plans {
        let Planned::Ready(plan) = planned else { continue };
        for filter in plan.network.iter().chain([&plan.chain]).flat_map(|chain| &chain.filters) {
            let FilterKind::Extension(extension) = &filter.kind else { continue };
            let Some(wasm) = Extension::wasm(extension) else { continue };
            let Some(schema) = schemas.get(&with_scheme(&wasm.url)) else { continue };
            // It was written as JSON by the reader.
            let config = serde_json::from_str(wasm.plugin_config.as_deref().unwrap_or("{}")).unwrap_or(Value::Null);
            let text = json!({"schema": schema, "config": config});
            if seen.insert((extension.id(), text.to_string())) {
                found.push((extension.id(), text));
            }
        }
    }
    Ok(found)
}

/// What an answer has against a configuration.
fn warnings(answer: &Value) -> Vec<String> {
    if let Some(reason) = answer.get("bad_schema").and_then(Value::as_str) {
        return vec![format!("the schema of the plugin cannot be used: {reason}")];
    }
    let violations = answer.get("violations").and_then(Value::as_array).into_iter().flatten();
    let warning = |violation: &Value| {
        let steps = violation.get("path").and_then(Value::as_array).into_iter().flatten();
        let step = |step: &Value| step.as_str().map_or_else(|| format!("[{step}]"), |key| format!(".{key}"));
        let path: String = steps.map(step).collect();
        let path = if path.is_empty() { "the whole" } else { path.trim_start_matches('.') };
        let what = violation.get("what").and_then(Value::as_str).unwrap_or_default();
        let fix = violation.get("fix").and_then(Value::as_str);
        format!("`{path}` {what}{}", fix.map(|fix| format!(" ({fix})")).unwrap_or_default())
    };
    violations.map(warning).collect()
}

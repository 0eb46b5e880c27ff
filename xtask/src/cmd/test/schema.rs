//! Holds the configurations of plugin suites against the schemas of their plugins.

use std::path::{Path, PathBuf};

use packager::digest::Digest;
use serde_json::{Value, json};
use suites::job::{Job, Kind};
use suites::outcome::Suite;

use crate::report::{Failure, chain};
use crate::{environment, handover};

/// What is asked of one suite.
struct Question<'a> {
    suite: &'a mut Suite,
    configuration: &'a Path,
    text: Value,
    /// Where it is kept that the answer was good.
    good: PathBuf,
}

/// Adds a warning to each suite whose configuration is not what the schema of its plugin says. It is no failure: what the
/// plugin takes is for the plugin to say, and the cluster does not ask the schema either.
pub(super) fn warn(job: &Job, suites: &mut [Suite]) -> Result<(), Failure> {
    let good = environment::cache()?.join("schema");
    let mut questions = Vec::new();
    for (task, suite) in job.suites.iter().zip(suites) {
        let Kind::Plugin(plugin) = &task.kind else { continue };
        let (Some(schema), Some(configuration)) = (&plugin.schema, &plugin.configuration) else { continue };
        // What cannot be read is said by the tests, and of a schema by `package`.
        let (Ok(schema), Ok(given)) = (std::fs::read(schema), std::fs::read(configuration)) else { continue };
        let Ok(schema) = serde_json::from_slice::<Value>(&schema) else { continue };
        let config = match serde_json::from_slice::<Value>(&given) {
            Ok(config) => config,
            Err(error) => {
                suite.warnings.push(format!("{}: it is not JSON: {error}", configuration.display()));
                continue;
            }
        };
        let text = json!({"schema": schema, "config": config});
        let good = good.join(Digest::of(text.to_string().as_bytes()).hex());
        if !good.is_file() {
            questions.push(Question { suite, configuration, text, good });
        }
    }
    if questions.is_empty() {
        return Ok(());
    }
    let texts: Vec<&Value> = questions.iter().map(|question| &question.text).collect();
    let answers = handover::answer("config-schema", "plugwright-schema", json!(texts).to_string().into_bytes())?;
    let answers: Vec<Value> = serde_json::from_slice(&answers).map_err(|error| {
        Failure::environment(format!("failed to read what the check of schemas says: {}", chain(&error)))
    })?;
    for (Question { suite, configuration, good, .. }, answer) in questions.into_iter().zip(&answers) {
        let found = warnings(answer);
        if found.is_empty() {
            // Not kept, it is asked again.
            let _ = good.parent().map(std::fs::create_dir_all);
            let _ = std::fs::write(good, "");
        }
        suite.warnings.extend(found.iter().map(|found| format!("{}: {found}", configuration.display())));
    }
    Ok(())
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

//! The watching process: on each change it builds, has the harness swap, says what changed, and runs the tests.

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Instant, SystemTime};

use mesh::model::{Extension, FilterKind};
use mesh::plan::{Answer, Line, Plan};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, getpgrp, getpid};
use serde_json::{Value, json};

use super::super::watch::{Folders, Happened, PATIENCE, QUIET, Watched, send};
use super::project::Project;
use super::tests::Running;
use super::{Args, Begun, Built, milliseconds, seconds, size};
use crate::handover;
use crate::report::{Failure, note};

/// Follows the plugin until the harness ends, and ends everything that was started then.
pub(super) fn watch(args: &Args) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::environment(format!("failed to watch: {error}"));
    let mut line = Vec::new();
    std::io::stdin().lock().read_until(b'\n', &mut line).map_err(failed)?;
    let Begun { first, built, told } = serde_json::from_slice(&line).map_err(|error| failed(error.into()))?;
    if send(&first.plan).is_err() {
        return Ok(());
    }
    let (sender, happened) = channel();
    let folders =
        Folders::new(sender.clone()).map_err(|error| Failure::environment(error).context("failed to watch"))?;
    let answers = sender.clone();
    std::thread::spawn(move || {
        let lines = std::io::stdin().lock().lines();
        for answer in lines.map_while(Result::ok).filter_map(|line| serde_json::from_str(&line).ok()) {
            let _ = answers.send(Happened::Answer(answer));
        }
        let _ = answers.send(Happened::End);
    });
    let project = Project::open(args)?;
    project.told.replace(told);
    let mut work = Work {
        args,
        project,
        plan: first.plan,
        built,
        folders,
        sender,
        happened,
        tests: None,
        number: 0,
        known: None,
        during: During::default(),
        build_ended: SystemTime::now(),
    };
    let outcome = work.follow(first.watched);
    work.end();
    outcome
}

/// The harness has ended.
struct Ended;

struct Work<'a> {
    args: &'a Args,
    project: Project,
    /// What is served.
    plan: Plan,
    built: Built,
    folders: Folders,
    sender: Sender<Happened>,
    happened: Receiver<Happened>,
    tests: Option<Running>,
    /// Of the last change: what belongs to an earlier one is of no interest.
    number: u64,
    /// The schema and configuration that were checked last.
    known: Option<Value>,
    during: During,
    /// When the last build came to its end.
    build_ended: SystemTime,
}

/// Whether a file was written after this.
fn is_younger(file: &Path, time: SystemTime) -> bool {
    std::fs::metadata(file).and_then(|data| data.modified()).is_ok_and(|modified| modified > time)
}

/// What changes while it is built: a save that came meanwhile, or what the build makes beside the sources.
#[derive(Default)]
struct During {
    /// Files that changed during each of the last builds, and how many of those there were without a pause.
    each: BTreeSet<PathBuf>,
    builds: u32,
    /// Files that are made.
    made: BTreeSet<PathBuf>,
}

impl During {
    /// Somebody saves during one build or two in a row. What changes during three is made by them, and would have them
    /// follow each other for ever.
    const MOST: u32 = 3;

    /// Of the files that changed during a build, those that are newly known to be made.
    fn note(&mut self, files: &[PathBuf]) -> Vec<PathBuf> {
        let files: BTreeSet<PathBuf> = files.iter().filter(|file| !self.made.contains(*file)).cloned().collect();
        self.each = if self.builds == 0 { files } else { self.each.intersection(&files).cloned().collect() };
        self.builds = if self.each.is_empty() { 0 } else { self.builds + 1 };
        if self.builds < Self::MOST {
            return Vec::new();
        }
        self.builds = 0;
        let made: Vec<PathBuf> = std::mem::take(&mut self.each).into_iter().collect();
        self.made.extend(made.iter().cloned());
        made
    }
}

impl Work<'_> {
    fn follow(&mut self, mut watched: Watched) -> Result<(), Failure> {
        let Built { took_ms, bytes } = self.built;
        let first = json!({"state": "served", "build_ms": took_ms, "swap_ms": 0, "after": bytes});
        if self.tell(first).is_err() {
            return Ok(());
        }
        self.check();
        self.test();
        let mut built = true;
        loop {
            self.folders.watch(&watched);
            // What changed before the folders were watched is seen here.
            let mut files = self.changed(&watched);
            if std::mem::take(&mut built) && !files.is_empty() {
                match self.quiet(Instant::now()) {
                    Ok(()) => files = self.changed(&watched),
                    Err(Ended) => return Ok(()),
                }
                // What is saved once a build is over was not made by it.
                let ended = self.build_ended;
                let while_built: Vec<PathBuf> = files.iter().filter(|file| !is_younger(file, ended)).cloned().collect();
                for file in self.during.note(&while_built) {
                    note(format!(
                        "{} changes whenever it is built, and is taken for a part of what is made",
                        self.name(&file)
                    ));
                }
                files.retain(|file| {
                    let made = self.during.made.contains(file);
                    if made {
                        watched.note_alone(file);
                    }
                    !made
                });
            }
            if files.is_empty() {
                match self.wait() {
                    Ok(()) => continue,
                    Err(Ended) => return Ok(()),
                }
            }
            built = true;
            match self.change(&watched, &files) {
                Ok(next) => watched = next,
                Err(Ended) => return Ok(()),
            }
        }
    }

    /// Until something may have changed, and it is quiet.
    fn wait(&mut self) -> Result<(), Ended> {
        loop {
            match self.happened.recv() {
                Ok(Happened::Change) => return self.quiet(Instant::now()),
                Ok(Happened::Known(number, name, value)) => self.show(number, name, value)?,
                Ok(Happened::Answer(_)) => {}
                Ok(Happened::End) | Err(_) => return Err(Ended),
            }
        }
    }

    /// Until nothing changes any more, though not for ever.
    fn quiet(&mut self, since: Instant) -> Result<(), Ended> {
        while since.elapsed() <= PATIENCE {
            match self.happened.recv_timeout(QUIET) {
                Ok(Happened::Change | Happened::Answer(_)) => {}
                Ok(Happened::Known(number, name, value)) => self.show(number, name, value)?,
                Err(RecvTimeoutError::Timeout) => return Ok(()),
                Ok(Happened::End) | Err(RecvTimeoutError::Disconnected) => return Err(Ended),
            }
        }
        Ok(())
    }

    /// Something has changed: what it comes to, and what is to be watched from now on.
    fn change(&mut self, watched: &Watched, saved: &[PathBuf]) -> Result<Watched, Ended> {
        self.number += 1;
        if let Some(tests) = self.tests.take() {
            tests.stop();
        }
        let files: Vec<String> = saved.iter().map(|file| self.name(file)).collect();
        let files = files.as_slice();
        note(format!("{} changed", files.join(", ")));
        let renewed = self.project.renew(self.args, saved);
        let mut next = self.project.inputs(self.args);
        if let Err(failure) = renewed {
            self.refuse(&failure.text(), files)?;
            next.add(watched.renewed());
            return Ok(next);
        }
        self.tell(json!({"state": "building", "files": files}))?;
        let began = Instant::now();
        let before = self.built.bytes;
        let outcome = self.project.build(&mut next);
        self.build_ended = SystemTime::now();
        let built = match outcome {
            Ok(Some(bytes)) => Built { took_ms: milliseconds(began), bytes },
            Ok(None) => {
                note("not served: it does not compile; what was served before still is");
                let error = self.project.diagnostics.borrow().clone();
                self.tell(json!({"state": "failed", "files": files, "build_ms": milliseconds(began), "error": error}))?;
                return Ok(next);
            }
            Err(failure) => {
                self.refuse(&failure.text(), files)?;
                return Ok(next);
            }
        };
        let plan = match self.project.plan(self.args, &mut next) {
            Ok(plan) => plan,
            Err(failure) => {
                self.refuse(&failure.text(), files)?;
                // What could not be read does not make the rest unimportant.
                next.add(watched.renewed());
                return Ok(next);
            }
        };
        let same = json!(plan) == json!(self.plan);
        let (swap_ms, changes) = if same {
            (0, Vec::new())
        } else {
            if send(&Line::Plan(Box::new(plan.clone()))).is_err() {
                return Err(Ended);
            }
            match self.answer()? {
                Answer::Served { took_ms, changes } => (took_ms, changes),
                Answer::Refused { error } => {
                    self.refuse(&error, files)?;
                    return Ok(next);
                }
            }
        };
        let grown = i128::from(built.bytes) - i128::from(before);
        note(format!("built in {}: {} ({grown:+} bytes)", seconds(built.took_ms), size(built.bytes)));
        if same {
            note("nothing changes in the chain");
        } else {
            note(format!("served {swap_ms} ms later"));
            for change in &changes {
                note(format!("  {change}"));
            }
        }
        self.tell(json!({
            "state": "served", "files": files, "build_ms": built.took_ms, "swap_ms": swap_ms, "before": before,
            "after": built.bytes, "changes": changes, "warnings": *self.project.diagnostics.borrow(),
        }))?;
        (self.plan, self.built) = (plan, built);
        self.check();
        self.test();
        Ok(next)
    }

    /// What the harness says of the plan it was given.
    fn answer(&mut self) -> Result<Answer, Ended> {
        loop {
            match self.happened.recv() {
                Ok(Happened::Answer(answer)) => return Ok(answer),
                Ok(Happened::Known(number, name, value)) => self.show(number, name, value)?,
                // It is looked for afterwards.
                Ok(Happened::Change) => {}
                Ok(Happened::End) | Err(_) => return Err(Ended),
            }
        }
    }

    fn refuse(&self, error: &str, files: &[String]) -> Result<(), Ended> {
        note(format!("not served, what was served before still is:\nerror: {error}"));
        self.tell(json!({"state": "refused", "files": files, "error": error}))
    }

    /// The files that changed, came or went.
    fn changed(&self, watched: &Watched) -> Vec<PathBuf> {
        let now = self.project.inputs(self.args);
        watched.changed().into_iter().chain(watched.unknown(&now)).map(PathBuf::from).collect()
    }

    /// A file as the project has it.
    fn name(&self, file: &Path) -> String {
        file.strip_prefix(&self.project.root).unwrap_or(file).display().to_string()
    }

    /// Shows the build on the page.
    fn tell(&self, mut build: Value) -> Result<(), Ended> {
        if let Value::Object(build) = &mut build {
            build.insert("plugin".to_owned(), self.project.plugin.name.clone().into());
        }
        page("build", build)
    }

    /// Something that went on beside has come to its end.
    fn show(&mut self, number: u64, name: &'static str, value: Value) -> Result<(), Ended> {
        if name == "tests" {
            if number != self.number {
                return Ok(());
            }
            self.tests = None;
            let count = |name: &str| value.get(name).and_then(Value::as_u64).unwrap_or_default();
            let took = seconds(count("took_ms"));
            if value.get("state").and_then(Value::as_str) == Some("passed") {
                note(format!("tests: {} passed in {took}", count("passed")));
            } else {
                let output = value.get("output").and_then(Value::as_str).unwrap_or_default();
                note(output.trim_end());
                note(format!("tests: {} failed, {} passed in {took}", count("failed"), count("passed")));
            }
        }
        page(name, value)
    }

    fn test(&mut self) {
        if self.args.no_tests {
            return;
        }
        match Running::start(&self.project, self.number, self.sender.clone()) {
            Ok(None) => {}
            Ok(running) => {
                self.tests = running;
                // Whether anybody sees it is found out soon enough.
                let _ = page("tests", json!({"state": "running"}));
            }
            Err(error) => note(format!("warning: the tests could not be started: {error}")),
        }
    }

    /// Holds the plugin's configuration against its schema, beside everything else.
    fn check(&mut self) {
        let Some(file) = &self.project.plugin.config_schema else { return };
        let Some(schema) = std::fs::read(file).ok().and_then(|text| serde_json::from_slice::<Value>(&text).ok()) else {
            return;
        };
        let is_ours = |extension: &Extension| self.project.is_in(&self.plan, extension);
        let chains = [Some(&self.plan.chain), self.plan.network.as_ref()];
        let extensions =
            chains.into_iter().flatten().flat_map(|chain| &chain.filters).filter_map(|filter| match &filter.kind {
                FilterKind::Extension(extension) => Some(&**extension),
                FilterKind::BuiltIn(_) => None,
            });
        let ours: Vec<(String, Value)> = extensions
            .filter_map(|extension| Some((extension, Extension::wasm(extension)?)))
            .filter(|(extension, _)| is_ours(extension))
            .map(|(extension, wasm)| {
                let config = wasm.plugin_config.as_deref().and_then(|config| serde_json::from_str(config).ok());
                (extension.id(), json!({"schema": schema, "config": config.unwrap_or_else(|| json!({}))}))
            })
            .collect();
        let (ids, questions): (Vec<String>, Vec<Value>) = ours.into_iter().unzip();
        let questions = json!(questions);
        if self.known.as_ref() == Some(&questions) {
            return;
        }
        self.known = Some(questions.clone());
        let (number, sender) = (self.number, self.sender.clone());
        std::thread::spawn(move || {
            let answers = handover::answer("config-schema", "plugwright-schema", questions.to_string().into_bytes());
            let answers = answers.ok().and_then(|answers| serde_json::from_slice::<Vec<Value>>(&answers).ok());
            let checks: BTreeMap<String, Value> =
                ids.into_iter().zip(answers.unwrap_or_default().iter().map(checked)).collect();
            let _ = sender.send(Happened::Known(number, "configuration", json!(checks)));
        });
    }

    /// Ends the tests and whatever else is under way, this process last.
    fn end(&mut self) {
        if let Some(tests) = self.tests.take() {
            tests.stop();
        }
        if getpgrp() == getpid() {
            let _ = killpg(Pid::this(), Signal::SIGTERM);
        }
    }
}

/// An answer of `plugwright-schema` as the page has it.
fn checked(answer: &Value) -> Value {
    if let Some(reason) = answer.get("bad_schema") {
        return json!({"bad_schema": reason});
    }
    let violations = answer.get("violations").and_then(Value::as_array).cloned().unwrap_or_default();
    let problems = violations.iter().map(|violation| {
        let path = violation.get("path").and_then(Value::as_array).cloned().unwrap_or_default();
        let path: String = path
            .iter()
            .map(|step| step.as_str().map_or_else(|| format!("[{step}]"), |key| format!(".{key}")))
            .collect();
        json!({"path": path.trim_start_matches('.'), "what": violation.get("what"), "fix": violation.get("fix")})
    });
    json!({"problems": problems.collect::<Vec<_>>()})
}

fn page(name: &str, value: Value) -> Result<(), Ended> {
    send(&Line::Page { name: name.to_owned(), value }).map_err(|_| Ended)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_during_three_builds_in_a_row_is_made_by_them() {
        let files = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        let mut during = During::default();
        // A save during one build, another during the next.
        assert_eq!(during.note(&files(&["a", "log"])), files(&[]));
        assert_eq!(during.note(&files(&["b", "log"])), files(&[]));
        assert_eq!(during.note(&files(&["b", "log"])), files(&["log"]));
        // It is known now, whatever else is saved.
        for _ in 0..5 {
            assert_eq!(during.note(&files(&["log"])), files(&[]));
            assert_eq!(during.note(&files(&["a", "log"])), files(&[]));
            assert_eq!(during.note(&files(&["b", "log"])), files(&[]));
        }
        assert_eq!(during.made, BTreeSet::from(["log".into()]));
    }
}

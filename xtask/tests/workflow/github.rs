//! A workflow of GitHub's, done as its runner does it.
//!
//! It knows what is in the workflows that `new` makes. A key, an action, a function or a value that it does not know ends
//! the test: what is passed over here would be found by somebody whose release fails.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use suites::tree::{Format, Node, Value, read};

use super::support::{Ended, finish};

/// Actions that are known, with the version that they are pinned to.
const ACTIONS: [&str; 1] = ["actions/checkout@v4"];

pub(crate) struct Workflow(Node);

/// What has happened.
#[derive(Clone)]
pub(crate) struct Event<'a> {
    pub(crate) name: &'a str,
    pub(crate) git_ref: &'a str,
}

/// What a runner is made from.
pub(crate) struct Machine<'a> {
    /// The repository of the project, which a job checks out.
    pub(crate) project: &'a Path,
    /// Where jobs have their folders.
    pub(crate) folder: &'a Path,
    pub(crate) environment: Vec<(String, String)>,
    /// After a checkout.
    pub(crate) prepare: &'a dyn Fn(&Path),
    pub(crate) actor: &'a str,
    pub(crate) token: &'a str,
}

/// What came of a job.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) outputs: BTreeMap<String, String>,
    pub(crate) summary: String,
    /// The steps that ran, with what each said.
    pub(crate) steps: Vec<(String, Ended)>,
    pub(crate) folder: PathBuf,
}

impl Done {
    /// The step that did not do well, which ended the job.
    pub(crate) fn failed(&self) -> Option<&(String, Ended)> {
        self.steps.iter().find(|(_, ended)| ended.code != 0)
    }
}

impl Workflow {
    pub(crate) fn read(file: &Path) -> Self {
        let text = fs::read_to_string(file).unwrap();
        let workflow =
            Self(read(&text, Format::Yaml).unwrap_or_else(|problem| panic!("{}: {problem}", file.display())));
        only(&workflow.0, &["name", "on", "permissions", "env", "jobs"]);
        workflow
    }

    /// The jobs that an event starts, in the order in which they can run.
    pub(crate) fn jobs(&self, event: &Event<'_>) -> Vec<&str> {
        if !self.is_started_by(event) {
            return Vec::new();
        }
        let mut jobs: Vec<&str> = Vec::new();
        for (name, job) in entries(field(&self.0, "jobs").unwrap()) {
            only(job, &["runs-on", "permissions", "needs", "if", "outputs", "env", "steps"]);
            let needs = field(job, "needs").map(text);
            // What needs a job that has not run is not run.
            let ready = needs.is_none_or(|needs| jobs.contains(&needs.as_str()));
            let values = Values { event: Some(event), ..Values::default() };
            let wanted = field(job, "if").is_none_or(|condition| values.evaluate(&text(condition)) == "true");
            if ready && wanted {
                jobs.push(name);
            }
        }
        jobs
    }

    fn is_started_by(&self, event: &Event<'_>) -> bool {
        let on = field(&self.0, "on").unwrap();
        only(on, &["push", "pull_request"]);
        let Some((_, filter)) = entries(on).find(|(name, _)| *name == event.name) else { return false };
        if filter.value == Value::Null {
            return true;
        }
        only(filter, &["branches", "tags"]);
        [("branches", "refs/heads/"), ("tags", "refs/tags/")].into_iter().any(|(key, prefix)| {
            let Some(name) = event.git_ref.strip_prefix(prefix) else { return false };
            field(filter, key).is_some_and(|patterns| items(patterns).any(|pattern| glob(&text(pattern), name)))
        })
    }

    /// Runs a job to its end, or to the first step that fails.
    pub(crate) fn run(&self, name: &str, event: &Event<'_>, machine: &Machine<'_>) -> Done {
        let job = field(field(&self.0, "jobs").unwrap(), name).unwrap();
        assert_eq!(field(job, "runs-on").map(text).as_deref(), Some("ubuntu-latest"));
        let folder = tempfile::Builder::new().prefix(name).tempdir_in(machine.folder).unwrap().keep();
        let files = folder.join("runner");
        fs::create_dir(&files).unwrap();
        let (output, summary) = (files.join("output"), files.join("summary"));
        fs::write(&summary, "").unwrap();
        let mut values = Values { event: Some(event), machine: Some(machine), ..Values::default() };
        let mut done =
            Done { outputs: BTreeMap::new(), summary: String::new(), steps: Vec::new(), folder: folder.join("work") };
        for step in items(field(job, "steps").unwrap()) {
            only(step, &["uses", "with", "run", "name", "id", "env"]);
            if let Some(action) = field(step, "uses") {
                checkout(&text(action), field(step, "with"), event, machine, &done.folder);
                (machine.prepare)(&done.folder);
                continue;
            }
            let script = values.interpolate(&text(field(step, "run").unwrap()));
            let file = files.join("step.sh");
            fs::write(&file, &script).unwrap();
            fs::write(&output, "").unwrap();
            // Without a `shell`, it is this one, which does not look at all programs of a pipe.
            let mut command = Command::new("bash");
            command.arg("-e").arg(&file).current_dir(&done.folder).stdin(Stdio::null());
            command.envs(machine.environment.iter().map(|(name, value)| (name, value)));
            command.envs([("CI", "true"), ("GITHUB_ACTIONS", "true"), ("GITHUB_ACTOR", machine.actor)]);
            command.env("GITHUB_REF", event.git_ref).env("GITHUB_REF_NAME", event.name_of_ref());
            command.env("GITHUB_OUTPUT", &output).env("GITHUB_STEP_SUMMARY", &summary);
            for level in [&self.0, job, step] {
                for (name, value) in field(level, "env").into_iter().flat_map(entries) {
                    command.env(name, values.interpolate(&text(value)));
                }
            }
            let started = std::time::Instant::now();
            let ended = finish(&mut command);
            println!("{name}: {:.1} s: {}", started.elapsed().as_secs_f64(), script.trim_end());
            for said in [&ended.stdout, &ended.stderr] {
                assert!(!said.contains(machine.token), "the token is in the log:\n{said}");
            }
            let failed = ended.code != 0;
            done.steps.push((field(step, "name").map_or(script, text), ended));
            if failed {
                return done;
            }
            for line in fs::read_to_string(&output).unwrap().lines() {
                let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("GITHUB_OUTPUT has `{line}`"));
                let id = field(step, "id").map_or_else(|| panic!("`{line}` of a step without an id"), text);
                values.steps.insert(format!("{id}.outputs.{key}"), value.to_owned());
            }
        }
        let outputs = field(job, "outputs").into_iter().flat_map(entries);
        done.outputs = outputs.map(|(name, value)| (name.to_owned(), values.interpolate(&text(value)))).collect();
        done.summary = fs::read_to_string(&summary).unwrap();
        done
    }
}

impl Event<'_> {
    fn name_of_ref(&self) -> &str {
        self.git_ref.trim_start_matches("refs/heads/").trim_start_matches("refs/tags/")
    }
}

fn checkout(action: &str, with: Option<&Node>, event: &Event<'_>, machine: &Machine<'_>, into: &Path) {
    assert!(ACTIONS.contains(&action), "no action `{action}` is known; there are {ACTIONS:?}");
    for (name, value) in with.into_iter().flat_map(entries) {
        assert_eq!((name, text(value).as_str()), ("persist-credentials", "false"));
    }
    let mut git = Command::new("git");
    git.args(["clone", "--quiet", "--depth", "1", "--branch", event.name_of_ref()]);
    git.envs(machine.environment.iter().map(|(name, value)| (name, value)));
    finish(git.arg(format!("file://{}", machine.project.display())).arg(into)).fine();
}

/// What expressions can name.
#[derive(Default)]
struct Values<'a> {
    event: Option<&'a Event<'a>>,
    machine: Option<&'a Machine<'a>>,
    /// `ID.outputs.NAME`.
    steps: BTreeMap<String, String>,
}

impl Values<'_> {
    /// Puts values in the places of `${{ … }}`.
    fn interpolate(&self, text: &str) -> String {
        let mut parts = text.split("${{");
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |mut out, part| {
            let (expression, after) = part.split_once("}}").unwrap_or_else(|| panic!("no end of `{part}`"));
            out.push_str(&self.evaluate(expression));
            out.push_str(after);
            out
        })
    }

    fn evaluate(&self, expression: &str) -> String {
        let expression = expression.trim();
        if let Some(text) = expression.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')) {
            return text.to_owned();
        }
        if let Some(arguments) = expression.strip_prefix("startsWith(").and_then(|rest| rest.strip_suffix(')')) {
            let (text, start) = arguments.split_once(',').unwrap_or_else(|| panic!("`{expression}`"));
            // Its comparisons are of lower case.
            let [text, start] = [text, start].map(|argument| self.evaluate(argument).to_lowercase());
            return text.starts_with(&start).to_string();
        }
        let known = match (expression, self.event, self.machine) {
            ("github.ref", Some(event), _) => Some(event.git_ref.to_owned()),
            ("github.token", _, Some(machine)) => Some(machine.token.to_owned()),
            _ => expression.strip_prefix("steps.").and_then(|name| self.steps.get(name).cloned()),
        };
        known.unwrap_or_else(|| panic!("nothing is known of `{expression}`"))
    }
}

/// GitHub's patterns, of which there is a name and one that `*` ends.
fn glob(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, "")) => name.strip_prefix(start).is_some_and(|rest| !rest.contains('/')),
        Some(_) => panic!("nothing is known of the pattern `{pattern}`"),
    }
}

fn entries(node: &Node) -> impl Iterator<Item = (&str, &Node)> {
    let Value::Map(entries) = &node.value else { panic!("{}: not a mapping: {:?}", node.at, node.value) };
    entries.iter().map(|entry| (entry.key.as_str(), &entry.value))
}

fn items(node: &Node) -> impl Iterator<Item = &Node> {
    let Value::List(items) = &node.value else { panic!("{}: not a list: {:?}", node.at, node.value) };
    items.iter()
}

fn text(node: &Node) -> String {
    let Value::Scalar(scalar) = &node.value else { panic!("{}: not a text: {:?}", node.at, node.value) };
    String::from_utf8(scalar.text.clone()).unwrap()
}

fn field<'n>(node: &'n Node, name: &str) -> Option<&'n Node> {
    entries(node).find(|(key, _)| *key == name).map(|(_, value)| value)
}

#[track_caller]
fn only(node: &Node, known: &[&str]) {
    for (key, value) in entries(node) {
        assert!(known.contains(&key), "{}: nothing is known of the key `{key}`", value.at);
    }
}

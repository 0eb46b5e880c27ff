//! Reads suites, and says of everything that is wrong where it is.

use std::fmt;

use mesh::{Document, FieldPath, Place, Source, Step, nearest};
use serde::Deserialize as _;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::Segment;

use super::check;
use super::model::{ChainTest, Test};

/// The field that tells a chain suite from other documents, and its value.
const KIND: &str = "ChainTest";
const GROUP: &str = "plugwright.dev/";

/// Something that is wrong with a suite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Where.
    pub place: Place,
    /// The field, such as `tests[0].requests[1].path`; empty when the whole document is meant.
    pub path: String,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => write!(f, "{}: {}", self.place, self.what),
            path => write!(f, "{}: `{path}`: {}", self.place, self.what),
        }
    }
}

impl std::error::Error for Mistake {}

/// Whether a text is meant to be chain suites, right or wrong: whether one of its documents says so.
pub fn is_chain_suite(source: &Source) -> bool {
    is_meant(&mesh::documents(source), source)
}

fn is_meant(documents: &Result<Vec<Document>, Vec<mesh::Problem>>, source: &Source) -> bool {
    match documents {
        Ok(documents) => documents.iter().any(|document| is_one(&document.value)),
        // What cannot be read is told by a line of it.
        Err(_) => source.text.lines().any(|line| {
            let line: String = line.split('#').next().unwrap_or_default().replace(['"', '\'', ',', ' ', '{', '}'], "");
            line == format!("kind:{KIND}") || line.starts_with(&format!("apiVersion:{GROUP}"))
        }),
    }
}

fn is_one(document: &Value) -> bool {
    let text = |name: &str| document.get(name).and_then(Value::as_str).unwrap_or_default();
    text("kind") == KIND || text("apiVersion").starts_with(GROUP)
}

/// Reads a file: each document is a suite.
pub fn read(source: &Source) -> Result<Vec<ChainTest>, Vec<Mistake>> {
    suites(mesh::documents(source), source)
}

/// Reads a file that is meant to be chain suites; nothing when it is not.
pub fn read_if_meant(source: &Source) -> Option<Result<Vec<ChainTest>, Vec<Mistake>>> {
    let documents = mesh::documents(source);
    is_meant(&documents, source).then(|| suites(documents, source))
}

fn suites(
    documents: Result<Vec<Document>, Vec<mesh::Problem>>,
    source: &Source,
) -> Result<Vec<ChainTest>, Vec<Mistake>> {
    let documents = documents.map_err(|problems| {
        let mistake = |problem: mesh::Problem| Mistake {
            hint: problem.hint().or_else(|| repeated(&problem.fault)),
            what: problem.fault.to_string(),
            place: problem.place,
            path: problem.path,
        };
        problems.into_iter().map(mistake).collect::<Vec<_>>()
    })?;
    let (mut suites, mut mistakes) = (Vec::new(), Vec::new());
    for document in &documents {
        let mut typed = Vec::new();
        typed_keys(document, &document.value, &FieldPath::default(), source, &mut typed);
        match one(document) {
            Ok(suite) if typed.is_empty() => suites.push(suite),
            // What it says is not what was meant, so that what is wrong with it says nothing.
            _ if !typed.is_empty() && ChainTest::deserialize(&document.value).is_ok() => mistakes.append(&mut typed),
            Ok(_) => {}
            Err(found) => {
                // A key that is none of the known ones may be one of those.
                let is_typed = |mistake: &Mistake| typed.iter().any(|typed| typed.place == mistake.place);
                let others: Vec<_> = found.into_iter().filter(|mistake| !is_typed(mistake)).collect();
                mistakes.append(&mut typed);
                mistakes.extend(others);
            }
        }
    }
    if documents.is_empty() {
        let place = Place { file: source.file.clone(), document: 0, line: 1, column: 1 };
        let (path, what) = (String::new(), "there is no suite in it".to_owned());
        mistakes.push(Mistake { place, path, what, hint: None });
    }
    if mistakes.is_empty() { Ok(suites) } else { Err(mistakes) }
}

/// Of keys that are written in different ways, and are the same.
fn repeated(fault: &mesh::Fault) -> Option<String> {
    match fault {
        mesh::Fault::DuplicateKey { key, .. } if matches!(key.as_str(), "true" | "false") => {
            Some(format!("{BOOLEANS}; put such keys in quotes"))
        }
        _ => None,
    }
}

const BOOLEANS: &str = "y, yes, on and their like are `true` in YAML as kubectl reads it, and n, no, off `false`";

/// Keys that are another text than what is written: `y`, `on`, `no`, and numbers in other notations.
fn typed_keys(document: &Document, value: &Value, path: &FieldPath, source: &Source, found: &mut Vec<Mistake>) {
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                typed_keys(document, item, &path.clone().then(index), source, found);
            }
        }
        Value::Object(fields) => {
            for (key, field) in fields {
                let path = path.clone().then(key.as_str());
                let place = document.place(&path);
                let line = source.text.lines().nth(place.line.saturating_sub(1)).unwrap_or_default();
                let rest: String = line.chars().skip(place.column.saturating_sub(1)).collect();
                let written = rest.split(':').next().unwrap_or_default().trim();
                let may_differ = matches!(key.as_str(), "true" | "false");
                if may_differ && !written.starts_with(['"', '\'', '?', '!', '*', '&']) && written != key {
                    let what = format!("the key `{written}` is `{key}` here");
                    let hint = Some(format!("put it in quotes, \"{written}\": {BOOLEANS}"));
                    found.push(Mistake { place, path: path.to_string(), what, hint });
                }
                typed_keys(document, field, &path, source, found);
            }
        }
        _ => {}
    }
}

fn one(document: &Document) -> Result<ChainTest, Vec<Mistake>> {
    let Ok(suite) = ChainTest::deserialize(&document.value) else { return Err(malformations(document)) };
    let found = check::check(&suite);
    if found.is_empty() { Ok(suite) } else { Err(found.into_iter().map(|fault| place(document, fault)).collect()) }
}

/// Everything that has another form than it must, as far as one does not hide the other.
fn malformations(document: &Document) -> Vec<Mistake> {
    let mut head = document.value.clone();
    let tests = head.get_mut("tests").and_then(Value::as_array_mut).map(std::mem::take).unwrap_or_default();
    let mut found = malformed_of::<ChainTest>(document, head, &FieldPath::default());
    for (index, test) in tests.into_iter().enumerate() {
        found.extend(malformed_of::<Test>(document, test, &FieldPath::keys(&["tests"]).then(index)));
    }
    found.sort_by_key(|mistake| (mistake.place.line, mistake.place.column));
    found
}

/// What is malformed in a part of a document: what was said is left out, and the rest is looked at again.
fn malformed_of<T: DeserializeOwned>(document: &Document, mut part: Value, at: &FieldPath) -> Vec<Mistake> {
    let mut found = Vec::new();
    let mut left_out = Vec::new();
    while let Err(error) = serde_path_to_error::deserialize::<_, T>(&part) {
        let fault = malformed(&error, at);
        // Where something was left out, it is missing now.
        if left_out.contains(&fault.path) {
            break;
        }
        let inner = FieldPath(fault.path.0.get(at.0.len()..).unwrap_or_default().to_vec());
        left_out.push(fault.path.clone());
        found.push(place(document, fault));
        if !leave_out(&mut part, &inner.0) {
            break;
        }
    }
    found
}

/// Takes a field out of a document. Items of lists stay, since others are told by their number.
fn leave_out(value: &mut Value, path: &[Step]) -> bool {
    let Some((last, before)) = path.split_last() else { return false };
    let mut value = value;
    for step in before {
        let next = match step {
            Step::Key(key) => value.get_mut(key.as_str()),
            Step::Index(index) => value.get_mut(*index),
        };
        let Some(next) = next else { return false };
        value = next;
    }
    match (last, value) {
        (Step::Key(key), Value::Object(fields)) => fields.remove(key.as_str()).is_some(),
        _ => false,
    }
}

/// A rule that a suite breaks.
pub(super) struct Fault {
    pub(super) path: FieldPath,
    pub(super) what: String,
    pub(super) hint: Option<String>,
}

fn place(document: &Document, fault: Fault) -> Mistake {
    let Fault { path, what, hint } = fault;
    Mistake { place: document.place(&path), path: path.to_string(), what, hint }
}

/// What serde says, at its place, with the nearest of the names that it knows.
fn malformed(error: &serde_path_to_error::Error<serde_json::Error>, at: &FieldPath) -> Fault {
    let steps = error.path().iter().filter_map(|segment| match segment {
        Segment::Seq { index } => Some(Step::from(*index)),
        Segment::Map { key } => Some(Step::from(key.as_str())),
        Segment::Enum { .. } | Segment::Unknown => None,
    });
    let mut path = FieldPath(at.0.iter().cloned().chain(steps).collect());
    let text = error.inner().to_string();
    let (mut what, mut hint) = (text.clone(), None);
    let quoted: Vec<&str> = text.split('`').skip(1).step_by(2).collect();
    if let (true, Some((name, known))) = (text.starts_with("unknown field"), quoted.split_first()) {
        if path.0.last() != Some(&Step::from(*name)) {
            path = path.then(*name);
        }
        what = "unknown field".to_owned() + &did_you_mean(name, known);
        hint = Some(format!("there are {}", known.join(", ")));
    } else if let (true, Some((name, known))) = (text.starts_with("unknown variant"), quoted.split_first()) {
        what = format!("`{name}` is none of {}{}", known.join(", "), did_you_mean(name, known));
    } else if let (true, Some(name)) = (text.starts_with("missing field"), quoted.first()) {
        path = path.then(*name);
        "required, but missing".clone_into(&mut what);
    } else if let Some((found, expected)) =
        text.strip_prefix("invalid type: ").and_then(|text| text.split_once(", expected "))
    {
        let found = found.split(' ').next().unwrap_or(found);
        what = format!("must be {}, is {}", expected_type(expected), found_type(found));
        if expected == "a string" && ["integer", "floating", "boolean"].contains(&found) {
            hint = Some("put the value in quotes".to_owned());
        }
    }
    Fault { path, what, hint }
}

fn did_you_mean(name: &str, known: &[&str]) -> String {
    nearest(name, known).map(|name| format!(", did you mean `{name}`?")).unwrap_or_default()
}

fn expected_type(serde: &str) -> &str {
    match serde {
        "a sequence" => "a list",
        _ if serde.starts_with("struct ") || serde == "a map" => "a mapping",
        "u16" | "u64" | "usize" => "a whole number",
        _ if serde.contains("string") => "a string",
        other => other,
    }
}

fn found_type(serde: &str) -> &str {
    match serde {
        "sequence" => "a list",
        "map" => "a mapping",
        "integer" | "floating" => "a number",
        "boolean" => "a boolean",
        "string" => "a string",
        "null" | "unit" => "null",
        other => other,
    }
}

//! Reads suites, and says of everything that is wrong where it is.

use std::fmt;

use mesh::{Document, FieldPath, Place, Source, Step, nearest};
use serde_json::Value;
use serde_path_to_error::Segment;

use super::check;
use super::model::ChainTest;

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
    match mesh::documents(source) {
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
    let documents = mesh::documents(source).map_err(|problems| {
        let mistake = |problem: mesh::Problem| Mistake {
            hint: problem.hint(),
            what: problem.fault.to_string(),
            place: problem.place,
            path: problem.path,
        };
        problems.into_iter().map(mistake).collect::<Vec<_>>()
    })?;
    let (mut suites, mut mistakes) = (Vec::new(), Vec::new());
    for document in &documents {
        match one(document) {
            Ok(suite) => suites.push(suite),
            Err(found) => mistakes.extend(found),
        }
    }
    if documents.is_empty() {
        let place = Place { file: source.file.clone(), document: 0, line: 1, column: 1 };
        let (path, what) = (String::new(), "there is no suite in it".to_owned());
        mistakes.push(Mistake { place, path, what, hint: None });
    }
    if mistakes.is_empty() { Ok(suites) } else { Err(mistakes) }
}

fn one(document: &Document) -> Result<ChainTest, Vec<Mistake>> {
    let suite: ChainTest =
        serde_path_to_error::deserialize(&document.value).map_err(|error| vec![malformed(document, &error)])?;
    let found = check::check(&suite);
    if found.is_empty() { Ok(suite) } else { Err(found.into_iter().map(|fault| place(document, fault)).collect()) }
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
fn malformed(document: &Document, error: &serde_path_to_error::Error<serde_json::Error>) -> Mistake {
    let steps = error.path().iter().filter_map(|segment| match segment {
        Segment::Seq { index } => Some(Step::from(*index)),
        Segment::Map { key } => Some(Step::from(key.as_str())),
        Segment::Enum { .. } | Segment::Unknown => None,
    });
    let mut path = FieldPath(steps.collect());
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
    place(document, Fault { path, what, hint })
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

//! Documents that are no resources, as JSON values whose fields know their places: for other formats in YAML.

use serde_json::Value as Json;

use crate::fault::{Fault, Place, Problem};
use crate::locate::{FieldPath, Step, descend};
use crate::resources::Source;
use crate::yaml::{self, Mark, Node, Value};

/// One document of a text.
#[derive(Debug)]
pub struct Document {
    file: String,
    number: usize,
    root: Node,
    /// What it says.
    pub value: Json,
}

impl Document {
    /// Its zero-based number within the text.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Where a field is; where it would be, if the document leaves it out.
    pub fn place(&self, path: &FieldPath) -> Place {
        let Mark { line, column } = descend(&self.root, &path.0);
        Place { file: self.file.clone(), document: self.number, line, column }
    }
}

/// Reads every document of a text, in YAML as kubectl reads it, or in JSON. Empty documents are left out.
pub fn documents(source: &Source) -> Result<Vec<Document>, Vec<Problem>> {
    let (mut read, mut problems) = (Vec::new(), Vec::new());
    for document in each_document(source) {
        match document {
            Ok(document) => read.push(document),
            Err(found) => problems.extend(found),
        }
    }
    if problems.is_empty() { Ok(read) } else { Err(problems) }
}

/// The same for each document by itself: one that cannot be read does not hide the others.
pub fn each_document(source: &Source) -> Vec<Result<Document, Vec<Problem>>> {
    let read = |document: yaml::Document| {
        let mut problems = Vec::new();
        let mut problem = |at: Mark, path: &FieldPath, fault: Fault| {
            let Mark { line, column } = at;
            let place = Place { file: source.file.clone(), document: document.number, line, column };
            problems.push(Problem { place, path: path.to_string(), fault });
        };
        for (at, fault) in document.faults {
            problem(at, &FieldPath::default(), fault);
        }
        let read = match document.root {
            Err((at, fault)) => {
                problem(at, &FieldPath::default(), fault);
                None
            }
            Ok(Node { value: Value::Null, .. }) => None,
            Ok(root) => {
                let value = json(&root, &FieldPath::default(), &mut problem);
                Some(Document { file: source.file.clone(), number: document.number, root, value })
            }
        };
        if problems.is_empty() { read.map(Ok) } else { Some(Err(problems)) }
    };
    yaml::documents(&source.text).into_iter().filter_map(read).collect()
}

fn json(node: &Node, path: &FieldPath, problem: &mut impl FnMut(Mark, &FieldPath, Fault)) -> Json {
    match &node.value {
        Value::Null => Json::Null,
        Value::Bool(value) => (*value).into(),
        Value::Int(value) => (*value).into(),
        Value::Float(value) => serde_json::Number::from_f64(*value).map_or_else(
            || {
                let value = if value.is_nan() { ".nan" } else { ".inf" };
                problem(node.at, path, Fault::NotFinite { value });
                Json::Null
            },
            Json::Number,
        ),
        Value::String(text) => text.as_str().into(),
        Value::List(items) => {
            let item = |(index, item)| json(item, &path.clone().then(Step::Index(index)), problem);
            items.iter().enumerate().map(item).collect()
        }
        Value::Map(entries) => {
            let entry = |entry: &yaml::Entry| {
                (entry.key.clone(), json(&entry.value, &path.clone().then(entry.key.as_str()), problem))
            };
            Json::Object(entries.iter().map(entry).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source { file: "f".to_owned(), text: text.to_owned() }
    }

    #[test]
    fn fields_are_values_and_have_their_places() {
        let read = documents(&source("a: [1, {b: yes}]\n---\n---\nc: 2.5\n")).unwrap();
        let values: Vec<_> = read.iter().map(|document| document.value.to_string()).collect();
        assert_eq!(values, [r#"{"a":[1,{"b":true}]}"#, r#"{"c":2.5}"#]);
        let path = FieldPath::keys(&["a"]).then(1).then("b");
        assert_eq!(read[0].place(&path).to_string(), "f:1:9");
        assert_eq!(read[1].place(&FieldPath::keys(&["c"])).to_string(), "f:4:1");
    }

    #[test]
    fn what_is_no_json_is_a_problem_with_its_place() {
        let problems = documents(&source("a: [.nan]\na: 1\n---\nb: [\n")).unwrap_err();
        let texts: Vec<_> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(texts[0], "f:2:1: the key `a` is given twice, first on line 1");
        assert_eq!(texts[1], "f:1:5: `a[0]`: .nan has no JSON form");
        assert!(texts[2].starts_with("f:5:1: not valid YAML"), "{texts:?}");
        let each = each_document(&source("a: 1\n---\nb: [\n---\nc: 2\n"));
        let numbers: Vec<_> = each.iter().map(|read| read.as_ref().map(Document::number).map_err(Vec::len)).collect();
        assert_eq!(numbers, [Ok(0), Err(1), Ok(2)]);
    }
}

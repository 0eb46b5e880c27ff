//! Where in the operator's files a field is, found again when something has to be said of it.

use std::collections::HashMap;
use std::fmt;

use serde::{Serialize, Serializer};

use crate::fault::Place;
use crate::model::{Extension, Origin};
use crate::yaml::{Entry, Mark, Node, Value};

/// One step into a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A mapping's key.
    Key(String),
    /// A list's zero-based index.
    Index(usize),
}

impl From<&str> for Step {
    fn from(key: &str) -> Self {
        Self::Key(key.to_owned())
    }
}

impl From<usize> for Step {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

/// A field of a resource: `spec.match[0].ports[1].number`. It is written and serialised like that.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldPath(pub Vec<Step>);

impl FieldPath {
    /// The path of these keys.
    pub fn keys(keys: &[&str]) -> Self {
        Self(keys.iter().map(|key| Step::from(*key)).collect())
    }

    /// The path one step further down.
    #[must_use]
    pub fn then(mut self, step: impl Into<Step>) -> Self {
        self.0.push(step.into());
        self
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(item) => write!(f, "[{item}]")?,
                Step::Key(key) => {
                    let plain = !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-'));
                    match (plain, index) {
                        (false, _) => write!(f, "[{key:?}]")?,
                        (true, 0) => f.write_str(key)?,
                        (true, _) => write!(f, ".{key}")?,
                    }
                }
            }
        }
        Ok(())
    }
}

impl Serialize for FieldPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Where an extension's kind keeps what a `WasmPlugin` has under `spec`, such as `url`.
pub fn wasm_field(extension: &Extension, field: &str) -> FieldPath {
    match (extension.origin.kind.as_str(), field) {
        ("TrafficExtension", _) => FieldPath::keys(&["spec", "wasm", field]),
        ("ServiceMeshExtension" | "WasmExtension", "url") => FieldPath::keys(&["spec", "image"]),
        ("ServiceMeshExtension" | "WasmExtension", "pluginConfig") => FieldPath::keys(&["spec", "config"]),
        _ => FieldPath::keys(&["spec", field]),
    }
}

/// Finds the place of any field of what was read ([`crate::read_located`]).
#[derive(Default)]
pub struct Locator {
    /// By file, then in the order of lines.
    resources: HashMap<String, Vec<Resource>>,
}

struct Resource {
    document: usize,
    kind: String,
    namespace: String,
    name: String,
    node: Node,
}

impl Locator {
    /// Keeps a document of a file.
    pub(crate) fn keep(&mut self, file: &str, document: usize, root: Node) {
        match self.resources.get_mut(file) {
            Some(resources) => collect(document, root, resources),
            None => collect(document, root, self.resources.entry(file.to_owned()).or_default()),
        }
    }

    /// Must follow on the last document.
    pub(crate) fn sorted(mut self) -> Self {
        self.resources.values_mut().for_each(|resources| resources.sort_by_key(|resource| resource.node.at.line));
        self
    }

    /// Where a field of a resource is; where it would be, if the resource leaves it out.
    pub fn place(&self, origin: &Origin, namespace: &str, name: &str, path: &FieldPath) -> Place {
        let whole = Place { file: origin.file.clone(), document: origin.document, line: origin.line, column: 1 };
        let resources = self.resources(&origin.file);
        let first = resources.partition_point(|resource| resource.node.at.line < origin.line);
        let is_it = |resource: &&Resource| {
            let of_list = origin.kind == resource.kind || resource.kind.is_empty();
            of_list && resource.name == name && resource.namespace == namespace
        };
        let here = resources[first..].iter().take_while(|resource| resource.node.at.line == origin.line);
        let Some(found) = here.into_iter().find(is_it) else { return whole };
        let Mark { line, column } = descend(&found.node, &path.0);
        Place { line, column, ..whole }
    }

    /// The resource that has a line, as `kind namespace/name`.
    pub fn resource(&self, place: &Place) -> Option<String> {
        let resources = self.resources(&place.file);
        let after = resources.partition_point(|resource| resource.node.at.line <= place.line);
        let Resource { document, kind, namespace, name, .. } = resources[..after].last()?;
        (*document == place.document && !kind.is_empty() && !name.is_empty())
            .then(|| format!("{kind} {namespace}/{name}"))
    }

    fn resources(&self, file: &str) -> &[Resource] {
        self.resources.get(file).map_or(&[], Vec::as_slice)
    }
}

/// Takes the resources out of a document, those in lists too. An item of a typed list has no kind of its own.
fn collect(document: usize, node: Node, found: &mut Vec<Resource>) {
    let Value::Map(mut entries) = node.value else { return };
    let text = |entries: &[Entry], key: &str| match get(entries, key) {
        Some(Node { value: Value::String(text), .. }) => text.clone(),
        _ => String::new(),
    };
    let kind = text(&entries, "kind");
    if kind.ends_with("List")
        && let Some(items) = entries.iter_mut().find(|entry| entry.key == "items")
        && let Value::List(items) = std::mem::replace(&mut items.value.value, Value::Null)
    {
        return items.into_iter().for_each(|item| collect(document, item, found));
    }
    let (mut name, mut namespace) = (String::new(), String::new());
    if let Some(Node { value: Value::Map(metadata), .. }) = get(&entries, "metadata") {
        (name, namespace) = (text(metadata, "name"), text(metadata, "namespace"));
    }
    if namespace.is_empty() {
        "default".clone_into(&mut namespace);
    }
    found.push(Resource { document, kind, namespace, name, node: Node { at: node.at, value: Value::Map(entries) } });
}

fn get<'n>(entries: &'n [Entry], key: &str) -> Option<&'n Node> {
    entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value)
}

/// The place of the last step that is there; of a key, where the key is.
pub(crate) fn descend(node: &Node, path: &[Step]) -> Mark {
    let (mut node, mut at) = (node, node.at);
    for step in path {
        let next = match (step, &node.value) {
            (Step::Key(key), Value::Map(entries)) => {
                entries.iter().find(|entry| entry.key == *key).map(|entry| (&entry.value, entry.key_at))
            }
            (Step::Index(index), Value::List(items)) => items.get(*index).map(|item| (item, item.at)),
            _ => None,
        };
        let Some(next) = next else { break };
        (node, at) = next;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::FieldPath;
    use crate::model::Origin;
    use crate::resources::{Source, read_located};

    const TEXT: &str = "\
kind: List
apiVersion: v1
items:
- kind: A
  metadata: {name: x}
  spec:
    match:
    - mode: SERVER
    - {mode: CLIENT, ports: [{number: 1}]}
    config:
      a.b: {deep: [1, 2]}
- {kind: A, metadata: {name: w, namespace: v}, spec: {url: u}}
---
kind: B
metadata: {name: z}
";

    #[track_caller]
    fn check(line: usize, namespace: &str, name: &str, path: &FieldPath, expected: (usize, usize)) {
        let sources = [Source { file: "f".to_owned(), text: TEXT.to_owned() }];
        let kind = if name == "z" { "B" } else { "A" };
        let origin = Origin { kind: kind.to_owned(), file: "f".to_owned(), document: 0, line };
        let place = read_located(&sources).1.place(&origin, namespace, name, path);
        assert_eq!((place.line, place.column), expected, "{path}");
    }

    #[test]
    fn fields_are_found_by_path() {
        let entry = |index: usize| FieldPath::keys(&["spec", "match"]).then(index);
        check(4, "default", "x", &entry(0).then("mode"), (8, 7));
        check(4, "default", "x", &entry(1).then("ports").then(0).then("number"), (9, 31));
        let deep = FieldPath::keys(&["spec", "config", "a.b", "deep"]).then(1);
        assert_eq!(deep.to_string(), "spec.config[\"a.b\"].deep[1]");
        check(4, "default", "x", &deep, (11, 23));
        check(12, "v", "w", &FieldPath::keys(&["spec", "url"]), (12, 55));
        check(14, "default", "z", &FieldPath::default(), (14, 1));
    }

    #[test]
    fn what_is_not_there_is_placed_where_it_would_be() {
        check(4, "default", "x", &FieldPath::keys(&["spec", "config", "no"]), (10, 5));
        check(4, "default", "x", &FieldPath::keys(&["spec", "priority"]), (6, 3));
        check(4, "default", "nobody", &FieldPath::keys(&["spec"]), (4, 1));
    }

    #[test]
    fn a_line_belongs_to_the_resource_that_starts_before_it() {
        let sources = [Source { file: "f".to_owned(), text: TEXT.to_owned() }];
        let locator = read_located(&sources).1;
        let place = |document, line| crate::fault::Place { file: "f".to_owned(), document, line, column: 1 };
        let at = |document, line| locator.resource(&place(document, line));
        assert_eq!(at(0, 8).as_deref(), Some("A default/x"));
        assert_eq!(at(0, 12).as_deref(), Some("A v/w"));
        assert_eq!(at(1, 15).as_deref(), Some("B default/z"));
        assert_eq!(at(0, 1), None);
        assert_eq!(at(2, 15), None, "a document that could not be read has no resource");
    }
}

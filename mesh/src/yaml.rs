//! YAML and JSON text as a tree in which every value knows its place.
//!
//! Built on the parser's event stream, so that depth, aliases and repeated keys are bounded before anything grows.

mod json;
pub(crate) mod print;

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span, Tag};

use crate::fault::Fault;
use crate::scalar::{self, Scalar};

/// Deepest nesting that is read.
const MAX_DEPTH: usize = 100;
/// Most text and structure, in bytes, that the aliases of one document may add.
const MAX_ALIASED: usize = 1 << 20;
/// What a node without text counts as.
const NODE_WEIGHT: usize = 16;

/// One-based line and column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

/// A value and its place.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) at: Mark,
    pub(crate) value: Value,
}

/// What JSON can hold; numbers keep whether they were written as an integer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    String(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One key of a mapping; keys are unique within it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_at: Mark,
    pub(crate) value: Node,
}

impl Value {
    /// Names the type, as in "must be a string, is …".
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Int(_) | Self::Float(_) => "a number",
            Self::String(_) => "a string",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

/// A fault and its place, before the file is known.
pub(crate) type Located = (Mark, Fault);

/// One document: its tree, or why there is none.
pub(crate) struct Document {
    /// Zero-based number within the text.
    pub(crate) number: usize,
    pub(crate) root: Result<Node, Located>,
    /// Faults that leave a tree behind, such as repeated keys.
    pub(crate) faults: Vec<Located>,
}

/// Reads every document of a text. A document that is not YAML does not hide the others.
pub(crate) fn documents(text: &str) -> Vec<Document> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut found = Vec::new();
    for part in parts(text).flat_map(json::parts) {
        read_part(part, &mut found);
    }
    found
}

/// One document's own text, or several documents' that cannot be told apart.
pub(crate) struct Piece<'t> {
    pub(crate) text: &'t str,
    pub(crate) documents: Vec<Document>,
}

/// The same as [`documents`], each with its text: together, the texts are the whole.
pub(crate) fn pieces(text: &str) -> Vec<Piece<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut number = 0;
    let mut pieces = Vec::new();
    for part in parts(text).flat_map(json::parts) {
        let mut documents = Vec::new();
        read_part(part, &mut documents);
        for document in &mut documents {
            document.number = number;
            number += 1;
        }
        pieces.push(Piece { text: part.text, documents });
    }
    pieces
}

/// Whether parts of a text are the same node (anchors, aliases, merges) or have tags.
pub(crate) fn shares(text: &str) -> bool {
    let mut parser = Parser::new_from_str(text);
    while let Some(Ok((event, _))) = parser.next_event() {
        let shares = match event {
            Event::Alias(_) => true,
            Event::Scalar(text, style, anchor, tag) => {
                anchor > 0 || tag.is_some() || (style == ScalarStyle::Plain && text == "<<")
            }
            Event::SequenceStart(anchor, tag) | Event::MappingStart(anchor, tag) => anchor > 0 || tag.is_some(),
            _ => false,
        };
        if shares {
            return true;
        }
    }
    false
}

/// A piece of a text that is parsed on its own, and what stands before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part<'t> {
    lines_before: usize,
    /// Characters before it on its first line.
    columns_before: usize,
    text: &'t str,
}

impl Part<'_> {
    fn mark(self, marker: Marker) -> Mark {
        let line = marker.line().max(1);
        let columns_before = if line == 1 { self.columns_before } else { 0 };
        Mark { line: line + self.lines_before, column: marker.col() + 1 + columns_before }
    }

    /// The same for an error, which the parser sees a line after the last where the text ends without a line break.
    fn mark_of_error(self, marker: Marker) -> Mark {
        let at = self.mark(marker);
        let breaks = self.text.replace("\r\n", "\n").matches(['\n', '\r']).count();
        let last = self.lines_before + breaks + 1;
        if at.line <= last {
            return at;
        }
        let columns = self.text.rsplit(['\n', '\r']).next().map_or(0, |line| line.chars().count());
        Mark { line: last, column: columns + 1 }
    }
}

/// Cuts a text before each `---` line, as kubectl does.
fn parts(text: &str) -> impl Iterator<Item = Part<'_>> {
    let mut cuts = vec![(0, 0)];
    let mut offset = 0;
    let mut only_directives = true;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let marker =
            line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\n', '\r']));
        if marker && !only_directives {
            cuts.push((number, offset));
        }
        // `%YAML 1.1` belongs to the document that the next marker starts.
        only_directives = !marker && only_directives && (line.trim().is_empty() || line.starts_with(['%', '#']));
        offset += line.len();
    }
    let ends = cuts.iter().skip(1).map(|&(_, start)| start).chain([text.len()]).collect::<Vec<_>>();
    let part = |((lines_before, start), end): ((usize, usize), usize)| Part {
        lines_before,
        columns_before: 0,
        text: &text[start..end],
    };
    cuts.into_iter().zip(ends).map(part).collect::<Vec<_>>().into_iter()
}

fn read_part(part: Part<'_>, found: &mut Vec<Document>) {
    let mut parser = Parser::new_from_str(part.text);
    let mut builder = None;
    loop {
        let number = found.len();
        match parser.next_event() {
            None | Some(Ok((Event::StreamEnd, _))) => return,
            Some(Err(error)) => {
                let at = part.mark_of_error(*error.marker());
                let faults = builder.take().map_or_else(Vec::new, |builder: Builder<'_>| builder.faults);
                found.push(Document { number, root: Err((at, Fault::Syntax(error.info().to_owned()))), faults });
                return;
            }
            Some(Ok((Event::DocumentStart(_), _))) => builder = Some(Builder::new(part)),
            Some(Ok((Event::DocumentEnd, span))) => {
                if let Some(Builder { root, faults, .. }) = builder.take() {
                    let at = part.mark(span.start);
                    found.push(Document { number, root: Ok(root.unwrap_or(Node { at, value: Value::Null })), faults });
                }
            }
            Some(Ok((event, span))) => {
                let Some(building) = builder.as_mut() else { continue };
                if let Err(fatal) = building.take(event, span) {
                    let faults = builder.take().map_or_else(Vec::new, |builder| builder.faults);
                    found.push(Document { number, root: Err(fatal), faults });
                    return;
                }
            }
        }
    }
}

/// A collection that is still open.
struct Open {
    at: Mark,
    anchor: usize,
    weight: usize,
    kind: Kind,
}

enum Kind {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, lines: HashMap<String, usize>, key: Option<Key>, merges: Vec<Node> },
}

enum Key {
    Named(String, Mark),
    Merge,
    /// A key that is a collection, already reported: its value is read and dropped.
    Dropped,
}

struct Builder<'t> {
    part: Part<'t>,
    open: Vec<Open>,
    anchors: HashMap<usize, (Node, usize)>,
    aliased: usize,
    root: Option<Node>,
    faults: Vec<Located>,
}

impl<'t> Builder<'t> {
    fn new(part: Part<'t>) -> Self {
        Self { part, open: Vec::new(), anchors: HashMap::new(), aliased: 0, root: None, faults: Vec::new() }
    }

    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Located> {
        let at = self.part.mark(span.start);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let is_merge = style == ScalarStyle::Plain && tag.is_none() && text == "<<";
                if is_merge && self.expects_key() {
                    self.key(Key::Merge);
                    return Ok(());
                }
                let value = scalar_value(&text, style, tag.as_deref()).map_err(|fault| (at, fault))?;
                let weight = NODE_WEIGHT + text.len();
                if self.expects_key() {
                    let key = key_name(&value, &text);
                    self.remember(anchor, &Node { at, value }, weight);
                    self.key(Key::Named(key, at));
                } else {
                    self.complete(Node { at, value }, anchor, weight)?;
                }
            }
            Event::Alias(anchor) => {
                let (node, weight) = self.anchors.get(&anchor).cloned().ok_or((at, Fault::DanglingAlias))?;
                self.aliased += weight;
                if self.aliased > MAX_ALIASED {
                    return Err((at, Fault::AliasesTooLarge { limit: MAX_ALIASED }));
                }
                if self.expects_key() {
                    self.alias_key(node, at);
                } else {
                    self.complete(node, 0, weight)?;
                }
            }
            Event::SequenceStart(anchor, _) => self.start(at, anchor, Kind::List(Vec::new()))?,
            Event::MappingStart(anchor, _) => {
                let kind = Kind::Map { entries: Vec::new(), lines: HashMap::new(), key: None, merges: Vec::new() };
                self.start(at, anchor, kind)?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.end()?,
            _ => {}
        }
        Ok(())
    }

    fn expects_key(&self) -> bool {
        matches!(self.open.last(), Some(Open { kind: Kind::Map { key: None, .. }, .. }))
    }

    fn key(&mut self, new: Key) {
        if let Some(Open { kind: Kind::Map { key, .. }, .. }) = self.open.last_mut() {
            *key = Some(new);
        }
    }

    fn alias_key(&mut self, node: Node, at: Mark) {
        if let Value::String(text) = node.value {
            self.key(Key::Named(text, at));
        } else {
            self.faults.push((at, Fault::CollectionAsKey));
            self.key(Key::Dropped);
        }
    }

    fn start(&mut self, at: Mark, anchor: usize, kind: Kind) -> Result<(), Located> {
        if self.open.len() >= MAX_DEPTH {
            return Err((at, Fault::TooDeep { limit: MAX_DEPTH }));
        }
        self.open.push(Open { at, anchor, weight: NODE_WEIGHT, kind });
        Ok(())
    }

    fn end(&mut self) -> Result<(), Located> {
        let Some(Open { at, anchor, weight, kind }) = self.open.pop() else { return Ok(()) };
        let value = match kind {
            Kind::List(items) => Value::List(items),
            Kind::Map { mut entries, lines, merges, .. } => {
                self.merge(&mut entries, lines, merges);
                Value::Map(entries)
            }
        };
        if self.expects_key() {
            self.faults.push((at, Fault::CollectionAsKey));
            self.key(Key::Dropped);
            return Ok(());
        }
        self.complete(Node { at, value }, anchor, weight)
    }

    /// Adds what `<<` brings in: explicit keys win, and of several merged mappings the first.
    fn merge(&mut self, entries: &mut Vec<Entry>, mut lines: HashMap<String, usize>, merges: Vec<Node>) {
        for merged in merges {
            let at = merged.at;
            let maps = match merged.value {
                Value::List(items) => items,
                _ => vec![merged],
            };
            for map in maps {
                let Value::Map(additions) = map.value else {
                    self.faults.push((at, Fault::MergeOfNonMapping));
                    continue;
                };
                for entry in additions {
                    if lines.insert(entry.key.clone(), entry.key_at.line).is_none() {
                        entries.push(entry);
                    }
                }
            }
        }
    }

    fn remember(&mut self, anchor: usize, node: &Node, weight: usize) {
        if anchor > 0 {
            self.anchors.insert(anchor, (node.clone(), weight));
        }
    }

    fn complete(&mut self, node: Node, anchor: usize, weight: usize) -> Result<(), Located> {
        // An anchored value is copied once here, so nested anchors count like aliases do.
        if anchor > 0 {
            self.aliased += weight;
            if self.aliased > MAX_ALIASED {
                return Err((node.at, Fault::AliasesTooLarge { limit: MAX_ALIASED }));
            }
            self.remember(anchor, &node, weight);
        }
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        parent.weight += weight;
        match &mut parent.kind {
            Kind::List(items) => items.push(node),
            Kind::Map { entries, lines, key, merges } => match key.take() {
                Some(Key::Named(key, key_at)) => {
                    parent.weight += key.len();
                    if let Some(&first) = lines.get(&key) {
                        self.faults.push((key_at, Fault::DuplicateKey { key, first }));
                    } else {
                        lines.insert(key.clone(), key_at.line);
                        entries.push(Entry { key, key_at, value: node });
                    }
                }
                Some(Key::Merge) => merges.push(node),
                Some(Key::Dropped) | None => {}
            },
        }
        Ok(())
    }
}

/// Names a key as it is named in JSON: `yes: 1` has the key `true` for kubectl, and `012: 1` the key `10`.
fn key_name(value: &Value, text: &str) -> String {
    match value {
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        _ => text.to_owned(),
    }
}

fn scalar_value(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value, Fault> {
    let wanted = match tag {
        None if style == ScalarStyle::Plain => None,
        Some(tag) if tag.is_yaml_core_schema() && matches!(&*tag.suffix, "int" | "float" | "bool" | "null") => {
            Some(tag.suffix.as_str())
        }
        _ => return Ok(Value::String(text.to_owned())),
    };
    let value = match scalar::resolve(text) {
        Scalar::Null => Value::Null,
        Scalar::Bool(value) => Value::Bool(value),
        Scalar::Int(value) => Value::Int(value),
        Scalar::Float(value) => Value::Float(value),
        Scalar::Text => Value::String(text.to_owned()),
    };
    match (wanted, &value) {
        (None, _)
        | (Some("int"), Value::Int(_))
        | (Some("float"), Value::Float(_) | Value::Int(_))
        | (Some("bool"), Value::Bool(_))
        | (Some("null"), Value::Null) => Ok(value),
        (Some(tag), _) => Err(Fault::TagMismatch { tag: format!("!!{tag}"), value: text.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::{Document, Fault, MAX_DEPTH, Value, documents};

    /// The tree as compact JSON-like text.
    fn show(value: &Value) -> String {
        match value {
            Value::Null => "null".to_owned(),
            Value::Bool(value) => value.to_string(),
            Value::Int(value) => value.to_string(),
            Value::Float(value) => format!("{value:?}"),
            Value::String(value) => format!("{value:?}"),
            Value::List(items) => {
                format!("[{}]", items.iter().map(|item| show(&item.value)).collect::<Vec<_>>().join(","))
            }
            Value::Map(entries) => format!(
                "{{{}}}",
                entries
                    .iter()
                    .map(|entry| format!("{}:{}", entry.key, show(&entry.value.value)))
                    .collect::<Vec<_>>()
                    .join(",")
            ),
        }
    }

    fn tree(document: &Document) -> String {
        match &document.root {
            Ok(node) => show(&node.value),
            Err((at, fault)) => format!("{}:{}: {fault}", at.line, at.column),
        }
    }

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        assert_eq!(documents(text).iter().map(tree).collect::<Vec<_>>(), expected);
    }

    #[track_caller]
    fn check_faults(text: &str, expected: &[(usize, usize, Fault)]) {
        let documents = documents(text);
        let faults = documents.iter().flat_map(|document| {
            document.root.as_ref().err().into_iter().chain(&document.faults).cloned().collect::<Vec<_>>()
        });
        let faults: Vec<_> = faults.map(|(at, fault)| (at.line, at.column, fault)).collect();
        assert_eq!(faults, expected);
    }

    #[test]
    fn documents_are_split_and_numbered() {
        check("a: 1\n---\nb: 2\n---\n# nothing\n---\nc: 3\n", &["{a:1}", "{b:2}", "null", "{c:3}"]);
        check("--- {a: 1}\n--- # comment\nb: 2", &["{a:1}", "{b:2}"]);
        check("%YAML 1.1\n---\na: 1\n", &["{a:1}"]);
        check("# only a comment\n", &[]);
        check("", &[]);
        assert_eq!(documents("a: 1\n---\nb: 2").iter().map(|d| d.number).collect::<Vec<_>>(), [0, 1]);
    }

    #[test]
    fn json_is_read_too() {
        check(
            "{\"a\": [1, 2.5, \"x\", true, null], \"b\": {\"c\": \"\\u00e9\"}}",
            &["{a:[1,2.5,\"x\",true,null],b:{c:\"é\"}}"],
        );
    }

    #[test]
    fn byte_order_mark_and_crlf_are_accepted() {
        check("\u{feff}a: 1\r\n---\r\nb: x\r\n", &["{a:1}", "{b:\"x\"}"]);
    }

    #[test]
    fn quoted_scalars_and_string_tags_stay_text() {
        check(
            "a: \"1\"\nb: 'yes'\nc: !!str 1\nd: !!float 1\ne: !custom 1",
            &["{a:\"1\",b:\"yes\",c:\"1\",d:1,e:\"1\"}"],
        );
        check_faults("a: !!int x", &[(1, 4, Fault::TagMismatch { tag: "!!int".into(), value: "x".into() })]);
    }

    #[test]
    fn syntax_error_names_line_and_hides_no_other_document() {
        let documents = documents("a: 1\n---\nb: [\n---\nc: 3\n");
        assert_eq!(tree(&documents[0]), "{a:1}");
        assert!(matches!(&documents[1].root, Err((at, Fault::Syntax(_))) if at.line >= 3));
        assert_eq!(tree(&documents[2]), "{c:3}");
    }

    #[test]
    fn duplicate_key_is_a_fault_with_both_lines() {
        check_faults("a: 1\nb: 2\na: 3\n", &[(3, 1, Fault::DuplicateKey { key: "a".into(), first: 1 })]);
        check_faults("x:\n  - {k: 1, k: 2}\n", &[(2, 12, Fault::DuplicateKey { key: "k".into(), first: 2 })]);
    }

    #[test]
    fn collection_as_key_is_a_fault() {
        check_faults("? [a]\n: 1\n", &[(1, 3, Fault::CollectionAsKey)]);
        check_faults("a: &x [1]\n*x : 2\n", &[(2, 1, Fault::CollectionAsKey)]);
    }

    #[test]
    fn keys_are_named_as_in_json() {
        check("{yes: 1, 012: 2, 'no': 3, x: 4}", &["{true:1,10:2,no:3,x:4}"]);
        check_faults("{y: 1, true: 2}", &[(1, 8, Fault::DuplicateKey { key: "true".into(), first: 1 })]);
    }

    #[test]
    fn aliases_and_merges_expand() {
        check(
            "base: &b {x: 1, z: 2}\nuse: *b\nmore: {<<: *b, z: 3}\n",
            &["{base:{x:1,z:2},use:{x:1,z:2},more:{z:3,x:1}}"],
        );
        check("a: &a {x: 1}\nb: &b {x: 2, z: 2}\nc: {<<: [*a, *b]}\n", &["{a:{x:1},b:{x:2,z:2},c:{x:1,z:2}}"]);
        check_faults("a: {<<: 1}", &[(1, 9, Fault::MergeOfNonMapping)]);
    }

    #[test]
    fn alias_across_documents_or_into_itself_is_a_fault() {
        check_faults("a: &x [*x]", &[(1, 8, Fault::DanglingAlias)]);
        assert!(documents("a: &x 1\n---\nb: *x\n")[1].root.is_err());
        assert!(documents("a: &x 1\n...\nb: *x\n")[1].root.is_err());
    }

    #[test]
    fn billion_laughs_is_refused() {
        let below = |level: usize| level.checked_sub(1).map_or("lol".to_owned(), |below| format!("*a{below}"));
        let line = |level| format!("a{level}: &a{level} [{}]", vec![below(level); 8].join(", "));
        let text = (0..30).map(line).collect::<Vec<_>>().join("\n");
        let documents = documents(&text);
        assert!(matches!(documents[0].root, Err((_, Fault::AliasesTooLarge { .. }))));
    }

    #[test]
    fn repeated_aliases_are_bounded() {
        let text = |aliases| format!("a: &a {}\nb: [{}]", "x".repeat(100_000), vec!["*a"; aliases].join(", "));
        assert!(documents(&text(5))[0].root.is_ok());
        assert!(matches!(documents(&text(20))[0].root, Err((_, Fault::AliasesTooLarge { .. }))));
    }

    #[test]
    fn nested_anchors_cannot_multiply_memory() {
        let text = (0..90).map(|n| format!("&a{n} [")).collect::<Vec<_>>().concat() + &"x".repeat(100_000);
        assert!(documents(&text)[0].root.is_err());
        let closed = text + &"]".repeat(90);
        assert!(matches!(documents(&closed)[0].root, Err((_, Fault::AliasesTooLarge { .. }))));
    }

    #[test]
    fn deep_nesting_is_refused() {
        let limit = MAX_DEPTH;
        let too_deep = format!("{}{}", "[".repeat(limit + 1), "]".repeat(limit + 1));
        check_faults(&too_deep, &[(1, limit + 1, Fault::TooDeep { limit })]);
        assert!(documents(&"[".repeat(100_000))[0].root.is_err());
        assert!(documents(&"- ".repeat(100_000))[0].root.is_err());
        assert!(documents(&format!("{}{}", "[".repeat(limit), "]".repeat(limit)))[0].root.is_ok());
    }
}

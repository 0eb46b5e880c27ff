//! YAML, from the parser's event stream, so that depth and aliases are bounded before anything grows.

use std::collections::HashMap;
use std::ops::Range;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span};

use super::{Entry, MAX_DEPTH, Mark, Node, Problem, Scalar, Style, Value};

/// Most nodes that the aliases of one file may add.
const MAX_ALIASED: usize = 10_000;

/// Reads a text that is one document.
pub(super) fn read(text: &str) -> Result<Node, Problem> {
    let mut builder = Builder { offsets: Offsets::of(text), ..Builder::default() };
    let mut parser = Parser::new_from_str(text);
    let mut documents = 0;
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| {
            let what = format!("not YAML: {}", error.info());
            Problem::new(mark(*error.marker()), "", what)
        })?;
        if let Event::DocumentStart(_) = event {
            documents += 1;
            if documents > 1 {
                return Err(Problem::new(mark(span.start), "", "a second document; a suite is one document"));
            }
        }
        builder.take(event, span)?;
    }
    Ok(builder.root.unwrap_or(Node { at: Mark { line: 1, column: 1 }, span: 0..0, value: Value::Null }))
}

fn mark(marker: Marker) -> Mark {
    Mark { line: marker.line().max(1), column: marker.col() + 1 }
}

/// Where each character begins: the parser counts characters.
#[derive(Default)]
struct Offsets {
    ascii: bool,
    starts: Vec<usize>,
    end: usize,
}

impl Offsets {
    fn of(text: &str) -> Self {
        let ascii = text.is_ascii();
        let starts = if ascii { Vec::new() } else { text.char_indices().map(|(at, _)| at).collect() };
        Self { ascii, starts, end: text.len() }
    }

    fn byte(&self, character: usize) -> usize {
        if self.ascii { character.min(self.end) } else { self.starts.get(character).copied().unwrap_or(self.end) }
    }

    fn range(&self, span: Span) -> Range<usize> {
        self.byte(span.start.index())..self.byte(span.end.index())
    }
}

/// A collection that is still open.
struct Open {
    at: Mark,
    span: Range<usize>,
    anchor: usize,
    kind: Kind,
}

enum Kind {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, key: Option<(String, Mark)> },
}

#[derive(Default)]
struct Builder {
    offsets: Offsets,
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    aliased: usize,
    root: Option<Node>,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Problem> {
        let at = mark(span.start);
        match event {
            Event::Scalar(text, style, anchor, _) => {
                if let Some(Open { kind: Kind::Map { entries, key: key @ None }, .. }) = self.open.last_mut() {
                    if style == ScalarStyle::Plain && text == "<<" {
                        return Err(Problem::new(at, "", "merging with `<<` is not read here; write the fields out"));
                    }
                    if let Some(first) = entries.iter().find(|entry| entry.key == text) {
                        let what = format!("the key `{text}` is given twice, first at {}", first.at);
                        return Err(Problem::new(at, "", what));
                    }
                    *key = Some((text.into_owned(), at));
                    return Ok(());
                }
                let plain = style == ScalarStyle::Plain;
                let value = if plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL") {
                    Value::Null
                } else {
                    let style = match style {
                        ScalarStyle::Plain => Style::Plain,
                        ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => Style::Quoted,
                        ScalarStyle::Literal | ScalarStyle::Folded => Style::Block,
                    };
                    Value::Scalar(Scalar { text: text.into_owned().into_bytes(), style })
                };
                let node = Node { at, span: self.offsets.range(span), value };
                self.complete(node, anchor)
            }
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor).cloned();
                let node = node.ok_or_else(|| Problem::new(at, "", "an alias of what is not there"))?;
                self.aliased += size(&node);
                if self.aliased > MAX_ALIASED {
                    return Err(Problem::new(at, "", format!("aliases add more than {MAX_ALIASED} values")));
                }
                self.complete(node, 0)
            }
            Event::SequenceStart(anchor, _) => self.start(at, span, anchor, Kind::List(Vec::new())),
            Event::MappingStart(anchor, _) => {
                self.start(at, span, anchor, Kind::Map { entries: Vec::new(), key: None })
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(Open { at, span, anchor, kind }) = self.open.pop() else { return Ok(()) };
                let value = match kind {
                    Kind::List(items) => Value::List(items),
                    Kind::Map { entries, .. } => Value::Map(entries),
                };
                self.complete(Node { at, span, value }, anchor)
            }
            _ => Ok(()),
        }
    }

    fn start(&mut self, at: Mark, span: Span, anchor: usize, kind: Kind) -> Result<(), Problem> {
        if self.open.len() >= MAX_DEPTH {
            return Err(Problem::new(at, "", format!("nested deeper than {MAX_DEPTH}")));
        }
        let span = self.offsets.range(span);
        self.open.push(Open { at, span, anchor, kind });
        Ok(())
    }

    fn complete(&mut self, node: Node, anchor: usize) -> Result<(), Problem> {
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut().map(|open| &mut open.kind) {
            None => self.root = Some(node),
            Some(Kind::List(items)) => items.push(node),
            Some(Kind::Map { entries, key }) => match key.take() {
                Some((key, at)) => entries.push(Entry { key, at, value: node }),
                None => return Err(Problem::new(node.at, "", "a key must be text")),
            },
        }
        Ok(())
    }
}

fn size(node: &Node) -> usize {
    match &node.value {
        Value::List(items) => 1 + items.iter().map(size).sum::<usize>(),
        Value::Map(entries) => 1 + entries.iter().map(|entry| size(&entry.value)).sum::<usize>(),
        Value::Null | Value::Scalar(_) => 1,
    }
}

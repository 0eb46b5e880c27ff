//! Suites as trees in which every value knows its place, whatever format they are written in.

mod textproto;
mod yaml;

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

/// Deepest nesting that is read.
const MAX_DEPTH: usize = 64;

/// One-based line and column, the latter in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Mark {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// What is wrong with a file, and where in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {}{what}", quoted(.path))]
pub struct Problem {
    /// Where.
    pub at: Mark,
    /// The field, such as `test[2].request_headers.input`; empty when none is meant.
    pub path: String,
    /// What is wrong, and what to do about it.
    pub what: String,
}

fn quoted(path: &str) -> String {
    if path.is_empty() { String::new() } else { format!("`{path}`: ") }
}

impl Problem {
    pub(crate) fn new(at: Mark, path: &str, what: impl Into<String>) -> Self {
        Self { at, path: path.to_owned(), what: what.into() }
    }
}

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// YAML, of which JSON is a part.
    Yaml,
    /// Protocol buffers' text format.
    Textproto,
}

impl Format {
    /// The format of files with this extension.
    pub fn of_extension(extension: &str) -> Option<Self> {
        match extension {
            "yaml" | "yml" | "json" => Some(Self::Yaml),
            "textproto" | "textpb" | "txtpb" | "pbtxt" | "prototxt" => Some(Self::Textproto),
            _ => None,
        }
    }

    /// The extensions of files that are read.
    pub const EXTENSIONS: &[&str] = &["yaml", "yml", "json", "textproto", "textpb", "txtpb", "pbtxt", "prototxt"];
}

/// A value and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Where it begins.
    pub at: Mark,
    /// What it takes of the text, in bytes; of a list or a mapping only where it begins.
    pub span: Range<usize>,
    /// What it is.
    pub value: Value,
}

/// What a file is made of. What a scalar means is for its field to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Nothing was given.
    Null,
    /// One value.
    Scalar(Scalar),
    /// Several.
    List(Vec<Node>),
    /// Fields in order. The text format repeats a field for each of its values.
    Map(Vec<Entry>),
}

/// One value, as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scalar {
    /// Without quotes and escapes.
    pub text: Vec<u8>,
    /// How it is written.
    pub style: Style,
}

/// How a scalar is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// A word or a number.
    Plain,
    /// In quotes.
    Quoted,
    /// YAML's block, `|` or `>`.
    Block,
}

/// A field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub key: String,
    /// Where the name is.
    pub at: Mark,
    /// Its value.
    pub value: Node,
}

/// Reads a text.
pub fn read(text: &str, format: Format) -> Result<Node, Problem> {
    match format {
        Format::Yaml => yaml::read(text),
        Format::Textproto => textproto::read(text),
    }
}

/// The name of a value's type, as in "must be text, is …".
pub(crate) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Scalar(_) => "a single value",
        Value::List(_) => "a list",
        Value::Map(_) => "a message",
    }
}

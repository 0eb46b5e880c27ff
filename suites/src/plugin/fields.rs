//! A message of a tree: its known fields, with whatever is wrong said once and in its place.

use crate::tree::{Entry, Mark, Node, Problem, Scalar, Style, Value, type_name};

/// What messages are read with: where problems go.
#[derive(Default)]
pub(super) struct Reader {
    pub(super) problems: Vec<Problem>,
    /// The format tells texts, which are in quotes, from words and numbers, which are not.
    pub(super) quotes: bool,
}

impl Reader {
    pub(super) fn problem(&mut self, at: Mark, path: &str, what: impl Into<String>) {
        self.problems.push(Problem::new(at, path, what));
    }
}

/// A message's fields.
pub(super) struct Fields<'t> {
    pub(super) at: Mark,
    pub(super) path: String,
    entries: Vec<&'t Entry>,
}

/// A field's name in YAML may be that of protocol buffers' JSON, `requestHeaders`.
pub(crate) fn snake(key: &str) -> String {
    let mut name = String::with_capacity(key.len());
    for c in key.chars() {
        if c.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(c.to_ascii_lowercase());
    }
    name
}

/// The known name that is nearest, if any is near.
pub(super) fn nearest<'k>(known: &[&'k str], name: &str) -> Option<&'k str> {
    let score = |candidate: &str| {
        let part = candidate.contains(name) || name.contains(candidate);
        strsim::normalized_damerau_levenshtein(&snake(name), candidate).max(if part { 0.6 } else { 0.0 })
    };
    let best = known.iter().copied().max_by(|a, b| score(a).total_cmp(&score(b)))?;
    (score(best) >= 0.5).then_some(best)
}

impl<'t> Fields<'t> {
    /// The fields of a message, of which these are known.
    pub(super) fn of(reader: &mut Reader, node: &'t Node, path: &str, known: &[&str]) -> Self {
        let mut fields = Self { at: node.at, path: path.to_owned(), entries: Vec::new() };
        match &node.value {
            Value::Map(entries) => {
                for entry in entries {
                    if known.contains(&entry.key.as_str()) || known.contains(&snake(&entry.key).as_str()) {
                        fields.entries.push(entry);
                        continue;
                    }
                    let hint = match nearest(known, &entry.key) {
                        Some(near) => format!("did you mean `{near}`?"),
                        None => format!("known are {}", known.join(", ")),
                    };
                    reader.problem(entry.at, &fields.join(&entry.key), format!("an unknown field; {hint}"));
                }
            }
            Value::Null => {}
            other => reader.problem(node.at, path, format!("must be a message, is {}", type_name(other))),
        }
        fields
    }

    pub(super) fn join(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    fn named<'f>(&'f self, name: &'f str) -> impl Iterator<Item = &'t Entry> + 'f {
        self.entries.iter().copied().filter(move |entry| entry.key == name || snake(&entry.key) == name)
    }

    /// A field that is there once, or not at all.
    pub(super) fn one(&self, reader: &mut Reader, name: &str) -> Option<&'t Node> {
        let mut found = self.named(name).filter(|entry| entry.value.value != Value::Null);
        let first = found.next()?;
        if let Some(second) = found.next() {
            reader.problem(second.at, &self.join(name), format!("given twice, first at {}", first.at));
        }
        Some(&first.value)
    }

    /// A field's values with their paths: from one list, or from the field's repetitions.
    pub(super) fn all(&self, reader: &mut Reader, name: &str, repeats: bool) -> Vec<(&'t Node, String)> {
        let mut nodes = Vec::new();
        for entry in self.named(name) {
            match &entry.value.value {
                Value::List(items) => nodes.extend(items),
                Value::Null => {}
                _ if repeats => nodes.push(&entry.value),
                other => {
                    let what = format!("must be a list, is {}; begin it with `- `", type_name(other));
                    reader.problem(entry.value.at, &self.join(name), what);
                }
            }
        }
        let path = self.join(name);
        nodes.into_iter().enumerate().map(|(at, node)| (node, format!("{path}[{at}]"))).collect()
    }

    /// Says it when more than one of these is there, and which is.
    pub(super) fn one_of(&self, reader: &mut Reader, names: &[&'static str]) -> Option<&'static str> {
        let mut given = Vec::new();
        for name in names {
            if let Some(entry) = self.named(name).find(|entry| entry.value.value != Value::Null) {
                given.push((*name, entry.at));
            }
        }
        if let [(first, _), (second, at), ..] = given[..] {
            let what = format!("given beside `{first}`; there may be one of {}", names.join(", "));
            reader.problem(at, &self.join(second), what);
        }
        given.first().map(|(name, _)| *name)
    }

    /// A text; what is not UTF-8 is an error.
    pub(super) fn text(&self, reader: &mut Reader, name: &str) -> Option<String> {
        let bytes = self.bytes(reader, name)?;
        match String::from_utf8(bytes) {
            Ok(text) => Some(text),
            Err(_) => {
                reader.problem(self.place(name), &self.join(name), "must be text in UTF-8");
                None
            }
        }
    }

    /// A text of which the empty one is none.
    pub(super) fn set_text(&self, reader: &mut Reader, name: &str) -> Option<String> {
        self.text(reader, name).filter(|text| !text.is_empty())
    }

    pub(super) fn bytes(&self, reader: &mut Reader, name: &str) -> Option<Vec<u8>> {
        let (at, scalar) = self.scalar(reader, name)?;
        if reader.quotes && scalar.style == Style::Plain {
            let what = format!("must be text; write `\"{}\"`", scalar.text.escape_ascii());
            reader.problem(at, &self.join(name), what);
        }
        Some(scalar.text.clone())
    }

    /// A number, or the name of a value.
    pub(super) fn word(&self, reader: &mut Reader, name: &str) -> Option<String> {
        let (at, scalar) = self.scalar(reader, name)?;
        let word = String::from_utf8_lossy(&scalar.text).into_owned();
        if reader.quotes && scalar.style != Style::Plain {
            reader.problem(at, &self.join(name), format!("must not be in quotes; write `{}`", word.escape_debug()));
        }
        Some(word)
    }

    fn scalar(&self, reader: &mut Reader, name: &str) -> Option<(Mark, &'t Scalar)> {
        let node = self.one(reader, name)?;
        match &node.value {
            Value::Scalar(scalar) => Some((node.at, scalar)),
            other => {
                reader.problem(node.at, &self.join(name), format!("must be text, is {}", type_name(other)));
                None
            }
        }
    }

    pub(super) fn bool(&self, reader: &mut Reader, name: &str) -> bool {
        match self.word(reader, name).as_deref() {
            None | Some("false" | "False" | "FALSE" | "f" | "0") => false,
            Some("true" | "True" | "TRUE" | "t" | "1") => true,
            Some(other) => {
                let what = format!("must be true or false, is `{}`", other.escape_debug());
                reader.problem(self.place(name), &self.join(name), what);
                false
            }
        }
    }

    /// A whole number in a range.
    pub(super) fn number(&self, reader: &mut Reader, name: &str, least: u64, most: u64) -> Option<u64> {
        let text = self.word(reader, name)?;
        let number = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
            Some(hex) => u64::from_str_radix(hex, 16).ok(),
            None if text.len() > 1 && text.starts_with('0') => u64::from_str_radix(&text, 8).ok(),
            None => text.parse().ok(),
        };
        let number = number.filter(|number| (least..=most).contains(number));
        if number.is_none() {
            let what = format!("must be a whole number from {least} to {most}, is `{}`", text.escape_debug());
            reader.problem(self.place(name), &self.join(name), what);
        }
        number
    }

    /// Where a field's value is, or else the message.
    pub(super) fn place(&self, name: &str) -> Mark {
        self.named(name).next().map_or(self.at, |entry| entry.value.at)
    }
}

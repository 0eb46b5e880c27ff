//! Typed access to a document's fields, which collects every fault instead of stopping at the first.

use crate::fault::{Fault, Place, Problem, nearest};
use crate::yaml::{Entry, Mark, Node, Value};

/// Collects the problems of one document.
pub(crate) struct Report<'f> {
    file: &'f str,
    document: usize,
    pub(crate) errors: Vec<Problem>,
    pub(crate) warnings: Vec<Problem>,
}

impl<'f> Report<'f> {
    pub(crate) fn new(file: &'f str, document: usize) -> Self {
        Self { file, document, errors: Vec::new(), warnings: Vec::new() }
    }

    pub(crate) fn place(&self, at: Mark) -> Place {
        Place { file: self.file.to_owned(), document: self.document, line: at.line, column: at.column }
    }

    pub(crate) fn error(&mut self, at: Mark, path: &str, fault: Fault) {
        self.errors.push(Problem { place: self.place(at), path: path.to_owned(), fault });
    }

    fn warning(&mut self, at: Mark, path: &str, fault: Fault) {
        self.warnings.push(Problem { place: self.place(at), path: path.to_owned(), fault });
    }
}

/// A value under its path.
#[derive(Clone)]
pub(crate) struct Field<'n> {
    pub(crate) node: &'n Node,
    pub(crate) path: String,
}

/// A mapping under its path.
#[derive(Clone)]
pub(crate) struct Object<'n> {
    pub(crate) at: Mark,
    pub(crate) path: String,
    pub(crate) entries: &'n [Entry],
}

impl<'n> Field<'n> {
    pub(crate) fn root(node: &'n Node) -> Self {
        Self { node, path: String::new() }
    }

    pub(crate) fn error(&self, report: &mut Report<'_>, fault: Fault) {
        report.error(self.node.at, &self.path, fault);
    }

    pub(crate) fn warning(&self, report: &mut Report<'_>, fault: Fault) {
        report.warning(self.node.at, &self.path, fault);
    }

    fn wrong_type(&self, report: &mut Report<'_>, expected: &'static str) {
        self.error(report, Fault::WrongType { expected, actual: self.node.value.type_name() });
    }

    pub(crate) fn is_null(&self) -> bool {
        self.node.value == Value::Null
    }

    /// The mapping, without a fault when it is something else.
    pub(crate) fn as_object(&self) -> Option<Object<'n>> {
        match &self.node.value {
            Value::Map(entries) => Some(Object { at: self.node.at, path: self.path.clone(), entries }),
            _ => None,
        }
    }

    /// The text, without a fault when it is something else.
    pub(crate) fn as_text(&self) -> Option<&'n str> {
        match &self.node.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn object(&self, report: &mut Report<'_>) -> Option<Object<'n>> {
        let object = self.as_object();
        if object.is_none() {
            self.wrong_type(report, "a mapping");
        }
        object
    }

    pub(crate) fn list(&self, report: &mut Report<'_>) -> Option<Vec<Self>> {
        let items = self.items();
        if items.is_none() {
            self.wrong_type(report, "a list");
        }
        items
    }

    /// The list's items, without a fault when it is something else.
    pub(crate) fn items(&self) -> Option<Vec<Self>> {
        let Value::List(items) = &self.node.value else { return None };
        let item = |(index, node)| Self { node, path: format!("{}[{index}]", self.path) };
        Some(items.iter().enumerate().map(item).collect())
    }

    /// A list of at most `max` entries; a longer one is a fault and is still read.
    pub(crate) fn list_of_at_most(&self, max: usize, report: &mut Report<'_>) -> Vec<Self> {
        let items = self.list(report).unwrap_or_default();
        if items.len() > max {
            self.error(report, Fault::TooMany { count: items.len(), max });
        }
        items
    }

    pub(crate) fn text(&self, report: &mut Report<'_>) -> Option<&'n str> {
        let text = self.as_text();
        if text.is_none() {
            self.wrong_type(report, "a string");
        }
        text
    }

    /// A string of `min` to `max` characters.
    pub(crate) fn text_of(&self, min: usize, max: usize, report: &mut Report<'_>) -> Option<&'n str> {
        let text = self.text(report)?;
        let length = text.chars().count();
        if length < min || length > max {
            self.error(report, Fault::Length { length, min, max });
            return None;
        }
        Some(text)
    }

    /// A whole number between `min` and `max`; `1.0` is one, as the API server has it.
    pub(crate) fn integer(&self, min: i64, max: i64, report: &mut Report<'_>) -> Option<i64> {
        let value = match self.node.value {
            Value::Int(value) => value,
            Value::Float(value) => {
                let Some(whole) = whole(value) else {
                    self.error(report, Fault::WrongType { expected: "a whole number", actual: "a fraction" });
                    return None;
                };
                whole
            }
            _ => {
                self.wrong_type(report, "a whole number");
                return None;
            }
        };
        if value < min || value > max {
            let shown = match self.node.value {
                // What does not fit is not what it was cut to.
                Value::Float(float) if matches!(value, i64::MIN | i64::MAX) => format!("{float:e}"),
                _ => value.to_string(),
            };
            self.error(report, Fault::OutOfRange { value: shown, min, max });
            return None;
        }
        Some(value)
    }

    /// One of an enumeration's names.
    pub(crate) fn choice<T: Copy>(&self, choices: &[(&'static str, T)], report: &mut Report<'_>) -> Option<T> {
        let text = self.text(report)?;
        let found = choices.iter().find(|(name, _)| *name == text).map(|&(_, value)| value);
        if found.is_none() {
            let known: Vec<&'static str> = choices.iter().map(|&(name, _)| name).collect();
            let nearest = nearest(text, &known);
            self.error(report, Fault::UnknownValue { value: text.to_owned(), known, nearest });
        }
        found
    }
}

/// Converts a double that is a whole number; beyond 64 bits it saturates, which every range then refuses.
#[expect(clippy::cast_possible_truncation, reason = "whole, and saturation is meant")]
fn whole(value: f64) -> Option<i64> {
    (value.is_finite() && value.fract() == 0.0).then_some(value as i64)
}

impl<'n> Object<'n> {
    /// The field of that name, if it is there, whatever its value.
    pub(crate) fn get(&self, name: &str) -> Option<Field<'n>> {
        let entry = self.entries.iter().find(|entry| entry.key == name)?;
        Some(self.field(entry))
    }

    /// The field of that name; it is a fault when it is missing.
    pub(crate) fn required(&self, name: &str, report: &mut Report<'_>) -> Option<Field<'n>> {
        let found = self.get(name);
        if found.is_none() {
            report.error(self.at, &self.path_to(name), Fault::Required);
        }
        found
    }

    /// Every field, in the order they were written.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&'n str, Field<'n>)> + '_ {
        self.entries.iter().map(|entry| (entry.key.as_str(), self.field(entry)))
    }

    /// Reports each field whose name is not among these.
    pub(crate) fn only(&self, known: &[&'static str], report: &mut Report<'_>) {
        for entry in self.entries.iter().filter(|entry| !known.contains(&entry.key.as_str())) {
            let fault = Fault::UnknownField { nearest: nearest(&entry.key, known) };
            report.error(entry.key_at, &self.path_to(&entry.key), fault);
        }
    }

    /// Text further down, for resources of which only a little is read.
    pub(crate) fn text_at(&self, path: &[&str]) -> Option<&'n str> {
        self.at(path)?.as_text()
    }

    /// A value further down.
    pub(crate) fn at(&self, path: &[&str]) -> Option<Field<'n>> {
        let (last, parents) = path.split_last()?;
        let mut object = self.clone();
        for name in parents {
            object = object.get(name)?.as_object()?;
        }
        object.get(last)
    }

    fn field(&self, entry: &'n Entry) -> Field<'n> {
        Field { node: &entry.value, path: self.path_to(&entry.key) }
    }

    fn path_to(&self, name: &str) -> String {
        let plain = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-'));
        match (self.path.is_empty(), plain) {
            (true, true) => name.to_owned(),
            (false, true) => format!("{}.{name}", self.path),
            (_, false) => format!("{}[{name:?}]", self.path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Field, Report};
    use crate::yaml::documents;

    #[track_caller]
    fn check(text: &str, read: impl Fn(&Field<'_>, &mut Report<'_>), expected: &[&str]) {
        let documents = documents(text);
        let mut report = Report::new("f", 0);
        read(&Field::root(documents[0].root.as_ref().unwrap()), &mut report);
        assert_eq!(report.errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn whole_doubles_are_integers_and_fractions_are_not() {
        let read = |field: &Field<'_>, report: &mut Report<'_>| {
            for item in field.items().unwrap() {
                item.integer(0, 9, report);
            }
        };
        check("[1, 1.0, 9]", read, &[]);
        check(
            "[1.5, 10, '1', 1e30, .nan]",
            read,
            &[
                "f:1:2: `[0]`: must be a whole number, is a fraction",
                "f:1:7: `[1]`: 10 is not between 0 and 9",
                "f:1:11: `[2]`: must be a whole number, is a string",
                "f:1:16: `[3]`: 1e30 is not between 0 and 9",
                "f:1:22: `[4]`: must be a whole number, is a fraction",
            ],
        );
    }

    #[test]
    fn paths_name_fields_and_indices() {
        let read = |field: &Field<'_>, report: &mut Report<'_>| {
            let object = field.object(report).unwrap();
            let item = &object.get("a").unwrap().items().unwrap()[1];
            item.object(report).unwrap().only(&["known"], report);
        };
        check(
            "a:\n- {}\n- known: 1\n  knwon: 2\n  x.y/z: 3\n",
            read,
            &["f:4:3: `a[1].knwon`: unknown field, did you mean `known`?", "f:5:3: `a[1][\"x.y/z\"]`: unknown field"],
        );
    }

    #[test]
    fn a_number_is_no_string() {
        let read = |field: &Field<'_>, report: &mut Report<'_>| {
            field.text(report);
        };
        check("1", read, &["f:1:1: must be a string, is a number"]);
        check("yes", read, &["f:1:1: must be a string, is a boolean"]);
        check("~", read, &["f:1:1: must be a string, is null"]);
        check("'1'", read, &[]);
    }
}

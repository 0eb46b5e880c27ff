//! Edits a resource's text entry by entry, so that comments, order and quoting of everything else stay.

use std::ops::Range;

use crate::yaml::{self, Entry, Node, Value, print};

/// An edit that the text does not allow: it is then written anew and edited again.
#[derive(Debug)]
pub(super) struct Unchanged;

/// Mappings in which entries are edited; they are put into block style first.
const EDITED: [&[&str]; 8] = [
    &["metadata"],
    &["metadata", "annotations"],
    &["spec"],
    &["spec", "workloadSelector"],
    &["spec", "targetRef"],
    &["spec", "defaultSecuritySetting"],
    &["spec", "vmConfig"],
    &["spec", "selector"],
];

/// One resource: its lines and its tree, which follow each other after every edit.
pub(super) struct Editor {
    lines: Vec<String>,
    root: Node,
}

impl Editor {
    /// Takes a resource as it was written.
    pub(super) fn of_text(text: &str) -> Result<Self, Unchanged> {
        if yaml::shares(text) {
            return Err(Unchanged);
        }
        let mut editor = Self { lines: text.lines().map(str::to_owned).collect(), root: parse(text)? };
        if !editor.is_block(&editor.root) {
            return Err(Unchanged);
        }
        for path in EDITED {
            let Some(node) = editor.get(path) else { continue };
            if matches!(&node.value, Value::Map(entries) if !entries.is_empty()) && !editor.is_block(node) {
                let value = node.value.clone();
                editor.replace(path, path.last().copied().unwrap_or_default(), &value)?;
            }
        }
        Ok(editor)
    }

    /// Writes a resource anew.
    pub(super) fn of_node(node: &Node) -> Result<Self, Unchanged> {
        let text = print::document(node);
        Ok(Self { root: parse(&text)?, lines: text.lines().map(str::to_owned).collect() })
    }

    /// The result. Every line ends with a line end.
    pub(super) fn text(&self) -> String {
        self.lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
    }

    pub(super) fn get(&self, path: &[&str]) -> Option<&Node> {
        let mut node = &self.root;
        for name in path {
            let Value::Map(entries) = &node.value else { return None };
            node = &entries.iter().find(|entry| entry.key == *name)?.value;
        }
        Some(node)
    }

    /// Gives an entry another name.
    pub(super) fn rename(&mut self, path: &[&str], key: &str) -> Result<(), Unchanged> {
        let entry = self.entry(path).ok_or(Unchanged)?;
        let (line, column, old) = (entry.key_at.line - 1, entry.key_at.column - 1, entry.key.clone());
        let text = self.lines.get(line).ok_or(Unchanged)?;
        let start = byte_of(text, column);
        let rest = text[start..].strip_prefix(old.as_str()).ok_or(Unchanged)?;
        self.lines[line] = format!("{}{key}{rest}", &text[..start]);
        self.parse_again()
    }

    /// Gives an entry another scalar value; a comment behind it stays.
    pub(super) fn set(&mut self, path: &[&str], value: &str) -> Result<(), Unchanged> {
        let entry = self.entry(path).ok_or(Unchanged)?;
        let (key_line, at) = (entry.key_at.line, entry.value.at);
        let wanted = Value::String(value.to_owned());
        let Value::String(old) = &entry.value.value else {
            return self.replace(path, &entry.key.clone(), &wanted);
        };
        if *old == value {
            return Ok(());
        }
        let written = [old.clone(), format!("\"{old}\""), format!("'{old}'")];
        let key = entry.key.clone();
        if key_line == at.line
            && let Some(line) = self.lines.get(at.line - 1)
        {
            let start = byte_of(line, at.column - 1);
            let token = written.iter().find(|token| {
                let rest = line[start..].strip_prefix(token.as_str()).map(str::trim_start);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('#'))
            });
            if let Some(token) = token {
                let edited = format!("{}{}{}", &line[..start], print::string(value), &line[start + token.len()..]);
                self.lines[at.line - 1] = edited;
                self.parse_again()?;
                return if self.get(path).is_some_and(|node| node.value == wanted) { Ok(()) } else { Err(Unchanged) };
            }
        }
        self.replace(path, &key, &wanted)
    }

    /// Removes an entry with the comments right above it. Nothing happens when it is not there.
    pub(super) fn remove(&mut self, path: &[&str]) -> Result<(), Unchanged> {
        let Some((_, parent)) = path.split_last() else { return Ok(()) };
        if self.get(path).is_none() {
            return Ok(());
        }
        let range = self.range(path).ok_or(Unchanged)?;
        let last = matches!(&self.get(parent).ok_or(Unchanged)?.value, Value::Map(entries) if entries.len() == 1);
        if last && !parent.is_empty() {
            let key = parent.last().copied().unwrap_or_default();
            return self.replace(parent, key, &Value::Map(Vec::new()));
        }
        self.lines.drain(range);
        self.parse_again()
    }

    /// Puts another entry into an entry's place; the comments above it stay.
    pub(super) fn replace(&mut self, path: &[&str], key: &str, value: &Value) -> Result<(), Unchanged> {
        let range = self.range(path).ok_or(Unchanged)?;
        let at = self.entry(path).ok_or(Unchanged)?.key_at;
        let lines: Vec<String> = print::entry(key, value, at.column - 1).lines().map(str::to_owned).collect();
        self.lines.splice(at.line - 1..range.end, lines);
        self.parse_again()
    }

    /// Adds an entry to a mapping, after the last of the given ones that is there, else at the end.
    pub(super) fn put(&mut self, parent: &[&str], after: &[&str], key: &str, value: &Value) -> Result<(), Unchanged> {
        let Value::Map(entries) = &self.get(parent).ok_or(Unchanged)?.value else { return Err(Unchanged) };
        let found = entries.iter().rfind(|entry| after.contains(&entry.key.as_str())).or(entries.last());
        let Some(neighbour) = found else {
            let Some((name, grandparent)) = parent.split_last() else { return Err(Unchanged) };
            let entry = Entry { key: key.to_owned(), key_at: self.root.at, value: self.node(value.clone()) };
            let path = [grandparent, &[*name]].concat();
            return self.replace(&path, name, &Value::Map(vec![entry]));
        };
        let column = neighbour.key_at.column - 1;
        let end = self.range(&[parent, &[neighbour.key.as_str()]].concat()).ok_or(Unchanged)?.end;
        let lines: Vec<String> = print::entry(key, value, column).lines().map(str::to_owned).collect();
        self.lines.splice(end..end, lines);
        self.parse_again()
    }

    /// Moves entries of a mapping, comments and all, under a new one in the place of the first.
    pub(super) fn nest(&mut self, parent: &[&str], keys: &[&str], under: &str) -> Result<(), Unchanged> {
        let Value::Map(entries) = &self.get(parent).ok_or(Unchanged)?.value else { return Err(Unchanged) };
        let moved: Vec<&Entry> = entries.iter().filter(|entry| keys.contains(&entry.key.as_str())).collect();
        let first = moved.first().ok_or(Unchanged)?;
        let column = first.key_at.column - 1;
        let range = |entry: &&Entry| self.range(&[parent, &[entry.key.as_str()]].concat());
        let ranges: Option<Vec<Range<usize>>> = moved.iter().map(range).collect();
        let ranges = ranges.ok_or(Unchanged)?;
        let mut nested = vec![format!("{}{under}:", " ".repeat(column))];
        for line in ranges.iter().cloned().flat_map(|range| &self.lines[range]) {
            nested.push(if line.trim().is_empty() { line.clone() } else { format!("  {line}") });
        }
        let start = ranges.first().map_or(0, |range| range.start);
        for range in ranges.into_iter().rev() {
            self.lines.drain(range);
        }
        self.lines.splice(start..start, nested);
        self.parse_again()
    }

    pub(super) fn node(&self, value: Value) -> Node {
        Node { at: self.root.at, value }
    }

    fn entry(&self, path: &[&str]) -> Option<&Entry> {
        let (name, parent) = path.split_last()?;
        let Value::Map(entries) = &self.get(parent)?.value else { return None };
        entries.iter().find(|entry| entry.key == *name)
    }

    /// The lines of an entry: the comments right above it, its key, its value.
    fn range(&self, path: &[&str]) -> Option<Range<usize>> {
        let (name, parent) = path.split_last()?;
        let Value::Map(entries) = &self.get(parent)?.value else { return None };
        let index = entries.iter().position(|entry| entry.key == *name)?;
        let start = self.start(&entries[index]);
        if let Some(next) = entries.get(index + 1) {
            return Some(start..self.start(next));
        }
        let outer = if parent.is_empty() { self.end() } else { self.range(parent)?.end };
        let column = entries[index].key_at.column - 1;
        let mut end = outer;
        // What follows the last entry and is further out is not its own.
        let foreign = |line: &String| {
            let text = line.trim_start();
            text.is_empty() || (text.starts_with('#') && line.len() - text.len() < column)
        };
        while end > entries[index].key_at.line && self.lines.get(end - 1).is_some_and(foreign) {
            end -= 1;
        }
        Some(start..end)
    }

    fn start(&self, entry: &Entry) -> usize {
        let column = entry.key_at.column - 1;
        let mut start = entry.key_at.line - 1;
        let is_own = |line: &String| {
            let text = line.trim_start();
            text.starts_with('#') && line.len() - text.len() == column
        };
        while start > 0 && self.lines.get(start - 1).is_some_and(is_own) {
            start -= 1;
        }
        start
    }

    /// Where the document ends, which may be before the text does.
    fn end(&self) -> usize {
        self.lines.iter().position(|line| line == "...").unwrap_or(self.lines.len())
    }

    /// Whether each key of a mapping stands first on a line of its own.
    fn is_block(&self, node: &Node) -> bool {
        let Value::Map(entries) = &node.value else { return false };
        let first = |entry: &Entry| {
            let line = self.lines.get(entry.key_at.line - 1);
            line.is_some_and(|line| line.chars().take(entry.key_at.column - 1).all(|c| c == ' '))
        };
        !entries.is_empty() && entries.iter().all(first)
    }

    fn parse_again(&mut self) -> Result<(), Unchanged> {
        self.root = parse(&self.text())?;
        Ok(())
    }
}

/// The tree of a text with one document.
pub(super) fn parse(text: &str) -> Result<Node, Unchanged> {
    let mut documents = yaml::documents(text).into_iter();
    match (documents.next(), documents.next()) {
        (Some(document), None) if document.faults.is_empty() => document.root.map_err(|_| Unchanged),
        _ => Err(Unchanged),
    }
}

fn byte_of(line: &str, column: usize) -> usize {
    line.char_indices().nth(column).map_or(line.len(), |(offset, _)| offset)
}

#[cfg(test)]
mod tests {
    use super::Editor;
    use crate::yaml::Value;

    const TEXT: &str = "# licence\n\nkind: A # the kind\n# of spec\nspec:\n  # of image\n  image: \"x\" # x\n  # of config\n  config:\n    # inner\n    a: |\n      # no comment\n      text\n\n  last: 1\n# end\n";

    #[track_caller]
    fn check(edit: impl FnOnce(&mut Editor) -> Result<(), super::Unchanged>, from: &str, to: &str) {
        let mut editor = Editor::of_text(TEXT).unwrap();
        edit(&mut editor).unwrap();
        assert!(TEXT.contains(from));
        assert_eq!(editor.text(), TEXT.replace(from, to));
    }

    #[test]
    fn edits_leave_everything_else_as_it_was() {
        check(|e| e.rename(&["spec", "config"], "pluginConfig"), "  config:", "  pluginConfig:");
        check(|e| e.set(&["kind"], "B"), "kind: A #", "kind: B #");
        check(|e| e.set(&["spec", "image"], "oci://x"), "\"x\" #", "oci://x #");
        check(|e| e.remove(&["spec", "image"]), "  # of image\n  image: \"x\" # x\n", "");
        check(|e| e.remove(&["gone"]), "", "");
        let value = Value::Bool(true);
        check(|e| e.put(&["spec"], &["image"], "new", &value), "# x\n", "# x\n  new: true\n");
        check(|e| e.put(&["spec"], &[], "new", &value), "last: 1\n", "last: 1\n  new: true\n");
        check(
            |e| e.replace(&["spec", "config"], "new", &value),
            "  config:\n    # inner\n    a: |\n      # no comment\n      text\n\n",
            "  new: true\n",
        );
    }

    #[test]
    fn moved_entries_take_their_comments_along() {
        check(
            |e| e.nest(&["spec"], &["config", "image"], "wasm"),
            "  # of image\n  image: \"x\" # x\n  # of config\n  config:\n    # inner\n    a: |\n      # no comment\n      text\n",
            "  wasm:\n    # of image\n    image: \"x\" # x\n    # of config\n    config:\n      # inner\n      a: |\n        # no comment\n        text\n",
        );
    }

    #[test]
    fn what_stands_in_one_line_is_put_into_block_style_first() {
        let mut editor = Editor::of_text("# c\nmetadata: {name: a} # gone\nspec: {image: x, m: 1}\n").unwrap();
        editor.rename(&["spec", "image"], "url").unwrap();
        assert_eq!(editor.text(), "# c\nmetadata:\n  name: a\nspec:\n  url: x\n  m: 1\n");
        for text in ["{kind: A}", "a: &x 1\nb: *x\n", "<<: {a: 1}\nb: 1\n", "a: !!str 1\n", "? a\n: b\n"] {
            assert!(Editor::of_text(text).is_err(), "{text}");
        }
    }
}

//! Protocol buffers' text format, without extensions and `Any`, which no suite has.
//!
//! <https://protobuf.dev/reference/protobuf/textformat-spec/>

use super::{Entry, MAX_DEPTH, Mark, Node, Problem, Scalar, Style, Value};

/// Reads a message.
pub(super) fn read(text: &str) -> Result<Node, Problem> {
    let mut reader = Reader { text, at: 0, line: 1, line_start: 0 };
    let entries = reader.fields(None, 0)?;
    Ok(Node { at: Mark { line: 1, column: 1 }, span: 0..0, value: Value::Map(entries) })
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
    line: usize,
    line_start: usize,
}

impl<'t> Reader<'t> {
    fn peek(&self) -> Option<char> {
        self.text.get(self.at..)?.chars().next()
    }

    fn advance(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += next.len_utf8();
        if next == '\n' {
            self.line += 1;
            self.line_start = self.at;
        }
        Some(next)
    }

    fn mark(&self) -> Mark {
        let line = self.text.get(self.line_start..self.at).unwrap_or_default();
        Mark { line: self.line, column: line.chars().count() + 1 }
    }

    fn fail<T>(&self, what: impl Into<String>) -> Result<T, Problem> {
        Err(Problem::new(self.mark(), "", what))
    }

    /// Skips what stands between tokens: white space and comments.
    fn skip(&mut self) {
        while let Some(next) = self.peek() {
            match next {
                ' ' | '\t' | '\r' | '\n' | '\u{b}' | '\u{c}' | '\u{feff}' => {
                    self.advance();
                }
                '#' => {
                    while self.peek().is_some_and(|c| c != '\n') {
                        self.advance();
                    }
                }
                _ => return,
            }
        }
    }

    /// Takes a character, if it comes next.
    fn takes(&mut self, wanted: char) -> bool {
        self.skip();
        let found = self.peek() == Some(wanted);
        if found {
            self.advance();
        }
        found
    }

    fn found(&self) -> String {
        self.peek().map_or_else(|| "the end of the file".to_owned(), |c| format!("`{}`", c.escape_debug()))
    }

    /// Fields up to the closing character, or to the end of the text.
    fn fields(&mut self, close: Option<(char, Mark)>, depth: usize) -> Result<Vec<Entry>, Problem> {
        if depth > MAX_DEPTH {
            return self.fail(format!("nested deeper than {MAX_DEPTH}"));
        }
        let mut entries = Vec::new();
        loop {
            self.skip();
            match (self.peek(), close) {
                (None, None) => return Ok(entries),
                (None, Some((_, opened))) => {
                    return self.fail(format!("the message that begins at {opened} has no end"));
                }
                (Some(next), Some((close, _))) if next == close => {
                    self.advance();
                    return Ok(entries);
                }
                _ => entries.push(self.field(depth)?),
            }
            if !self.takes(',') {
                self.takes(';');
            }
        }
    }

    fn field(&mut self, depth: usize) -> Result<Entry, Problem> {
        let at = self.mark();
        if self.peek() == Some('[') {
            return self.fail("an extension or `Any`, which suites do not have");
        }
        let key = self.word();
        if key.is_empty() || key.starts_with(|c: char| c.is_ascii_digit()) {
            let found = if key.is_empty() { self.found() } else { format!("`{key}`") };
            return Err(Problem::new(at, "", format!("expected a field's name, found {found}")));
        }
        let colon = self.takes(':');
        self.skip();
        if !colon && !matches!(self.peek(), Some('{' | '<' | '[')) {
            return self.fail(format!("expected `:` or `{{` after `{key}`, found {}", self.found()));
        }
        let value = self.value(depth)?;
        if !colon
            && let Value::List(items) = &value.value
            && items.iter().any(|item| !matches!(item.value, Value::Map(_)))
        {
            return Err(Problem::new(value.at, "", format!("`{key}` needs a `:` before a list of single values")));
        }
        Ok(Entry { key: key.to_owned(), at, value })
    }

    /// Letters, digits and underscores; and what else stands in numbers.
    fn word(&mut self) -> &'t str {
        let start = self.at;
        while self.peek().is_some_and(|c| c.is_ascii_alphanumeric() || c == '_') {
            self.advance();
        }
        self.text.get(start..self.at).unwrap_or_default()
    }

    fn value(&mut self, depth: usize) -> Result<Node, Problem> {
        self.skip();
        let (at, start) = (self.mark(), self.at);
        let value = match self.peek() {
            Some(open @ ('{' | '<')) => {
                self.advance();
                let close = if open == '{' { '}' } else { '>' };
                Value::Map(self.fields(Some((close, at)), depth + 1)?)
            }
            Some('[') => {
                self.advance();
                Value::List(self.list(at, depth)?)
            }
            Some('"' | '\'') => return self.strings(at, start),
            Some(_) => Value::Scalar(Scalar { text: self.plain()?.into_bytes(), style: Style::Plain }),
            None => return self.fail("expected a value, found the end of the file"),
        };
        Ok(Node { at, span: start..self.at, value })
    }

    fn list(&mut self, opened: Mark, depth: usize) -> Result<Vec<Node>, Problem> {
        let mut items = Vec::new();
        if self.takes(']') {
            return Ok(items);
        }
        loop {
            self.skip();
            if self.peek() == Some('[') {
                return self.fail("a list in a list");
            }
            items.push(self.value(depth + 1)?);
            if self.takes(']') {
                return Ok(items);
            }
            if !self.takes(',') {
                return self
                    .fail(format!("expected `,` or `]` in the list that begins at {opened}, found {}", self.found()));
            }
        }
    }

    /// A word or a number. A sign may stand apart.
    fn plain(&mut self) -> Result<String, Problem> {
        let mut text = String::new();
        if self.takes('-') {
            text.push('-');
            self.skip();
        }
        let start = self.at;
        while self.peek().is_some_and(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.'))
            || (self.peek().is_some_and(|c| matches!(c, '+' | '-'))
                && self
                    .text
                    .get(start..self.at)
                    .is_some_and(|s| s.ends_with(['e', 'E']) && s.starts_with(|c: char| c.is_ascii_digit())))
        {
            self.advance();
        }
        let word = self.text.get(start..self.at).unwrap_or_default();
        if word.is_empty() {
            return self.fail(format!("expected a value, found {}", self.found()));
        }
        text.push_str(word);
        Ok(text)
    }

    /// Literals that follow each other are one value.
    fn strings(&mut self, at: Mark, start: usize) -> Result<Node, Problem> {
        let mut text = Vec::new();
        loop {
            self.literal(&mut text)?;
            let end = self.at;
            let (line, line_start) = (self.line, self.line_start);
            self.skip();
            if !matches!(self.peek(), Some('"' | '\'')) {
                // What was skipped is not the value's.
                (self.at, self.line, self.line_start) = (end, line, line_start);
                let value = Value::Scalar(Scalar { text, style: Style::Quoted });
                return Ok(Node { at, span: start..end, value });
            }
        }
    }

    fn literal(&mut self, text: &mut Vec<u8>) -> Result<(), Problem> {
        let opened = self.mark();
        let quote = self.advance();
        loop {
            match self.peek() {
                None | Some('\n') => {
                    return Err(Problem::new(
                        opened,
                        "",
                        "a string does not end on its line; write a line break as `\\n`",
                    ));
                }
                next if next == quote => {
                    self.advance();
                    return Ok(());
                }
                Some('\\') => self.escape(text)?,
                Some(other) => {
                    self.advance();
                    text.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes());
                }
            }
        }
    }

    fn escape(&mut self, text: &mut Vec<u8>) -> Result<(), Problem> {
        let at = self.mark();
        self.advance();
        let byte = match self.peek() {
            Some('a') => 0x07,
            Some('b') => 0x08,
            Some('f') => 0x0c,
            Some('n') => b'\n',
            Some('r') => b'\r',
            Some('t') => b'\t',
            Some('v') => 0x0b,
            Some(same @ ('?' | '\\' | '\'' | '"')) => same as u8,
            Some('0'..='7') => {
                let code = self.digits(8, 3);
                let byte = code.and_then(|code| u8::try_from(code).ok());
                text.push(byte.ok_or_else(|| Problem::new(at, "", "an octal escape that is no byte"))?);
                return Ok(());
            }
            Some('x' | 'X') => {
                self.advance();
                let byte = self.digits(16, 2).and_then(|code| u8::try_from(code).ok());
                text.push(byte.ok_or_else(|| Problem::new(at, "", "`\\x` needs one or two hexadecimal digits"))?);
                return Ok(());
            }
            Some(kind @ ('u' | 'U')) => {
                self.advance();
                let count = if kind == 'u' { 4 } else { 8 };
                let (start, code) = (self.at, self.digits(16, count));
                let character = code.filter(|_| self.at == start + count).and_then(char::from_u32);
                let what =
                    || Problem::new(at, "", format!("`\\{kind}` needs {count} hexadecimal digits of a character"));
                text.extend_from_slice(character.ok_or_else(what)?.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            _ => return Err(Problem::new(at, "", format!("no escape: `\\` and {}", self.found()))),
        };
        self.advance();
        text.push(byte);
        Ok(())
    }

    /// A number of at most so many digits.
    fn digits(&mut self, radix: u32, most: usize) -> Option<u32> {
        let start = self.at;
        while self.at - start < most && self.peek().is_some_and(|c| c.is_digit(radix)) {
            self.advance();
        }
        u32::from_str_radix(self.text.get(start..self.at)?, radix).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tree in one line.
    fn show(node: &Node) -> String {
        match &node.value {
            Value::Null => "null".to_owned(),
            Value::Scalar(scalar) => {
                let text = scalar.text.escape_ascii().to_string();
                if scalar.style == Style::Plain { text } else { format!("'{text}'") }
            }
            Value::List(items) => format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(" ")),
            Value::Map(entries) => {
                let field = |entry: &Entry| format!("{}={}", entry.key, show(&entry.value));
                format!("{{{}}}", entries.iter().map(field).collect::<Vec<_>>().join(" "))
            }
        }
    }

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(show(&read(text).unwrap()), expected);
    }

    #[track_caller]
    fn refused(text: &str, expected: &str) {
        assert_eq!(read(text).unwrap_err().to_string(), expected);
    }

    #[test]
    fn messages_have_either_bracket_and_a_colon_or_none() {
        check("a { b < c: 1 > d: { } }", "{a={b={c=1} d={}}}");
        check("a: < >", "{a={}}");
        check("a{}a{}", "{a={} a={}}");
    }

    #[test]
    fn comments_and_separators_are_skipped() {
        check("# one\na: 1, # two\nb: 2; c: X\n# end", "{a=1 b=2 c=X}");
        check("", "{}");
    }

    #[test]
    fn lists_are_values_of_one_field() {
        check("a: [1, 'b', -3]  c [{d: 1}, <>] e: []", "{a=[1 'b' -3] c=[{d=1} {}] e=[]}");
        refused("a [1]", "1:3: `a` needs a `:` before a list of single values");
        refused("a: [[1]]", "1:5: a list in a list");
        refused("a: [1 2]", "1:7: expected `,` or `]` in the list that begins at 1:4, found `2`");
        refused("a: [1,]", "1:7: expected a value, found `]`");
    }

    #[test]
    fn literals_that_follow_each_other_are_one() {
        check("a: \"one \"\n  'two'  # between\n  \" three\" b: 1", "{a='one two three' b=1}");
        let tree = read("a: 'x' # c\n 'y'  # after\nb: 1").unwrap();
        let Value::Map(entries) = tree.value else { unreachable!() };
        assert_eq!(entries[0].value.span, 3..15);
        assert_eq!(entries[1].at, Mark { line: 3, column: 1 });
    }

    #[test]
    fn escapes_are_those_of_c_and_unicode() {
        check(r#"a: "\n\t\\\"\'\?\a\101\x41\u00e9\U0001F600""#, r#"{a='\n\t\\\"\'?\x07AA\xc3\xa9\xf0\x9f\x98\x80'}"#);
        check(r#"a: "\xff\0\3777""#, r"{a='\xff\x00\xff7'}");
        refused(r#"a: "x\q""#, "1:6: no escape: `\\` and `q`");
        refused(r#"a: "\x""#, "1:5: `\\x` needs one or two hexadecimal digits");
        refused(r#"a: "\u12""#, "1:5: `\\u` needs 4 hexadecimal digits of a character");
        refused(r#"a: "\777""#, "1:5: an octal escape that is no byte");
    }

    #[test]
    fn what_is_not_the_format_is_said_with_its_place() {
        refused("a: 'x\n'", "1:4: a string does not end on its line; write a line break as `\\n`");
        refused("a {\n b: 1", "2:6: the message that begins at 1:3 has no end");
        refused("a b", "1:3: expected `:` or `{` after `a`, found `b`");
        refused("a:", "1:3: expected a value, found the end of the file");
        refused("https://x # y", "1:7: expected a value, found `/`");
        refused("}", "1:1: expected a field's name, found `}`");
        refused("[a.b]: 1", "1:1: an extension or `Any`, which suites do not have");
        refused(&"a{".repeat(70), "1:131: nested deeper than 64");
        check("a: 1e+5 b: 0x1F c: - 2", "{a=1e+5 b=0x1F c=-2}");
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in r#"[a-c{}<>\[\]:;,'"\\#\n\- 0-9ux]{0,60}"#) {
            let _ = read(&text);
        }
    }
}

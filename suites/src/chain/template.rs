//! `${NAME}` in texts.

use std::collections::BTreeMap;

use serde_json::Value;

/// What `${NAME}` stands for, by name.
pub type Variables = BTreeMap<String, String>;

/// A piece of a text.
#[derive(Debug, PartialEq, Eq)]
enum Piece<'t> {
    Text(&'t str),
    Name(&'t str),
}

/// `$${` is `${` as it stands; what is not closed is text.
fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, from) = rest.split_at(at);
        if let Some(before) = before.strip_suffix('$') {
            pieces.extend([Piece::Text(before), Piece::Text("${")]);
            rest = from.get(2..).unwrap_or_default();
            continue;
        }
        let Some((name, after)) = from.get(2..).and_then(|from| from.split_once('}')) else { break };
        pieces.extend([Piece::Text(before), Piece::Name(name)]);
        rest = after;
    }
    pieces.push(Piece::Text(rest));
    pieces
}

/// The names that a text has.
pub fn names(text: &str) -> impl Iterator<Item = &str> {
    pieces(text).into_iter().filter_map(|piece| match piece {
        Piece::Name(name) => Some(name),
        Piece::Text(_) => None,
    })
}

/// The text with what its names stand for; a name that stands for nothing is the error.
pub fn fill(text: &str, variables: &Variables) -> Result<String, String> {
    fill_with(text, variables, str::to_owned)
}

/// The same for an expression, in which values are what they are and not expressions.
pub fn fill_regex(text: &str, variables: &Variables) -> Result<String, String> {
    fill_with(text, variables, escaped)
}

fn fill_with(text: &str, variables: &Variables, written: impl Fn(&str) -> String) -> Result<String, String> {
    let mut filled = String::with_capacity(text.len());
    for piece in pieces(text) {
        match piece {
            Piece::Text(text) => filled.push_str(text),
            Piece::Name(name) => match variables.get(name) {
                Some(value) => filled.push_str(&written(value)),
                None => return Err(format!("nothing was captured as `{name}`")),
            },
        }
    }
    Ok(filled)
}

/// A JSON value with the texts in it filled.
pub fn fill_json(value: &Value, variables: &Variables) -> Result<Value, String> {
    Ok(match value {
        Value::String(text) => Value::String(fill(text, variables)?),
        Value::Array(items) => {
            items.iter().map(|item| fill_json(item, variables)).collect::<Result<Vec<_>, _>>()?.into()
        }
        Value::Object(members) => {
            let member = |(name, value): (&String, &Value)| Ok((name.clone(), fill_json(value, variables)?));
            Value::Object(members.iter().map(member).collect::<Result<_, String>>()?)
        }
        other => other.clone(),
    })
}

/// The text as an expression that matches nothing else.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_ascii_punctuation() {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> Variables {
        Variables::from([("a".to_owned(), "1.5".to_owned()), ("empty".to_owned(), String::new())])
    }

    #[test]
    fn names_are_replaced_and_doubled_dollars_are_not() {
        for (text, expected) in [
            ("", ""),
            ("x ${a} y ${a}", "x 1.5 y 1.5"),
            ("${empty}", ""),
            ("$${a}", "${a}"),
            ("$a {a} ${a", "$a {a} ${a"),
            ("$$ ${a}$", "$$ 1.5$"),
        ] {
            assert_eq!(fill(text, &variables()).as_deref(), Ok(expected), "{text}");
        }
        assert_eq!(fill("${b}", &variables()), Err("nothing was captured as `b`".to_owned()));
        assert_eq!(names("${a}/$${b}/${c}").collect::<Vec<_>>(), ["a", "c"]);
    }

    #[test]
    fn values_in_expressions_are_no_expressions() {
        assert_eq!(fill_regex("^${a}.*$", &variables()).as_deref(), Ok("^1\\.5.*$"));
    }

    #[test]
    fn every_text_of_a_json_value_is_filled() {
        let value = serde_json::json!({"x": ["${a}", 1, {"y": "-${a}-"}]});
        assert_eq!(fill_json(&value, &variables()), Ok(serde_json::json!({"x": ["1.5", 1, {"y": "-1.5-"}]})));
    }
}

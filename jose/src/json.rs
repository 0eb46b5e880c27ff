//! JSON objects from strangers: bounded in size and depth, without a name that occurs twice.

use std::borrow::Cow;
use std::fmt;

use hifijson::token::Lex as _;
use hifijson::{SliceLexer, value};

/// How deep lists and objects may nest unless a caller says otherwise.
pub const MAX_DEPTH: usize = 16;

/// Why a text is not the JSON object that it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonError {
    /// Not UTF-8, or not JSON, or something behind it.
    Syntax,
    /// Nested too deeply.
    Depth,
    /// Another value than an object.
    NotAnObject,
    /// A name occurs twice in an object, so that readers may differ on what it says (RFC 7519, section 4).
    Duplicate,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Syntax => "not valid JSON",
            Self::Depth => "nested too deeply",
            Self::NotAnObject => "not a JSON object",
            Self::Duplicate => "a name occurs twice in an object",
        })
    }
}

impl std::error::Error for JsonError {}

/// A JSON value. Numbers stay as they are written.
#[derive(Clone, PartialEq, Eq)]
pub enum Value {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number's text.
    Number(String),
    /// A string.
    Text(String),
    /// A list.
    List(Vec<Value>),
    /// An object.
    Object(Object),
}

/// A JSON object, in the order in which it is written.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Object(Vec<(String, Value)>);

// Claims and answers of token endpoints are nobody's business in a log.
impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

impl Object {
    /// Reads an object that fills `text`, nested up to [`MAX_DEPTH`]. How large `text` may be is the caller's to say.
    pub fn parse(text: &[u8]) -> Result<Self, JsonError> {
        // The lexer takes a slice that was never checked for what strings have to be.
        if std::str::from_utf8(text).is_err() {
            return Err(JsonError::Syntax);
        }
        let mut lexer = SliceLexer::new(text);
        let first = lexer.ws_peek().ok_or(JsonError::Syntax)?;
        let parsed = value::parse_bounded(MAX_DEPTH, first, &mut lexer).map_err(|error| match error {
            hifijson::Error::Depth => JsonError::Depth,
            _ => JsonError::Syntax,
        })?;
        if lexer.ws_peek().is_some() {
            return Err(JsonError::Syntax);
        }
        match Value::take(parsed)? {
            Value::Object(object) => Ok(object),
            _ => Err(JsonError::NotAnObject),
        }
    }

    /// The value called `name`.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// Whether there is a value called `name`, be it `null`.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The string called `name`; none when it is missing or something else.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(Value::as_text)
    }

    /// The strings of the list called `name`, or the one string; none when it is missing or holds anything else.
    pub fn texts(&self, name: &str) -> Option<Vec<&str>> {
        match self.get(name)? {
            Value::Text(text) => Some(vec![text]),
            Value::List(items) => items.iter().map(Value::as_text).collect(),
            _ => None,
        }
    }

    /// The boolean called `name`.
    pub fn flag(&self, name: &str) -> Option<bool> {
        match self.get(name)? {
            Value::Bool(flag) => Some(*flag),
            _ => None,
        }
    }

    /// The whole part of the number called `name`; none when it is missing, written with an exponent or out of range.
    pub fn integer(&self, name: &str) -> Option<i64> {
        let Value::Number(text) = self.get(name)? else { return None };
        let whole = match text.split_once('.') {
            Some((whole, fraction)) if fraction.bytes().all(|b| b.is_ascii_digit()) => whole,
            Some(_) => return None,
            None => text,
        };
        whole.parse().ok()
    }

    /// The object called `name`.
    pub fn object(&self, name: &str) -> Option<&Self> {
        match self.get(name)? {
            Value::Object(object) => Some(object),
            _ => None,
        }
    }

    /// The list called `name`.
    pub fn list(&self, name: &str) -> Option<&[Value]> {
        match self.get(name)? {
            Value::List(items) => Some(items),
            _ => None,
        }
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }
}

impl Value {
    /// The text of a string.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The object that this is.
    pub fn as_object(&self) -> Option<&Object> {
        match self {
            Self::Object(object) => Some(object),
            _ => None,
        }
    }

    /// Takes the parser's value over. It is as deep as the parser let it be.
    fn take(parsed: value::Value<&str, Cow<'_, str>>) -> Result<Self, JsonError> {
        Ok(match parsed {
            value::Value::Null => Self::Null,
            value::Value::Bool(flag) => Self::Bool(flag),
            value::Value::Number((text, _)) => Self::Number(text.to_owned()),
            value::Value::String(text) => Self::Text(text.into_owned()),
            value::Value::Array(items) => Self::List(items.into_iter().map(Self::take).collect::<Result<_, _>>()?),
            value::Value::Object(entries) => {
                let mut object: Vec<(String, Self)> = Vec::with_capacity(entries.len());
                for (name, value) in entries {
                    object.push((name.into_owned(), Self::take(value)?));
                }
                let mut names: Vec<&str> = object.iter().map(|(name, _)| name.as_str()).collect();
                names.sort_unstable();
                if names.windows(2).any(|pair| matches!(pair, [a, b] if a == b)) {
                    return Err(JsonError::Duplicate);
                }
                Self::Object(Object(object))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{JsonError, Object};

    fn object(text: &str) -> Object {
        Object::parse(text.as_bytes()).unwrap()
    }

    #[track_caller]
    fn refused(text: impl AsRef<[u8]>, error: JsonError) {
        assert_eq!(Object::parse(text.as_ref()).unwrap_err(), error);
    }

    #[test]
    fn values_are_had_by_name_and_kind() {
        let object = object(r#" {"a":"x\u00e9","n":-7,"l":["p","q"],"t":true,"o":{"i":{}},"z":null} "#);
        assert_eq!(object.text("a"), Some("xé"));
        assert_eq!(object.texts("a"), Some(vec!["xé"]));
        assert_eq!(object.texts("l"), Some(vec!["p", "q"]));
        assert_eq!(object.integer("n"), Some(-7));
        assert_eq!(object.flag("t"), Some(true));
        assert!(object.object("o").unwrap().object("i").is_some());
        assert!(object.has("z") && !object.has("y"));
        assert_eq!(object.list("l").map(<[_]>::len), Some(2));
        assert_eq!(object.names().collect::<Vec<_>>(), ["a", "n", "l", "t", "o", "z"]);
        for (text, list) in [(object.text("n"), object.texts("n")), (object.text("z"), object.texts("t"))] {
            assert_eq!((text, list), (None, None));
        }
    }

    #[test]
    fn a_list_that_is_not_all_strings_is_none() {
        assert_eq!(object(r#"{"l":["p",1]}"#).texts("l"), None);
        assert_eq!(object(r#"{"l":["p",["q"]]}"#).texts("l"), None);
    }

    #[test]
    fn a_number_is_its_whole_part_or_nothing() {
        for (text, value) in [
            ("1300819380", Some(1_300_819_380)),
            ("1300819380.75", Some(1_300_819_380)),
            ("-0", Some(0)),
            ("9223372036854775807", Some(i64::MAX)),
            ("9223372036854775808", None),
            ("1e9", None),
            ("1.5e9", None),
            ("1.5E+9", None),
            ("\"1\"", None),
        ] {
            assert_eq!(object(&format!(r#"{{"n":{text}}}"#)).integer("n"), value, "{text}");
        }
    }

    #[test]
    fn a_name_that_occurs_twice_is_refused_however_it_is_written() {
        refused(r#"{"a":1,"b":2,"a":1}"#, JsonError::Duplicate);
        refused(r#"{"a":1,"\u0061":1}"#, JsonError::Duplicate);
        refused(r#"{"a":[{"b":1,"b":1}]}"#, JsonError::Duplicate);
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for text in ["", " ", "{", r#"{"a"}"#, r#"{"a":1,}"#, r#"{"a":1} x"#, r#"{"a":01}"#, "{'a':1}", r#"{"a":"\x"}"#]
        {
            refused(text, JsonError::Syntax);
        }
        refused(b"{\"a\":\"\xff\"}", JsonError::Syntax);
        refused("{\"a\":\"\n\"}", JsonError::Syntax);
        for text in ["[]", "1", "null", r#""{}""#] {
            refused(text, JsonError::NotAnObject);
        }
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| format!(r#"{{"a":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
        assert!(Object::parse(nested(15).as_bytes()).is_ok());
        refused(nested(16), JsonError::Depth);
        refused(nested(500_000), JsonError::Depth);
    }

    #[test]
    fn values_are_never_printed() {
        let object = object(r#"{"access_token":"hunter2"}"#);
        assert_eq!(format!("{object:?}"), r#"{"access_token"}"#);
        assert_eq!(format!("{:?}", object.get("access_token")), "Some(<redacted>)");
    }
}

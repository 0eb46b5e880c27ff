//! Reads JSON into a plugin's configuration type, naming the field of every error.
//!
//! `serde_json` with a path tracker would do the same and weigh some 30 kB more in every module: it parses and formats
//! floats, keeps lines and columns, and describes values, which may be secrets. Here hifijson splits the text, serde builds the type,
//! and this file joins the two. The tests hold it to what `serde_json` accepts.

use hifijson::num::{Lex as _, LexWrite as _};
use hifijson::str::{Lex as _, LexAlloc as _};
use hifijson::token::Lex as _;
use hifijson::{Read as _, SliceLexer};
use serde::de::{self, DeserializeOwned, DeserializeSeed, Error as _, Expected, IntoDeserializer, Unexpected, Visitor};

use crate::ConfigError;

/// How deep lists and objects may nest; the stack of a module is small.
const MAX_DEPTH: u8 = 64;

/// Reads one JSON value of type `T` that fills `input`.
///
/// Errors name the field by its path, and never quote a value. Text that is not JSON is refused with the byte at
/// which it stops being so.
pub(crate) fn from_slice<T: DeserializeOwned>(input: &[u8]) -> Result<T, ConfigError> {
    let binary = |b: &u8| *b < b' ' && !matches!(b, b'\t' | b'\n' | b'\r');
    if std::str::from_utf8(input).is_err() || input.iter().any(binary) {
        // Envoy serializes a `Struct` to protobuf for the plugin, although its documentation says JSON.
        return Err(ConfigError::new("not JSON text but binary; give it to Envoy as a google.protobuf.StringValue"));
    }
    let mut reader = Reader { lexer: SliceLexer::new(input), length: input.len(), depth: MAX_DEPTH };
    let value = T::deserialize(&mut reader)?;
    match reader.lexer.ws_peek() {
        None => Ok(value),
        Some(_) => Err(reader.syntax("the end")),
    }
}

struct Reader<'a> {
    lexer: SliceLexer<'a>,
    length: usize,
    depth: u8,
}

type Result<T, E = ConfigError> = std::result::Result<T, E>;

impl Reader<'_> {
    fn syntax(&self, expected: &str) -> ConfigError {
        let offset = self.length - self.lexer.as_slice().len();
        ConfigError::new(format!("not valid JSON at byte {offset}: expected {expected}"))
    }

    fn peek(&mut self) -> Result<u8> {
        self.lexer.ws_peek().ok_or_else(|| self.syntax("a value"))
    }

    /// Describes the value that begins with `next` where another was expected.
    fn mismatch(&self, next: u8, expected: &dyn Expected) -> ConfigError {
        let rest = self.lexer.as_slice();
        let unexpected = match next {
            b'"' => Unexpected::Str(""),
            b'[' => Unexpected::Seq,
            b'{' => Unexpected::Map,
            b't' | b'f' if rest.starts_with(b"true") || rest.starts_with(b"false") => Unexpected::Bool(true),
            b'n' if rest.starts_with(b"null") => Unexpected::Unit,
            b'-' | b'0'..=b'9' => Unexpected::Signed(0),
            _ => return self.syntax("a value"),
        };
        ConfigError::invalid_type(unexpected, expected)
    }

    fn string(&mut self) -> Result<String> {
        match self.lexer.discarded().str_string() {
            Ok(text) => Ok(text.into_owned()),
            Err(_) => Err(self.syntax("a well-formed string")),
        }
    }

    /// Reads a number and returns its text, and whether it is an integer.
    fn number(&mut self) -> Result<(String, bool)> {
        match self.lexer.num_string().validated() {
            Ok((text, parts)) => Ok((text.to_owned(), parts.is_int())),
            Err(_) => Err(self.syntax("a digit")),
        }
    }

    fn word(&mut self) -> Result<Option<bool>> {
        self.lexer.null_or_bool().ok_or_else(|| self.syntax("true, false or null"))
    }

    fn expect(&mut self, byte: u8, name: &str) -> Result<()> {
        self.lexer.expect(SliceLexer::ws_peek, byte).ok_or_else(|| self.syntax(name))
    }

    fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.depth = self.depth.checked_sub(1).ok_or_else(|| ConfigError::new("nested too deeply"))?;
        self.lexer.take_next();
        let value = read(self)?;
        self.depth += 1;
        Ok(value)
    }

    fn skip(&mut self) -> Result<()> {
        match self.peek()? {
            b'"' => self.lexer.discarded().str_ignore().map_err(|_| self.syntax("a well-formed string")),
            b'[' => self.nested(|reader| {
                let mut items = Items::of(reader);
                while items.more(b']', "`,` or `]`")? {
                    items.reader.skip()?;
                }
                Ok(())
            }),
            b'{' => self.nested(|reader| {
                let mut items = Items::of(reader);
                while let Some(_key) = items.key()? {
                    items.reader.expect(b':', "`:`")?;
                    items.reader.skip()?;
                }
                Ok(())
            }),
            b'-' | b'0'..=b'9' => self.lexer.num_ignore().validate().map(|_| ()).map_err(|_| self.syntax("a digit")),
            _ => self.word().map(|_| ()),
        }
    }
}

/// The items of a list or the entries of an object.
struct Items<'r, 'a> {
    reader: &'r mut Reader<'a>,
    first: bool,
    ended: bool,
}

impl<'r, 'a> Items<'r, 'a> {
    fn of(reader: &'r mut Reader<'a>) -> Self {
        Self { reader, first: true, ended: false }
    }

    /// Moves to the next item; false from `end` on.
    fn more(&mut self, end: u8, expected: &str) -> Result<bool> {
        if self.ended {
            return Ok(false);
        }
        let reader = &mut *self.reader;
        let first = std::mem::take(&mut self.first);
        match reader.lexer.ws_peek() {
            Some(next) if next == end => {
                reader.lexer.take_next();
                self.ended = true;
                Ok(false)
            }
            Some(b',') if !first => {
                reader.lexer.take_next();
                Ok(true)
            }
            Some(_) if first => Ok(true),
            _ => Err(reader.syntax(expected)),
        }
    }

    fn key(&mut self) -> Result<Option<String>> {
        if !self.more(b'}', "`,` or `}`")? {
            return Ok(None);
        }
        match self.reader.lexer.ws_peek() {
            Some(b'"') => self.reader.string().map(Some),
            _ => Err(self.reader.syntax("a field's name in quotes")),
        }
    }
}

struct List<'r, 'a> {
    items: Items<'r, 'a>,
    index: usize,
}

impl<'de> de::SeqAccess<'de> for List<'_, '_> {
    type Error = ConfigError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>> {
        if !self.items.more(b']', "`,` or `]`")? {
            return Ok(None);
        }
        let index = self.index;
        self.index += 1;
        seed.deserialize(&mut *self.items.reader).map(Some).map_err(|e| e.index(index))
    }
}

struct Object<'r, 'a> {
    items: Items<'r, 'a>,
    key: String,
}

impl<'de> de::MapAccess<'de> for Object<'_, '_> {
    type Error = ConfigError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>> {
        let Some(key) = self.items.key()? else { return Ok(None) };
        self.key = key;
        seed.deserialize(self.key.as_str().into_deserializer()).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value> {
        self.items.reader.expect(b':', "`:`")?;
        seed.deserialize(&mut *self.items.reader).map_err(|e| e.field(&self.key))
    }
}

/// An enum written as `{"variant": value}`.
struct Variant<'r, 'a>(Object<'r, 'a>);

impl<'de> de::EnumAccess<'de> for Variant<'_, '_> {
    type Error = ConfigError;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(mut self, seed: V) -> Result<(V::Value, Self)> {
        match de::MapAccess::next_key_seed(&mut self.0, seed)? {
            Some(variant) => Ok((variant, self)),
            None => Err(ConfigError::new("expected one field that names a variant")),
        }
    }
}

impl<'de> de::VariantAccess<'de> for Variant<'_, '_> {
    type Error = ConfigError;

    fn unit_variant(self) -> Result<()> {
        self.newtype_variant_seed(std::marker::PhantomData)
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(mut self, seed: T) -> Result<T::Value> {
        let value = de::MapAccess::next_value_seed(&mut self.0, seed)?;
        match self.0.items.key()? {
            None => Ok(value),
            Some(key) => Err(ConfigError::new("is a second variant").field(&key)),
        }
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value> {
        self.newtype_variant_seed(Through(visitor))
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value> {
        self.newtype_variant_seed(Through(visitor))
    }
}

/// Deserializes whatever comes with the visitor it holds.
struct Through<V>(V);

impl<'de, V: Visitor<'de>> DeserializeSeed<'de> for Through<V> {
    type Value = V::Value;

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        deserializer.deserialize_any(self.0)
    }
}

macro_rules! same_as {
    ($target:ident: $($method:ident($($argument:ty),*))*) => {$(
        fn $method<V: Visitor<'de>>(self, $(_: $argument,)* visitor: V) -> Result<V::Value> {
            self.$target(visitor)
        }
    )*};
}

// Every method looks only for what the type wants, so that a configuration without numbers carries no number parser.
impl<'de> de::Deserializer<'de> for &mut Reader<'_> {
    type Error = ConfigError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.peek()? {
            b'"' => self.deserialize_str(visitor),
            b'[' => self.deserialize_seq(visitor),
            b'{' => self.deserialize_map(visitor),
            b'-' | b'0'..=b'9' => self.deserialize_f64(visitor),
            b'n' => self.deserialize_unit(visitor),
            _ => self.deserialize_bool(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.peek()? {
            next @ (b't' | b'f') => match self.word()? {
                Some(value) => visitor.visit_bool(value),
                None => Err(self.mismatch(next, &visitor)),
            },
            next => Err(self.mismatch(next, &visitor)),
        }
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.peek()? {
            b'-' | b'0'..=b'9' => match self.number()? {
                (text, true) => integer(&text, visitor),
                (_, false) => Err(ConfigError::invalid_value(Unexpected::Float(0.0), &visitor)),
            },
            next => Err(self.mismatch(next, &visitor)),
        }
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.peek()? {
            b'-' | b'0'..=b'9' => match self.number()? {
                (text, true) if text.parse::<i64>().is_ok() || text.parse::<u64>().is_ok() => integer(&text, visitor),
                (text, _) => match text.parse::<f64>() {
                    Ok(value) if value.is_finite() => visitor.visit_f64(value),
                    _ => Err(ConfigError::new("is a number out of range")),
                },
            },
            next => Err(self.mismatch(next, &visitor)),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.peek()? {
            b'"' => visitor.visit_string(self.string()?),
            next => Err(self.mismatch(next, &visitor)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.peek()? {
            b'n' => self.word().and_then(|_| visitor.visit_none()),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.peek()? {
            b'n' => self.word().and_then(|_| visitor.visit_unit()),
            next => Err(self.mismatch(next, &visitor)),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.peek()? {
            b'[' => self.nested(|reader| {
                let mut list = List { items: Items::of(reader), index: 0 };
                let value = visitor.visit_seq(&mut list)?;
                // A tuple stops at its length.
                if list.items.more(b']', "`,` or `]`")? {
                    return Err(ConfigError::new("has too many items"));
                }
                Ok(value)
            }),
            next => Err(self.mismatch(next, &visitor)),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.peek()? {
            b'{' => self.nested(|reader| visitor.visit_map(Object { items: Items::of(reader), key: String::new() })),
            next => Err(self.mismatch(next, &visitor)),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        match self.peek()? {
            b'"' => visitor.visit_enum(self.string()?.into_deserializer()),
            b'{' => self
                .nested(|reader| visitor.visit_enum(Variant(Object { items: Items::of(reader), key: String::new() }))),
            next => Err(self.mismatch(next, &visitor)),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.skip()?;
        visitor.visit_unit()
    }

    same_as! { deserialize_i64:
        deserialize_i8() deserialize_i16() deserialize_i32() deserialize_u8() deserialize_u16() deserialize_u32()
        deserialize_u64()
    }
    same_as! { deserialize_f64: deserialize_f32() }
    same_as! { deserialize_str:
        deserialize_string() deserialize_char() deserialize_identifier() deserialize_bytes() deserialize_byte_buf()
    }
    same_as! { deserialize_unit: deserialize_unit_struct(&'static str) }
    same_as! { deserialize_seq: deserialize_tuple(usize) deserialize_tuple_struct(&'static str, usize) }
    same_as! { deserialize_map: deserialize_struct(&'static str, &'static [&'static str]) }
}

fn integer<'de, V: Visitor<'de>>(text: &str, visitor: V) -> Result<V::Value> {
    if let Ok(value) = text.parse::<u64>() {
        visitor.visit_u64(value)
    } else if let Ok(value) = text.parse::<i64>() {
        visitor.visit_i64(value)
    } else {
        Err(ConfigError::invalid_value(Unexpected::Signed(0), &visitor))
    }
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;

//! Values of properties and expressions, and the bytes in which a guest gets them.

use crate::abi::{Status, pairs};

/// What a property is, in the terms of Envoy's attributes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(Vec<u8>),
    Bytes(Vec<u8>),
    /// Nanoseconds.
    Duration(i64),
    /// Nanoseconds since the Unix epoch.
    Timestamp(i64),
    List(Vec<Self>),
    Map(Vec<(Vec<u8>, Self)>),
    /// A serialized message.
    Message(Vec<u8>),
    /// An object that has members but no serialized form, such as `request`.
    Object,
}

impl Value {
    pub(crate) fn text(text: impl AsRef<[u8]>) -> Self {
        Self::Text(text.as_ref().to_vec())
    }

    /// A `google.protobuf.Value`.
    pub(crate) fn json(json: &serde_json::Value) -> Self {
        use serde_json::Value as Json;
        match json {
            Json::Null => Self::Null,
            Json::Bool(value) => Self::Bool(*value),
            Json::Number(number) => Self::Double(number.as_f64().unwrap_or_default()),
            Json::String(text) => Self::text(text),
            Json::Array(items) => Self::List(items.iter().map(Self::json).collect()),
            Json::Object(fields) => {
                Self::Map(fields.iter().map(|(name, value)| (name.clone().into_bytes(), Self::json(value))).collect())
            }
        }
    }

    /// Goes on into a map by key or into a list by index.
    pub(crate) fn walk(self, path: &[&[u8]]) -> Result<Self, Status> {
        let Some((segment, rest)) = path.split_first() else { return Ok(self) };
        let next = match self {
            Self::Map(fields) => fields.into_iter().find(|(name, _)| name == segment).map(|(_, value)| value),
            Self::List(items) => {
                let index = std::str::from_utf8(segment).ok().and_then(|index| index.parse::<usize>().ok());
                index.and_then(|index| items.into_iter().nth(index))
            }
            _ => None,
        };
        next.ok_or(Status::NotFound)?.walk(rest)
    }

    /// The bytes: numbers little-endian in eight, texts as they are, maps and lists as pairs.
    pub(crate) fn serialize(&self) -> Result<Vec<u8>, Status> {
        Ok(match self {
            Self::Null | Self::Object => return Err(Status::SerializationFailure),
            Self::Bool(value) => vec![u8::from(*value)],
            Self::Int(value) | Self::Duration(value) | Self::Timestamp(value) => value.to_le_bytes().to_vec(),
            Self::Uint(value) => value.to_le_bytes().to_vec(),
            Self::Double(value) => value.to_le_bytes().to_vec(),
            Self::Text(bytes) | Self::Bytes(bytes) | Self::Message(bytes) => bytes.clone(),
            Self::List(items) => {
                let items: Vec<Vec<u8>> = items.iter().map(Self::serialize).collect::<Result<_, _>>()?;
                pairs::serialize(items.iter().map(|item| (item.as_slice(), &b""[..])))
            }
            Self::Map(fields) => {
                let values: Vec<Vec<u8>> =
                    fields.iter().map(|(_, value)| value.serialize()).collect::<Result<_, _>>()?;
                pairs::serialize(fields.iter().zip(&values).map(|((name, _), value)| (&name[..], &value[..])))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_envoys_encodings() {
        let json = serde_json::json!({"l": ["x"], "n": 1.5, "t": true});
        let value = Value::json(&json);
        assert_eq!(value.clone().walk(&[b"n"]).unwrap().serialize(), Ok(1.5_f64.to_le_bytes().to_vec()));
        assert_eq!(value.clone().walk(&[b"l", b"0"]).unwrap().serialize(), Ok(b"x".to_vec()));
        assert_eq!(value.clone().walk(&[b"l", b"1"]), Err(Status::NotFound));
        assert_eq!(value.clone().walk(&[b"t", b"x"]), Err(Status::NotFound));
        assert_eq!(Value::Int(-1).serialize(), Ok(vec![0xff; 8]));
        let list = b"\x01\0\0\0\x01\0\0\0\0\0\0\0x\0\0";
        assert_eq!(value.clone().walk(&[b"l"]).unwrap().serialize(), Ok(list.to_vec()));
        let map = Value::Map(vec![(b"k".to_vec(), Value::Bool(true))]);
        assert_eq!(map.serialize(), Ok(b"\x01\0\0\0\x01\0\0\0\x01\0\0\0k\0\x01\0".to_vec()));
        assert_eq!(Value::Object.serialize(), Err(Status::SerializationFailure));
    }
}

//! As much of the protobuf wire format as the ABI's few messages need.

/// One field's value. Fixed-width fields occur in none of the messages, and are skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Fixed,
}

impl<'a> Field<'a> {
    pub(crate) fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Varint(_) | Self::Fixed => None,
        }
    }

    /// A `string`, which is UTF-8 or the whole message is malformed.
    pub(crate) fn text(self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }
}

/// A message's fields in order; `None` when it is malformed.
pub(crate) fn parse(mut bytes: &[u8]) -> Option<Vec<(u64, Field<'_>)>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let field = match tag & 7 {
            0 => Field::Varint(varint(&mut bytes)?),
            1 => fixed(&mut bytes, 8)?,
            2 => {
                let len = usize::try_from(varint(&mut bytes)?).ok()?;
                let (content, rest) = bytes.split_at_checked(len)?;
                bytes = rest;
                Field::Bytes(content)
            }
            5 => fixed(&mut bytes, 4)?,
            _ => return None,
        };
        let number = tag >> 3;
        if number == 0 || number >= 1 << 29 {
            return None;
        }
        fields.push((number, field));
    }
    Some(fields)
}

fn fixed<'a>(bytes: &mut &[u8], len: usize) -> Option<Field<'a>> {
    *bytes = bytes.get(len..)?;
    Some(Field::Fixed)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

/// A `string`, `bytes` or message field.
pub(crate) fn put_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// A field that is left out when it is empty, as proto3 does.
pub(crate) fn put_text(out: &mut Vec<u8>, field: u8, text: &str) {
    if !text.is_empty() {
        put_bytes(out, field, text.as_bytes());
    }
}

/// `google.protobuf.Struct`
pub(crate) fn json_struct(fields: &serde_json::Map<String, serde_json::Value>) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        let mut entry = Vec::new();
        put_bytes(&mut entry, 1, name.as_bytes());
        put_bytes(&mut entry, 2, &json_value(value));
        put_bytes(&mut out, 1, &entry);
    }
    out
}

/// `google.protobuf.Value`
fn json_value(value: &serde_json::Value) -> Vec<u8> {
    use serde_json::Value as Json;
    let mut out = Vec::new();
    match value {
        Json::Null => out.extend_from_slice(&[1 << 3, 0]),
        Json::Number(number) => {
            out.push(2 << 3 | 1);
            out.extend_from_slice(&number.as_f64().unwrap_or_default().to_le_bytes());
        }
        Json::String(text) => put_bytes(&mut out, 3, text.as_bytes()),
        Json::Bool(value) => out.extend_from_slice(&[4 << 3, u8::from(*value)]),
        Json::Object(fields) => put_bytes(&mut out, 5, &json_struct(fields)),
        Json::Array(items) => {
            let mut list = Vec::new();
            for item in items {
                put_bytes(&mut list, 1, &json_value(item));
            }
            put_bytes(&mut out, 6, &list);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let mut message = Vec::new();
        put_bytes(&mut message, 1, &[b'x'; 300]);
        put_text(&mut message, 2, "");
        message.extend_from_slice(&[3 << 3, 0x96, 1]);
        let fields = parse(&message).unwrap();
        assert_eq!(fields, [(1, Field::Bytes(&[b'x'; 300])), (3, Field::Varint(150))]);
    }

    #[test]
    fn malformed_messages_are_none() {
        for bad in [
            &b"\x0a\x05ab"[..],
            b"\x08",
            b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\x02\x00",
            b"outbound|80||x",
        ] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn json_becomes_a_struct() {
        let json = serde_json::json!({"a": "b", "n": 1.0});
        let serialized = json_struct(json.as_object().unwrap());
        assert_eq!(serialized, b"\x0a\x08\x0a\x01a\x12\x03\x1a\x01b\x0a\x0e\x0a\x01n\x12\x09\x11\0\0\0\0\0\0\xf0\x3f");
    }
}

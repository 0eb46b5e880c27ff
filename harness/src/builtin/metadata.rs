//! Dynamic metadata: what filters say about a request to the filters after them, by filter name.

use serde_json::{Map, Value};

use crate::abi::pairs;

/// A filter's name, and the fields it set.
pub(crate) type DynamicMetadata = Map<String, Value>;

/// Sets one field of a filter's metadata.
pub(crate) fn set(metadata: &mut DynamicMetadata, filter: &str, field: &str, value: Value) {
    if let Value::Object(fields) = metadata.entry(filter).or_insert_with(|| Value::Object(Map::new())) {
        fields.insert(field.to_owned(), value);
    }
}

/// The value at a path.
pub(crate) fn at<'m>(metadata: &'m DynamicMetadata, filter: &str, path: &[impl AsRef<str>]) -> Option<&'m Value> {
    path.iter().try_fold(metadata.get(filter)?, |value, name| value.get(name.as_ref()))
}

/// The property `metadata.filter_metadata.FILTER.KEY…` as Envoy encodes it. `Err(true)`: what stands there has no
/// serialized form here, `Err(false)`: nothing does.
pub(crate) fn property(metadata: &DynamicMetadata, path: &[&[u8]]) -> Result<Vec<u8>, bool> {
    match path {
        [] => Err(true),
        [b"filter_metadata"] => serialize(&Value::Object(metadata.clone())).ok_or(true),
        [b"filter_metadata", filter, rest @ ..] => {
            let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(str::to_owned).ok_or(false);
            let mut value = metadata.get(&text(filter)?).ok_or(false)?;
            for name in rest {
                let name = text(name)?;
                let found = match value {
                    Value::Array(items) => name.parse().ok().and_then(|index: usize| items.get(index)),
                    other => other.get(&name),
                };
                value = found.ok_or(false)?;
            }
            serialize(value).ok_or(true)
        }
        _ => Err(false),
    }
}

/// Text as it is, numbers as doubles, lists as pairs with empty values.
fn serialize(value: &Value) -> Option<Vec<u8>> {
    Some(match value {
        Value::Null => Vec::new(),
        Value::Bool(value) => vec![u8::from(*value)],
        Value::Number(number) => number.as_f64()?.to_le_bytes().to_vec(),
        Value::String(text) => text.clone().into_bytes(),
        Value::Array(items) => {
            let items: Vec<Vec<u8>> = items.iter().map(serialize).collect::<Option<_>>()?;
            pairs::serialize(items.iter().map(|item| (item.as_slice(), &b""[..])))
        }
        Value::Object(fields) => {
            let values: Vec<(&String, Vec<u8>)> =
                fields.iter().map(|(name, value)| Some((name, serialize(value)?))).collect::<Option<_>>()?;
            pairs::serialize(values.iter().map(|(name, value)| (name.as_bytes(), value.as_slice())))
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_encoded_as_envoy_encodes_them() {
        let mut metadata = DynamicMetadata::new();
        set(&mut metadata, "f", "a", json!({"s": "x", "n": 2, "b": true, "l": ["y", "z"]}));
        let get = |path: &str| {
            let path: Vec<&[u8]> = path.split('/').map(str::as_bytes).collect();
            property(&metadata, &path)
        };
        assert_eq!(get("filter_metadata/f/a/s"), Ok(b"x".to_vec()));
        assert_eq!(get("filter_metadata/f/a/n"), Ok(2_f64.to_le_bytes().to_vec()));
        assert_eq!(get("filter_metadata/f/a/b"), Ok(vec![1]));
        assert_eq!(get("filter_metadata/f/a/l/1"), Ok(b"z".to_vec()));
        let list = pairs::serialize([(&b"y"[..], &b""[..]), (b"z", b"")].into_iter());
        assert_eq!(get("filter_metadata/f/a/l"), Ok(list));
        assert_eq!(get("filter_metadata/f/missing"), Err(false));
        assert_eq!(get("other"), Err(false));
        assert_eq!(property(&metadata, &[]), Err(true));
    }
}

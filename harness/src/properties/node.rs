//! The proxy's own node: `xds.node`, given in Envoy's JSON form.

use serde_json::{Map, Value as Json};

use super::Value;
use crate::abi::Status;
use crate::proto;

/// The fields of `envoy.config.core.v3.Node` that are read, by their names in protobuf and in JSON.
const TEXTS: [(&str, &str, u8); 4] = [
    ("id", "id", 1),
    ("cluster", "cluster", 2),
    ("user_agent_name", "userAgentName", 6),
    ("user_agent_version", "userAgentVersion", 7),
];
const LOCALITY: [(&str, &str, u8); 3] = [("region", "region", 1), ("zone", "zone", 2), ("sub_zone", "subZone", 3)];
/// Fields that exist and that no node given here has.
const OTHERS: [&str; 5] =
    ["user_agent_build_version", "extensions", "client_features", "listening_addresses", "dynamic_parameters"];

fn field<'a>(object: &'a Json, (proto, json, _): (&str, &str, u8)) -> &'a str {
    object.get(proto).or_else(|| object.get(json)).and_then(Json::as_str).unwrap_or_default()
}

fn metadata(node: &Json) -> Option<&Map<String, Json>> {
    node.get("metadata").and_then(Json::as_object)
}

/// The node, or what is at `path` in it.
pub(super) fn get(node: &Json, path: &[&[u8]]) -> Result<Value, Status> {
    let named = |name: &[u8], fields: &[(&'static str, &'static str, u8)]| {
        fields.iter().copied().find(|(proto, _, _)| proto.as_bytes() == name)
    };
    match path {
        [] => Ok(Value::Message(serialize(node))),
        [b"metadata", rest @ ..] => {
            let Some(mut at) = node.get("metadata") else { return Value::Map(Vec::new()).walk(rest) };
            // Down to what was asked for, before anything is copied.
            let mut rest = rest;
            while let (Json::Object(fields), Some((name, after))) = (at, rest.split_first()) {
                let name = std::str::from_utf8(name).map_err(|_| Status::NotFound)?;
                (at, rest) = (fields.get(name).ok_or(Status::NotFound)?, after);
            }
            Value::json(at).walk(rest)
        }
        [b"locality"] => Ok(Value::Message(locality(node))),
        [b"locality", name] => {
            let wanted = named(name, &LOCALITY).ok_or(Status::NotFound)?;
            Ok(Value::text(field(node.get("locality").unwrap_or(&Json::Null), wanted)))
        }
        [name] if OTHERS.iter().any(|other| other.as_bytes() == *name) => Ok(Value::Message(Vec::new())),
        [name] => Ok(Value::text(field(node, named(name, &TEXTS).ok_or(Status::NotFound)?))),
        _ => Err(Status::NotFound),
    }
}

fn serialize(node: &Json) -> Vec<u8> {
    let mut out = Vec::new();
    let [id, cluster, user_agent @ ..] = TEXTS;
    for text in [id, cluster] {
        proto::put_text(&mut out, text.2, field(node, text));
    }
    if let Some(metadata) = metadata(node) {
        proto::put_bytes(&mut out, 3, &proto::json_struct(metadata));
    }
    if node.get("locality").is_some() {
        proto::put_bytes(&mut out, 4, &locality(node));
    }
    for text in user_agent {
        proto::put_text(&mut out, text.2, field(node, text));
    }
    out
}

fn locality(node: &Json) -> Vec<u8> {
    let mut out = Vec::new();
    for text in LOCALITY {
        proto::put_text(&mut out, text.2, field(node.get("locality").unwrap_or(&Json::Null), text));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> Json {
        serde_json::json!({
            "id": "n1",
            "metadata": {"NAME": "pod", "PORTS": [80], "LABELS": {"app": "a.b"}},
            "locality": {"region": "r", "subZone": "s"},
        })
    }

    #[track_caller]
    fn check(path: &str, expected: Result<&[u8], Status>) {
        let path: Vec<&[u8]> = path.split('|').filter(|part| !part.is_empty()).map(str::as_bytes).collect();
        let found = get(&node(), &path).and_then(|value| value.serialize());
        assert_eq!(found, expected.map(<[u8]>::to_vec));
    }

    #[test]
    fn a_node_is_walked_by_its_protobuf_names() {
        check("id", Ok(b"n1"));
        check("cluster", Ok(b""));
        check("metadata|NAME", Ok(b"pod"));
        check("metadata|LABELS|app", Ok(b"a.b"));
        check("metadata|PORTS|0", Ok(&80.0_f64.to_le_bytes()));
        check("metadata|NONE", Err(Status::NotFound));
        check("metadata|NAME|x", Err(Status::NotFound));
        check("locality|region", Ok(b"r"));
        check("locality|sub_zone", Ok(b"s"));
        check("locality", Ok(b"\x0a\x01r\x1a\x01s"));
        check("subZone", Err(Status::NotFound));
        check("extensions", Ok(b""));
    }

    #[test]
    fn a_whole_node_is_its_message() {
        let node = serde_json::json!({"id": "n", "cluster": "c", "userAgentName": "envoy"});
        assert_eq!(get(&node, &[]), Ok(Value::Message(b"\x0a\x01n\x12\x01c\x32\x05envoy".to_vec())));
    }
}

//! Holds the reader to what `serde_json` accepts and produces.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::from_slice;

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Outer {
    #[serde(default)]
    rules: Vec<Inner>,
    realm: Option<String>,
    #[serde(default)]
    mode: Mode,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Inner {
    name: String,
    port: Option<u16>,
    weight: Option<f32>,
    on: Option<bool>,
    pair: Option<(u8, u8)>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    #[default]
    Off,
    Limit(u32),
    Range {
        low: i8,
    },
}

const DOCUMENTS: [&str; 6] = [
    r#"{"rules":[{"name":"a","port":80,"weight":-1.5e-3,"on":true,"pair":[1,2]}],"realm":null,"mode":"off"}"#,
    r#" { "rules" : [ { "name" : "\u00e9\ud83d\ude00\\\"\/\b\f\n\r\t" , "on" : false } , { "name" : "" } ] } "#,
    r#"{"mode":{"limit":4000000000},"realm":"x"}"#,
    r#"{"mode":{"range":{"low":-128}}}"#,
    r#"[0,-0,1.0,1e3,12345678901234567890,-9223372036854775808,"é",[],{},[[]],{"a":{"b":null}}]"#,
    "\"plain\"",
];

fn agrees<T: DeserializeOwned + std::fmt::Debug>(text: &[u8], same: impl Fn(&T, &T) -> bool) -> bool {
    let read = (from_slice::<T>(text).ok(), serde_json::from_slice::<T>(text).ok());
    match &read {
        (Some(ours), Some(theirs)) if same(ours, theirs) => true,
        (None, None) => false,
        _ => panic!("{read:?} for {:?}", String::from_utf8_lossy(text)),
    }
}

/// Compares values, floats but for their last digits: `serde_json` reads those less exactly than the standard library.
fn same_value(ours: &Value, theirs: &Value) -> bool {
    match (ours, theirs) {
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_value(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same_value(a, b)))
        }
        (Value::Number(a), Value::Number(b)) if a.is_f64() || b.is_f64() => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            (a - b).abs() <= a.abs() * 1e-12
        }
        _ => ours == theirs,
    }
}

#[test]
fn documents_and_their_mutations_read_as_serde_json_reads_them() {
    // A small xorshift keeps the mutations the same in every run.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % u64::try_from(below).unwrap()).unwrap()
    };
    let alphabet = b"\"\\{}[],:0123456789.eE+-truefalsnul u\x00\xc3\n";
    let (mut accepted, mut refused) = (0, 0);
    for document in DOCUMENTS {
        for round in 0..3000 {
            let mut text = document.as_bytes().to_vec();
            for _ in 0..round % 4 {
                let at = random(text.len());
                match random(3) {
                    0 => drop(text.remove(at)),
                    1 => text.insert(at, alphabet[random(alphabet.len())]),
                    _ => text[at] = alphabet[random(alphabet.len())],
                }
            }
            let whole = agrees(&text, same_value);
            agrees(&text, |ours: &Outer, theirs| ours == theirs);
            if whole { accepted += 1 } else { refused += 1 }
        }
    }
    assert!(accepted > 3000 && refused > 3000, "{accepted} accepted, {refused} refused");
}

#[track_caller]
fn check(text: &str, error: &str) {
    assert_eq!(from_slice::<Outer>(text.as_bytes()).unwrap_err().to_string(), error);
}

#[test]
fn errors_name_the_field() {
    check(r#"{"rules":[{"name":"a"},{"name":7}]}"#, "rules[1].name: expected a string, got a number");
    check(r#"{"rules":[{"name":null}]}"#, "rules[0].name: expected a string, got null");
    check(r#"{"rules":[{}]}"#, "rules[0].name: is missing");
    check(r#"{"rules":{}}"#, "rules: expected a sequence, got an object");
    check(r#"{"realm":[]}"#, "realm: expected a string, got a list");
    check(r#"{"rules":[{"name":"a","port":65536}]}"#, "rules[0].port: expected u16");
    check(r#"{"rules":[{"name":"a","port":1.5}]}"#, "rules[0].port: expected u16");
    check(r#"{"rules":[{"name":"a","pair":[1,2,3]}]}"#, "rules[0].pair: has too many items");
    check(r#"{"rules":[{"name":"a","on":1}]}"#, "rules[0].on: expected a boolean, got a number");
    check(r#"{"realm":"a","realm":"b"}"#, "realm: is given twice");
    check(r#"{"relm":"a"}"#, "relm: is not a field here; known are rules, realm, mode");
    check("[]", "expected struct Outer, got a list");
}

#[test]
fn errors_never_quote_a_value() {
    let error = from_slice::<Vec<u8>>(br#"["hunter2"]"#).unwrap_err();
    assert_eq!(error.to_string(), "[0]: expected u8, got a string");
}

#[test]
fn broken_text_is_refused_at_its_byte() {
    check("", "not valid JSON at byte 0: expected a value");
    check(r#"{"realm":"a"} x"#, "not valid JSON at byte 14: expected the end");
    check(r#"{"realm":"a",}"#, "not valid JSON at byte 13: expected a field's name in quotes");
    check(r#"{"realm" "a"}"#, "not valid JSON at byte 9: expected `:`");
}

#[test]
fn a_protobuf_struct_is_called_binary() {
    check("\n\u{6}\n\u{1}a\u{12}\u{1}", "not JSON text but binary; give it to Envoy as a google.protobuf.StringValue");
}

#[test]
fn deep_nesting_is_an_error_and_not_a_stack_overflow() {
    let text = "[".repeat(100_000);
    assert!(from_slice::<Value>(text.as_bytes()).unwrap_err().reason().contains("nested too deeply"));
    assert!(from_slice::<serde::de::IgnoredAny>(text.as_bytes()).unwrap_err().reason().contains("nested too deeply"));
    let shallow = format!("{}{}", "[".repeat(64), "]".repeat(64));
    assert!(from_slice::<Value>(shallow.as_bytes()).is_ok());
}

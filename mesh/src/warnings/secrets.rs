//! What in a `pluginConfig` does not survive, or should not be there: large numbers and secrets.

use serde_json::Value;

use super::{Rule, Warning};
use crate::locate::{FieldPath, wasm_field};
use crate::model::{Extension, WasmFilter};

/// The last whole number to which every smaller one is a double of its own.
const MAX_SAFE: f64 = 9_007_199_254_740_991.0;

/// Parts of the names that secrets go by.
const NAMES: [&str; 13] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "apikey",
    "privatekey",
    "accesskey",
    "signingkey",
    "encryptionkey",
    "verificationkey",
    "credential",
    "hmackey",
];

/// Ends of names that say something about a secret without being one.
const ABOUT: [&str; 20] = [
    "name", "names", "header", "headers", "url", "uri", "path", "file", "ttl", "type", "prefix", "endpoint", "field",
    "cookie", "issuer", "audience", "expiry", "seconds", "env", "ref",
];

pub(super) fn check(extension: &Extension, wasm: &WasmFilter, warnings: &mut Vec<Warning>) {
    let Some(config) = &wasm.plugin_config else { return };
    let Ok(config) = serde_json::from_str::<Value>(config) else { return };
    walk(&config, "", &wasm_field(extension, "pluginConfig"), &mut |rule, path, what| {
        let fix = match rule {
            Rule::NumberPrecision => "write it in quotes, and let the plugin read a string",
            _ => {
                "let the plugin read it from a variable: `vmConfig.env` with `valueFrom: HOST`, which the proxy has from \
                 a Secret"
            }
        };
        warnings.push(Warning::new(rule, extension, path.clone(), what, fix));
    });
}

/// `name` is the key that the value has, or that the list has which it is in.
fn walk(value: &Value, name: &str, path: &FieldPath, found: &mut impl FnMut(Rule, &FieldPath, String)) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                walk(value, key, &path.clone().then(key.as_str()), found);
            }
        }
        Value::Array(items) => {
            // A list of secrets is one finding.
            let is_one = |item: &Value| item.as_str().is_some_and(|text| is_secret(name, text));
            let first = items.iter().position(is_one);
            let wanted = |(index, item): &(usize, &Value)| !is_one(item) || Some(*index) == first;
            for (index, item) in items.iter().enumerate().filter(wanted) {
                walk(item, name, &path.clone().then(index), found);
            }
        }
        Value::String(text) if is_secret(name, text) => {
            found(Rule::SecretInConfig, path, "it looks like a secret in plain text".to_owned());
        }
        Value::Number(number) => {
            // Larger ones are written with an exponent, and by people who know that they are not exact.
            let loses = |value: &f64| value.fract() == 0.0 && value.abs() > MAX_SAFE && value.abs() < 1e21;
            if let Some(value) = number.as_f64().filter(loses) {
                let what = format!("the plugin gets {value}, which may not be what is written");
                found(Rule::NumberPrecision, path, what);
            }
        }
        _ => {}
    }
}

/// Whether a text is a secret, by its name or by its looks.
pub(super) fn is_secret(name: &str, text: &str) -> bool {
    let plain: String = name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    let named = NAMES.iter().any(|part| plain.contains(part)) && !ABOUT.iter().any(|end| plain.ends_with(end));
    let private_key = text.contains("-----BEGIN") && text.contains("PRIVATE KEY-----");
    private_key || is_token(text) || (named && !text.trim().is_empty() && !is_placeholder(text))
}

/// A signed JSON web token, or a token that a large provider marks as one.
fn is_token(text: &str) -> bool {
    let parts: Vec<&str> = text.split('.').collect();
    let base64 =
        |part: &&str| part.len() >= 8 && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    let web_token = parts.len() == 3 && text.starts_with("eyJ") && parts.iter().all(base64);
    let marked = ["ghp_", "gho_", "github_pat_", "glpat-", "xoxb-", "xoxp-", "AKIA", "sk_live_"];
    web_token || (text.len() >= 20 && !text.contains(char::is_whitespace) && marked.iter().any(|m| text.starts_with(m)))
}

/// What a template will replace: `${TOKEN}`, `{{ .Values.token }}`, `<token>`.
fn is_placeholder(text: &str) -> bool {
    let text = text.trim();
    [("${", "}"), ("$(", ")"), ("{{", "}}"), ("<", ">")].iter().any(|(a, b)| text.starts_with(a) && text.ends_with(b))
}

//! What the trace page shows of a plan: the chain with its reasons, and each plugin's configuration without secrets.

use harness::trace::mask::{Mask, REDACTED, is_secret_name};
use mesh::model::{Extension, Filter, FilterKind, LeftOut, Phase, WasmFilter};
use mesh::plan::{Module, Plan};
use serde_json::{Value, json};

/// The chain that is served at `address`. `mask`: none, when secrets are to be seen.
pub(crate) fn chain(plan: &Plan, address: &str, mask: Option<&Mask>) -> Value {
    let in_front = plan.network.iter().flat_map(|network| &network.filters).map(|one| filter(plan, one, true, mask));
    let filters = in_front.chain(plan.chain.filters.iter().map(|one| filter(plan, one, false, mask)));
    let left_out = plan.chain.left_out.iter().map(|LeftOut { kind, namespace, name, reason }| {
        json!({"resource": format!("{kind} {namespace}/{name}"), "reason": reason})
    });
    json!({
        "address": address,
        "proxy": plan.chain.proxy,
        "filters": filters.collect::<Vec<_>>(),
        "left_out": left_out.collect::<Vec<_>>(),
        "upstream": plan.upstream.as_deref().unwrap_or("the built-in echo"),
        "clusters": plan.clusters.iter().collect::<Vec<_>>(),
    })
}

fn filter(plan: &Plan, filter: &Filter, network: bool, mask: Option<&Mask>) -> Value {
    let mut shown = json!({
        "kind": filter.kind_name(),
        "title": filter.name(),
        "reason": filter.reason,
        "network": network,
    });
    if let FilterKind::Extension(extension) = &filter.kind {
        let Extension { namespace, name, origin, phase, priority, .. } = &**extension;
        let phase = (*phase != Phase::Unspecified).then_some(phase);
        let more = json!({
            "id": extension.id(),
            "title": format!("{namespace}/{name}"),
            "origin": format!("{} {}:{}", origin.kind, origin.file, origin.line),
            "phase": phase,
            "priority": priority,
        });
        join(&mut shown, more);
        if let Some(wasm) = extension.wasm() {
            join(&mut shown, plugin(wasm, plan.modules.get(&extension.id()), mask));
        }
    }
    shown
}

fn plugin(wasm: &WasmFilter, module: Option<&Module>, mask: Option<&Mask>) -> Value {
    let module = match module {
        Some(Module::File { sha256, .. }) => format!("sha256:{sha256}"),
        Some(Module::FetchFailed { reason }) => format!("none: {reason}"),
        None => "none".to_owned(),
    };
    json!({
        "url": wasm.url,
        "module": module,
        "root_id": wasm.plugin_name,
        "fail": wasm.fail_strategy,
        "env": wasm.delivered_env().map(|variable| &variable.name).collect::<Vec<_>>(),
        "config": wasm.plugin_config.as_deref().map(|config| configuration(config, mask)),
    })
}

/// A configuration as a person reads it.
fn configuration(config: &str, mask: Option<&Mask>) -> String {
    let pretty = |value: &Value| serde_json::to_string_pretty(value).unwrap_or_default();
    match (serde_json::from_str::<Value>(config), mask) {
        (Ok(value), None) => pretty(&value),
        (Ok(mut value), Some(mask)) => {
            hide(&mut value, false);
            mask.text(&pretty(&value))
        }
        (Err(_), None) => config.to_owned(),
        (Err(_), Some(mask)) => mask.text(config),
    }
}

/// Masks every text that is beneath a secret's name, in lists too.
fn hide(value: &mut Value, secret: bool) {
    match value {
        Value::String(text) if secret => REDACTED.clone_into(text),
        Value::Array(items) => items.iter_mut().for_each(|item| hide(item, secret)),
        Value::Object(fields) => {
            for (name, value) in fields.iter_mut() {
                hide(value, secret || is_secret_name(name));
            }
        }
        _ => {}
    }
}

fn join(shown: &mut Value, more: Value) {
    if let (Value::Object(shown), Value::Object(more)) = (shown, more) {
        shown.extend(more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_are_shown_without_their_secrets() {
        let config =
            r#"{"rules":[{"credentials":["ok:test"],"prefix":"/a"}],"client_secret":{"inline":"hunter22"},"n":1}"#;
        let shown = configuration(config, Some(&Mask::default()));
        assert!(!shown.contains("ok:test") && !shown.contains("hunter22"), "{shown}");
        assert!(shown.contains("\"prefix\": \"/a\"") && shown.contains("\"n\": 1"), "{shown}");
        assert!(configuration(config, None).contains("hunter22"));
    }
}

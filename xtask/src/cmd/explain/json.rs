//! The explanation for machines.

use mesh::model::{Filter, LeftOut};
use serde_json::{Value, json};

use super::{Explained, Fetch, extension};

pub(super) fn document(explained: &Explained) -> Value {
    let Explained { chain, warnings, changes, fetches } = explained;
    let filters = chain.filters.iter().map(|filter| {
        let mut entry = self::filter(filter);
        if let Some(fetch) = extension(&filter.kind).and_then(|extension| fetches.get(&extension.id())) {
            entry["fetch"] = self::fetch(fetch);
        }
        entry
    });
    let left_out = chain.left_out.iter().map(|LeftOut { kind, namespace, name, reason }| {
        json!({"name": name, "namespace": namespace, "kind": kind, "reason": reason})
    });
    let mut document = json!({
        "chain": filters.collect::<Vec<_>>(),
        "left_out": left_out.collect::<Vec<_>>(),
        "warnings": warnings,
        "proxy": chain.proxy,
        "listener": chain.listener,
    });
    if let Some(changes) = changes {
        document["changes"] = json!(changes);
    }
    document
}

fn filter(filter: &Filter) -> Value {
    let extension = extension(&filter.kind);
    json!({
        "kind": filter.kind_name(),
        "name": filter.name(),
        "namespace": extension.map(|extension| &extension.namespace),
        "phase": extension.map(|extension| extension.phase),
        "priority": extension.and_then(|extension| extension.priority),
        "reason": filter.reason,
        "resource": extension.map(mesh::model::Extension::id),
        "origin": extension.map(|extension| &extension.origin),
    })
}

fn fetch(fetch: &Fetch) -> Value {
    let Fetch { explanation, pull_secret, secret_given } = fetch;
    let mut entry = match explanation {
        Ok(explanation) => json!(explanation),
        Err(error) => json!({ "error": error }),
    };
    entry["pull_secret"] = json!(pull_secret);
    entry["pull_secret_given"] = json!(pull_secret.as_ref().map(|_| secret_given));
    entry
}

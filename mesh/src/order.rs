//! The order in which Istio considers extensions, before their phases put them in place.

use std::cmp::Reverse;

use crate::model::{Dialect, Extension, MaistraPhase, Phase};

/// What Istio appends to a `WasmPlugin`'s name when it makes a `TrafficExtension` of it.
const TRANSLATED: &str = "~istio-translated-wasmplugin";

/// Orders extensions as Istio does, so that each phase can be taken from the front.
///
/// First by creation time, name and namespace; a `WasmPlugin`'s name carries a marker, so that `foo` comes after
/// `foo-bar`. Then gathered namespace by namespace in the order given (others are dropped). Then, within each phase,
/// stably by priority, descending, an unset priority below every set one.
pub(crate) fn ordered<'e, T>(items: Vec<(&'e Extension, T)>, namespaces: &[&str]) -> Vec<(&'e Extension, T)> {
    let mut keyed: Vec<_> = items
        .into_iter()
        .filter_map(|item| {
            let extension = item.0;
            let gathered = namespaces.iter().position(|namespace| *namespace == extension.namespace)?;
            // `None` is less than every `Some`, so reversed it comes last.
            let key = (place(extension), Reverse(extension.priority), gathered, extension.created);
            // Kinds that only other control planes have may share a name with one of Istio's.
            Some(((key, internal_name(extension), extension.origin.kind.as_str()), item))
        })
        .collect();
    keyed.sort_by(|(a, _), (b, _)| a.cmp(b));
    keyed.into_iter().map(|(_, item)| item).collect()
}

/// The phases in the order of the chain. Where Maistra has two phases in one of Istio's, the earlier goes first.
fn place(extension: &Extension) -> (u8, bool) {
    let phase = match extension.phase {
        Phase::Authn => 0,
        Phase::Authz => 1,
        Phase::Stats => 2,
        Phase::Unspecified => 3,
    };
    let earlier =
        Some(MaistraPhase::PostAuthN) == maistra(extension) || Some(MaistraPhase::PostAuthZ) == maistra(extension);
    (phase, !earlier)
}

fn maistra(extension: &Extension) -> Option<MaistraPhase> {
    match extension.dialect {
        Dialect::Maistra { phase } => phase,
        Dialect::Istio | Dialect::Tetrate { .. } => None,
    }
}

/// What decides between equal priorities: Istio's name for the extension, or Tetrate's fully qualified one.
pub(crate) fn internal_name(extension: &Extension) -> String {
    if let Dialect::Tetrate { fqn, used_by } = &extension.dialect {
        return format!("{fqn} {used_by}");
    }
    let marker = if extension.origin.kind == "WasmPlugin" { TRANSLATED } else { "" };
    format!("{}{marker}", extension.name)
}

#[cfg(test)]
mod tests;

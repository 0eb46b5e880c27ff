//! What changes between two chains of one proxy: the diff that a reviewer wants to see.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use serde::Serialize;

use crate::model::{Extension, ExtensionFilter, Filter, FilterChain, FilterKind};

/// One filter that is not in both chains at the same place and with the same settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// What happened to it.
    pub change: ChangeKind,
    /// `wasm`, `lua` or `builtin`.
    pub kind: &'static str,
    /// The extension's namespace.
    pub namespace: Option<String>,
    /// The extension's name, or the built-in filter's.
    pub name: String,
    /// Its place before, counted from 1.
    pub from: Option<usize>,
    /// Its place after, counted from 1.
    pub to: Option<usize>,
    /// The fields that differ, by the names that a `WasmPlugin` has for them. Their values may be secrets.
    pub fields: Vec<&'static str>,
    /// Why, as a sentence.
    pub reason: String,
}

/// What happened to a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    /// It was not in the chain.
    Added,
    /// It is no longer in the chain.
    Removed,
    /// It has passed others that are in both chains.
    Moved,
    /// It is where it was, with other settings.
    Changed,
}

impl fmt::Display for ChangeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Moved => "moved",
            Self::Changed => "changed",
        })
    }
}

/// In one line: a sign, what, where, why.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { change, namespace, name, from, to, reason, .. } = self;
        let sign = match change {
            ChangeKind::Added => "+",
            ChangeKind::Removed => "-",
            ChangeKind::Moved | ChangeKind::Changed => "~",
        };
        write!(f, "{sign} {change} ")?;
        if let Some(namespace) = namespace {
            write!(f, "{namespace}/")?;
        }
        f.write_str(name)?;
        match (from, to) {
            (Some(from), Some(to)) if from != to => write!(f, " from {from} to {to}")?,
            (_, Some(to)) => write!(f, " at {to}")?,
            (Some(from), None) => write!(f, " from {from}")?,
            (None, None) => {}
        }
        write!(f, ": {reason}")
    }
}

/// Compares two chains: what was removed in the order of the first, then everything else in the order of the second.
///
/// As few filters as possible count as moved. An extension that only changed its kind, from `WasmPlugin` to
/// `TrafficExtension`, is the same one.
pub fn diff(before: &FilterChain, after: &FilterChain) -> Vec<Change> {
    let (old, new) = (keys(before, after), keys(after, before));
    let at: HashMap<&str, usize> = old.iter().enumerate().map(|(index, key)| (key.as_str(), index)).collect();
    let common: Vec<(usize, usize)> =
        new.iter().enumerate().filter_map(|(to, key)| Some((*at.get(key.as_str())?, to))).collect();
    let stayed = longest_rise(&common.iter().map(|(from, _)| *from).collect::<Vec<_>>());
    let mut moved = BTreeMap::new();
    for (index, (from, to)) in common.into_iter().enumerate() {
        moved.insert(to, (from, !stayed[index]));
    }
    let mut gone = vec![true; old.len()];
    for (from, _) in moved.values() {
        gone[*from] = false;
    }
    let mut changes = Vec::new();
    for (index, filter) in before.filters.iter().enumerate().filter(|(index, _)| gone[*index]) {
        let reason = why_not(filter, after).unwrap_or_else(|| "It is no longer among the resources.".to_owned());
        changes.push(change(ChangeKind::Removed, filter, Some(index), None, Vec::new(), reason));
    }
    for (to, filter) in after.filters.iter().enumerate() {
        match moved.get(&to) {
            None => {
                let earlier = why_not(filter, before).map(|why| format!(" Before: {why}")).unwrap_or_default();
                let reason = format!("{}{earlier}", filter.reason);
                changes.push(change(ChangeKind::Added, filter, None, Some(to), Vec::new(), reason));
            }
            Some(&(from, has_moved)) => {
                let fields = differing(&before.filters[from], filter);
                if !has_moved && fields.is_empty() {
                    continue;
                }
                let kind = if has_moved { ChangeKind::Moved } else { ChangeKind::Changed };
                let reason = why_changed(&before.filters[from], filter, &fields);
                changes.push(change(kind, filter, Some(from), Some(to), fields, reason));
            }
        }
    }
    changes
}

fn change(
    change: ChangeKind,
    filter: &Filter,
    from: Option<usize>,
    to: Option<usize>,
    fields: Vec<&'static str>,
    reason: String,
) -> Change {
    let namespace = extension(filter).map(|extension| extension.namespace.clone());
    let (from, to) = (from.map(|index| index + 1), to.map(|index| index + 1));
    Change { change, kind: filter.kind_name(), namespace, name: filter.name().to_owned(), from, to, fields, reason }
}

fn extension(filter: &Filter) -> Option<&Extension> {
    match &filter.kind {
        FilterKind::Extension(extension) => Some(extension),
        FilterKind::BuiltIn(_) => None,
    }
}

/// What each filter of a chain is known by in both.
fn keys(chain: &FilterChain, other: &FilterChain) -> Vec<String> {
    let mut names: HashMap<(&str, &str), usize> = HashMap::new();
    for filters in [&chain.filters, &other.filters] {
        let mut here: HashMap<(&str, &str), usize> = HashMap::new();
        for Extension { namespace, name, .. } in filters.iter().filter_map(extension) {
            *here.entry((namespace, name)).or_default() += 1;
        }
        for (name, count) in here {
            let known = names.entry(name).or_default();
            *known = count.max(*known);
        }
    }
    let mut seen: HashMap<String, usize> = HashMap::new();
    let key = |filter| {
        let name = match extension(filter) {
            Some(extension) if names.get(&(&extension.namespace, &extension.name)) == Some(&1) => {
                format!("{}/{}", extension.namespace, extension.name)
            }
            Some(extension) => extension.id(),
            None => Filter::name(filter).to_owned(),
        };
        // A built-in filter may occur twice, and so may a resource in input that has errors.
        let count = seen.entry(name.clone()).or_default();
        *count += 1;
        format!("{name} {count}")
    };
    chain.filters.iter().map(key).collect()
}

/// For each number, whether it is in one longest rising subsequence.
fn longest_rise(numbers: &[usize]) -> Vec<bool> {
    // The index at which the best sequence of each length ends, and what comes before each number in it.
    let mut ends: Vec<usize> = Vec::new();
    let mut before = vec![None; numbers.len()];
    for (index, number) in numbers.iter().enumerate() {
        let length = ends.partition_point(|end| numbers[*end] < *number);
        before[index] = length.checked_sub(1).map(|shorter| ends[shorter]);
        ends.truncate(ends.len().max(length));
        match ends.get_mut(length) {
            Some(end) => *end = index,
            None => ends.push(index),
        }
    }
    let mut is_in = vec![false; numbers.len()];
    let mut next = ends.last().copied();
    while let Some(index) = next {
        is_in[index] = true;
        next = before[index];
    }
    is_in
}

/// Why a filter is not in another chain, if that one says so.
fn why_not(filter: &Filter, chain: &FilterChain) -> Option<String> {
    match extension(filter) {
        Some(extension) => {
            let is_it =
                |out: &&crate::model::LeftOut| out.namespace == extension.namespace && out.name == extension.name;
            let mut left_out = chain.left_out.iter().filter(is_it);
            left_out.next().map(|out| out.reason.clone())
        }
        None => Some("No policy asks for it.".to_owned()),
    }
}

fn why_changed(before: &Filter, after: &Filter, fields: &[&str]) -> String {
    let differ = match fields {
        [] => "It is the same".to_owned(),
        [one] => format!("Its {one} differs"),
        [first @ .., last] => format!("Its {} and {last} differ", first.join(", ")),
    };
    if extension(after).is_none() {
        return after.reason.clone();
    }
    if before.reason == after.reason {
        return if fields.is_empty() {
            format!("{differ}; the others have moved. {}", after.reason)
        } else {
            differ + "."
        };
    }
    format!("{differ}. {} Before: {}", after.reason, before.reason)
}

/// The fields in which two filters differ.
fn differing(before: &Filter, after: &Filter) -> Vec<&'static str> {
    let (Some(old), Some(new)) = (extension(before), extension(after)) else { return Vec::new() };
    let mut fields = Vec::new();
    let mut note = |field, differs: bool| {
        if differs {
            fields.push(field);
        }
    };
    note("kind", old.origin.kind != new.origin.kind);
    note("creationTimestamp", old.created != new.created);
    note("selector or targetRefs", old.attach != new.attach);
    note("phase", old.phase != new.phase);
    note("priority", old.priority != new.priority);
    note("match", old.traffic != new.traffic);
    match (&old.filter, &new.filter) {
        (ExtensionFilter::Wasm(old), ExtensionFilter::Wasm(new)) => {
            note("url", old.url != new.url);
            note("sha256", old.sha256 != new.sha256);
            note("imagePullPolicy", old.pull_policy != new.pull_policy);
            note("imagePullSecret", old.pull_secret != new.pull_secret);
            note("pluginConfig", old.plugin_config != new.plugin_config);
            note("pluginName", old.plugin_name != new.plugin_name);
            note("failStrategy", old.fail_strategy != new.fail_strategy);
            note("vmConfig", old.env != new.env);
            note("type", old.layer != new.layer);
        }
        (ExtensionFilter::Lua { inline_code: old }, ExtensionFilter::Lua { inline_code: new }) => {
            note("inlineCode", old != new);
        }
        _ => note("wasm or lua", true),
    }
    fields
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{diff, longest_rise};
    use crate::attach::MeshOptions;
    use crate::chain::resolve;
    use crate::model::{Direction, FilterChain, Layer, Listener, Proxy, ProxyKind};
    use crate::resources::{Source, read};

    fn chain(plugins: &[(&str, &str, &str)], more: &str) -> FilterChain {
        let one = |(kind, name, spec): &(&str, &str, &str)| {
            format!(
                "---\n{{apiVersion: extensions.istio.io/v1alpha1, kind: {kind}, metadata: {{name: {name}, namespace: a}}, \
                 spec: {{{spec}}}}}\n"
            )
        };
        let text = plugins.iter().map(one).collect::<String>() + more;
        let reading = read(&[Source { file: "f".to_owned(), text }]);
        assert_eq!(reading.errors, []);
        let labels = BTreeMap::new();
        let proxy = Proxy { name: "p".to_owned(), namespace: "a".to_owned(), labels, kind: ProxyKind::Sidecar };
        let listener = Listener { direction: Some(Direction::Inbound), port: None, layer: Layer::Http, protocol: None };
        resolve(&reading.resources, &proxy, &listener, &MeshOptions::default())
    }

    #[track_caller]
    fn check(before: &FilterChain, after: &FilterChain, expected: &[&str]) {
        let place = |place: Option<usize>| place.map_or("-".to_owned(), |place| place.to_string());
        let shown: Vec<String> = diff(before, after)
            .iter()
            .map(|c| format!("{} {} {}>{} {:?}: {}", c.change, c.name, place(c.from), place(c.to), c.fields, c.reason))
            .collect();
        assert_eq!(shown, expected);
    }

    const X: (&str, &str, &str) = ("WasmPlugin", "x", "url: h/x, priority: 3");
    const Z: (&str, &str, &str) = ("WasmPlugin", "z", "url: h/z, priority: 2");
    const JWT: &str = "---\n{apiVersion: security.istio.io/v1, kind: RequestAuthentication, \
                       metadata: {name: j, namespace: a}, spec: {jwtRules: [{issuer: i}]}}\n";

    #[test]
    fn the_same_chain_has_no_changes() {
        check(&chain(&[X, Z], JWT), &chain(&[Z, X], JWT), &[]);
    }

    #[test]
    fn what_comes_and_goes_says_why() {
        check(
            &chain(&[X], ""),
            &chain(&[("WasmPlugin", "x", "url: h/x, match: [{mode: CLIENT}]"), Z], JWT),
            &[
                "removed x 2>- []: No `match` entry takes its traffic, which is SERVER at sidecar `p`.",
                "added envoy.filters.http.jwt_authn ->2 []: Checks JSON web tokens, for RequestAuthentication a/j. \
                 Before: No policy asks for it.",
                "added z ->3 []: Applies to every workload of namespace `a`; no phase, priority 2.",
            ],
        );
        check(&chain(&[X, Z], ""), &chain(&[X], ""), &["removed z 3>- []: It is no longer among the resources."]);
    }

    #[test]
    fn what_passes_others_has_moved_and_what_is_passed_has_not() {
        check(
            &chain(&[X, Z], ""),
            &chain(&[X, ("WasmPlugin", "z", "url: h/z, priority: 4")], ""),
            &["moved z 3>2 [\"priority\"]: Its priority differs. Applies to every workload of namespace `a`; no \
               phase, priority 4. Before: Applies to every workload of namespace `a`; no phase, priority 2."],
        );
    }

    #[test]
    fn what_has_other_settings_is_told_without_their_values() {
        let changed = ("WasmPlugin", "x", "url: h/x:2, priority: 3, pluginConfig: {password: hunter2}");
        check(
            &chain(&[X, Z], ""),
            &chain(&[changed, Z], ""),
            &["changed x 2>2 [\"url\", \"pluginConfig\"]: Its url and pluginConfig differ."],
        );
    }

    #[test]
    fn a_change_of_kind_is_no_replacement() {
        let extension = ("TrafficExtension", "x", "priority: 3, wasm: {url: h/x}");
        check(&chain(&[X, Z], ""), &chain(&[extension, Z], ""), &["changed x 2>2 [\"kind\"]: Its kind differs."]);
    }

    #[test]
    fn rises_are_found() {
        let rise = |numbers: &[usize]| {
            let is_in = longest_rise(numbers);
            numbers.iter().zip(is_in).filter_map(|(n, is_in)| is_in.then_some(*n)).collect::<Vec<_>>()
        };
        assert_eq!(rise(&[]), [0; 0]);
        assert_eq!(rise(&[0, 1, 2]), [0, 1, 2]);
        assert_eq!(rise(&[3, 0, 1, 2]), [0, 1, 2]);
        assert_eq!(rise(&[2, 5, 3, 7, 0, 8]).len(), 4);
    }
}

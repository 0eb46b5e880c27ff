//! Traps among extensions that meet in a chain: priorities, and what they share in one VM.

use std::collections::{BTreeMap, HashMap};

use super::{Rule, Warning};
use crate::locate::{FieldPath, wasm_field};
use crate::model::{Attach, EnvVar, Extension, Layer, Phase, TargetRef};
use crate::order::internal_name;

/// Judges extensions of which it is not known which proxies carry them, by what they select and target.
pub(super) fn check(extensions: &[Extension], root: &str, warnings: &mut Vec<Warning>) {
    let mut phases: BTreeMap<(Layer, Phase), Vec<&Extension>> = BTreeMap::new();
    for extension in extensions {
        phases.entry((extension.layer(), extension.phase)).or_default().push(extension);
    }
    for members in phases.into_values() {
        unset(&members, root, warnings);
        let mut equal: BTreeMap<Option<i32>, Vec<&Extension>> = BTreeMap::new();
        for extension in members {
            equal.entry(extension.priority).or_default().push(extension);
        }
        for mut members in equal.into_values() {
            members.sort_by_key(|extension| (extension.created, internal_name(extension)));
            neighbours(&members, root, |first, second| warnings.push(equal_priority(first, second)));
        }
    }
    let mut machines: BTreeMap<Machine<'_>, Vec<&Extension>> = BTreeMap::new();
    for extension in extensions {
        if let Some(machine) = Machine::of(extension) {
            machines.entry(machine).or_default().push(extension);
        }
    }
    for members in machines.into_values() {
        neighbours(&members, root, |first, second| warnings.push(shared_name(first, second)));
    }
}

/// Judges the extensions of one chain, in its order.
pub(super) fn check_chain(extensions: &[&Extension], warnings: &mut Vec<Warning>) {
    let mut machines = HashMap::new();
    for (index, extension) in extensions.iter().enumerate() {
        if let Some(before) = index.checked_sub(1).map(|before| extensions[before])
            && before.phase == extension.phase
            && before.priority == extension.priority
        {
            warnings.push(equal_priority(before, extension));
        }
        if extension.priority.is_none()
            && let Some(low) = extensions[..index]
                .iter()
                .rev()
                .take_while(|other| other.phase == extension.phase)
                .find(|other| other.priority.is_some_and(|priority| priority <= 0))
        {
            warnings.push(unset_priority(extension, low));
        }
        if let Some(machine) = Machine::of(extension)
            && let Some(first) = machines.insert(machine, *extension)
        {
            warnings.push(shared_name(first, extension));
        }
    }
}

/// What makes two extensions of one plugin name share a root context: the module, its variables and that name.
#[derive(PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Machine<'e> {
    plugin_name: &'e str,
    url: &'e str,
    sha256: Option<&'e str>,
    env: Vec<String>,
}

impl<'e> Machine<'e> {
    fn of(extension: &'e Extension) -> Option<Self> {
        let wasm = extension.wasm().filter(|wasm| !wasm.plugin_name.is_empty())?;
        let mut env: Vec<String> = wasm.env.iter().map(|EnvVar { name, value }| format!("{name}={value:?}")).collect();
        env.sort();
        let url = wasm.url.strip_prefix("oci://").unwrap_or(&wasm.url);
        Some(Self { plugin_name: &wasm.plugin_name, url, sha256: wasm.sha256.as_deref(), env })
    }
}

fn equal_priority(first: &Extension, second: &Extension) -> Warning {
    let priority = second.priority.map_or("no priority".to_owned(), |priority| format!("priority {priority}"));
    let phase = match second.phase {
        Phase::Unspecified => "no phase",
        Phase::Authn => "phase AUTHN",
        Phase::Authz => "phase AUTHZ",
        Phase::Stats => "phase STATS",
    };
    let decided = if first.namespace != second.namespace {
        "by their namespaces"
    } else if first.created != second.created {
        "by their age"
    } else {
        "by their names, as long as both are of the same age"
    };
    let what = format!("it has {phase} and {priority} as {} has, which comes before it {decided}", first.id());
    let fix = "give each a priority of its own";
    Warning::new(Rule::EqualPriority, second, FieldPath::keys(&["spec", "priority"]), what, fix)
}

fn unset_priority(extension: &Extension, low: &Extension) -> Warning {
    let priority = low.priority.unwrap_or_default();
    let what = format!("it has no priority, and so comes after {}, which has priority {priority}", low.id());
    let fix = "write the priority that is meant: `priority: 0` for what the documentation calls the default";
    Warning::new(Rule::UnsetPriority, extension, FieldPath::keys(&["spec", "priority"]), what, fix)
}

fn shared_name(first: &Extension, second: &Extension) -> Warning {
    let name = second.wasm().map_or("", |wasm| wasm.plugin_name.as_str());
    let what = format!("it has the pluginName `{name}`, module and variables of {}", first.id());
    let fix =
        "give each a pluginName of its own, if the module takes any; a variable that differs gives each its own VM";
    Warning::new(Rule::SharedPluginName, second, wasm_field(second, "pluginName"), what, fix)
}

/// Reports each extension without a priority that one with 0 or less meets.
fn unset(members: &[&Extension], root: &str, warnings: &mut Vec<Warning>) {
    let low = members.iter().filter(|extension| extension.priority.is_some_and(|priority| priority <= 0));
    let mut scopes: HashMap<&str, Scope<'_>> = HashMap::new();
    let mut everywhere = Scope::default();
    for extension in low {
        scopes.entry(&extension.namespace).or_default().add(extension);
        everywhere.add(extension);
    }
    if scopes.is_empty() {
        return;
    }
    for extension in members.iter().filter(|extension| extension.priority.is_none()) {
        let own = scopes.get(extension.namespace.as_str());
        let met = if extension.namespace == root {
            everywhere.meets(extension)
        } else {
            own.and_then(|scope| scope.meets(extension))
                .or_else(|| scopes.get(root).and_then(|scope| scope.meets(extension)))
        };
        warnings.extend(met.map(|low| unset_priority(extension, low)));
    }
}

/// Calls `found` for each extension and the last one before it that it can meet. Those of a namespace come before those
/// of the root namespace, and meet the first of these that they can.
fn neighbours<'e>(members: &[&'e Extension], root: &str, mut found: impl FnMut(&'e Extension, &'e Extension)) {
    if members.len() < 2 {
        return;
    }
    let mut scopes: BTreeMap<&str, Scope<'e>> = BTreeMap::new();
    let mut first_at_root = Scope::default();
    for extension in members.iter().copied() {
        let scope = scopes.entry(&extension.namespace).or_default();
        if let Some(before) = scope.meets(extension) {
            found(before, extension);
        }
        scope.add(extension);
        if extension.namespace == root {
            first_at_root.add_first(extension);
        }
    }
    for (_, scope) in scopes.iter().filter(|(namespace, _)| **namespace != root) {
        if let Some((last, first)) = scope.last.and_then(|last| Some((last, first_at_root.meets(last)?))) {
            found(last, first);
        }
    }
}

/// Extensions of one namespace by what makes them meet others.
#[derive(Default)]
struct Scope<'e> {
    by_token: HashMap<Token<'e>, &'e Extension>,
    /// The last one that applies to every workload.
    wide: Option<&'e Extension>,
    /// The last one that no targets restrict to gateways.
    selecting: Option<&'e Extension>,
    last: Option<&'e Extension>,
}

#[derive(PartialEq, Eq, Hash)]
enum Token<'e> {
    Label(&'e str, &'e str),
    Target(&'e TargetRef),
}

impl<'e> Scope<'e> {
    fn add(&mut self, extension: &'e Extension) {
        for token in tokens(&extension.attach) {
            self.by_token.insert(token, extension);
        }
        match &extension.attach {
            Attach::TargetRefs(_) => {}
            Attach::Selector(labels) if !labels.is_empty() => self.selecting = Some(extension),
            Attach::Selector(_) | Attach::Namespace => {
                self.selecting = Some(extension);
                self.wide = Some(extension);
            }
        }
        self.last = Some(extension);
    }

    /// Adds what is not there yet, so that the first of each kind stays.
    fn add_first(&mut self, extension: &'e Extension) {
        for token in tokens(&extension.attach) {
            self.by_token.entry(token).or_insert(extension);
        }
        match &extension.attach {
            Attach::TargetRefs(_) => {}
            Attach::Selector(labels) if !labels.is_empty() => _ = self.selecting.get_or_insert(extension),
            Attach::Selector(_) | Attach::Namespace => {
                self.selecting.get_or_insert(extension);
                self.wide.get_or_insert(extension);
            }
        }
    }

    /// One of them that some proxy may carry together with this one.
    fn meets(&self, extension: &Extension) -> Option<&'e Extension> {
        let by_token = tokens(&extension.attach).into_iter().filter_map(|token| self.by_token.get(&token).copied());
        let other = match &extension.attach {
            Attach::TargetRefs(_) => None,
            Attach::Selector(labels) if !labels.is_empty() => self.wide,
            Attach::Selector(_) | Attach::Namespace => self.selecting,
        };
        by_token.chain(other).find(|other| !contradict(&extension.attach, &other.attach))
    }
}

fn tokens(attach: &Attach) -> Vec<Token<'_>> {
    match attach {
        Attach::Namespace => Vec::new(),
        Attach::Selector(labels) => labels.iter().map(|(key, value)| Token::Label(key, value)).collect(),
        Attach::TargetRefs(refs) => refs.iter().map(Token::Target).collect(),
    }
}

/// Whether no workload can have the labels of both.
fn contradict(one: &Attach, other: &Attach) -> bool {
    let (Attach::Selector(one), Attach::Selector(other)) = (one, other) else { return false };
    one.iter().any(|(key, value)| other.get(key).is_some_and(|other| other != value))
}

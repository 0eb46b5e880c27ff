//! From one kind to the next: what the text becomes, and what it then means.

use super::edit::{Editor, Unchanged, parse};
use super::{Kind, Options};
use crate::config::plugin_config;
use crate::extension::WASM;
use crate::fields::{Field, Report};
use crate::maistra;
use crate::model::{
    Attach, Dialect, EnvValue, EnvVar, Extension, ExtensionFilter, MaistraPhase, Phase, TrafficSelector, WorkloadMode,
};
use crate::resources::ISTIO_VERSION;
use crate::yaml::{Entry, Mark, Node, Value};

/// What the API server writes into `metadata`: it belongs to the object that was.
const OF_THE_SERVER: [&str; 8] = [
    "creationTimestamp",
    "resourceVersion",
    "uid",
    "generation",
    "selfLink",
    "managedFields",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
];
const OF_KUBECTL: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// What only the catalogue needs to know.
const OF_THE_CATALOGUE: [&str; 8] = [
    "allowedIn",
    "source",
    "displayName",
    "description",
    "etag",
    "fqn",
    "configGenerationMetadata",
    "deletionProtectionEnabled",
];

/// What a resource is to mean once it has been written as another kind.
pub(super) fn meaning(before: &Extension, to: Kind, name: &str, options: &Options) -> Extension {
    let mut after = before.clone();
    to.name().clone_into(&mut after.origin.kind);
    name.clone_into(&mut after.name);
    after.namespace = options.namespace(&before.namespace);
    (after.created, after.resource_version, after.dialect) = (None, None, Dialect::Istio);
    if let (Dialect::Maistra { .. }, ExtensionFilter::Wasm(wasm)) = (&before.dialect, &mut after.filter) {
        wasm.plugin_name = String::new();
        if let Some(image) = options.images.get(&wasm.url) {
            wasm.url.clone_from(&image.url);
        }
        if options.keep_inbound {
            after.traffic = vec![TrafficSelector { mode: WorkloadMode::Server, ports: Vec::new() }];
        }
    }
    after
}

/// Turns a resource's text into that of a `WasmPlugin` or `TrafficExtension` with this meaning.
pub(super) fn convert(editor: &mut Editor, before: &Extension, after: &Extension) -> Result<(), Unchanged> {
    metadata(editor, after)?;
    match before.dialect {
        Dialect::Maistra { .. } => from_maistra(editor, after),
        Dialect::Tetrate { .. } => from_tetrate(editor, after),
        Dialect::Istio => to_traffic_extension(editor),
    }
}

fn metadata(editor: &mut Editor, after: &Extension) -> Result<(), Unchanged> {
    editor.set(&["apiVersion"], ISTIO_VERSION)?;
    editor.set(&["kind"], &after.origin.kind)?;
    editor.remove(&["status"])?;
    for name in OF_THE_SERVER.iter().chain(&["organization", "tenant", "workspace", "group"]) {
        editor.remove(&["metadata", name])?;
    }
    let annotations = match editor.get(&["metadata", "annotations"]).map(|node| &node.value) {
        Some(Value::Map(entries)) => entries.iter().map(|entry| entry.key.clone()).collect(),
        _ => Vec::new(),
    };
    for name in annotations.iter().filter(|name| *name == OF_KUBECTL || name.starts_with("tsb.tetrate.io/")) {
        editor.remove(&["metadata", "annotations", name])?;
    }
    if !annotations.is_empty() && is_empty(editor, &["metadata", "annotations"]) {
        editor.remove(&["metadata", "annotations"])?;
    }
    editor.set(&["metadata", "name"], &after.name)?;
    let text = |text: &str| Value::String(text.to_owned());
    match editor.get(&["metadata", "namespace"]).map(|node| &node.value) {
        Some(Value::String(namespace)) if *namespace == after.namespace => Ok(()),
        Some(Value::String(namespace)) if namespace.is_empty() && after.namespace == "default" => Ok(()),
        Some(Value::Null) | None if after.namespace == "default" => Ok(()),
        Some(_) => editor.set(&["metadata", "namespace"], &after.namespace),
        None => editor.put(&["metadata"], &["name"], "namespace", &text(&after.namespace)),
    }
}

fn from_maistra(editor: &mut Editor, after: &Extension) -> Result<(), Unchanged> {
    match after.attach {
        Attach::Selector(_) => {
            editor.rename(&["spec", "workloadSelector", "labels"], "matchLabels")?;
            editor.rename(&["spec", "workloadSelector"], "selector")?;
        }
        _ => editor.remove(&["spec", "workloadSelector"])?,
    }
    let wasm = after.wasm().ok_or(Unchanged)?;
    editor.rename(&["spec", "image"], "url")?;
    editor.set(&["spec", "url"], &wasm.url)?;
    if editor.get(&["spec", "imagePullSecrets"]).is_some() {
        match &wasm.pull_secret {
            Some(name) => {
                editor.replace(&["spec", "imagePullSecrets"], "imagePullSecret", &Value::String(name.clone()))?;
            }
            None => editor.remove(&["spec", "imagePullSecrets"])?,
        }
    }
    match (phase_name(after.phase), editor.get(&["spec", "phase"]).is_some()) {
        (Some(phase), true) => editor.set(&["spec", "phase"], phase)?,
        (Some(phase), false) => {
            editor.put(&["spec"], &["url", "imagePullSecret"], "phase", &Value::String(phase.to_owned()))?;
        }
        (None, _) => editor.remove(&["spec", "phase"])?,
    }
    priority(editor, after)?;
    config(editor, after)?;
    if !after.traffic.is_empty() {
        let server = editor.node(map(editor, vec![("mode", Value::String("SERVER".to_owned()))]));
        let after = ["phase", "priority", "url"];
        editor.put(&["spec"], &after, "match", &Value::List(vec![server]))?;
    }
    Ok(())
}

fn from_tetrate(editor: &mut Editor, after: &Extension) -> Result<(), Unchanged> {
    for name in OF_THE_CATALOGUE {
        editor.remove(&["spec", name])?;
    }
    if editor.get(&["spec", "image"]).is_some() {
        editor.rename(&["spec", "image"], "url")?;
    }
    if let Attach::Selector(labels) = &after.attach {
        let labels = labels.iter().map(|(key, value)| (key.as_str(), Value::String(value.clone()))).collect();
        let selector = map(editor, vec![("matchLabels", map(editor, labels))]);
        editor.put(&["spec"], &["url"], "selector", &selector)?;
    }
    priority(editor, after)?;
    config(editor, after)?;
    environment(editor, after)?;
    traffic(editor, after)
}

fn to_traffic_extension(editor: &mut Editor) -> Result<(), Unchanged> {
    if let Some(target) = editor.get(&["spec", "targetRef"]).cloned() {
        editor.replace(&["spec", "targetRef"], "targetRefs", &Value::List(vec![target]))?;
    }
    let unspecified = Value::String("UNSPECIFIED_PHASE".to_owned());
    if editor.get(&["spec", "phase"]).is_some_and(|node| node.value == unspecified) {
        editor.set(&["spec", "phase"], "UNSPECIFIED")?;
    }
    editor.nest(&["spec"], &WASM, "wasm")
}

fn phase_name(phase: Phase) -> Option<&'static str> {
    match phase {
        Phase::Unspecified => None,
        Phase::Authn => Some("AUTHN"),
        Phase::Authz => Some("AUTHZ"),
        Phase::Stats => Some("STATS"),
    }
}

/// Adds a priority that was not written: the manifest's, or what the other kind takes an unset one for.
fn priority(editor: &mut Editor, after: &Extension) -> Result<(), Unchanged> {
    let written = editor.get(&["spec", "priority"]).map(|node| node.value != Value::Null);
    match (after.priority, written) {
        (Some(priority), Some(false)) => {
            editor.replace(&["spec", "priority"], "priority", &Value::Int(priority.into()))
        }
        (Some(priority), None) => editor.put(&["spec"], &["url", "phase"], "priority", &Value::Int(priority.into())),
        (None, _) | (_, Some(true)) => Ok(()),
    }
}

/// `config` is called `pluginConfig`; when the point of use overwrites it, its value is that one's.
fn config(editor: &mut Editor, after: &Extension) -> Result<(), Unchanged> {
    let path = ["spec", "config"];
    let wanted = after.wasm().and_then(|wasm| wasm.plugin_config.as_deref());
    let written = editor.get(&path).map(|node| node.value.clone());
    match (wanted, written) {
        (None, _) => editor.remove(&path),
        (Some(json), None) => editor.put(&["spec"], &["url"], "pluginConfig", &parse(json)?.value),
        (Some(json), Some(written)) if as_json(&written).as_deref() == Some(json) => {
            editor.rename(&path, "pluginConfig")
        }
        (Some(json), Some(_)) => editor.replace(&path, "pluginConfig", &parse(json)?.value),
    }
}

fn as_json(value: &Value) -> Option<String> {
    let node = Node { at: Mark { line: 1, column: 1 }, value: value.clone() };
    plugin_config(&Field::root(&node), &mut Report::new("", 0))
}

/// Tetrate ignores a `value` beside `valueFrom: HOST`, and Istio refuses it.
fn environment(editor: &mut Editor, after: &Extension) -> Result<(), Unchanged> {
    let env = after.wasm().map(|wasm| wasm.env.as_slice()).unwrap_or_default();
    let Some(Value::List(written)) = editor.get(&["spec", "vmConfig", "env"]).map(|node| &node.value) else {
        return Ok(());
    };
    let has_value =
        |value: &Value| matches!(value, Value::Map(entries) if entries.iter().any(|one| one.key == "value"));
    let ignored = env.iter().zip(written).any(|(one, node)| one.value == EnvValue::Host && has_value(&node.value));
    if !ignored {
        return Ok(());
    }
    let text = |text: &str| Value::String(text.to_owned());
    let variable = |one: &EnvVar| {
        let further = match &one.value {
            EnvValue::Host => ("valueFrom", text("HOST")),
            EnvValue::Inline(value) => ("value", text(value)),
        };
        editor.node(map(editor, vec![("name", text(&one.name)), further]))
    };
    let list = Value::List(env.iter().map(variable).collect());
    editor.replace(&["spec", "vmConfig", "env"], "env", &list)
}

/// `match`, when the point of use overwrites it.
fn traffic(editor: &mut Editor, after: &Extension) -> Result<(), Unchanged> {
    let entry = |one: &TrafficSelector| {
        let mode = match one.mode {
            WorkloadMode::Client => "CLIENT",
            WorkloadMode::Server => "SERVER",
            WorkloadMode::ClientAndServer => "CLIENT_AND_SERVER",
        };
        let mut entries = vec![("mode", Value::String(mode.to_owned()))];
        if !one.ports.is_empty() {
            let port = |port: &u16| editor.node(map(editor, vec![("number", Value::Int((*port).into()))]));
            entries.push(("ports", Value::List(one.ports.iter().map(port).collect())));
        }
        editor.node(map(editor, entries))
    };
    let list = Value::List(after.traffic.iter().map(entry).collect());
    match (editor.get(&["spec", "match"]).is_some(), after.traffic.is_empty()) {
        (true, true) => editor.remove(&["spec", "match"]),
        (true, false) => editor.replace(&["spec", "match"], "match", &list),
        (false, false) => editor.put(&["spec"], &["phase", "priority", "url"], "match", &list),
        (false, true) => Ok(()),
    }
}

fn map(editor: &Editor, entries: Vec<(&str, Value)>) -> Value {
    let at = editor.node(Value::Null).at;
    let entry = |(key, value): (&str, Value)| Entry { key: key.to_owned(), key_at: at, value: editor.node(value) };
    Value::Map(entries.into_iter().map(entry).collect())
}

fn is_empty(editor: &Editor, path: &[&str]) -> bool {
    matches!(editor.get(path).map(|node| &node.value), Some(Value::Map(entries)) if entries.is_empty())
}

/// What is lost or has to be looked at, when a resource becomes another kind.
pub(super) fn remarks(before: &Extension, after: &Extension, node: &Node, options: &Options) -> Vec<String> {
    let mut remarks = Vec::new();
    if let Dialect::Maistra { phase } = before.dialect {
        let url = before.wasm().map(|wasm| wasm.url.as_str()).unwrap_or_default();
        let image = options.images.get(url);
        if image.is_none() {
            remarks.push(format!("its image must hold the module as /plugin.wasm: `--images` repackages {url}"));
        }
        match phase {
            None if image.is_none() => remarks.push(
                "its phase is in the image's manifest.yaml: look there and add `phase`, or use `--images`".to_owned(),
            ),
            Some(MaistraPhase::PostAuthN) => {
                remarks.push("PostAuthN and PreAuthZ are both AUTHZ, where only the priority orders them".to_owned());
            }
            Some(MaistraPhase::PostAuthZ) => {
                remarks.push("PostAuthZ and PreStats are both STATS, where only the priority orders them".to_owned());
            }
            Some(MaistraPhase::PostStats) => {
                remarks.push("PostStats was after Istio's metrics, where no phase of today is".to_owned());
            }
            _ => {}
        }
        let root_id = maistra::root_id(&before.name);
        remarks.push(format!("its root id was `{root_id}`: a module that goes by it needs `pluginName: {root_id}`"));
        if after.priority.is_some() {
            remarks.push("the priority is kept, since without it the order would be another".to_owned());
        }
    }
    if let Dialect::Tetrate { .. } = before.dialect {
        let spec = Field::root(node).as_object().and_then(|object| object.get("spec")?.as_object());
        let dropped = OF_THE_CATALOGUE.iter().filter(|name| spec.as_ref().is_some_and(|spec| spec.get(name).is_some()));
        let dropped: Vec<String> = dropped.map(|name| format!("`{name}`")).collect();
        if !dropped.is_empty() {
            remarks.push(format!("{} only a catalogue has, so it is dropped", dropped.join(", ")));
        }
    }
    if before.namespace != after.namespace && after.wasm().is_some_and(|wasm| wasm.pull_secret.is_some()) {
        remarks.push(format!("its pull secret must exist in namespace `{}`", after.namespace));
    }
    remarks
}

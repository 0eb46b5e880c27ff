//! The manifest in a plugin's folder, found among whatever else is written in YAML and JSON there.

use std::collections::BTreeSet;

use mesh::model::Extension;
use mesh::{Resources, Source, each_document, read_some};
use packager::build::Plugin;
use serde_json::Value;

use super::project::{is_of, resource_name};
use crate::input;
use crate::report::Failure;

/// Where one may be.
const FOLDERS: [&str; 3] = ["", "manifests", "deploy"];

/// The kinds that name a module: group, kind, and where they have its url.
const KINDS: [(&str, &str, &[&str]); 4] = [
    ("extensions.istio.io", "WasmPlugin", &["/spec/url"]),
    ("extensions.istio.io", "TrafficExtension", &["/spec/wasm/url"]),
    ("maistra.io", "ServiceMeshExtension", &["/spec/image"]),
    (TETRATES, "WasmExtension", &["/spec/image", "/spec/url"]),
];
const TETRATES: &str = "extension.tsb.tetrate.io";

/// The first manifest that is this plugin's, without what else is in its file. What cannot be read, and what another
/// module's is, is told, and is in nobody's way.
pub(super) fn find(plugin: &Plugin, tell: &dyn Fn(String)) -> Result<Option<Resources>, Failure> {
    let mut others = Vec::new();
    for folder in FOLDERS {
        let mut files = input::resource_files(&plugin.root.join(folder)).unwrap_or_default();
        files.sort_by_key(|file| !file.to_string_lossy().to_ascii_lowercase().contains("wasmplugin"));
        for file in files {
            match input::source(&file) {
                Ok(source) => match in_file(plugin, source, &mut others, tell)? {
                    None => {}
                    found => return Ok(found),
                },
                Err(failure) => tell(format!("warning: {}; it is left alone", failure.text())),
            }
        }
    }
    others.into_iter().for_each(tell);
    Ok(None)
}

fn in_file(
    plugin: &Plugin,
    source: Source,
    others: &mut Vec<String>,
    tell: &dyn Fn(String),
) -> Result<Option<Resources>, Failure> {
    let (mut ours, mut tetrates, mut broken) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    let mut has_entry = false;
    for document in each_document(&source) {
        let document = match document {
            Ok(document) => document,
            Err(problems) => {
                broken.extend(problems);
                continue;
            }
        };
        for resource in resources(&document.value) {
            let text = |pointer: &str| resource.pointer(pointer).and_then(Value::as_str);
            let (version, kind) = (text("/apiVersion").unwrap_or_default(), text("/kind").unwrap_or_default());
            let group = version.rsplit_once('/').map_or("", |(group, _)| group);
            if group.ends_with(".tetrate.io") {
                tetrates.insert(document.number());
            }
            let Some((.., urls)) = KINDS.iter().find(|(known, name, _)| (*known, *name) == (group, kind)) else {
                continue;
            };
            let name = text("/metadata/name").unwrap_or_default();
            match urls.iter().find_map(|pointer| text(pointer)) {
                Some(url) if !is_of(plugin, url) => others.push(format!(
                    "{}: {kind} `{name}` is not `{}`'s, as its url is {url}; `-f` and `--as` take it all the same",
                    source.file, plugin.name
                )),
                // A script has none, and what should have one is the reader's to say.
                None if name != resource_name(&plugin.name) || text("/spec/lua/inlineCode").is_some() => {}
                _ => {
                    ours.insert(document.number());
                    has_entry |= group == TETRATES;
                }
            }
        }
    }
    if ours.is_empty() {
        // Half a manifest is not to be served as none.
        let is_meant = KINDS.iter().any(|(_, kind, _)| source.text.lines().any(|line| is_kind(line, kind)));
        let said: Vec<String> = broken.iter().map(ToString::to_string).collect();
        if is_meant && !said.is_empty() {
            return Err(Failure::bad(said.join("\nerror: ")));
        }
        for said in said {
            tell(format!("warning: {said}; it is left alone"));
        }
        return Ok(None);
    }
    if has_entry {
        // What uses the catalogue's entry is what puts it into a chain.
        ours.append(&mut tetrates);
    }
    let file = source.file.clone();
    let mut found = input::told(read_some(&[source], |_, number| ours.contains(&number)))?;
    found.extensions.retain(|extension| Extension::wasm(extension).is_some_and(|wasm| is_of(plugin, &wasm.url)));
    if found.extensions.is_empty() {
        tell(format!("{file}: nothing there uses `{}`", plugin.name));
        return Ok(None);
    }
    Ok(Some(found))
}

/// Itself, or what is in a list.
fn resources(value: &Value) -> impl Iterator<Item = &Value> {
    let items = value.get("items").and_then(Value::as_array).map(Vec::as_slice);
    items.unwrap_or(std::slice::from_ref(value)).iter()
}

fn is_kind(line: &str, kind: &str) -> bool {
    line.trim().strip_prefix("kind:").is_some_and(|rest| rest.trim().trim_matches(['"', '\'']) == kind)
}

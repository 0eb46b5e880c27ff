//! Migration: older kinds of extension resources as newer ones.
//!
//! `ServiceMeshExtension` → `WasmPlugin` → `TrafficExtension`, and `WasmExtension` with what uses it → `WasmPlugin`.
//! The texts are edited, so that comments, order and whatever is not migrated stay as they are. What cannot be carried
//! over is remarked, and where the filter chain of a proxy differs afterwards, that is said.

mod compare;
mod convert;
mod edit;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

pub use compare::Difference;
use convert::{convert, meaning, remarks};
use edit::{Editor, Unchanged};

use crate::fault::{Fault, Place, Problem};
use crate::fields::Field;
use crate::model::{Dialect, Extension, Origin, Phase};
use crate::resources::{Reading, Source, read};
use crate::tetrate;
use crate::yaml::{self, Node, Value, print};

/// What extensions are to be written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// extensions.istio.io/v1alpha1 `WasmPlugin`.
    WasmPlugin,
    /// extensions.istio.io/v1alpha1 `TrafficExtension`, which a `WasmPlugin` then becomes as well.
    TrafficExtension,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::WasmPlugin => "WasmPlugin",
            Self::TrafficExtension => "TrafficExtension",
        }
    }
}

/// How to migrate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The kind to arrive at.
    pub to: Kind,
    /// Namespaces that are called otherwise afterwards.
    pub namespaces: BTreeMap<String, String>,
    /// Keep a `ServiceMeshExtension` to inbound traffic, as it was.
    pub keep_inbound: bool,
    /// The control plane's namespace: what is there counts in the whole mesh.
    pub root_namespace: String,
    /// Repackaged images of `ServiceMeshExtension`s, by [`WasmFilter::url`](crate::model::WasmFilter).
    pub images: BTreeMap<String, NewImage>,
}

impl Options {
    fn namespace(&self, before: &str) -> String {
        self.namespaces.get(before).map_or(before, String::as_str).to_owned()
    }
}

/// An image that stands for one of Maistra's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewImage {
    /// Where it is, as `url` has it.
    pub url: String,
    /// The phase of the manifest.yaml, for resources without one.
    pub phase: Phase,
    /// The priority of the manifest.yaml, for resources without one.
    pub priority: Option<i32>,
}

/// The result.
#[derive(Debug, Clone, PartialEq)]
pub struct Migration {
    /// All resources, as YAML documents.
    pub text: String,
    /// How many resources were migrated.
    pub migrated: usize,
    /// What could not be carried over, or has to be looked at.
    pub remarks: Vec<Remark>,
    /// Chains that are not the same afterwards.
    pub differences: Vec<Difference>,
    /// What the resources were and now are.
    pub before: Reading,
}

/// Something to know about one migrated resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// Where the resource is; `None` when that was not kept.
    pub origin: Option<Origin>,
    /// Which it is: `ServiceMeshExtension istio-system/header-append`.
    pub resource: String,
    /// What to know, as a clause.
    pub text: String,
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Origin { file, line, .. }) = &self.origin {
            write!(f, "{file}:{line}: ")?;
        }
        write!(f, "{}: {}", self.resource, self.text)
    }
}

/// One extension that becomes another.
struct Step {
    before: Extension,
    /// One for each kind on the way.
    after: Vec<Extension>,
}

/// Migrates every resource that is not yet of the wanted kind; the others are given back as they were written.
///
/// What is written is read again, and it means what it was to mean: where editing the text does not lead there, the
/// resource is written anew, without its comments.
///
/// # Errors
/// Everything that is wrong with the input, or that the new kind would not accept. Nothing is migrated then.
pub fn migrate(sources: &[Source], options: &Options) -> Result<Migration, Vec<Problem>> {
    let mut before = read(sources);
    if !before.errors.is_empty() {
        return Err(before.errors);
    }
    complete(&mut before, options);
    let steps = steps(&before, options);
    let collisions = collisions(&before, &steps);
    if !collisions.is_empty() {
        return Err(collisions);
    }
    let mut writer = Writer::new(&steps, options);
    for source in sources {
        writer.source(source);
    }
    let Writer { text, mut remarks, errors, .. } = writer;
    let unused = before.resources.unattached.iter().map(|left_out| Remark {
        origin: None,
        resource: format!("{} {}/{}", left_out.kind, left_out.namespace, left_out.name),
        text: format!("stays as it is. {}", left_out.reason),
    });
    remarks.extend(unused);
    if !errors.is_empty() {
        return Err(errors);
    }
    let mut after = read(&[Source { file: "the migrated resources".to_owned(), text: text.clone() }]);
    if !after.errors.is_empty() {
        return Err(after.errors);
    }
    renew(&mut after, &before, &steps);
    let differences = compare::differences(&before.resources, &after.resources, &steps, options);
    Ok(Migration { text, migrated: steps.len(), remarks, differences, before })
}

/// Fills in what the images' manifests say.
fn complete(reading: &mut Reading, options: &Options) {
    for extension in &mut reading.resources.extensions {
        let image = extension.wasm().and_then(|wasm| options.images.get(&wasm.url));
        if let (Dialect::Maistra { phase }, Some(image)) = (&extension.dialect, image) {
            if phase.is_none() {
                extension.phase = image.phase;
            }
            extension.priority = extension.priority.or(image.priority);
        }
    }
}

/// A new object is younger than every one that the cluster has.
fn renew(after: &mut Reading, before: &Reading, steps: &[Step]) {
    if before.resources.extensions.iter().all(|extension| extension.created.is_none()) {
        return;
    }
    let new: BTreeSet<String> = steps.iter().filter_map(|step| Some(step.after.last()?.id())).collect();
    for extension in after.resources.extensions.iter_mut().filter(|extension| new.contains(&extension.id())) {
        extension.created = Some(i64::MAX);
    }
}

fn steps(reading: &Reading, options: &Options) -> Vec<Step> {
    let extensions = &reading.resources.extensions;
    let mut names: BTreeMap<(String, &str), usize> = BTreeMap::new();
    for extension in extensions {
        *names.entry((options.namespace(&extension.namespace), extension.name.as_str())).or_default() += 1;
    }
    let mut steps = Vec::new();
    for extension in extensions {
        let several = names.get(&(options.namespace(&extension.namespace), extension.name.as_str())) > Some(&1);
        let name = match &extension.dialect {
            // Several gateways of a namespace may use one entry of the catalogue.
            Dialect::Tetrate { used_by, .. } if several => {
                let user = used_by.rsplit('/').next().unwrap_or_default();
                format!("{}-{user}", extension.name)
            }
            _ => extension.name.clone(),
        };
        let mut after: Vec<Extension> = Vec::new();
        if extension.dialect != Dialect::Istio {
            after.push(meaning(extension, Kind::WasmPlugin, &name, options));
        }
        if options.to == Kind::TrafficExtension {
            match after.last() {
                // It is in its new namespace already.
                Some(plugin) => {
                    let stays = Options { namespaces: BTreeMap::new(), ..options.clone() };
                    after.push(meaning(plugin, Kind::TrafficExtension, &name, &stays));
                }
                None if extension.origin.kind == "WasmPlugin" => {
                    after.push(meaning(extension, Kind::TrafficExtension, &name, options));
                }
                None => {}
            }
        }
        if !after.is_empty() {
            steps.push(Step { before: extension.clone(), after });
        }
    }
    steps
}

/// Resources that would have the name of another.
fn collisions(reading: &Reading, steps: &[Step]) -> Vec<Problem> {
    let migrated: BTreeSet<String> = steps.iter().map(|step| step.before.id()).collect();
    let stays = |extension: &&Extension| !migrated.contains(&extension.id());
    let mut taken: BTreeMap<String, Place> = reading
        .resources
        .extensions
        .iter()
        .filter(stays)
        .map(|extension| (extension.id(), place(&extension.origin)))
        .collect();
    let mut problems = Vec::new();
    for step in steps {
        let Some(after) = step.after.last() else { continue };
        let place = place(&step.before.origin);
        if let Some(other) = taken.insert(after.id(), place.clone()) {
            let fault = Fault::Collision { resource: after.id(), other: Box::new(other) };
            problems.push(Problem { place, path: String::new(), fault });
        }
    }
    problems
}

fn place(origin: &Origin) -> Place {
    Place { file: origin.file.clone(), document: origin.document, line: origin.line, column: 1 }
}

struct Writer<'m> {
    options: &'m Options,
    /// By file, document and line.
    steps: HashMap<(&'m str, usize, usize), Vec<&'m Step>>,
    /// Which extension was migrated for which gateway or setting.
    used: BTreeSet<(&'m str, &'m str)>,
    text: String,
    remarks: Vec<Remark>,
    errors: Vec<Problem>,
}

impl<'m> Writer<'m> {
    fn new(steps: &'m [Step], options: &'m Options) -> Self {
        let mut by_place: HashMap<_, Vec<&Step>> = HashMap::new();
        let mut used = BTreeSet::new();
        for step in steps {
            let Origin { file, document, line, .. } = &step.before.origin;
            by_place.entry((file.as_str(), *document, *line)).or_default().push(step);
            if let Dialect::Tetrate { fqn, used_by } = &step.before.dialect {
                used.insert((fqn.as_str(), used_by.as_str()));
            }
        }
        Self { options, steps: by_place, used, text: String::new(), remarks: Vec::new(), errors: Vec::new() }
    }

    fn source(&mut self, source: &Source) {
        for piece in yaml::pieces(&source.text) {
            let roots = piece.documents.iter().filter_map(|document| Some((document, document.root.as_ref().ok()?)));
            let changes = roots.clone().any(|(document, root)| {
                resources(root).iter().any(|node| self.changes(&source.file, document.number, node))
            });
            if !changes {
                self.append(piece.text);
                continue;
            }
            let alone = roots.clone().count() == 1;
            for (document, root) in roots {
                let text = if alone { body(piece.text) } else { None };
                for node in resources(root) {
                    // Of a list, each item becomes a document of its own.
                    let text = if std::ptr::eq(node, root) {
                        text.map(str::to_owned)
                    } else {
                        text.and_then(|text| item(text, root, node))
                    };
                    let text = text.filter(|text| same(text, node)).unwrap_or_else(|| print::document(node));
                    self.resource(source, document.number, node, &text);
                }
            }
        }
    }

    fn changes(&self, file: &str, document: usize, node: &Node) -> bool {
        self.steps.contains_key(&(file, document, node.at.line)) || self.uses(node).is_some()
    }

    /// The list of a gateway or setting, without the extensions that were migrated.
    fn uses(&self, node: &Node) -> Option<(String, &'static [&'static str], Vec<Node>)> {
        let object = Field::root(node).as_object()?;
        let (user, path) = tetrate::user(&object)?;
        let list = object.at(&[&["spec"], path].concat())?.items()?;
        let is_migrated = |field: &Field<'_>| {
            let named = field.as_object().and_then(|object| object.text_at(&["fqn"])).unwrap_or_default();
            self.used.contains(&(named, user.as_str()))
        };
        let kept: Vec<Node> = list.iter().filter(|field| !is_migrated(field)).map(|field| field.node.clone()).collect();
        (kept.len() < list.len()).then_some((user, path, kept))
    }

    fn resource(&mut self, source: &Source, document: usize, node: &Node, text: &str) {
        let steps = self.steps.get(&(source.file.as_str(), document, node.at.line)).cloned().unwrap_or_default();
        for step in &steps {
            let first = step.after.first();
            for text in first.into_iter().flat_map(|after| remarks(&step.before, after, node, self.options)) {
                let origin = Some(step.before.origin.clone());
                self.remarks.push(Remark { origin, resource: step.before.id(), text });
            }
            match written(step, node, text) {
                Ok(text) => self.append(&text),
                Err(problems) => self.errors.extend(problems),
            }
        }
        if let Some((user, path, kept)) = self.uses(node) {
            let key = path.last().copied().unwrap_or_default();
            let kind = user.split(' ').next().unwrap_or_default().to_owned();
            let origin = Origin { kind, file: source.file.clone(), document, line: node.at.line };
            let text_of_remark = format!("its `{key}` no longer names what is a WasmPlugin now");
            self.remarks.push(Remark { origin: Some(origin), resource: user, text: text_of_remark });
            let text = without(text, node, path, &kept);
            self.append(&text.unwrap_or_else(|Unchanged| text_of(node)));
        } else if steps.is_empty() {
            self.append(text);
        }
    }

    /// Adds a document.
    fn append(&mut self, text: &str) {
        if text.trim().is_empty() {
            return;
        }
        if !self.text.is_empty() {
            if !self.text.ends_with('\n') {
                self.text.push('\n');
            }
            if !text.starts_with("---") {
                self.text.push_str("---\n");
                return self.text.push_str(text.trim_start_matches(['\r', '\n', ' ']));
            }
        }
        self.text.push_str(text);
    }
}

fn text_of(node: &Node) -> String {
    print::document(node)
}

/// The resources of a document: itself, or a list's items.
fn resources(root: &Node) -> Vec<&Node> {
    let Some(object) = Field::root(root).as_object() else { return vec![root] };
    let is_list = object.text_at(&["kind"]).is_some_and(|kind| kind.ends_with("List"));
    let Some(Value::List(items)) = object.get("items").filter(|_| is_list).map(|field| &field.node.value) else {
        return vec![root];
    };
    items.iter().flat_map(resources).collect()
}

/// A document's text without the marker before it; `None` when there are directives.
fn body(text: &str) -> Option<&str> {
    let Some(rest) = text.strip_prefix("---") else {
        return (!text.lines().any(|line| line.starts_with('%') || line.starts_with("---"))).then_some(text);
    };
    let (marker, body) = rest.split_once('\n')?;
    marker.trim().is_empty().then_some(body)
}

/// The lines of a list's item, moved to the left; whether that is right is for the caller to see.
fn item(text: &str, root: &Node, node: &Node) -> Option<String> {
    // The marker before the text, if there was one, is a line that it does not have.
    let first = root.at.line.checked_sub(parse_line(text)?)?;
    let start = node.at.line.checked_sub(first + 1)?;
    let column = node.at.column.checked_sub(1)?;
    let all: Vec<&str> = text.lines().collect();
    let (above, lines) = all.split_at_checked(start)?;
    let head = lines.first()?;
    if !head.get(..column)?.trim_start().starts_with('-') {
        return None;
    }
    // Further in, it would be the item's before.
    let is_own = |line: &&&str| {
        let text = line.trim_start();
        text.starts_with('#') && line.len() - text.len() < column
    };
    let comments = above.iter().rev().take_while(is_own).count();
    let mut item = String::new();
    for comment in &above[above.len() - comments..] {
        item.push_str(comment.trim_start());
        item.push('\n');
    }
    item.push_str(head.get(column..)?);
    item.push('\n');
    for line in lines.iter().skip(1) {
        let indent = line.len() - line.trim_start().len();
        if !line.trim().is_empty() && indent < column {
            break;
        }
        item.push_str(line.get(column..).unwrap_or_default());
        item.push('\n');
    }
    Some(item.trim_end().to_owned() + "\n")
}

/// The line on which the first node of a text is, from one.
fn parse_line(text: &str) -> Option<usize> {
    Some(edit::parse(text).ok()?.at.line)
}

fn same(text: &str, node: &Node) -> bool {
    edit::parse(text).is_ok_and(|read| print::document(&read) == print::document(node))
}

/// A resource's text after all its steps.
fn written(step: &Step, node: &Node, text: &str) -> Result<String, Vec<Problem>> {
    let mut text = text.to_owned();
    let mut node = node.clone();
    let mut before = &step.before;
    for after in &step.after {
        text = one_step(before, after, &node, &text).map_err(|faults| {
            let place = place(&step.before.origin);
            faults.into_iter().map(|(path, fault)| Problem { place: place.clone(), path, fault }).collect::<Vec<_>>()
        })?;
        if let Ok(read) = edit::parse(&text) {
            node = read;
        }
        before = after;
    }
    Ok(text)
}

/// Edits the text, and when that is not possible or does not give what was meant, writes it anew first.
fn one_step(before: &Extension, after: &Extension, node: &Node, text: &str) -> Result<String, Vec<(String, Fault)>> {
    let mut faults = Vec::new();
    for editor in [Editor::of_text(text), Editor::of_node(node)] {
        let Ok(mut editor) = editor else { continue };
        if convert(&mut editor, before, after).is_err() {
            continue;
        }
        let text = editor.text();
        let reading = read(&[Source { file: String::new(), text: text.clone() }]);
        faults = reading.errors.into_iter().map(|problem| (problem.path, problem.fault)).collect();
        let meant = |read: &Extension| {
            let mut read = read.clone();
            read.origin = Origin { kind: read.origin.kind, ..after.origin.clone() };
            read == *after
        };
        if faults.is_empty() && matches!(&reading.resources.extensions[..], [read] if meant(read)) {
            return Ok(text);
        }
    }
    if faults.is_empty() {
        let kind = if after.origin.kind == "WasmPlugin" { "WasmPlugin" } else { "TrafficExtension" };
        faults.push((String::new(), Fault::NotMigrated { kind }));
    }
    Err(faults)
}

/// A gateway's or setting's text with fewer extensions.
fn without(text: &str, node: &Node, path: &[&str], kept: &[Node]) -> Result<String, Unchanged> {
    let full: Vec<&str> = [&["spec"], path].concat();
    let edit = |editor: Result<Editor, Unchanged>| -> Result<String, Unchanged> {
        let mut editor = editor?;
        if kept.is_empty() {
            editor.remove(&full)?;
        } else {
            let key = path.last().copied().unwrap_or_default();
            editor.replace(&full, key, &Value::List(kept.to_vec()))?;
        }
        Ok(editor.text())
    };
    edit(Editor::of_text(text)).or_else(|Unchanged| edit(Editor::of_node(node)))
}

#[cfg(test)]
mod tests;

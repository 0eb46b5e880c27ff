//! An inspection, written for people.

use std::collections::BTreeMap;

use packager::image::CONFIG_SCHEMA;
use packager::inspect::{
    BlobReport, Contributor, Format, ImageReport, Inspection, IstioVerdict, Item, Loads, MemoryReport, ModuleReport,
    Part, Pinned, Size,
};
use serde_json::Value;

use super::sheet::{Sheet, size};

/// How many reasons are given for a refusal.
const REASONS: usize = 12;

/// The sheet's lines.
pub(super) fn lines(found: &Inspection) -> Vec<String> {
    let mut sheet = Sheet::default();
    sheet.row("reference", &found.reference);
    if let Some(index) = &found.index {
        show_blob("index", &index.index, "", &mut sheet);
        for entry in &index.manifests {
            let taken = if entry.taken { ", Istio takes this one" } else { "" };
            sheet.more(&format!("for {}{taken}:", entry.platform.as_deref().unwrap_or("any platform")));
            sheet.more(&entry.manifest.digest);
        }
    }
    if let Some(image) = &found.image {
        show_image(image, found, &mut sheet);
    }
    if let Some(module) = &found.module {
        show_module(module, found, &mut sheet);
    }
    for problem in &found.problems {
        sheet.row("problem", &problem.reason);
        if let Some(hint) = &problem.hint {
            sheet.more(&format!("hint: {hint}"));
        }
    }
    for note in found.notes.iter().chain(found.module.iter().flat_map(|module| &module.notes)) {
        sheet.row("note", note);
    }
    sheet.into_lines()
}

fn show_image(image: &ImageReport, found: &Inspection, sheet: &mut Sheet) {
    sheet.row(
        "variant",
        &match image.variant.as_deref() {
            Some("maistra") => format!("maistra: {}", image.form),
            Some(variant) => variant.to_owned(),
            None => format!("none: {}", image.form),
        },
    );
    let pinned = found.pin.of == Pinned::Manifest && found.problems.is_empty();
    show_blob("manifest", &image.manifest, if pinned { "; Istio pins this one" } else { "" }, sheet);
    if let Some(artifact_type) = &image.artifact_type {
        sheet.more(&format!("artifact type {artifact_type}"));
    }
    let mut extra = String::new();
    for what in [&image.platform, &image.created].into_iter().flatten() {
        extra = format!("{extra}; {what}");
    }
    show_blob("config", &image.config, &extra, sheet);
    let count = image.layers.len();
    for (position, layer) in image.layers.iter().enumerate() {
        show_blob(&format!("layer {}/{count}", position + 1), layer, "", sheet);
        show_annotations("", &layer.annotations, sheet);
    }
    show_annotations("annotations", &image.annotations, sheet);
    if let Some(manifest) = &image.maistra {
        let named: Vec<&str> = [&manifest.name, &manifest.version].into_iter().flatten().map(String::as_str).collect();
        sheet.row("manifest", &format!("manifest.yaml {}", named.join(" ")));
        sheet.more(&format!("module {}", manifest.module));
        let istio = manifest.istio_phase.unwrap_or("unspecified");
        sheet.more(&format!("phase {} (Istio: {istio}), priority {}", manifest.phase, manifest.priority));
        if let Some(description) = &manifest.description {
            sheet.more(description);
        }
    }
    match (&image.runtime_config, &image.runtime_config_error) {
        (Some(config), _) => {
            let roots = config.root_ids.join(", ");
            let roots = if roots.is_empty() { "any".to_owned() } else { roots };
            sheet.row("runtime", &format!("{}, ABI {}", config.runtime, config.abi_versions.join(", ")));
            let rest = config.config.iter().filter(|(key, _)| *key != "root_ids");
            for (key, value) in rest {
                if key == CONFIG_SCHEMA {
                    let fields =
                        value.get("properties").and_then(Value::as_object).into_iter().flat_map(|all| all.keys());
                    let fields = fields.cloned().collect::<Vec<_>>().join(", ");
                    let about = if fields.is_empty() { "a JSON Schema".to_owned() } else { format!("for {fields}") };
                    sheet.more(&format!("{key}: {about} (--json has it)"));
                } else {
                    sheet.more(&format!("{key}: {value}"));
                }
            }
            sheet.row("root ids", &roots);
        }
        (None, Some(error)) => sheet.row("runtime", error),
        (None, None) if found.module.is_some() && found.problems.is_empty() => {
            sheet.row("root ids", "any: the image has no runtime configuration");
        }
        (None, None) => {}
    }
}

fn show_blob(label: &str, blob: &BlobReport, extra: &str, sheet: &mut Sheet) {
    sheet.row(label, &blob.digest);
    sheet.more(&format!("{}, {}{extra}", blob.media_type, size(blob.size_bytes)));
}

fn show_annotations(label: &str, annotations: &BTreeMap<String, String>, sheet: &mut Sheet) {
    let mut label = label;
    for (key, value) in annotations {
        sheet.row(label, &format!("{key}: {value}"));
        label = "";
    }
}

fn show_module(module: &ModuleReport, found: &Inspection, sheet: &mut Sheet) {
    sheet.row("module", module.digest.as_str());
    let what = match module.format {
        Format::Module => "a core module",
        Format::Component => "a component",
        Format::NotWasm => "not WebAssembly",
    };
    let pinned = match found.pin.of {
        Pinned::Manifest => "",
        Pinned::Module => "; Istio pins this one",
        Pinned::Nothing => "; pinned by this if behind a URL",
    };
    sheet.more(&format!("{what}, {}{pinned}", size(module.size_bytes)));
    if let Some(error) = &module.error {
        sheet.more(&error.reason);
    }
    // Nothing else can be said of a header that is cut off.
    if module.format == Format::NotWasm || module.size_bytes < 8 {
        return;
    }
    if module.format == Format::Module {
        sheet.row("ABI version", module.abi_version.as_deref().unwrap_or("none"));
    }
    match &module.language {
        Some(language) => sheet.row("language", &format!("{} (by its {})", language.name, language.told_by)),
        None => sheet.row("language", "unknown"),
    }
    let mut label = "producers";
    for producer in &module.producers {
        sheet.row(label, &format!("{}: {}", producer.field, producer.values.join(", ")));
        label = "";
    }
    if module.format == Format::Module {
        show_interface(module, sheet);
    }
    if let Some(taken_apart) = &module.size {
        show_size(taken_apart, sheet);
    }
    show_loads(&module.loads, sheet);
}

fn show_interface(module: &ModuleReport, sheet: &mut Sheet) {
    let mut label = "imports";
    for from in &module.imports {
        sheet.listing(label, &format!("{} ({}):", from.module, from.items.len()), &names(&from.items));
        label = "";
    }
    if module.imports.is_empty() {
        sheet.row("imports", "none");
    }
    sheet.listing("exports", &format!("({}):", module.exports.len()), &names(&module.exports));
    for memory in &module.memories {
        sheet.row("memory", &limits(memory));
    }
}

/// Names, with the kind of those that are not functions.
fn names(items: &[Item]) -> String {
    let name = |item: &Item| {
        if item.kind == "function" { item.name.clone() } else { format!("{} ({})", item.name, item.kind) }
    };
    items.iter().map(name).collect::<Vec<_>>().join(", ")
}

fn limits(memory: &MemoryReport) -> String {
    let imported = if memory.imported { "imported, " } else { "" };
    let maximum = match memory.maximum_pages {
        Some(pages) => format!("at most {pages} pages"),
        None => "no maximum (Envoy's: 16384 pages, 1 GiB)".to_owned(),
    };
    format!("{imported}{} pages at first, {}, {maximum}", memory.minimum_pages, size(memory.minimum_bytes))
}

fn show_size(taken_apart: &Size, sheet: &mut Sheet) {
    let whole = taken_apart.total_bytes;
    sheet.row(
        "size",
        &format!(
            "{whole} bytes: code {}, data {}, custom sections {}, other {}",
            taken_apart.code_bytes, taken_apart.data_bytes, taken_apart.custom_bytes, taken_apart.other_bytes
        ),
    );
    let functions = taken_apart.functions;
    if functions > 0 {
        let named = match taken_apart.named_functions {
            0 => "none with a name".to_owned(),
            all if all == functions => "all with a name".to_owned(),
            some => format!("{some} with a name"),
        };
        sheet.more(&format!("{functions} functions, {named}"));
    }
    sheet.row("largest", "bytes, share of the whole, what");
    for part in &taken_apart.largest {
        sheet.share(part.bytes, whole, &described(part));
    }
    // Without groups, these are the same functions again.
    if taken_apart.largest.iter().any(|part| matches!(part.kind, Part::Crate | Part::Package)) {
        sheet.row("functions", "the largest ones");
        for part in &taken_apart.largest_functions {
            sheet.share(part.bytes, whole, &part.name);
        }
    }
}

fn described(part: &Contributor) -> String {
    let functions = match part.functions {
        Some(1) => " (1 function)".to_owned(),
        Some(count) => format!(" ({count} functions)"),
        None => String::new(),
    };
    match part.kind {
        Part::Crate => format!("crate {}{functions}", part.name),
        Part::Package => format!("package {}{functions}", part.name),
        Part::Function => format!("function {}", part.name),
        Part::DataSegment => format!("data segment {}", part.name),
        Part::CustomSection => format!("custom section {}", part.name),
        Part::Section => format!("section {}", part.name),
    }
}

fn show_loads(loads: &Loads, sheet: &mut Sheet) {
    let mut label = "envoy";
    for range in &loads.envoy {
        let versions = between(&range.from, &range.to);
        if range.loads {
            sheet.row(label, &format!("{versions}: loads"));
        } else {
            sheet.row(label, &format!("{versions}: refused"));
            range.problems.iter().take(REASONS).for_each(|problem| sheet.more(&format!("- {}", problem.reason)));
            let left = range.problems.len().saturating_sub(REASONS);
            if left > 0 {
                sheet.more(&format!("- and {left} more, which --json lists"));
            }
        }
        label = "";
    }
    let mut label = "istio";
    for verdicts in loads.istio.chunk_by(|one, other| one.loads == other.loads) {
        let ([first, ..], [.., last]) = (verdicts, verdicts) else { continue };
        let IstioVerdict { loads, .. } = first;
        let verdict = if *loads { "loads" } else { "refused" };
        let envoys = between(&first.envoy, &last.envoy);
        sheet.row(label, &format!("{}: {verdict} (Envoy {envoys})", between(&first.version, &last.version)));
        label = "";
    }
}

fn between(from: &str, to: &str) -> String {
    if from == to { from.to_owned() } else { format!("{from} to {to}") }
}

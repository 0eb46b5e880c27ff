//! Envoy's rules, applied to a module.

use wasmparser::{Validator, WasmFeatures};

use super::envoy::{AbiVersion, EnvoyVersion};
use super::host;
use super::info::{ExternKind, Import, InspectError, ModuleInfo, decode_error, inspect};
use super::report::{Note, Problem, Report};
use super::signature::Signature;
use super::{MAX_MEMORY_PAGES, MAX_MODULE_SIZE};

pub(super) fn check(bytes: &[u8], envoy: EnvoyVersion) -> Report {
    let (info, mut reports) = each(bytes, std::iter::once(envoy));
    let report = reports.pop().unwrap_or(Report::new(envoy));
    Report { info, ..report }
}

/// Check against several versions; the outline comes once, and not with the reports. The module is validated once for
/// each set of features that is not known to be enough already.
pub(super) fn each(bytes: &[u8], versions: impl Iterator<Item = EnvoyVersion>) -> (Option<ModuleInfo>, Vec<Report>) {
    let size = bytes.len() as u64;
    let read = if size > MAX_MODULE_SIZE {
        Err(Problem::TooLarge { size, limit: MAX_MODULE_SIZE })
    } else {
        inspect(bytes).map_err(Problem::from)
    };
    let mut validated: Vec<(WasmFeatures, Vec<Fault>)> = Vec::new();
    let reports = versions
        .map(|envoy| {
            let mut report = Report::new(envoy);
            let info = match &read {
                Ok(info) => info,
                Err(problem) => {
                    report.problems.push(problem.clone());
                    return report;
                }
            };
            let features = features(envoy);
            let known = validated
                .iter()
                .position(|(of, faults)| *of == features || (faults.is_empty() && features.contains(*of)));
            let known = known.unwrap_or_else(|| {
                validated.push((features, validate(bytes, features)));
                validated.len() - 1
            });
            report.problems.extend(validated[known].1.iter().map(|fault| fault.problem(envoy)));
            judge(info, envoy, &mut report);
            report
        })
        .collect();
    (read.ok(), reports)
}

fn judge(info: &ModuleInfo, envoy: EnvoyVersion, report: &mut Report) {
    abi(info, report);
    for import in &info.imports {
        report.problems.extend(import_problem(import, info.abi, envoy));
    }
    exports(info, &mut report.problems);
    for memory in info.memories.iter().filter(|memory| memory.minimum > MAX_MEMORY_PAGES) {
        report.problems.push(Problem::Memory { pages: memory.minimum, limit: MAX_MEMORY_PAGES });
    }
    notes(info, &mut report.notes);
}

/// What Envoy's V8 runs, as observed since 1.36; of older ones only what every V8 of their time has.
fn features(envoy: EnvoyVersion) -> WasmFeatures {
    let everywhere = WasmFeatures::WASM2 | WasmFeatures::TAIL_CALL;
    let since_1_36 = WasmFeatures::EXTENDED_CONST
        | WasmFeatures::RELAXED_SIMD
        | WasmFeatures::THREADS
        | WasmFeatures::EXCEPTIONS
        | WasmFeatures::LEGACY_EXCEPTIONS
        | WasmFeatures::FUNCTION_REFERENCES
        | WasmFeatures::GC
        | WasmFeatures::MULTI_MEMORY;
    if envoy >= EnvoyVersion::v1(36) { everywhere | since_1_36 } else { everywhere }
}

/// What validation found, whichever Envoy it is held against.
enum Fault {
    Feature { missing: WasmFeatures, offset: u64 },
    Other(Problem),
}

impl Fault {
    fn problem(&self, envoy: EnvoyVersion) -> Problem {
        match self {
            Self::Feature { missing, offset } if *missing == WasmFeatures::MEMORY64 => {
                Problem::Memory64 { offset: *offset }
            }
            Self::Feature { missing, offset } => {
                Problem::Feature { feature: feature_name(*missing), offset: *offset, envoy }
            }
            Self::Other(problem) => problem.clone(),
        }
    }
}

/// Validate again with each feature found missing, so that all of them are named.
fn validate(bytes: &[u8], mut features: WasmFeatures) -> Vec<Fault> {
    let mut faults = Vec::new();
    loop {
        let Err(error) = Validator::new_with_features(features).validate_all(bytes) else { return faults };
        // A feature that is allowed already would be found missing for ever.
        let Some(missing) = error.missing_wasm_feature().filter(|missing| !features.contains(*missing)) else {
            faults.push(Fault::Other(match decode_error(bytes, &error) {
                InspectError::Malformed { offset, reason } => Problem::Invalid { offset, reason },
                truncated => truncated.into(),
            }));
            return faults;
        };
        faults.push(Fault::Feature { missing, offset: error.offset() });
        features |= missing;
    }
}

fn feature_name(feature: WasmFeatures) -> String {
    let names: Vec<_> = feature.iter_names().map(|(name, _)| name.to_ascii_lowercase().replace('_', "-")).collect();
    names.join(", ")
}

fn abi(info: &ModuleInfo, report: &mut Report) {
    let markers = info.exports.iter().filter(|export| {
        matches!(export.kind, ExternKind::Function(_)) && export.name.starts_with("proxy_abi_version_")
    });
    let Some(taken) = info.abi else {
        let unknown = markers.map(|export| export.name.clone()).collect();
        report.problems.push(Problem::NoAbiVersion { unknown });
        return;
    };
    if markers.filter(|export| AbiVersion::from_marker(&export.name).is_some()).count() > 1 {
        report.notes.push(Note::SeveralAbiVersions { taken });
    }
}

fn import_problem(import: &Import, abi: Option<AbiVersion>, envoy: EnvoyVersion) -> Option<Problem> {
    let (module, name) = (import.module.clone(), import.name.clone());
    let want = match &import.kind {
        ExternKind::Memory | ExternKind::Table => return None,
        ExternKind::Global => return Some(Problem::ImportKind { module, name, kind: "global" }),
        ExternKind::Tag => return Some(Problem::ImportKind { module, name, kind: "tag" }),
        ExternKind::Function(signature) => signature.as_ref(),
    };
    let Some(function) = host::function(&module, &name) else {
        return Some(Problem::MissingImport { module, name });
    };
    if let Some(since) = function.since.filter(|since| envoy < *since) {
        return Some(Problem::ImportTooNew { module, name, since, envoy });
    }
    if let Some(abi) = abi.filter(|abi| !function.abis.contains(abi)) {
        return Some(Problem::ImportOfOtherAbi { module, name, abi, of: function.abis.to_vec() });
    }
    let have = function.signature();
    // A type that is no function's has been reported by validation.
    let want = want.filter(|want| **want != have)?.clone();
    Some(Problem::ImportType { module, name, want, have })
}

fn exports(info: &ModuleInfo, problems: &mut Vec<Problem>) {
    let mut expect = |name: &str, want: Signature| {
        let Some(have) = info.exported_function(name) else { return false };
        if *have != want {
            problems.push(Problem::ExportType { name: name.to_owned(), want, have: have.clone() });
        }
        true
    };
    let allocator = expect("malloc", Signature::shorthand("i:i"));
    let allocator = allocator || expect("proxy_on_memory_allocate", Signature::shorthand("i:i"));
    if expect("_initialize", Signature::shorthand(":")) {
        if !expect("main", Signature::shorthand("ii:i")) {
            expect("__main_void", Signature::shorthand(":i"));
        }
    } else {
        expect("_start", Signature::shorthand(":"));
    }
    // Without a version Envoy looks for no callback; the newest one's signatures are what the author means.
    let abi = info.abi.unwrap_or(AbiVersion::V0_2_1);
    for callback in host::CALLBACKS.iter().filter(|callback| callback.abis.contains(&abi)) {
        expect(callback.name, callback.signature());
    }
    if !allocator {
        problems.push(Problem::NoAllocator);
    }
}

fn notes(info: &ModuleInfo, notes: &mut Vec<Note>) {
    let exports = |name: &str| info.exported_function(name).is_some();
    if !exports("_initialize") && !exports("_start") {
        notes.push(Note::NoStartFunction);
    }
    let traffic = ["request_", "response_", "new_connection", "downstream_data", "upstream_data", "log"];
    if !info.exports.iter().any(|export| {
        export.name.strip_prefix("proxy_on_").is_some_and(|name| traffic.iter().any(|part| name.starts_with(part)))
    }) {
        notes.push(Note::NoTrafficCallback);
    }
}

//! Envoy's rules, applied to a module.

use wasmparser::WasmFeatures;

use super::envoy::{AbiVersion, EnvoyVersion};
use super::host;
use super::info::{ExternKind, Import, InspectError, ModuleInfo, outline};
use super::report::{Note, Problem, Report};
use super::scan::{Scan, scan};
use super::signature::Signature;
use super::source::Checksum;
use super::{MAX_MEMORY_PAGES, MAX_MODULE_SIZE, ReadError, Source};

/// What was read, once for each set of features.
pub(super) struct Read {
    pub(super) info: Option<ModuleInfo>,
    /// One for each version, without the outline.
    pub(super) reports: Vec<Report>,
    /// Of what was looked at, as it was each time.
    pub(super) checksum: Checksum,
}

pub(super) fn check(source: Source<'_>, envoy: EnvoyVersion) -> Result<(Report, Checksum), ReadError> {
    let Read { info, mut reports, checksum } = each(source, std::iter::once(envoy))?;
    let report = reports.pop().unwrap_or(Report::new(envoy));
    Ok((Report { info, ..report }, checksum))
}

/// Check against several versions. The module is validated once for each set of features that is not known to be enough
/// already.
pub(super) fn each(source: Source<'_>, versions: impl Iterator<Item = EnvoyVersion>) -> Result<Read, ReadError> {
    let mut validated: Vec<(WasmFeatures, Validated)> = Vec::new();
    let mut reports = Vec::new();
    for envoy in versions {
        let features = features(envoy);
        let enough = |(of, found): &(WasmFeatures, Validated)| {
            *of == features || found.refusal.is_some() || (found.faults.is_empty() && features.contains(*of))
        };
        let known = validated.iter().position(enough);
        let known = match known {
            Some(known) => known,
            None => {
                let found = validate(source, features)?;
                if validated.first().is_some_and(|(_, first)| first.checksum != found.checksum) {
                    return Err(source.changed());
                }
                validated.push((features, found));
                validated.len() - 1
            }
        };
        let Validated { info, refusal, faults, .. } = &validated[known].1;
        let mut report = Report::new(envoy);
        if let Some(problem) = refusal {
            report.problems.push(problem.clone());
        } else {
            report.problems.extend(faults.iter().map(|fault| fault.problem(envoy)));
            judge(info, envoy, &mut report);
        }
        reports.push(report);
    }
    let first = validated.into_iter().next().map(|(_, first)| first);
    let checksum = first.as_ref().map(|first| first.checksum.clone()).unwrap_or_default();
    let info = first.filter(|first| first.refusal.is_none()).map(|first| first.info);
    Ok(Read { info, reports, checksum })
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

struct Validated {
    info: ModuleInfo,
    checksum: Checksum,
    /// Why there is nothing to judge.
    refusal: Option<Problem>,
    faults: Vec<Fault>,
}

/// Validate, and again with each feature found missing, so that all of them are named.
fn validate(source: Source<'_>, mut features: WasmFeatures) -> Result<Validated, ReadError> {
    let mut faults = Vec::new();
    let mut before: Option<Checksum> = None;
    loop {
        let (mut reader, size) = source.open()?;
        if size > MAX_MODULE_SIZE {
            let (info, _) = outline(&[]);
            let refusal = Some(Problem::TooLarge { size, limit: MAX_MODULE_SIZE });
            return Ok(Validated { info, checksum: Checksum::default(), refusal, faults });
        }
        let Scan { info, broken, invalid, checksum } =
            scan(&mut *reader, size, Some(features)).map_err(|e| source.failed(e))?;
        if before.replace(checksum.clone()).is_some_and(|before| before != checksum) {
            return Err(source.changed());
        }
        let refusal = broken.map(Problem::from);
        let Some(invalid) = invalid.filter(|_| refusal.is_none()) else {
            return Ok(Validated { info, checksum, refusal, faults });
        };
        // A feature that is allowed already would be found missing for ever.
        let Some(missing) = invalid.missing.filter(|missing| !features.contains(*missing)) else {
            faults.push(Fault::Other(match invalid.error {
                InspectError::Malformed { offset, reason } => Problem::Invalid { offset, reason },
                truncated => truncated.into(),
            }));
            return Ok(Validated { info, checksum, refusal, faults });
        };
        faults.push(Fault::Feature { missing, offset: invalid.offset });
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
    // TinyGo's `_start` returns; it does not call itself Go.
    let is_go = info
        .producers
        .iter()
        .any(|field| field.field == "language" && field.tools.iter().any(|tool| tool.name == "Go"));
    if is_go && info.exported_function("_start").is_some() && info.exported_function("_initialize").is_none() {
        problems.push(Problem::GoProgram);
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

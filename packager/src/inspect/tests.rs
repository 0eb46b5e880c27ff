//! What is said of modules and images, broken ones included.

use super::contents::contents;
use super::*;
use crate::digest::Digest;
use crate::image::tests::{plugin, sample};
use crate::module::EnvoyVersion;
use crate::registry::{Client, Options};

/// Rust functions of two crates, one of C, a named data segment, a `producers` section.
const NAMED: &str = r#"(module
    (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
    (memory $memory (export "memory") 2 4)
    (func $_ZN7my_auth7on_tick17h0123456789abcdefE (export "proxy_on_tick") (param i32)
        (drop (call $log (i32.const 1) (i32.const 0) (i32.const 5))))
    (func $_ZN52_$LT$my_auth..Auth$u20$as$u20$core..clone..Clone$GT$5clone17h0123456789abcdefE (nop) (nop))
    (func $_ZN4core3fmt5write17h0123456789abcdefE (nop) (nop) (nop))
    (func $malloc (export "malloc") (param i32) (result i32) (i32.const 8))
    (func (export "proxy_abi_version_0_2_1"))
    (func $_initialize (export "_initialize"))
    (data $.rodata (i32.const 0) "hello, this is data")
    (@producers (language "Rust" "") (processed-by "rustc" "1.95.0")))"#;

fn options() -> FetchOptions {
    FetchOptions::new(Client::new(Options::default()).unwrap())
}

fn named() -> ModuleReport {
    contents(&wat::parse_str(NAMED).unwrap())
}

#[test]
fn functions_are_grouped_by_crate_and_the_largest_come_first() {
    let size = named().size.unwrap();
    let shown = |all: &[Contributor]| -> Vec<String> {
        all.iter().map(|part| format!("{:?} {} {} {:?}", part.kind, part.name, part.bytes, part.functions)).collect()
    };
    let largest = shown(&size.largest);
    assert!(largest.contains(&"Crate my_auth 17 Some(2)".to_owned()), "{largest:#?}");
    assert!(largest.contains(&"DataSegment 0 (.rodata) 24 None".to_owned()), "{largest:#?}");
    assert!(size.largest.is_sorted_by(|one, other| one.bytes >= other.bytes) && largest.len() == 10, "{largest:#?}");
    let functions = shown(&size.largest_functions);
    assert_eq!(
        functions,
        [
            "Function my_auth::on_tick 12 None",
            "Function core::fmt::write 6 None",
            "Function <my_auth::Auth as core::clone::Clone>::clone 5 None",
            "Function malloc 5 None",
            "Function _initialize 3 None",
            "Function 5 (export proxy_abi_version_0_2_1) 3 None",
        ]
    );
    assert_eq!((size.functions, size.named_functions), (6, 5));
    assert_eq!(size.code_bytes + size.data_bytes + size.custom_bytes + size.other_bytes, size.total_bytes);
}

#[test]
fn the_outline_says_what_is_in_a_module() {
    let module = named();
    assert_eq!(module.abi_version.as_deref(), Some("0.2.1"));
    assert_eq!(module.language, Some(Language { name: "Rust".to_owned(), told_by: "producers section" }));
    assert_eq!(module.producers[1].values, ["rustc 1.95.0"]);
    assert_eq!(module.imports[0].items[0].signature.as_deref(), Some("i32 i32 i32 -> i32"));
    let memory = MemoryReport { imported: false, minimum_pages: 2, minimum_bytes: 131_072, maximum_pages: Some(4) };
    assert_eq!(
        (module.memories, module.notes),
        (vec![memory], vec!["exports no callback for HTTP or TCP traffic".to_owned()])
    );
}

#[test]
fn languages_are_told_by_their_traces() {
    let told = |text: &str| contents(&wat::parse_str(text).unwrap()).language.map(|language| language.name);
    for (text, name) in [
        (r#"(module (@producers (language "C_plus_plus_17" "") (language "C11" "")))"#, Some("C++17, C11")),
        (r#"(module (@producers (language "C11" "") (processed-by "TinyGo" "0.38")))"#, Some("Go (TinyGo)")),
        (r#"(module (func $runtime.alloc) (@producers (language "C11" "")))"#, Some("Go")),
        (r#"(module (import "env" "emscripten_notify_memory_growth" (func (param i32))))"#, Some("C or C++")),
        (r#"(module (import "env" "abort" (func)) (func (export "__new")))"#, Some("AssemblyScript")),
        ("(module)", None),
    ] {
        assert_eq!(told(text).as_deref(), name, "{text}");
    }
}

#[track_caller]
fn check_loads(imports: &str, expected: &[&str]) {
    let text = NAMED.replacen("(module", &format!("(module {imports}"), 1);
    let module = contents(&wat::parse_str(text).unwrap());
    let mut shown: Vec<String> = module
        .loads
        .envoy
        .iter()
        .map(|range| {
            let reasons: Vec<_> = range.problems.iter().map(|problem| problem.reason.as_str()).collect();
            format!("{}-{} {} {}", range.from, range.to, range.loads, reasons.join("; "))
        })
        .collect();
    shown.extend(module.loads.istio.iter().filter(|verdict| !verdict.loads).map(|verdict| verdict.version.clone()));
    assert_eq!(shown, expected);
}

#[test]
fn versions_that_do_the_same_are_told_together() {
    check_loads("", &["1.33-1.40 true "]);
    check_loads(
        r#"(import "wasi_snapshot_preview1" "sock_accept" (func (param i32 i32 i32) (result i32)))"#,
        &[
            "1.33-1.38 false missing import: wasi_snapshot_preview1.sock_accept, which Envoy has since 1.39",
            "1.39-1.40 true ",
            "1.25",
            "1.26",
            "1.27",
            "1.28",
            "1.29",
            "1.30",
        ],
    );
    check_loads(
        r#"(import "env" "memory" (memory 1)) (import "env" "proxy_fly" (func))"#,
        &[
            "1.33-1.35 false invalid module: multiple memories, at byte 90; missing import: env.proxy_fly",
            "1.36-1.40 false missing import: env.proxy_fly",
            "1.25",
            "1.26",
            "1.27",
            "1.28",
            "1.29",
            "1.30",
            "1.31",
        ],
    );
}

#[test]
fn every_version_is_judged_as_if_alone() {
    for imports in [
        "",
        r#"(import "wasi_unstable" "fd_sync" (func (param i32) (result i32)))"#,
        r#"(import "e" "m" (memory i64 1))"#,
    ] {
        let bytes = wat::parse_str(NAMED.replacen("(module", &format!("(module {imports}"), 1)).unwrap();
        for report in module::check_every(&bytes) {
            let alone = module::check(&bytes, report.envoy);
            assert_eq!((report.problems, report.notes), (alone.problems, alone.notes), "{imports} {}", report.envoy);
        }
    }
    assert_eq!(module::check_every(b"").len(), EnvoyVersion::all().count());
}

#[test]
fn istios_releases_carry_envoys_that_are_known_here() {
    assert!(RELEASES.is_sorted_by(|one, other| one.envoy < other.envoy && one.to_string() < other.to_string()));
    assert!(RELEASES.iter().all(|release| EnvoyVersion::all().any(|envoy| envoy == release.envoy)));
}

#[test]
fn a_module_cut_or_damaged_anywhere_is_reported_on() {
    let whole = wat::parse_str(NAMED).unwrap();
    for end in 0..whole.len() {
        let module = contents(&whole[..end]);
        assert_eq!(module.size_bytes, end as u64);
        let parts = module.size.map(|size| size.code_bytes + size.data_bytes + size.custom_bytes + size.other_bytes);
        assert!(parts.is_none_or(|parts| parts == end as u64), "cut at {end}");
    }
    for position in 0..whole.len() {
        for mask in [0x01, 0x40, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[position] ^= mask;
            let size = contents(&bytes).size;
            assert!(
                size.is_none_or(|size| size.code_bytes <= size.total_bytes && size.other_bytes <= size.total_bytes)
            );
        }
    }
}

#[test]
fn what_stands_before_the_damage_is_still_said() {
    let whole = wat::parse_str(NAMED).unwrap();
    let code = whole.windows(8).position(|window| window == [0x41, 1, 0x41, 0, 0x41, 5, 0x10, 0]).unwrap();
    let module = contents(&whole[..code]);
    assert_eq!(
        module.error.unwrap().reason,
        format!("truncated: the module ends at byte {code}, in the middle of a section")
    );
    assert_eq!((module.format, module.abi_version.as_deref()), (Format::Module, Some("0.2.1")));
    assert_eq!(module.exports.len(), 5);
    let text = contents(b"(module)");
    assert_eq!((text.format, text.size), (Format::NotWasm, None));
}

#[test]
fn a_component_shows_its_core_modules_and_their_language() {
    let core = wat::parse_str(NAMED).unwrap();
    let mut bytes = b"\0asm\x0d\0\x01\0\x01".to_vec();
    bytes.extend([u8::try_from(core.len() & 0x7f).unwrap() | 0x80, u8::try_from(core.len() >> 7).unwrap()]);
    bytes.extend(&core);
    let module = contents(&bytes);
    assert_eq!(module.format, Format::Component);
    assert_eq!(module.language.unwrap().name, "Rust");
    let part = &module.size.unwrap().largest[0];
    assert_eq!((part.kind, part.name.as_str(), part.bytes), (Part::Section, "core module 0", core.len() as u64 + 3));
}

#[test]
fn an_image_is_pinned_by_its_manifest_and_a_file_by_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let layout = Layout::open_or_create(&folder.path().join("dist")).unwrap();
    let put = layout.put(&sample("x"), "sample").unwrap();
    let reference = format!("oci:{}:sample", layout.root().display()).parse().unwrap();
    let found = inspect(&reference, &options()).unwrap();
    assert!(found.is_ok(), "{found:#?}");
    assert_eq!(found.pin, Pin { of: Pinned::Manifest, digest: Some(put.digest) });
    let image = found.image.unwrap();
    assert_eq!((image.variant.as_deref(), image.layers.len()), (Some("compat"), 1));
    assert_eq!(image.runtime_config.unwrap().abi_versions, ["v0.2.1"]);
    assert_eq!(found.module.unwrap().digest, Digest::of(&plugin("x")));

    let file = folder.path().join("x.wasm");
    std::fs::write(&file, plugin("x")).unwrap();
    let found = inspect(&Reference::File(file), &options()).unwrap();
    assert_eq!(found.pin, Pin { of: Pinned::Nothing, digest: None });
    assert!(found.is_ok() && found.image.is_none());
}

#[test]
fn a_file_over_istios_limit_is_a_problem_and_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("big.wasm");
    std::fs::File::create(&path).unwrap().set_len(300 << 20).unwrap();
    let found = inspect(&Reference::File(path), &options()).unwrap();
    assert!(!found.is_ok() && found.module.is_none());
    assert!(found.problems[0].reason.contains("314572800"), "{:?}", found.problems);
}

//! Modules that Envoy loads, and modules that it refuses.

use super::*;

const PREFIX: &str = r#"(memory (export "memory") 1)
    (func (export "malloc") (param i32) (result i32) i32.const 0)
    (func (export "_initialize"))
    (func (export "proxy_on_log") (param i32))"#;
const ABI: &str = r#"(func (export "proxy_abi_version_0_2_1"))"#;

/// A module that Envoy loads, with `extra` fields; imports must come first.
fn module(imports: &str, extra: &str) -> Vec<u8> {
    wat::parse_str(format!("(module {imports} {ABI} {PREFIX} {extra})")).unwrap()
}

fn problems(bytes: &[u8], envoy: &str) -> Vec<String> {
    check(bytes, envoy.parse().unwrap()).problems.iter().map(ToString::to_string).collect()
}

#[track_caller]
fn refused(bytes: &[u8], expected: &[&str]) {
    assert_eq!(problems(bytes, "1.40"), expected);
}

#[test]
fn a_plain_plugin_is_accepted_without_remarks() {
    let report = check(&module("", ""), EnvoyVersion::NEWEST);
    assert_eq!((report.problems, report.notes), (vec![], vec![]));
    assert_eq!(report.info.unwrap().abi, Some(AbiVersion::V0_2_1));
}

#[test]
fn what_is_no_module_is_named() {
    refused(b"", &["not a WebAssembly module: it starts with nothing, not with `\\0asm`"]);
    refused(b"\x1f\x8b\x08\0", &["not a WebAssembly module: it starts with `\\x1f\\x8b\\x08\\x00`, not with `\\0asm`"]);
    refused(b"\0as", &["truncated: the module ends at byte 3, in the middle of the header"]);
    refused(b"\0asm\x01\0", &["truncated: the module ends at byte 6, in the middle of the header"]);
    refused(b"\0asm\x0d\0\x01\0", &["a WebAssembly component, not a core module; Envoy loads core modules only"]);
    refused(b"\0asm\x02\0\0\0", &["WebAssembly binary version 2 is not supported; expected 1"]);
}

#[test]
fn a_module_cut_anywhere_is_refused_without_a_panic() {
    let whole = module(r#"(import "env" "proxy_log" (func (param i32 i32 i32) (result i32)))"#, "");
    for end in 0..whole.len() {
        let report = check(&whole[..end], EnvoyVersion::NEWEST);
        assert!(!report.is_ok(), "cut at {end}");
    }
    let cut = whole.len() - 1;
    refused(&whole[..cut], &[&format!("truncated: the module ends at byte {cut}, in the middle of a section")]);
}

#[test]
fn a_flipped_byte_never_panics() {
    let whole = module(r#"(import "env" "proxy_log" (func (param i32 i32 i32) (result i32)))"#, "(data \"x\")");
    for position in 0..whole.len() {
        for mask in [0x01, 0x40, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[position] ^= mask;
            let _ = check(&bytes, EnvoyVersion::NEWEST);
        }
    }
}

#[test]
fn every_problem_is_reported_at_once() {
    let bytes = wat::parse_str(
        r#"(module
            (import "env" "foo" (func))
            (import "env" "proxy_log" (func (param i32 i32) (result i32)))
            (memory 16385)
            (func (export "proxy_on_done") (param i32)))"#,
    )
    .unwrap();
    refused(
        &bytes,
        &[
            "no export names a proxy-wasm ABI version",
            "missing import: env.foo",
            "import type mismatch: env.proxy_log, want: i32 i32 -> i32, but host exports: i32 i32 i32 -> i32",
            "bad function signature for: proxy_on_done, want: i32 -> i32, but the module exports: i32 -> void",
            "exports no allocator: neither `malloc` nor `proxy_on_memory_allocate`",
            "starts with 16385 pages of memory; Envoy gives at most 16384 (1 GiB)",
        ],
    );
}

#[test]
fn the_first_known_marker_decides_the_abi() {
    let marked = |markers: &[&str]| {
        let exports: Vec<_> = markers.iter().map(|m| format!("(func (export \"proxy_abi_version_{m}\"))")).collect();
        let exports = exports.concat();
        wat::parse_str(format!("(module {exports} {PREFIX})")).unwrap()
    };
    assert_eq!(inspect(&marked(&["0_2_0", "0_2_1"])).unwrap().abi, Some(AbiVersion::V0_2_0));
    assert_eq!(
        check(&marked(&["0_2_0", "0_2_1"]), EnvoyVersion::NEWEST).notes,
        [Note::SeveralAbiVersions { taken: AbiVersion::V0_2_0 }]
    );
    assert_eq!(inspect(&marked(&["0_3_0", "0_1_0"])).unwrap().abi, Some(AbiVersion::V0_1_0));
    refused(
        &marked(&["0_3_0"]),
        &["no export names a proxy-wasm ABI version that Envoy knows, only `proxy_abi_version_0_3_0`"],
    );
    let global =
        wat::parse_str(format!(r#"(module (global (export "proxy_abi_version_0_2_1") i32 (i32.const 0)) {PREFIX})"#));
    refused(&global.unwrap(), &["no export names a proxy-wasm ABI version"]);
}

#[test]
fn hostcalls_belong_to_their_abi() {
    let imports = |abi: &str, name: &str, params: &str| {
        wat::parse_str(format!(
            r#"(module (import "env" "{name}" (func {params} (result i32)))
                (func (export "proxy_abi_version_{abi}")) {PREFIX})"#
        ))
        .unwrap()
    };
    let check = |abi: &str, name: &str, params: &str| problems(&imports(abi, name, params), "1.40");
    for (name, params, good, bad) in [
        ("proxy_get_configuration", "(param i32 i32)", "0_1_0", "0_2_0"),
        ("proxy_clear_route_cache", "", "0_1_0", "0_2_1"),
        ("proxy_continue_stream", "(param i32)", "0_2_0", "0_1_0"),
        ("proxy_get_log_level", "(param i32)", "0_2_1", "0_2_0"),
    ] {
        assert_eq!(check(good, name, params), [""; 0], "{name} in {good}");
        let abi = bad.replace('_', ".");
        assert_eq!(
            check(bad, name, params),
            [format!("missing import: env.{name}, which Envoy does not give to modules of ABI {abi}")]
        );
    }
}

#[test]
fn wasi_depends_on_envoys_version() {
    let import = |name: &str, ty: &str| {
        module(&format!(r#"(import "wasi_snapshot_preview1" "{name}" (func {ty} (result i32)))"#), "")
    };
    let tell = import("fd_tell", "(param i32 i32)");
    assert_eq!(problems(&tell, "1.39"), [""; 0]);
    assert_eq!(
        problems(&tell, "1.38.2"),
        ["missing import: wasi_snapshot_preview1.fd_tell, which Envoy has since 1.39, not in 1.38"]
    );
    assert_eq!(problems(&import("sched_yield", ""), "1.33"), [""; 0]);
    refused(&import("sock_open", "(param i32)"), &["missing import: wasi_snapshot_preview1.sock_open"]);
    refused(
        &import("path_symlink", "(param i32 i32 i32 i32 i32)"),
        &["import type mismatch: wasi_snapshot_preview1.path_symlink, want: i32 i32 i32 i32 i32 -> i32, \
           but host exports: i32 i32 i32 i32 -> i32"],
    );
}

#[test]
fn the_other_modules_functions_are_found_where_envoy_has_them() {
    for import in [
        r#""wasi_unstable" "fd_write" (func (param i32 i32 i32 i32) (result i32))"#,
        r#""env" "pthread_equal" (func (param i32 i32) (result i32))"#,
        r#""env" "emscripten_notify_memory_growth" (func (param i32))"#,
        r#""env" "envoy_resolve_dns" (func (param i32 i32 i32) (result i32))"#,
    ] {
        refused(&module(&format!("(import {import})"), ""), &[]);
    }
    refused(&module(r#"(import "wasi" "thread-spawn" (func))"#, ""), &["missing import: wasi.thread-spawn"]);
    refused(&module(r#"(import "env" "fd_write" (func))"#, ""), &["missing import: env.fd_write"]);
}

#[test]
fn envoys_tables_have_as_many_functions_as_were_observed() {
    let count = |table: &[host::HostFunction], envoy: u8, abi| {
        let had = |since| since <= EnvoyVersion::v1(envoy);
        table.iter().filter(|function| function.since.is_none_or(had) && function.abis.contains(&abi)).count()
    };
    let wasi = host::WASI_FUNCTIONS;
    assert_eq!([38, 39].map(|envoy| count(wasi, envoy, AbiVersion::V0_2_1)), [18, 45]);
    // 36 of every ABI, and three that are not of proxy-wasm.
    let hostcalls = AbiVersion::ALL.map(|abi| count(host::HOSTCALLS, 40, abi));
    assert_eq!(hostcalls, [39 + 4, 39 + 2, 39 + 3]);
    for table in [wasi, host::HOSTCALLS] {
        let mut names: Vec<_> = table.iter().map(|function| function.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), table.len());
    }
}

#[test]
fn memories_and_tables_may_be_imported_and_globals_and_tags_not() {
    let no_memory = |import: &str| {
        wat::parse_str(format!(
            r#"(module {import} {ABI} (func (export "malloc") (param i32) (result i32) i32.const 0)
                (func (export "_initialize")))"#
        ))
        .unwrap()
    };
    refused(&no_memory(r#"(import "a" "b" (memory 1))"#), &[]);
    refused(&no_memory(r#"(import "a" "b" (table 1 funcref))"#), &[]);
    refused(
        &no_memory(r#"(import "a" "b" (global i32))"#),
        &["import a.b is a global; Envoy provides functions, memories and tables only"],
    );
    refused(
        &no_memory(r#"(import "a" "b" (tag))"#),
        &["import a.b is a tag; Envoy provides functions, memories and tables only"],
    );
    refused(
        &no_memory(r#"(import "a" "b" (memory 16385))"#),
        &["starts with 16385 pages of memory; Envoy gives at most 16384 (1 GiB)"],
    );
}

#[test]
fn callbacks_have_the_signature_of_the_modules_abi() {
    let headers = |abi: &str, params: &str| {
        let bytes = wat::parse_str(format!(
            r#"(module (func (export "proxy_abi_version_{abi}")) {PREFIX}
                (func (export "proxy_on_request_headers") (param {params}) (result i32) i32.const 0))"#
        ));
        problems(&bytes.unwrap(), "1.40").len()
    };
    assert_eq!(headers("0_2_1", "i32 i32 i32"), 0);
    assert_eq!(headers("0_2_1", "i32 i32"), 1);
    assert_eq!(headers("0_1_0", "i32 i32"), 0);
    assert_eq!(headers("0_1_0", "i32 i32 i32"), 1);
    refused(&module("", r#"(func (export "proxy_on_nothing_known") (param f64))"#), &[]);
}

#[test]
fn a_malloc_of_the_wrong_type_is_refused_even_beside_a_good_allocator() {
    let bytes = wat::parse_str(format!(
        r#"(module {ABI} (func (export "malloc") (param i64) (result i32) i32.const 0)
            (func (export "proxy_on_memory_allocate") (param i32) (result i32) i32.const 0))"#
    ));
    refused(
        &bytes.unwrap(),
        &["bad function signature for: malloc, want: i32 -> i32, but the module exports: i64 -> i32"],
    );
}

#[test]
fn start_functions_are_checked_where_envoy_looks_for_them() {
    let start = |extra: &str| {
        problems(
            &wat::parse_str(format!(
                r#"(module {ABI} (func (export "malloc") (param i32) (result i32) i32.const 0) {extra})"#
            ))
            .unwrap(),
            "1.40",
        )
    };
    let bad_start = r#"(func (export "_start") (param i32))"#;
    assert_eq!(start(bad_start).len(), 1);
    assert_eq!(start(&format!(r#"{bad_start} (func (export "_initialize"))"#)), [""; 0]);
    assert_eq!(start(r#"(func (export "_initialize")) (func (export "main"))"#).len(), 1);
    assert_eq!(start(r#"(func (export "main"))"#), [""; 0]);
}

#[test]
fn a_module_without_start_up_or_traffic_gets_notes() {
    let bytes =
        wat::parse_str(format!(r#"(module {ABI} (func (export "malloc") (param i32) (result i32) i32.const 0))"#));
    assert_eq!(check(&bytes.unwrap(), EnvoyVersion::NEWEST).notes, [Note::NoStartFunction, Note::NoTrafficCallback]);
}

#[test]
fn a_go_program_is_told_from_a_library() {
    let problems = |start: &str, language: &str| {
        let allocator = r#"(func (export "malloc") (param i32) (result i32) i32.const 0)"#;
        let text = format!(r#"(module {ABI} {allocator} {start} (@producers (language "{language}" "1")))"#);
        check(&wat::parse_str(text).unwrap(), EnvoyVersion::NEWEST).problems.len()
    };
    let (program, library) = (r#"(func (export "_start"))"#, r#"(func (export "_initialize"))"#);
    assert_eq!((problems(program, "Go"), problems(library, "Go"), problems(program, "C11")), (1, 0, 0));
}

#[test]
fn webassembly_proposals_are_refused_by_name() {
    for accepted in [
        "(func (param v128) (result v128) local.get 0)",
        "(func (return_call 0))",
        "(func i32.const 0 i32.const 0 i32.const 0 memory.copy)",
        "(func (result i32 i64) i32.const 0 i64.const 0)",
        "(func (param f32) (result i32) local.get 0 i32.trunc_sat_f32_s)",
        "(table 1 externref)",
    ] {
        assert_eq!(problems(&module("", accepted), "1.33"), [""; 0], "{accepted}");
    }
    let wide = "(func (param i64) (result i64 i64) local.get 0 local.get 0 i64.mul_wide_u)";
    let memory64 = "(memory i64 1)";
    let both = problems(&module("", &format!("{wide} {memory64}")), "1.40");
    assert_eq!(both.len(), 2, "{both:?}");
    assert!(both[0].starts_with("uses 64-bit memory at byte "), "{both:?}");
    assert!(both[1].starts_with("uses WebAssembly wide-arithmetic at byte "), "{both:?}");

    let constant = module("", "(global i32 (i32.add (i32.const 1) (i32.const 2)))");
    assert_eq!(problems(&constant, "1.36"), [""; 0]);
    assert!(problems(&constant, "1.35")[0].starts_with("uses WebAssembly extended-const at byte "));
}

#[test]
fn code_that_does_not_validate_is_refused() {
    let bytes = module("", "(func (result i32) i64.const 0)");
    let report = check(&bytes, EnvoyVersion::NEWEST);
    assert!(matches!(report.problems[..], [Problem::Invalid { .. }]), "{:?}", report.problems);
}

#[test]
fn producers_are_read_and_a_broken_section_is_passed_over() {
    let custom = |body: &[u8]| {
        let mut bytes = b"\0asm\x01\0\0\0".to_vec();
        bytes.extend([0, u8::try_from(body.len() + 10).unwrap(), 9]);
        bytes.extend(b"producers");
        bytes.extend(body);
        inspect(&bytes).unwrap().producers
    };
    let tool = Tool { name: "Rust".to_owned(), version: "1.95".to_owned() };
    let field = Producer { field: "language".to_owned(), tools: vec![tool] };
    assert_eq!(custom(b"\x01\x08language\x01\x04Rust\x041.95"), [field]);
    assert_eq!(custom(b"\x01\x08language\x09\x04Ru"), []);
}

#[test]
fn a_file_over_the_limit_is_refused_unread() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("big.wasm");
    // Sparse: reading it would take 300 MiB of memory, its metadata takes none.
    std::fs::File::create(&path).unwrap().set_len(300 << 20).unwrap();
    assert!(matches!(read(&path), Err(ReadError::TooLarge { size, .. }) if size == 300 << 20));
    assert!(matches!(read(folder.path()), Err(ReadError::NotAFile { .. })));
    assert!(matches!(read(&folder.path().join("none")), Err(ReadError::Read { .. })));
}

#[test]
fn envoy_versions_parse_and_unknown_ones_are_refused() {
    for good in ["1.40", "v1.40", "1.40.2"] {
        assert_eq!(good.parse(), Ok(EnvoyVersion::NEWEST));
    }
    assert_eq!(EnvoyVersion::OLDEST.to_string(), "1.33");
    for bad in ["", "1", "1.32", "1.41", "2.40", "1.+40", "1.40.x", "1.40.1.1", "1.400"] {
        assert!(bad.parse::<EnvoyVersion>().is_err(), "{bad}");
    }
}

/// A section with its size, which takes four bytes however small it is.
fn section(id: u8, content: &[u8]) -> Vec<u8> {
    [&[id][..], &leb(content.len()), content].concat()
}

fn leb(value: usize) -> [u8; 4] {
    [value | 0x80, value >> 7 | 0x80, value >> 14 | 0x80, value >> 21].map(|byte| byte.to_le_bytes()[0])
}

/// So large that a section with it is not held as a whole.
const LARGE: usize = 3 << 20;

#[test]
fn large_sections_are_passed_over_and_still_judged() {
    let plugin = module("", "");
    let noise = vec![0xa5; LARGE];
    let segment = |flags: &[u8]| [flags, &leb(LARGE), &noise].concat();
    let data = |count: u8, segments: &[Vec<u8>]| section(11, &[&[count][..], &segments.concat()].concat());
    let (active, passive) = ([0, 0x41, 0, 0x0b].as_slice(), [1].as_slice());
    let custom = section(0, &[&b"\x04name"[..], &noise].concat());
    let whole = [plugin.clone(), data(2, &[segment(active), segment(passive)]), custom.clone()].concat();
    refused(&whole, &[]);
    assert_eq!(check(&whole, EnvoyVersion::NEWEST).info.unwrap().size, whole.len() as u64);

    let one = |prefix: &[u8]| [plugin.clone(), data(1, &[segment(prefix)])].concat();
    let said = |bytes: &[u8]| problems(bytes, "1.40").join("; ");
    assert!(said(&one(&[2, 7, 0x41, 0, 0x0b])).contains("unknown memory 7"));
    assert!(said(&one(&[9])).contains("invalid flags byte in data segment"));
    let wrong_type = said(&one(&[0, 0x42, 0, 0x0b]));
    assert!(wrong_type.contains("expected i32, found i64"), "{wrong_type}");
    // Fewer segments than there are bytes for, and more.
    assert!(said(&[plugin.clone(), data(1, &[segment(passive), vec![1, 0]])].concat()).contains("end of the section"));
    assert!(!said(&[plugin.clone(), data(3, &[segment(passive)])].concat()).is_empty());
    // In the wrong place, twice, and a name that is none.
    let twice = [plugin.clone(), data(1, &[segment(passive)]), data(1, &[segment(passive)])].concat();
    assert!(said(&twice).contains("out of order"), "{}", said(&twice));
    let unnamed = section(0, &[&[2, 0xff, 0xff][..], &noise].concat());
    assert!(said(&[plugin.clone(), unnamed].concat()).contains("UTF-8"));
    // What comes after is found where it is.
    let broken = |size: usize| [plugin.clone(), section(0, &vec![0; size]), vec![77, 0]].concat();
    let offset = |size: usize| {
        let text = said(&broken(size));
        let (_, offset) = text.split_once("malformed section id: 77, at byte ").unwrap();
        offset.parse::<usize>().unwrap()
    };
    assert_eq!(offset(LARGE) - offset(10), LARGE - 10);
    for cut in [10, LARGE / 2, LARGE + 100] {
        let cut = whole.len() - cut;
        refused(&whole[..cut], &[&format!("truncated: the module ends at byte {cut}, in the middle of a section")]);
    }
}

#[test]
fn a_file_that_changes_between_two_readings_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.wasm");
    let whole = [module("", ""), section(0, &[&b"\x01x"[..], &vec![7; LARGE]].concat())].concat();
    std::fs::write(&path, &whole).unwrap();
    let (report, checksum) = check_source(Source::File(&path), EnvoyVersion::NEWEST).unwrap();
    assert!(report.is_ok());
    let same = |bytes: &[u8]| {
        let mut again = checksum.again();
        bytes.chunks(100_000).all(|chunk| again.feed(chunk)) && again.is_same()
    };
    assert!(same(&whole));
    let changed = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    assert!(!same(&changed(20)) && !same(&whole[..whole.len() - 1]) && !same(&[whole.clone(), vec![0]].concat()));
    assert!(same(&changed(whole.len() - 5)), "what no rule is about was not looked at");
}

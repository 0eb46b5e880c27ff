//! Modules that take notes: valid, the same for their own code, and with a flag for each function or region.

use wasmparser::{Parser, Payload, Validator, WasmFeatures};

use super::*;

const SOME: &str = r#"(module
  (import "env" "f" (func (param i32)))
  (import "env" "g" (global i32))
  (memory (export "memory") 1)
  (global (mut i32) (i32.const 7))
  (global (export "marker") i64 (i64.const 1))
  (func $a (export "a") (param i32) (result i32) (local i64 i64 f32)
    local.get 0
    if (result i32) i32.const 1 else i32.const 2 end)
  (func $b (export "b") (block (br_if 0 (i32.const 0)) (nop)) (nop))
  (func $c)
  (start $c)
  (table 1 funcref) (elem (i32.const 0) $a))"#;

fn globals_and_exports(bytes: &[u8]) -> (u32, Vec<(String, u32)>) {
    let (mut globals, mut exports) = (0, Vec::new());
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.unwrap() {
            Payload::GlobalSection(section) => globals = section.count(),
            Payload::ExportSection(section) => {
                exports.extend(section.into_iter().map(Result::unwrap).map(|one| (one.name.to_owned(), one.index)));
            }
            _ => {}
        }
    }
    (globals, exports)
}

#[track_caller]
fn check(text: &str, detail: Detail) -> Instrumented {
    let bytes = wat::parse_str(text).unwrap();
    let made = instrument(&bytes, detail).unwrap();
    Validator::new_with_features(WasmFeatures::all()).validate_all(&made.module).unwrap();
    let words = u32::try_from(made.probes.len().div_ceil(64)).unwrap();
    let (old, old_exports) = globals_and_exports(&bytes);
    let (new, exports) = globals_and_exports(&made.module);
    assert_eq!(new, old + words);
    assert_eq!(exports[..old_exports.len()], old_exports);
    let added: Vec<String> = (0..words).map(|word| format!("{FLAGS}{word}")).collect();
    let names: Vec<&String> = exports[old_exports.len()..].iter().map(|(name, _)| name).collect();
    assert_eq!(names, added.iter().collect::<Vec<_>>());
    made
}

#[test]
fn each_function_with_a_body_has_a_flag() {
    let made = check(SOME, Detail::Functions);
    assert_eq!(made.probes.iter().map(|probe| probe.function).collect::<Vec<_>>(), [0, 1, 2]);
    // Imported globals are counted: the flags' own comes after them.
    assert_eq!(globals_and_exports(&made.module).1.last(), Some(&(format!("{FLAGS}0"), 3)));
    let many: String = (0..130).map(|_| "(func)").collect();
    assert_eq!(check(&format!("(module {many})"), Detail::Functions).probes.len(), 130);
    assert!(check("(module)", Detail::Functions).probes.is_empty());
}

#[test]
fn each_region_has_a_flag_and_they_make_up_the_function() {
    let made = check(SOME, Detail::Regions);
    let of = |function| made.probes.iter().filter(|probe| probe.function == function).collect::<Vec<_>>();
    // $a: before the branch, either branch; its end is the function's. $b: before, after `br_if`, after the block.
    assert_eq!((of(0).len(), of(1).len(), of(2).len()), (3, 3, 1));
    for function in 0..3 {
        assert!(of(function).windows(2).all(|pair| pair[0].code.end == pair[1].code.start));
    }
}

#[test]
fn instructions_of_all_proposals_are_copied_as_they_are() {
    let text = r"(module
      (type $s (struct (field (mut i32)))) (type $f (func)) (tag $t (param i32)) (memory 1) (table 1 funcref)
      (func $callee)
      (elem declare func $callee)
      (func (param anyref v128) (local i32)
        (block (br_table 0 0 0 (i32.const 0)))
        (loop (br_if 0 (i32.const 0)))
        (drop (block (result i32) (try_table (catch $t 0) (throw $t (i32.const 1))) (i32.const 2)))
        (block (drop (br_on_null 0 (local.get 0))))
        (drop (block (result (ref struct))
          (drop (br_on_cast 0 anyref (ref struct) (local.get 0))) (struct.new $s (i32.const 1))))
        (drop (i8x16.shuffle 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 (local.get 1) (local.get 1)))
        (drop (i8x16.relaxed_swizzle (local.get 1) (v128.const i64x2 1 2)))
        (memory.fill (i32.const 0) (i32.const 0) (i32.const 0)) (i32.store8 offset=70000 (i32.const 0) (i32.const 0))
        (drop (i32.atomic.rmw.add (i32.const 0) (i32.const 0))) (drop (i64.trunc_sat_f64_u (f64.const nan)))
        (call_indirect (i32.const 0)) (call_ref $f (ref.func $callee))
        (if (i32.const 0) (then unreachable) (else (return_call $callee)))))";
    let made = check(text, Detail::Regions);
    assert!(made.probes.len() > 8, "{}", made.probes.len());
    check(text, Detail::Functions);
    let legacy = r"(module (tag $t) (func try nop try nop delegate 0 nop catch $t nop catch_all nop end nop))";
    assert_eq!(check(legacy, Detail::Regions).probes.len(), 5);
}

#[test]
fn what_is_no_module_or_takes_notes_already_is_refused() {
    let refused = |bytes: &[u8]| instrument(bytes, Detail::Functions).unwrap_err().to_string();
    assert_eq!(refused(b"\0asm"), "the module is not valid");
    assert_eq!(refused(b"\0asm\x0d\0\x01\0"), "the file is a WebAssembly component, not a core module");
    assert_eq!(
        refused(&wat::parse_str("(module (func (drop (i32.const 1)) (drop)))").unwrap_or_default()),
        "the module is not valid"
    );
    let twice = check(SOME, Detail::Functions).module;
    assert_eq!(refused(&twice), "the module exports `plugwright.reached.0`: it takes notes already");
}

#[test]
fn what_engines_would_not_take_any_more_is_said() {
    // A body that is nearly as long as one may be, and has very many regions.
    let body = "nop ".repeat(100) + &"block end ".repeat(600_000);
    let bytes = wat::parse_str(format!("(module (func {body}))")).unwrap();
    let error = instrument(&bytes, Detail::Regions).unwrap_err();
    assert!(matches!(&error, InstrumentError::Limit { flags, .. } if *flags > 590_000), "{error}");
    assert!(instrument(&bytes, Detail::Functions).is_ok());
}

#[test]
fn functions_have_names_crates_and_who_they_belong_to() {
    let text = r#"(module (import "e" "i" (func $i))
      (func $_ZN6plugin3run17h0123456789abcdefE) (func $_ZN4core3fmt5write17h0123456789abcdefE) (func (export "x")) (func)
      (func $_ZN6plugin1_5visit17h0123456789abcdefE))"#;
    let found = functions(&wat::parse_str(text).unwrap(), &Lines::default());
    let shown: Vec<_> = found.all.iter().map(|one| (one.index, one.name.as_str(), one.origin.as_deref())).collect();
    assert_eq!(
        shown,
        [
            (1, "plugin::run", Some("plugin")),
            (2, "core::fmt::write", Some("core")),
            (3, "x", None),
            (4, "function 4", None),
            (5, "plugin::_::visit", Some("plugin"))
        ]
    );
    let own = found.own(Some("plugin"), None);
    assert_eq!(own, Own::Crate("plugin".to_owned()));
    assert_eq!(found.all.iter().map(|one| own.has(one)).collect::<Vec<_>>(), [true, false, false, false, false]);
    assert_eq!(found.own(Some("another"), None), Own::Everything);
}

#[test]
fn other_languages_have_their_own_ways() {
    let named = |names: &[&str]| {
        let all: Vec<String> = names.iter().map(|name| format!("(func (@name \"{name}\"))")).collect();
        functions(&wat::parse_str(format!("(module {})", all.concat())).unwrap(), &Lines::default())
    };
    let own = |found: &Functions, own: &Own| -> Vec<bool> { found.all.iter().map(|one| own.has(one)).collect() };
    let go = named(&["runtime.alloc", "main.main", "example.com/x/y.F", "example.com_x_y.F", "example.com/xy.F"]);
    assert_eq!(own(&go, &go.own(Some("x"), Some("example.com/x"))), [false, true, true, true, false]);
    let assembly = named(&["~lib/rt/itcms/__new", "~lib/@a/b/c/d", "assembly/index/F#on"]);
    assert_eq!(own(&assembly, &assembly.own(Some("x"), None)), [false, false, true]);
    assert_eq!(assembly.all[1].origin.as_deref(), Some("~lib/@a/b"));
    assert!(!functions(&wat::parse_str("(module (func))").unwrap(), &Lines::default()).named);
}

#[test]
fn debug_information_that_is_none_gives_no_lines() {
    let text = r#"(module (func) (@custom ".debug_info" "\ff\ff") (@custom ".debug_line" "\01") (@custom ".debug_abbrev" ""))"#;
    let bytes = wat::parse_str(text).unwrap();
    assert!(Lines::of(&bytes).is_empty());
    // It is of places that are others now.
    assert!(check(text, Detail::Functions).module.len() < bytes.len() + 64);
}

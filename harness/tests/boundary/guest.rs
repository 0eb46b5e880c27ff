//! The guest: each callback takes its program from a tape, byte by byte, and so does the allocator.

#![expect(clippy::format_push_string, clippy::format_collect, reason = "short texts, put together once")]

use std::fmt::Write as _;

/// Hostcalls: name, and a letter for each parameter. `i` is any i32, `l` any i64, `o` a pointer to write to; of a pointer
/// and a length, `n` are a name, `k` a property path, `p` header pairs, `b` anything.
const CALLS: &[(&str, &str)] = &[
    ("log", "ib"),
    ("get_log_level", "o"),
    ("get_current_time_nanoseconds", "o"),
    ("set_tick_period_milliseconds", "i"),
    ("get_status", "ooo"),
    ("get_property", "koo"),
    ("set_property", "nb"),
    ("get_configuration", "oo"),
    ("get_buffer_bytes", "iiioo"),
    ("get_buffer_status", "ioo"),
    ("set_buffer_bytes", "iiib"),
    ("get_header_map_pairs", "ioo"),
    ("set_header_map_pairs", "ip"),
    ("get_header_map_value", "inoo"),
    ("add_header_map_value", "inb"),
    ("replace_header_map_value", "inb"),
    ("remove_header_map_value", "in"),
    ("get_header_map_size", "io"),
    ("continue_stream", "i"),
    ("close_stream", "i"),
    ("continue_request", ""),
    ("continue_response", ""),
    ("clear_route_cache", ""),
    ("send_local_response", "ibbpi"),
    ("http_call", "npbpio"),
    ("grpc_call", "nnnpbio"),
    ("grpc_stream", "nnnpo"),
    ("grpc_send", "ibi"),
    ("grpc_close", "i"),
    ("grpc_cancel", "i"),
    ("get_shared_data", "nooo"),
    ("set_shared_data", "nbi"),
    ("register_shared_queue", "no"),
    ("resolve_shared_queue", "bno"),
    ("enqueue_shared_queue", "ib"),
    ("dequeue_shared_queue", "ioo"),
    ("define_metric", "ino"),
    ("increment_metric", "il"),
    ("record_metric", "il"),
    ("get_metric", "io"),
    ("set_effective_context", "i"),
    ("done", ""),
    ("call_foreign_function", "nboo"),
];

/// The same of WASI.
const WASI: &[(&str, &str)] = &[
    ("fd_write", "iiio"),
    ("fd_pwrite", "iiilo"),
    ("fd_read", "iiio"),
    ("fd_seek", "ilio"),
    ("fd_fdstat_get", "io"),
    ("fd_tell", "io"),
    ("fd_readdir", "iiilo"),
    ("fd_prestat_get", "io"),
    ("fd_filestat_get", "io"),
    ("environ_get", "oo"),
    ("environ_sizes_get", "oo"),
    ("args_get", "oo"),
    ("args_sizes_get", "oo"),
    ("clock_time_get", "ilo"),
    ("clock_res_get", "io"),
    ("random_get", "ii"),
    ("poll_oneoff", "iiio"),
    ("path_open", "iibillio"),
    ("path_filestat_get", "iibo"),
    ("path_readlink", "ibiio"),
    ("sched_yield", ""),
];

/// Which hostcalls only some versions of the ABI have.
fn has(abi: &str, call: &str) -> bool {
    match call {
        "get_configuration" | "continue_request" | "continue_response" | "clear_route_cache" => abi == "0.1.0",
        "continue_stream" | "close_stream" => abi != "0.1.0",
        "get_log_level" => abi == "0.2.1",
        _ => true,
    }
}

/// Callbacks: name, number of parameters, whether they answer, and what they answer when the tape is at its end.
const CALLBACKS: &[(&str, usize, Option<u32>)] = &[
    ("context_create", 2, None),
    ("vm_start", 2, Some(1)),
    ("configure", 2, Some(1)),
    ("tick", 1, None),
    ("queue_ready", 2, None),
    ("request_headers", 3, Some(0)),
    ("request_body", 3, Some(0)),
    ("request_trailers", 2, Some(0)),
    ("response_headers", 3, Some(0)),
    ("response_body", 3, Some(0)),
    ("response_trailers", 2, Some(0)),
    ("http_call_response", 5, None),
    ("grpc_receive_initial_metadata", 3, None),
    ("grpc_receive", 3, None),
    ("grpc_receive_trailing_metadata", 3, None),
    ("grpc_close", 3, None),
    ("new_connection", 1, Some(0)),
    ("downstream_data", 3, Some(0)),
    ("upstream_data", 3, Some(0)),
    ("downstream_connection_close", 2, None),
    ("upstream_connection_close", 2, None),
    ("done", 1, Some(1)),
    ("log", 1, None),
    ("delete", 1, None),
];

const NAMES: &[&str] = &[
    "",
    ":path",
    ":status",
    ":authority",
    "host",
    "x-a",
    "cookie",
    "content-length",
    "content-type",
    "te",
    "x bad",
    "backend",
    "nobody",
    "tape",
    "queue",
    "counter",
    "my.key",
    "plugin_name",
    "connection",
    "transfer-encoding",
    "compress",
    "uncompress",
    "set_envoy_filter_state",
    "declare_property",
    "clear_route_cache",
    "expr_create",
    "expr_evaluate",
    "expr_delete",
    "verify_signature",
    "sign",
    "envoy.string",
    "grpc-status",
];

/// Joined with NUL where there are dots.
const PATHS: &[&str] = &[
    "request",
    "request.path",
    "request.headers",
    "request.headers.x-a",
    "request.query",
    "request.size",
    "request.total_size",
    "request.time",
    "request.duration",
    "response.code",
    "response.code_details",
    "response.flags",
    "response.headers",
    "response.trailers.x-t",
    "response.total_size",
    "response.backend_latency",
    "response.grpc_status",
    "source.address",
    "destination.port",
    "connection.id",
    "upstream.address",
    "upstream.locality",
    "metadata",
    "metadata.filter_metadata.a",
    "filter_state",
    "filter_state.my_key",
    "xds",
    "xds.node",
    "xds.node.metadata.LABELS.app",
    "xds.cluster_name",
    "plugin_name",
    "plugin_root_id",
    "",
    "nothing.at.all",
    "my.key",
];

const VALUES: &[&str] = &[
    "",
    "0",
    "1",
    "value",
    "a\r\nb: c",
    "\0",
    "request.path == '/a' || request.size > 3",
    "request.headers['x-a'].size() + 1",
    "[1, 2][0] == {'a': 1}['a']",
    "((((((((1))))))))",
    "'a'.matches('(a*)*b')",
    "\u{1}\0\0\0",
    "\u{8}\u{1}\u{12}\u{3}abc",
    "0123456789012345678901234567890123456789012345678901234567890123",
    "session=0123456789",
    "\u{78}\u{9c}\u{3}\0\0\0\0\u{1}",
];

/// Header pairs as `name: value` lines.
const PAIRS: &[&str] = &[
    "",
    ":method: GET\n:path: /\n:authority: a",
    ":method: POST\n:path: /x\n:authority: a\nx-a: 1\nx-a: 2",
    ":status: 418\nx-a: 1",
    "x-a: 1\ncontent-length: 99999\ncontent-type: application/grpc",
    "host: a\n:path: \nserver: me\ndate: now\nconnection: close",
];

fn serialized(lines: &str) -> Vec<u8> {
    let pairs: Vec<(&str, &str)> = lines.lines().filter_map(|line| line.split_once(": ")).collect();
    let size = |text: &str| u32::try_from(text.len()).unwrap().to_le_bytes();
    let mut out = size_of_list(pairs.len());
    for (name, value) in &pairs {
        out.extend([size(name), size(value)].concat());
    }
    for (name, value) in &pairs {
        out.extend([name.as_bytes(), b"\0", value.as_bytes(), b"\0"].concat());
    }
    out
}

fn size_of_list(len: usize) -> Vec<u8> {
    u32::try_from(len).unwrap().to_le_bytes().to_vec()
}

/// Where the table of all texts is: pointer and length of each.
const TABLE: usize = 1024;
const TEXTS: usize = 4096;

const RUNTIME: &str = r#"
(global $pos (mut i32) (i32.const 0))
(global $end (mut i32) (i32.const 0))
(global $loaded (mut i32) (i32.const 0))
(global $heap (mut i32) (i32.const 65536))
(global $ctx (mut i32) (i32.const 0))
(global $depth (mut i32) (i32.const 0))
(func $byte (result i32)
  (if (i32.ge_u (global.get $pos) (global.get $end)) (then (return (i32.const 0))))
  (global.set $pos (i32.add (global.get $pos) (i32.const 1)))
  (i32.load8_u (i32.sub (global.get $pos) (i32.const 1))))
(func $u32 (result i32)
  (i32.or (i32.or (call $byte) (i32.shl (call $byte) (i32.const 8)))
    (i32.or (i32.shl (call $byte) (i32.const 16)) (i32.shl (call $byte) (i32.const 24)))))
(func $size (result i32) (i32.shl (memory.size) (i32.const 16)))
(func $int (result i32)
  (local $kind i32)
  (local.set $kind (i32.and (call $byte) (i32.const 15)))
  (block $b9 (block $b8 (block $b7 (block $b6 (block $b5 (block $b4 (block $b3 (block $b2 (block $b1
    (br_table $b1 $b1 $b1 $b1 $b1 $b1 $b2 $b3 $b4 $b5 $b6 $b7 $b8 $b9 $b2 $b1 (local.get $kind)))
    (return (i32.and (call $byte) (i32.const 15))))
    (return (call $u32)))
    (return (i32.const -1)))
    (return (i32.const 0x7fffffff)))
    (return (global.get $ctx)))
    (return (call $size)))
    (return (i32.load (i32.const 80))))
    (return (i32.load (i32.const 64))))
  (i32.or (call $byte) (i32.shl (call $byte) (i32.const 8))))
(func $long (result i64)
  (i64.or (i64.extend_i32_u (call $int)) (i64.shl (i64.extend_i32_s (call $int)) (i64.const 32))))
(func $out (param $slot i32) (result i32)
  (local $kind i32)
  (local.set $kind (i32.and (call $byte) (i32.const 31)))
  (if (i32.eq (local.get $kind) (i32.const 31)) (then (return (call $int))))
  (if (i32.eq (local.get $kind) (i32.const 30))
    (then (return (i32.sub (call $size) (i32.and (call $byte) (i32.const 7))))))
  (i32.add (i32.const 64) (i32.mul (local.get $slot) (i32.const 4))))
(func $text (param $first i32) (param $count i32) (result i32 i32)
  (local $kind i32) (local $at i32)
  (local.set $kind (i32.and (call $byte) (i32.const 15)))
  (block $edge (block $raw (block $last (block $tape (block $known
    (br_table $known $known $known $known $known $known $known $known $known $known $tape $tape $tape $last $raw $edge
      (local.get $kind)))
    (local.set $at (i32.add (i32.const 1024) (i32.mul (i32.const 8)
      (i32.add (local.get $first) (i32.rem_u (call $byte) (local.get $count))))))
    (return (i32.load (local.get $at)) (i32.load offset=4 (local.get $at))))
    (local.set $at (call $byte))
    (local.set $kind (global.get $pos))
    (global.set $pos (i32.add (global.get $pos) (local.get $at)))
    (return (local.get $kind) (local.get $at)))
    (return (i32.load (i32.const 64)) (i32.load (i32.const 68))))
    (return (call $u32) (call $u32)))
  (local.set $at (i32.and (call $byte) (i32.const 15)))
  (i32.sub (call $size) (local.get $at)) (call $byte))
(func $bump (param $size i32) (result i32)
  (local $from i32)
  (local.set $from (global.get $heap))
  (global.set $heap (i32.add (global.get $heap)
    (i32.and (i32.add (i32.and (local.get $size) (i32.const 0xffff)) (i32.const 7)) (i32.const -8))))
  (if (i32.gt_u (global.get $heap) (i32.const 180000)) (then (global.set $heap (i32.const 65536))))
  (local.get $from))
(func (export "malloc") (param $size i32) (result i32)
  (local $kind i32)
  (if (i32.eqz (global.get $loaded)) (then (return (call $bump (local.get $size)))))
  (local.set $kind (call $byte))
  (if (i32.lt_u (local.get $kind) (i32.const 244)) (then (return (call $bump (local.get $size)))))
  (block $b8 (block $b7 (block $b6 (block $b5 (block $b4 (block $b3 (block $b2 (block $b1
    (br_table $b1 $b2 $b3 $b4 $b5 $b6 $b7 $b8 (i32.sub (local.get $kind) (i32.const 244))))
    (return (i32.const 0)))
    (return (i32.const -1)))
    (return (i32.sub (call $size) (i32.const 2))))
    (drop (memory.grow (i32.const 1))) (return (call $bump (local.get $size))))
    (drop (call $proxy_log (i32.const 2) (i32.const 1024) (i32.const 8))) (return (call $bump (local.get $size))))
    (drop (call $proxy_set_tick_period_milliseconds (i32.const 1))) (return (call $bump (local.get $size))))
    unreachable)
  (call $int))
(func $load
  (if (global.get $loaded) (then (return)))
  (if (i32.eqz (call $proxy_get_shared_data (i32.load (i32.const TAPE_NAME)) (i32.const 4)
      (i32.const 64) (i32.const 68) (i32.const 72)))
    (then
      (global.set $pos (i32.load (i32.const 64)))
      (global.set $end (i32.add (global.get $pos) (i32.load (i32.const 68))))
      ;; The tape is not allocated over.
      (memory.copy (i32.const 190000) (global.get $pos) (i32.sub (global.get $end) (global.get $pos)))
      (global.set $end (i32.add (i32.const 190000) (i32.load (i32.const 68))))
      (global.set $pos (i32.const 190000))))
  (global.set $loaded (i32.const 1)))
(func $run (param $ctx i32)
  (local $left i32)
  (call $load)
  (global.set $ctx (local.get $ctx))
  (local.set $left (i32.and (call $byte) (i32.const 7)))
  (block $done (loop $next
    (br_if $done (i32.eqz (local.get $left)))
    (br_if $done (i32.ge_u (global.get $pos) (global.get $end)))
    (local.set $left (i32.sub (local.get $left) (i32.const 1)))
    (call $one (call $byte))
    (br $next))))
(func $answer (param $default i32) (result i32)
  (local $byte i32)
  (if (i32.ge_u (global.get $pos) (global.get $end)) (then (return (local.get $default))))
  (local.set $byte (call $byte))
  (if (i32.lt_u (local.get $byte) (i32.const 128)) (then (return (local.get $default))))
  (if (i32.eq (local.get $byte) (i32.const 255)) (then (return (call $int))))
  (i32.and (local.get $byte) (i32.const 3)))
"#;

/// The module for an ABI version; a `name` makes it another module, and its VM another VM.
pub(super) fn module(abi: &str, name: &str) -> Vec<u8> {
    let mut texts: Vec<Vec<u8>> = NAMES.iter().map(|name| name.as_bytes().to_vec()).collect();
    texts.extend(PATHS.iter().map(|path| path.replace('.', "\0").into_bytes()));
    texts.extend(PAIRS.iter().map(|lines| serialized(lines)));
    texts.extend(VALUES.iter().map(|value| value.as_bytes().to_vec()));
    let (paths, pairs) = (NAMES.len(), NAMES.len() + PATHS.len());
    let values = pairs + PAIRS.len();
    let known = |first: usize, count: usize| format!("(call $text (i32.const {first}) (i32.const {count}))");
    let (mut table, mut data) = (Vec::new(), Vec::new());
    for text in &texts {
        table.extend(size_of_list(TEXTS + data.len()));
        table.extend(size_of_list(text.len()));
        data.extend_from_slice(text);
    }
    assert!(TABLE + table.len() <= TEXTS && TEXTS + data.len() < 65_536);
    let calls =
        CALLS.iter().filter(|(call, _)| has(abi, call)).map(|(call, params)| ("env", format!("proxy_{call}"), *params));
    let wasi = WASI.iter().map(|(call, params)| ("wasi_snapshot_preview1", (*call).to_owned(), *params));
    let calls: Vec<_> = calls.chain(wasi).collect();
    let mut imports = String::new();
    let (mut cases, mut labels) = (String::new(), String::new());
    for (at, (module, name, params)) in calls.iter().enumerate() {
        let mut types = String::new();
        let mut operands = String::new();
        let mut slot = 0;
        for kind in params.chars() {
            types += match kind {
                'n' | 'k' | 'p' | 'b' => "i32 i32 ",
                'l' => "i64 ",
                _ => "i32 ",
            };
            operands += &match kind {
                'n' => known(0, NAMES.len()),
                'k' => known(paths, PATHS.len()),
                'p' => known(pairs, PAIRS.len()),
                'b' => known(values, VALUES.len()),
                'l' => "(call $long)".to_owned(),
                'o' => {
                    slot += 1;
                    format!("(call $out (i32.const {}))", slot - 1)
                }
                _ => "(call $int)".to_owned(),
            };
        }
        let _ = writeln!(imports, "(import \"{module}\" \"{name}\" (func ${name} (param {types}) (result i32)))");
        // The results are left where `$int` and `$text` find them.
        let _ = writeln!(cases, "(i32.store (i32.const 80) (call ${name} {operands})) (return))");
        let _ = write!(labels, "$c{at} ");
    }
    let count = calls.len();
    let opening: String = (0..=count).rev().fold(String::new(), |mut out, at| {
        let _ = write!(out, "(block $c{at} ");
        out
    });
    let mut functions = format!(
        "(func $one (param $op i32) {opening} (br_table {labels} $c{count} (i32.rem_u (local.get $op) (i32.const {})))) {cases}
         (if (i32.eq (call $byte) (i32.const 119)) (then unreachable)))\n",
        count + 1,
    );
    for (callback, params, answer) in CALLBACKS {
        let params = if abi == "0.1.0" && callback.ends_with("_headers") { 2 } else { *params };
        let list: String = (0..params).map(|at| format!("(param $p{at} i32)")).collect();
        let result = if answer.is_some() { "(result i32)" } else { "" };
        let answer = answer.map(|default| format!("(call $answer (i32.const {default}))")).unwrap_or_default();
        let _ = writeln!(
            functions,
            "(func (export \"proxy_on_{callback}\") {list} {result} (call $run (local.get $p0)) {answer})"
        );
    }
    let escaped = |bytes: &[u8]| {
        bytes.iter().fold(String::new(), |mut out, byte| {
            let _ = write!(out, "\\{byte:02x}");
            out
        })
    };
    let tape = NAMES.iter().position(|name| *name == "tape").unwrap();
    let wat = format!(
        "(module {imports} (memory (export \"memory\") 4)
         (func (export \"proxy_abi_version_{}\"))
         (data (i32.const {TABLE}) \"{}\") (data (i32.const {TEXTS}) \"{}\") (data \"{name}\")
         {} {functions})",
        abi.replace('.', "_"),
        escaped(&table),
        escaped(&data),
        RUNTIME.replace("TAPE_NAME", &(TABLE + tape * 8).to_string()),
    );
    wat::parse_str(&wat).unwrap_or_else(|error| panic!("{error}\n{wat}"))
}

//! The scripted probe: a raw-ABI module made of a few lines of text, which logs every callback and every hostcall.
//!
//! Each filter of a scenario gets a module of its own, so that one that traps takes no other with it. A statement is a
//! hostcall with its arguments; what it returned and wrote is logged. See `scenarios/README.md` for the language.

use std::collections::BTreeSet;
use std::fmt::Write as _;

/// Hostcalls: name and its parameters. `i` is an i32, `l` an i64, `s` bytes, `p` a property path, `P` header pairs;
/// results: `w` a u32, `W` a u64, `T` a time (not logged), `O` bytes, `M` header pairs.
const CALLS: &[(&str, &str)] = &[
    ("log", "is"),
    ("get_log_level", "w"),
    ("get_current_time_nanoseconds", "T"),
    ("set_tick_period_milliseconds", "i"),
    ("get_status", "wO"),
    ("get_property", "pO"),
    ("set_property", "ss"),
    ("get_configuration", "O"),
    ("get_buffer_bytes", "iiiO"),
    ("get_buffer_status", "iww"),
    ("set_buffer_bytes", "iiis"),
    ("get_header_map_pairs", "iM"),
    ("set_header_map_pairs", "iP"),
    ("get_header_map_value", "isO"),
    ("add_header_map_value", "iss"),
    ("replace_header_map_value", "iss"),
    ("remove_header_map_value", "is"),
    ("get_header_map_size", "iw"),
    ("continue_stream", "i"),
    ("close_stream", "i"),
    ("continue_request", ""),
    ("continue_response", ""),
    ("clear_route_cache", ""),
    ("send_local_response", "issPi"),
    ("http_call", "sPsPiw"),
    ("grpc_call", "sssPsiw"),
    ("grpc_stream", "sssPw"),
    ("grpc_send", "isi"),
    ("grpc_close", "i"),
    ("grpc_cancel", "i"),
    ("get_shared_data", "sOw"),
    ("set_shared_data", "ssi"),
    ("register_shared_queue", "sw"),
    ("resolve_shared_queue", "ssw"),
    ("enqueue_shared_queue", "is"),
    ("dequeue_shared_queue", "iO"),
    ("define_metric", "isw"),
    ("increment_metric", "il"),
    ("record_metric", "il"),
    ("get_metric", "iW"),
    ("set_effective_context", "i"),
    ("done", ""),
    ("call_foreign_function", "ssO"),
];

/// Callbacks: name, the number of parameters, and whether they answer. The two header callbacks have one parameter
/// less in ABI 0.1.0.
const CALLBACKS: &[(&str, usize, bool)] = &[
    ("context_create", 2, false),
    ("vm_start", 2, true),
    ("configure", 2, true),
    ("tick", 1, false),
    ("queue_ready", 2, false),
    ("request_headers", 3, true),
    ("request_body", 3, true),
    ("request_trailers", 2, true),
    ("response_headers", 3, true),
    ("response_body", 3, true),
    ("response_trailers", 2, true),
    ("http_call_response", 5, false),
    ("grpc_receive_initial_metadata", 3, false),
    ("grpc_receive", 3, false),
    ("grpc_receive_trailing_metadata", 3, false),
    ("grpc_close", 3, false),
    ("new_connection", 1, true),
    ("downstream_data", 3, true),
    ("upstream_data", 3, true),
    ("downstream_connection_close", 2, false),
    ("upstream_connection_close", 2, false),
    ("foreign_function", 3, false),
    ("done", 1, true),
    ("log", 1, false),
    ("delete", 1, false),
];

const DATA: usize = 4096;
/// Where a log line is put together.
const LINE: usize = 131_072;
const HEAP: usize = 262_144;

const RUNTIME: &str = r#"
(global $heap (mut i32) (i32.const 262144))
(global $at (mut i32) (i32.const 131072))
(global $data (mut i32) (i32.const 0))
(global $len (mut i32) (i32.const 0))
(global $out (mut i32) (i32.const 0))
(func $malloc (export "malloc") (param $size i32) (result i32)
  (local $from i32)
  (local.set $from (global.get $heap))
  (global.set $heap (i32.and (i32.add (i32.add (local.get $from) (local.get $size)) (i32.const 15)) (i32.const -8)))
  (local.get $from))
(func $char (param $c i32)
  (i32.store8 (global.get $at) (local.get $c))
  (global.set $at (i32.add (global.get $at) (i32.const 1))))
(func $raw (param $ptr i32) (param $len i32)
  (memory.copy (global.get $at) (local.get $ptr) (local.get $len))
  (global.set $at (i32.add (global.get $at) (local.get $len))))
(func $hex (param $n i32)
  (call $char (i32.add (local.get $n) (select (i32.const 48) (i32.const 87) (i32.lt_u (local.get $n) (i32.const 10))))))
(func $text (param $ptr i32) (param $len i32)
  (local $i i32) (local $c i32)
  (block $end (loop $next
    (br_if $end (i32.ge_u (local.get $i) (local.get $len)))
    (br_if $end (i32.ge_u (local.get $i) (i32.const 600)))
    (local.set $c (i32.load8_u (i32.add (local.get $ptr) (local.get $i))))
    (if (i32.and (i32.ge_u (local.get $c) (i32.const 32)) (i32.lt_u (local.get $c) (i32.const 127)))
      (then (call $char (local.get $c)))
      (else
        (call $char (i32.const 92))
        (call $hex (i32.shr_u (local.get $c) (i32.const 4)))
        (call $hex (i32.and (local.get $c) (i32.const 15)))))
    (local.set $i (i32.add (local.get $i) (i32.const 1)))
    (br $next))))
(func $quoted (param $ptr i32) (param $len i32)
  (call $char (i32.const 34))
  (call $text (local.get $ptr) (local.get $len))
  (call $char (i32.const 34))
  (if (i32.gt_u (local.get $len) (i32.const 600))
    (then (call $char (i32.const 43)) (call $number (i64.extend_i32_u (local.get $len))))))
(func $number (param $n i64)
  (local $from i32)
  (if (i64.lt_s (local.get $n) (i64.const 0))
    (then (call $char (i32.const 45)) (local.set $n (i64.sub (i64.const 0) (local.get $n)))))
  (local.set $from (i32.const 64))
  (loop $next
    (local.set $from (i32.sub (local.get $from) (i32.const 1)))
    (i32.store8 (local.get $from) (i32.add (i32.const 48) (i32.wrap_i64 (i64.rem_u (local.get $n) (i64.const 10)))))
    (local.set $n (i64.div_u (local.get $n) (i64.const 10)))
    (br_if $next (i64.ne (local.get $n) (i64.const 0))))
  (call $raw (local.get $from) (i32.sub (i32.const 64) (local.get $from))))
(func $integer (param $n i32)
  (call $char (i32.const 32))
  (call $number (i64.extend_i32_s (local.get $n))))
(func $pairs (param $ptr i32) (param $len i32)
  (local $count i32) (local $i i32) (local $sizes i32) (local $from i32) (local $size i32)
  (call $char (i32.const 91))
  (if (local.get $len) (then
    (local.set $count (i32.load (local.get $ptr)))
    (local.set $sizes (i32.add (local.get $ptr) (i32.const 4)))
    (local.set $from (i32.add (local.get $sizes) (i32.mul (local.get $count) (i32.const 8))))
    (block $end (loop $next
      (br_if $end (i32.ge_u (local.get $i) (i32.mul (local.get $count) (i32.const 2))))
      (if (i32.and (local.get $i) (i32.const 1))
        (then (call $char (i32.const 61)))
        (else (if (local.get $i) (then (call $char (i32.const 124))))))
      (local.set $size (i32.load (i32.add (local.get $sizes) (i32.mul (local.get $i) (i32.const 4)))))
      (call $text (local.get $from) (local.get $size))
      (local.set $from (i32.add (i32.add (local.get $from) (local.get $size)) (i32.const 1)))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br $next)))))
  (call $char (i32.const 93)))
(func $flush (param $level i32)
  (drop (call $log (local.get $level) (i32.const 131072) (i32.sub (global.get $at) (i32.const 131072))))
  (global.set $at (i32.const 131072)))
(func $space (call $char (i32.const 32)))
(func $arrow (call $char (i32.const 32)) (call $char (i32.const 45)) (call $char (i32.const 62)))
(global $status (mut i32) (i32.const 0))
"#;

/// One filter's script.
#[derive(Debug, Clone, Default)]
pub(crate) struct Script {
    /// The marker to export; more than one when a test asks for it.
    pub(crate) abi: String,
    /// Only the callbacks with a script are exported, and none is logged by itself.
    pub(crate) only: bool,
    /// Text that is put into the module as it is.
    pub(crate) raw: String,
    /// Callbacks in the order written, each with its statements.
    pub(crate) callbacks: Vec<(String, Vec<String>)>,
}

/// Words of a statement: bare words, or quoted strings with escapes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Word {
    Bare(String),
    Quoted(Vec<u8>),
}

/// Splits a line into words. `\n`, `\r`, `\t`, `\0`, `\"`, `\\` and `\xHH` are escapes; `"…"*N` repeats.
pub(crate) fn words(line: &str) -> Vec<Word> {
    let mut words = Vec::new();
    let mut rest = line.trim();
    while !rest.is_empty() {
        if let Some(quoted) = rest.strip_prefix('"') {
            let (bytes, after) = unquote(quoted);
            rest = after;
            let mut bytes = bytes;
            if let Some(times) = rest.strip_prefix('*') {
                let end = times.find(' ').unwrap_or(times.len());
                bytes = bytes.repeat(times[..end].parse().unwrap());
                rest = &times[end..];
            }
            words.push(Word::Quoted(bytes));
        } else {
            let end = rest.find(' ').unwrap_or(rest.len());
            words.push(Word::Bare(rest[..end].to_owned()));
            rest = &rest[end..];
        }
        rest = rest.trim_start();
    }
    words
}

pub(crate) fn unquote(text: &str) -> (Vec<u8>, &str) {
    let mut bytes = Vec::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return (bytes, &text[at + 1..]),
            '\\' => match letters.next().unwrap().1 {
                'n' => bytes.push(b'\n'),
                'r' => bytes.push(b'\r'),
                't' => bytes.push(b'\t'),
                '0' => bytes.push(0),
                'x' => {
                    let hex: String = [letters.next().unwrap().1, letters.next().unwrap().1].iter().collect();
                    bytes.push(u8::from_str_radix(&hex, 16).unwrap());
                }
                other => bytes.extend_from_slice(other.to_string().as_bytes()),
            },
            other => bytes.extend_from_slice(other.to_string().as_bytes()),
        }
    }
    panic!("a quoted string does not end: {text}");
}

/// `k: v` lines as proxy-wasm serializes them.
fn serialized(pairs: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(pairs).into_owned();
    let pairs: Vec<(&str, &str)> =
        text.split('\n').filter(|line| !line.is_empty()).map(|line| line.split_once(": ").unwrap()).collect();
    let size = |text: &str| u32::try_from(text.len()).unwrap().to_le_bytes();
    let mut out = u32::try_from(pairs.len()).unwrap().to_le_bytes().to_vec();
    for (name, value) in &pairs {
        out.extend_from_slice(&size(name));
        out.extend_from_slice(&size(value));
    }
    for (name, value) in &pairs {
        out.extend_from_slice(name.as_bytes());
        out.push(0);
        out.extend_from_slice(value.as_bytes());
        out.push(0);
    }
    out
}

struct Compiler {
    data: Vec<u8>,
    used: BTreeSet<&'static str>,
    globals: BTreeSet<String>,
    functions: String,
}

/// The module. `id` is the scenario's, in place of each `@` in a string.
pub(crate) fn compile(script: &Script, id: &str) -> Vec<u8> {
    let mut compiler = Compiler {
        // Makes the module different from every other scenario's, and with it its VM.
        data: format!("{id};").into_bytes(),
        used: BTreeSet::from(["log"]),
        globals: BTreeSet::new(),
        functions: String::new(),
    };
    for (name, params, answers) in CALLBACKS {
        let body = script.callbacks.iter().find(|(callback, _)| callback == name).map(|(_, body)| body.as_slice());
        if body.is_some() || !script.only {
            let early = script.abi == "0.1.0";
            if *name == "foreign_function" && early {
                continue;
            }
            let params = if early && name.ends_with("_headers") { 2 } else { *params };
            compiler.callback(name, params, *answers, body.unwrap_or_default(), script.only, id);
        }
    }
    for (name, _) in &script.callbacks {
        assert!(CALLBACKS.iter().any(|(known, ..)| known == name), "no callback is called {name}");
    }
    let mut wat = String::from("(module\n");
    for name in &compiler.used {
        let (_, params) = CALLS.iter().find(|(known, _)| known == name).unwrap();
        let params: String = params
            .chars()
            .map(|kind| match kind {
                's' | 'p' | 'P' | 'O' | 'M' => "i32 i32 ",
                'l' => "i64 ",
                _ => "i32 ",
            })
            .collect();
        let _ = writeln!(wat, "(import \"env\" \"proxy_{name}\" (func ${name} (param {params}) (result i32)))");
    }
    let (imports, others): (Vec<_>, Vec<_>) = script.raw.lines().partition(|line| line.starts_with("(import"));
    let _ = writeln!(wat, "{}", imports.join("\n"));
    wat.push_str("(memory (export \"memory\") 64)\n");
    for version in script.abi.split(',') {
        let _ = writeln!(wat, "(func (export \"proxy_abi_version_{}\"))", version.replace('.', "_"));
    }
    for global in &compiler.globals {
        let _ = writeln!(wat, "(global ${global} (mut i32) (i32.const 0))");
    }
    let data: String = compiler.data.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "\\{byte:02x}");
        out
    });
    assert!(DATA + compiler.data.len() < LINE, "{id}: the strings of a script are too long");
    let _ = write!(
        wat,
        "(data (i32.const {DATA}) \"{data}\")\n{RUNTIME}\n{}\n{}\n)",
        compiler.functions,
        others.join("\n")
    );
    wat::parse_str(&wat).unwrap_or_else(|error| panic!("{id}: {error}\n{wat}"))
}

impl Compiler {
    /// Two constants: where a text is, and how long.
    fn text(&mut self, bytes: &[u8]) -> String {
        let at = DATA + self.data.len();
        self.data.extend_from_slice(bytes);
        format!("(i32.const {at}) (i32.const {})", bytes.len())
    }

    fn callback(&mut self, name: &str, params: usize, answers: bool, body: &[String], quiet: bool, id: &str) {
        let result = if answers { "(result i32)" } else { "" };
        let list: String = (0..params).map(|i| format!("(param $p{i} i32)")).collect();
        let mut code =
            format!("(func (export \"proxy_on_{name}\") {list} {result}\n(global.set $heap (i32.const {HEAP}))\n");
        if !quiet {
            let text = self.text(name.as_bytes());
            let _ = writeln!(code, "(call $raw {text})");
            for i in 0..params {
                let _ = writeln!(code, "(call $integer (local.get $p{i}))");
            }
            let _ = writeln!(code, "(call $flush (i32.const 2))");
        }
        for statement in body {
            let statement = self.statement(&statement.replace('@', id), answers);
            let _ = writeln!(code, "{statement}");
        }
        if answers {
            // Start functions answer true by default, everything else Continue.
            let default = i32::from(matches!(name, "vm_start" | "configure" | "done"));
            let _ = writeln!(code, "(i32.const {default})");
        }
        self.functions.push_str(&code);
        self.functions.push_str(")\n");
    }

    fn value(&mut self, word: &Word) -> String {
        let Word::Bare(word) = word else { panic!("a number is expected, not {word:?}") };
        match word.strip_prefix('$') {
            None => {
                word.parse::<i64>().unwrap_or_else(|_| panic!("not a number: {word}"));
                format!("(i32.const {word})")
            }
            Some("len") => "(global.get $len)".to_owned(),
            Some("out") => "(global.get $out)".to_owned(),
            Some(index) if index.parse::<usize>().is_ok() => format!("(local.get $p{index})"),
            Some(name) => {
                self.globals.insert(name.to_owned());
                format!("(global.get ${name})")
            }
        }
    }

    fn statement(&mut self, line: &str, answers: bool) -> String {
        let words = words(line);
        let Some((Word::Bare(verb), arguments)) = words.split_first() else { panic!("not a statement: {line}") };
        match (verb.as_str(), arguments) {
            ("say", [Word::Quoted(text)]) => format!("(call $raw {}) (call $flush (i32.const 2))", self.text(text)),
            ("trap", []) => "unreachable".to_owned(),
            ("return", [action]) if answers => format!("(return {})", self.value(action)),
            ("return", []) => "return".to_owned(),
            ("set", [Word::Bare(name), value]) => {
                let value = self.value(value);
                self.globals.insert(name.clone());
                format!("(global.set ${name} {value})")
            }
            ("inc", [Word::Bare(name)]) => {
                self.globals.insert(name.clone());
                format!("(global.set ${name} (i32.add (global.get ${name}) (i32.const 1)))")
            }
            ("if", [left, Word::Bare(operator), right]) => {
                let operator = match operator.as_str() {
                    "==" => "eq",
                    "!=" => "ne",
                    "<" => "lt_u",
                    ">" => "gt_u",
                    other => panic!("no such comparison: {other}"),
                };
                format!("(if (i32.{operator} {} {}) (then", self.value(left), self.value(right))
            }
            ("end", []) => "))".to_owned(),
            ("wat", [Word::Quoted(text)]) => String::from_utf8(text.clone()).unwrap(),
            _ => self.call(verb, arguments, line),
        }
    }

    fn call(&mut self, verb: &str, arguments: &[Word], line: &str) -> String {
        let Some((name, params)) = CALLS.iter().find(|(known, _)| *known == verb) else {
            panic!("no hostcall: {line}")
        };
        self.used.insert(name);
        let mut arguments = arguments.iter();
        let mut operands = String::new();
        let mut log = String::new();
        // Results are written one after the other, from address 80 on; 64 bytes below are for numbers.
        let mut slot = 80;
        for kind in params.chars() {
            let operand = match kind {
                'i' => self.value(arguments.next().unwrap_or_else(|| panic!("too few arguments: {line}"))),
                'l' => {
                    let Some(Word::Bare(number)) = arguments.next() else { panic!("a number is expected: {line}") };
                    format!("(i64.const {number})")
                }
                's' | 'p' | 'P' => match arguments.next() {
                    Some(Word::Bare(word)) if word == "$data" => "(global.get $data) (global.get $len)".to_owned(),
                    Some(Word::Bare(word)) if word == "outside" => "(i32.const 0x7ffffff0) (i32.const 4)".to_owned(),
                    Some(Word::Quoted(text)) => match kind {
                        'p' => self.text(
                            String::from_utf8(text.clone()).unwrap().replace('.', "\0").replace('/', ".").as_bytes(),
                        ),
                        'P' if text.is_empty() => "(i32.const 0) (i32.const 0)".to_owned(),
                        'P' if text.starts_with(b"raw:") => self.text(&text[4..]),
                        'P' => self.text(&serialized(text)),
                        _ if text.is_empty() => "(i32.const 0) (i32.const 0)".to_owned(),
                        _ => self.text(text),
                    },
                    other => panic!("bytes are expected, not {other:?}: {line}"),
                },
                'w' => {
                    let _ = write!(log, "(call $integer (i32.load (i32.const {slot})))");
                    let _ = write!(log, "(global.set $out (i32.load (i32.const {slot})))");
                    format!("(i32.const {slot})")
                }
                'W' => {
                    let _ = write!(log, "(call $space) (call $number (i64.load (i32.const {slot})))");
                    format!("(i32.const {slot})")
                }
                'T' => format!("(i32.const {slot})"),
                'O' | 'M' => {
                    let (data, len) =
                        (format!("(i32.load (i32.const {slot}))"), format!("(i32.load (i32.const {}))", slot + 4));
                    let shown = if kind == 'M' { "pairs" } else { "quoted" };
                    let _ = write!(log, "(call $space) (call ${shown} {data} {len})");
                    let _ = write!(log, "(global.set $data {data}) (global.set $len {len})");
                    format!("(i32.const {slot}) (i32.const {})", slot + 4)
                }
                other => panic!("{other}"),
            };
            if kind.is_ascii_uppercase() && kind != 'P' || kind == 'w' {
                slot += 8;
            }
            operands.push_str(&operand);
        }
        assert!(arguments.next().is_none(), "too many arguments: {line}");
        let shown = line.trim();
        let shown = self.text(&shown.as_bytes()[..shown.floor_char_boundary(60)]);
        format!(
            "(memory.fill (i32.const 80) (i32.const 0) (i32.const 32))
            (global.set $status (call ${name} {operands}))
            (call $text {shown}) (call $arrow) (call $integer (global.get $status)) {log} (call $flush (i32.const 2))"
        )
    }
}

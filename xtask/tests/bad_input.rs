//! What is said to input that is no good: exit code, message, and nothing half-written.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

mod support;

use std::fs;
use std::io::{BufRead as _, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use support::{Server, command, dist, finish, plugwright, repository, request};

/// A module that Envoy loads: ABI marker, allocator, start function.
const GOOD: &str = r#"(module
    (memory (export "memory") 1)
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 8))
    (func (export "_initialize")))"#;

fn module(folder: &Path, text: &str) -> String {
    let path = folder.join("module.wasm");
    fs::write(&path, wat::parse_str(text).unwrap()).unwrap();
    path.to_str().unwrap().to_owned()
}

#[track_caller]
fn check_module(bytes: &[u8], parts: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("m.wasm"), bytes).unwrap();
    let arguments = ["package", "--module", "m.wasm", "--name", "m", "--layout", "dist"];
    let mut expected = vec!["m.wasm"];
    expected.extend(parts);
    plugwright(folder.path(), &arguments).refused(1, &expected);
    assert!(!folder.path().join("dist/index.json").exists() || !names(folder.path()).contains("\"m\""));
}

fn names(folder: &Path) -> String {
    fs::read_to_string(folder.join("dist/index.json")).unwrap()
}

#[test]
fn a_module_that_envoy_would_refuse_is_not_packaged() {
    let with = |what: &str| wat::parse_str(GOOD.replacen("(module", &format!("(module {what}"), 1)).unwrap();
    check_module(b"#!/bin/sh\necho hello", &["wasm"]);
    check_module(b"", &["wasm"]);
    check_module(b"\0asm\x0d\0\x01\0", &["component"]);
    check_module(&with("")[..40], &[]);
    check_module(&with(r#"(import "env" "proxy_fly" (func))"#), &["env.proxy_fly"]);
    check_module(&with(r#"(import "env" "proxy_log" (func (param i32)))"#), &["env.proxy_log"]);
    check_module(&wat::parse_str(GOOD.replace("0_2_1", "9_9_9")).unwrap(), &["ABI"]);
    check_module(&wat::parse_str(GOOD.replace("proxy_on_memory_allocate", "other")).unwrap(), &["malloc"]);
    check_module(&with(r#"(func (export "proxy_on_done") (param i64))"#), &["proxy_on_done"]);
}

#[test]
fn an_import_says_since_which_envoy_it_exists() {
    let folder = tempfile::tempdir().unwrap();
    let text = GOOD.replacen(
        "(module",
        r#"(module (import "wasi_snapshot_preview1" "fd_renumber" (func (param i32 i32) (result i32)))"#,
        1,
    );
    let module = module(folder.path(), &text);
    let arguments = ["package", "--module", &module, "--name", "m", "--layout", "dist"];
    plugwright(folder.path(), &arguments).fine();
    let mut older = arguments.to_vec();
    older.extend(["--envoy", "1.33"]);
    plugwright(folder.path(), &older).refused(1, &["fd_renumber", "since"]);
}

#[test]
fn a_300_mib_module_is_refused_before_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let mut file = fs::File::create(folder.path().join("m.wasm")).unwrap();
    file.write_all(b"\0asm\x01\0\0\0").unwrap();
    file.set_len(300 << 20).unwrap();
    plugwright(folder.path(), &["package", "--module", "m.wasm", "--name", "m", "--layout", "dist"])
        .refused(1, &["m.wasm", "314572800", "268435456"]);
}

#[test]
fn a_failed_package_leaves_the_image_that_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let good = module(folder.path(), GOOD);
    let arguments = ["package", "--module", &good, "--name", "m", "--layout", "dist"];
    let first = plugwright(folder.path(), &arguments).fine().stdout;
    let before = names(folder.path());
    fs::write(&good, b"not wasm").unwrap();
    plugwright(folder.path(), &arguments).refused(1, &[]);
    assert_eq!(names(folder.path()), before);
    fs::write(&good, wat::parse_str(GOOD).unwrap()).unwrap();
    assert_eq!(plugwright(folder.path(), &arguments).fine().stdout, first);
}

#[test]
fn a_crate_that_does_not_compile_shows_cargos_own_words() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = "[package]\nname = \"broken\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[lib]\n\
                    crate-type = [\"cdylib\"]\n[package.metadata.plugin]\n[workspace]\n";
    fs::write(folder.path().join("Cargo.toml"), manifest).unwrap();
    fs::create_dir(folder.path().join("src")).unwrap();
    fs::write(folder.path().join("src/lib.rs"), "fn broken( {").unwrap();
    plugwright(folder.path(), &["package"]).refused(1, &["src/lib.rs:1", "cargo could not build `broken`"]);
    assert!(!folder.path().join("dist").exists());
    assert!(!folder.path().join("target/plugins/broken.wasm").exists());
}

#[test]
fn an_unknown_plugin_lists_the_known_ones() {
    plugwright(repository(), &["package", "nope"]).refused(2, &["no plugin `nope`", "basic-auth, ", "header-append"]);
}

#[test]
fn a_folder_without_a_project_is_a_usage_error() {
    let folder = tempfile::tempdir().unwrap();
    plugwright(folder.path(), &["package"]).refused(2, &["no cargo project", "--manifest-path"]);
    fs::create_dir(folder.path().join("hello")).unwrap();
    fs::write(folder.path().join("hello/Cargo.toml"), "").unwrap();
    let hint = "hint: hello is a cargo project: run this in it, or with --manifest-path hello/Cargo.toml";
    plugwright(folder.path(), &["package", "hello"]).refused(2, &["no cargo project", hint]);
    plugwright(folder.path(), &["dev", "hello"]).refused(2, &["no cargo project", hint]);
}

#[test]
fn an_address_in_use_is_told_before_anything_is_built() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for flag in ["--listen", "--admin"] {
        let free = if flag == "--admin" { vec!["--listen", "127.0.0.1:0"] } else { Vec::new() };
        let all = [vec!["dev", "header-append", flag, &address], free].concat();
        let hint = format!("hint: {flag} takes another address; port 0 takes a free one");
        let said = format!("error: listen on {address}: Address already in use");
        let ended = plugwright(repository(), &all).refused(3, &[&said, &hint]);
        assert!(!ended.stderr.contains("building"), "{}", ended.stderr);
    }
}

#[test]
fn a_folder_is_not_looked_for_in_a_registry() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("hello/dist")).unwrap();
    let is_none = "error: `hello` is a folder, and no layout";
    for command in ["inspect", "verify"] {
        plugwright(folder.path(), &[command, "hello"]).refused(2, &[is_none, "hint: name a module's file, "]);
    }
    fs::write(folder.path().join("hello/dist/oci-layout"), "").unwrap();
    plugwright(folder.path(), &["inspect", "hello"])
        .refused(2, &[is_none, "hint: its layout's images are oci:hello/dist:NAME"]);
}

#[test]
fn a_module_that_cannot_be_fetched_may_come_from_where_it_was_packaged() {
    let folder = tempfile::tempdir().unwrap();
    let resource = format!("{RESOURCE}  url: oci://127.0.0.1:1/plugins/hello:1\n");
    fs::write(folder.path().join("x.yaml"), resource).unwrap();
    let hint = "--image oci://127.0.0.1:1/plugins/hello:1=oci:dist:NAME";
    plugwright(folder.path(), &["run", "-f", "x.yaml"]).refused(3, &["no answer from the registry", hint]);
}

const RESOURCE: &str = "apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata:\n  name: x\nspec:\n  \
                        selector:\n    matchLabels:\n      app: x\n";

#[track_caller]
fn check_run(resource: &str, code: i32, parts: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("x.yaml"), resource).unwrap();
    plugwright(folder.path(), &["run", "-f", "x.yaml", "--listen", "127.0.0.1:0"]).refused(code, parts);
}

#[test]
fn bad_resources_are_named_by_file_line_and_field() {
    check_run("spec:\n  a: [1,\n  b: 2\n", 1, &["x.yaml:3:"]);
    check_run(&format!("{RESOURCE}  url: oci://h/x\n  pahse: AUTHN\n"), 1, &["x.yaml:10:", "spec.pahse", "`phase`"]);
    check_run(&format!("{RESOURCE}  url: h:5000/x\n"), 1, &["x.yaml:9:", "spec.url", "oci://h:5000/x"]);
    check_run(&format!("{RESOURCE}  url: oci://h/x\n  phase: AUTHX\n  priority: high\n"), 1, &["phase", "priority"]);
    check_run("", 1, &["no WasmPlugin"]);
    plugwright(repository(), &["run", "-f", "nowhere.yaml"]).refused(3, &["nowhere.yaml"]);
}

#[test]
fn a_missing_module_file_is_named() {
    check_run(&format!("{RESOURCE}  url: file:///nowhere/x.wasm\n"), 3, &["WasmPlugin default/x", "/nowhere/x.wasm"]);
}

#[test]
fn a_module_that_is_no_wasm_does_not_run() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.wasm");
    fs::write(&path, "hello").unwrap();
    check_run(&format!("{RESOURCE}  url: file://{}\n", path.display()), 1, &["WasmPlugin default/x", "wasm"]);
}

#[test]
fn a_registry_that_does_not_answer_is_an_environment_error() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    check_run(&format!("{RESOURCE}  url: oci://{closed}/x:1\n"), 3, &["WasmPlugin default/x", &closed.to_string()]);
    plugwright(repository(), &["verify", &format!("{closed}/x:1")]).refused(3, &[&closed.to_string()]);
    let source = format!("oci:{}:basic-auth", dist().display());
    plugwright(repository(), &["push", &source, &format!("{closed}/x:1")]).refused(3, &[&closed.to_string()]);
}

#[test]
fn an_image_flag_for_a_url_that_no_resource_has_is_a_typing_error() {
    let arguments = ["run", "-f", "examples/ambient/gateway.yaml", "--image", "oci://typo=oci:dist:basic-auth"];
    plugwright(repository(), &arguments).refused(2, &["oci://typo", "basic_auth:1.12.0"]);
}

#[test]
fn a_name_that_the_layout_has_not_lists_those_it_has() {
    let source = format!("oci:{}:nope", dist().display());
    plugwright(repository(), &["push", &source, "127.0.0.1:9/x:1"]).refused(1, &["nope", "basic-auth"]);
}

/// Serve this module under a resource with these lines.
fn serve(folder: &Path, text: &str, lines: &str) -> Server {
    let path = module(folder, text);
    fs::write(folder.join("x.yaml"), format!("{RESOURCE}  url: file://{path}\n{lines}")).unwrap();
    Server::start(&mut command(folder, &["run", "-f", "x.yaml", "--listen", "127.0.0.1:0", "--workers", "1"]))
}

fn on_request(body: &str) -> String {
    let callback = format!("(func (export \"proxy_on_request_headers\") (param i32 i32 i32) (result i32) {body})\n");
    GOOD.replacen("(func (export \"_initialize\"))", &format!("(func (export \"_initialize\")) {callback}"), 1)
}

#[test]
fn a_plugin_that_traps_loops_or_hoards_gives_the_fail_strategys_answer() {
    let hoards = "(loop $again (drop (memory.grow (i32.const 1024))) (br $again)) (i32.const 0)";
    for body in ["unreachable", "(loop $again (br $again)) (i32.const 0)", hoards] {
        let folder = tempfile::tempdir().unwrap();
        let server = serve(folder.path(), &on_request(body), "");
        assert_eq!(request(server.address(), "GET", "/", &[]).status, 503, "{body}");
        assert_eq!(request(server.address(), "GET", "/", &[]).status, 503, "{body}");
        assert_eq!(server.stop("TERM").code, 0, "{body}");

        let server = serve(folder.path(), &on_request(body), "  failStrategy: FAIL_OPEN\n");
        assert_eq!(request(server.address(), "GET", "/", &[]).status, 503, "{body}");
        assert_eq!(request(server.address(), "GET", "/", &[]).status, 200, "{body}");
    }
}

#[test]
fn a_port_in_use_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = module(folder.path(), GOOD);
    fs::write(folder.path().join("x.yaml"), format!("{RESOURCE}  url: file://{path}\n")).unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    plugwright(folder.path(), &["run", "-f", "x.yaml", "--listen", &address]).refused(3, &[&address]);
    plugwright(folder.path(), &["registry", "--listen", &address]).refused(3, &[&address]);
}

#[test]
fn a_reader_that_has_had_enough_is_no_failure() {
    let arguments = ["explain", "-f", "examples/ambient", "--workload", "default/waypoint"];
    let mut child = command(repository(), &arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Closed before the first line is written, as far as that goes; after it at the latest.
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), stderr.as_str()), (Some(0), ""));
}

#[test]
fn data_that_cannot_be_written_is_an_error_of_the_environment() {
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let arguments = ["explain", "-f", "examples/ambient", "--workload", "default/waypoint"];
    let output = command(repository(), &arguments).stdout(full).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    assert!(stderr.starts_with("error: failed to write to standard output: "), "{stderr}");
}

#[test]
fn a_server_says_when_nobody_can_be_told_where_it_listens_and_serves_who_has_had_enough() {
    let folder = tempfile::tempdir().unwrap();
    let path = module(folder.path(), GOOD);
    fs::write(folder.path().join("x.yaml"), format!("{RESOURCE}  url: file://{path}\n")).unwrap();
    let run = |listen: &str| command(folder.path(), &["run", "-f", "x.yaml", "--listen", listen]);
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let output = run("127.0.0.1:0").stdout(full).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    assert!(stderr.contains("error: failed to write to standard output: "), "{stderr}");
    // The reader is gone before anything is written.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut child =
        run("127.0.0.1:0").arg("--admin").arg("127.0.0.1:0").stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let admin = said.find_map(|line| line.strip_prefix("metrics on http://").map(str::to_owned)).unwrap();
    let address = admin.split('/').next().unwrap();
    assert_eq!(request(address, "GET", "/ready", &[]).status, 200);
    let status = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(status.success());
    assert_eq!((child.wait().unwrap().code(), said.find(|line| line.contains("error"))), (Some(0), None));
}

#[test]
fn what_others_have_written_reaches_the_terminal_escaped() {
    let folder = tempfile::tempdir().unwrap();
    let text = "{apiVersion: extensions.istio.io/v1alpha1, kind: WasmPlugin, \
                metadata: {name: \"a\\e[31mred\\u202e\"}, spec: {url: h/x, \"\\a\": 1}}";
    fs::write(folder.path().join("r.yaml"), text).unwrap();
    for arguments in [&["explain", "--namespace", "n", "--kind", "sidecar"][..], &["run"], &["lint"], &["migrate"]] {
        let ended = plugwright(folder.path(), &[arguments, &["-f", "r.yaml"]].concat());
        assert_eq!(ended.code, 1, "{}", ended.stderr);
        let said = ended.stdout + &ended.stderr;
        assert!(said.contains("a\\u{1b}[31mred\\u{202e}"), "{said}");
        assert!(!said.contains(|c: char| c != '\n' && (c.is_control() || c == '\u{202e}')), "{said:?}");
    }
}

#[test]
fn what_is_no_text_or_too_much_of_it_is_said_and_not_held() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
    write("latin.yaml", b"kind: \xe9\n");
    let utf16: Vec<u8> = "\u{feff}kind: Pod\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    write("utf16.yaml", &utf16);
    write("folder", b"");
    fs::File::create(folder.path().join("sparse.yaml")).unwrap().set_len(1 << 40).unwrap();
    for arguments in [&["lint"][..], &["run"], &["envoy"], &["verify"], &["migrate"], &["explain", "--workload", "a/b"]]
    {
        let refused = |file: &str, parts: &[&str]| {
            plugwright(folder.path(), &[arguments, &["-f", file]].concat()).refused(1, parts);
        };
        refused("latin.yaml", &["latin.yaml: not text in UTF-8: byte 6 begins no character"]);
        refused("utf16.yaml", &["utf16.yaml: not text in UTF-8: byte 0", "hint: it is text in UTF-16"]);
        refused("sparse.yaml", &["sparse.yaml: more than 256 MiB"]);
        let mut from_stdin = command(folder.path(), &[arguments, &["-f", "-"]].concat());
        from_stdin.stdin(fs::File::open(folder.path().join("latin.yaml")).unwrap());
        finish(&mut from_stdin).refused(1, &["standard input: not text in UTF-8: byte 6"]);
    }
    plugwright(folder.path(), &["lint", "-f", "/dev/zero"]).refused(1, &["/dev/zero: more than 256 MiB"]);
}

#[test]
fn flags_that_cannot_be_meant_are_refused_before_anything_is_done() {
    let folder = tempfile::tempdir().unwrap();
    for (flag, value, part) in [
        ("--listen", "nonsense", "expected HOST:PORT, for example 127.0.0.1:8080"),
        ("--listen", "127.0.0.1:70000", "expected HOST:PORT"),
        ("--admin", "8080", "expected HOST:PORT"),
        ("--workers", "0", "1..=1024"),
        ("--workers", "100000", "1..=1024"),
    ] {
        for command in ["run", "envoy"] {
            let arguments = [command, "-f", "missing.yaml", flag, value];
            plugwright(folder.path(), &arguments).refused(2, &[flag, part]);
        }
    }
    plugwright(folder.path(), &["registry", "--listen", "x"]).refused(2, &["expected HOST:PORT"]);
}

#[test]
fn what_only_the_harness_can_tell_is_told_without_its_own_usage() {
    let folder = tempfile::tempdir().unwrap();
    let path = module(folder.path(), GOOD);
    fs::write(folder.path().join("x.yaml"), format!("{RESOURCE}  url: file://{path}\n")).unwrap();
    for (arguments, part) in [
        (&["--upstream", "nonsense"][..], "the upstream nonsense is not of the form http://HOST[:PORT]"),
        (&["--cluster", "a=b"], "the cluster a b is not of the form"),
        (&["--upstream", "http://ann:very-secret@h"], "the upstream http://<redacted>@h is not of the form"),
        (&["--cluster", "a=http://ann:very-secret@h/?very-secret"], "the cluster a http://<redacted>@h/?<redacted> is"),
        (&["--upstream", "https://localhost:1", "--upstream-ca", "x.yaml"], "there is no PEM certificate in the text"),
    ] {
        let ended = plugwright(folder.path(), &[&["run", "-f", "x.yaml"], arguments].concat()).refused(2, &[part]);
        assert!(!ended.stderr.contains("usage:") && !ended.stderr.contains("very-secret"), "{}", ended.stderr);
    }
    plugwright(folder.path(), &["run", "-f", "x.yaml", "--workload", "a/b/c"]).refused(2, &["for example default/c"]);
}

#[test]
fn a_file_that_cannot_be_written_leaves_nothing_and_is_named_as_it_was_given() {
    let folder = tempfile::tempdir().unwrap();
    let path = module(folder.path(), GOOD);
    fs::write(folder.path().join("x.yaml"), format!("{RESOURCE}  url: file://{path}\n")).unwrap();
    fs::create_dir(folder.path().join("folder")).unwrap();
    for (out, part) in [
        ("no/where.json", "failed to write no/where.json: there is no folder no"),
        ("folder", "failed to write folder: "),
        ("x.yaml/y", "failed to write x.yaml/y: there is no folder x.yaml"),
    ] {
        let ended = plugwright(folder.path(), &["envoy", "-f", "x.yaml", "--out", out]).refused(3, &[part]);
        let said = ended.stderr.lines().find(|line| line.starts_with("error: ")).unwrap();
        assert!(!said.contains(".tmp"), "{said}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
}

/// `--out /dev/null`, as root, would have the machine without one.
#[test]
fn what_is_no_file_is_written_to_and_stays_and_a_link_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let path = module(folder.path(), GOOD);
    fs::write(at("x.yaml"), format!("{RESOURCE}  url: file://{path}\n")).unwrap();
    finish(Command::new("mkfifo").arg(at("pipe"))).fine();
    std::os::unix::fs::symlink("real", at("link")).unwrap();
    for arguments in [&["pull", &path, "--output"][..], &["envoy", "-f", "x.yaml", "--out"]] {
        fs::write(at("real"), "old").unwrap();
        plugwright(folder.path(), &[arguments, &["link"]].concat()).fine();
        assert!(at("link").is_symlink());
        let (pipe, expected) = (at("pipe"), fs::read(at("real")).unwrap());
        let reader = std::thread::spawn(move || fs::read(pipe).unwrap());
        plugwright(folder.path(), &[arguments, &["pipe"]].concat()).fine();
        assert!(reader.join().unwrap() == expected && expected.len() > 8, "{arguments:?}");
        assert!(std::os::unix::fs::FileTypeExt::is_fifo(&fs::metadata(at("pipe")).unwrap().file_type()));
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 5);
}

#[test]
fn an_envoy_that_is_none_is_named_and_nothing_is_left_behind() {
    let folder = tempfile::tempdir().unwrap();
    let path = module(folder.path(), GOOD);
    fs::write(folder.path().join("x.yaml"), format!("{RESOURCE}  url: file://{path}\n")).unwrap();
    let temporary = folder.path().join("temporary");
    fs::create_dir(&temporary).unwrap();
    for program in ["/nowhere/envoy", temporary.to_str().unwrap(), &path] {
        let mut exec = command(folder.path(), &["envoy", "-f", "x.yaml", "--exec"]);
        finish(exec.env("ENVOY", program).env("TMPDIR", &temporary))
            .refused(3, &[&format!("failed to run Envoy: {program} is no program"), "hint: without $ENVOY"]);
    }
    assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0);
}

#[test]
fn a_hint_calls_the_program_as_it_was_called() {
    let folder = tempfile::tempdir().unwrap();
    plugwright(folder.path(), &["plugwright", "inspect", "oci:none:x"]).refused(3, &["`cargo plugwright package`"]);
    plugwright(folder.path(), &["inspect", "oci:none:x"]).refused(3, &["`cargo xtask package`"]);
}

#[test]
fn nothing_is_printed_of_nothing() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("x.yaml"), "").unwrap();
    assert_eq!(plugwright(folder.path(), &["migrate", "-f", "x.yaml"]).fine().stdout, "");
}

#[test]
fn a_file_is_verified_whatever_its_name() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("x.yaml"), "kind: Pod\n").unwrap();
    let ended = plugwright(folder.path(), &["verify", "x.yaml"]);
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    assert!(!ended.stderr.contains("docker.io"), "{}", ended.stderr);
    for command in ["verify", "inspect"] {
        plugwright(folder.path(), &[command, "./missing"]).refused(3, &["cannot read module `./missing`"]);
        plugwright(folder.path(), &[command, "."]).refused(2, &["`.` is a folder, and no layout"]);
    }
    // As much as a sparse file has.
    fs::File::create(folder.path().join("large")).unwrap().set_len((256 << 20) + 1).unwrap();
    for (reference, check, reason) in
        [("/dev/null", "download", "`/dev/null`: not a regular file"), ("./large", "size", "at most 268435456")]
    {
        let verified = plugwright(folder.path(), &["verify", reference]).refused(1, &["fails verification", check]);
        assert!(verified.stdout.contains(reason), "{}", verified.stdout);
        plugwright(folder.path(), &["inspect", reference]).refused(1, &[reason]);
        plugwright(folder.path(), &["package", "--name", "x", "--from", &format!("file:{reference}")])
            .refused(1, &[reason]);
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    plugwright(folder.path(), &["verify", dist().to_str().unwrap()]).refused(2, &["is a layout: name an image in it"]);
}

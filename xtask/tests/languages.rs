//! Plugins in other languages than Rust, from their sources to a response: Go, and `AssemblyScript`.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use support::{Ended, Server, command, finish, plugwright, repository, request};
use tempfile::TempDir;

/// A copy of an example's own files.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name())).unwrap();
        if path.is_file() {
            fs::copy(&path, to.join(&name)).unwrap();
        } else if name != "build" && name != "node_modules" {
            copy(&path, &to.join(&name));
        }
    }
}

fn example(name: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let plugin = folder.path().join(name);
    copy(&repository().join("examples").join(name), &plugin);
    (folder, plugin)
}

fn tools(file: &str) -> PathBuf {
    repository().join("target/tools").join(file)
}

/// This program, with Go on the path where the machine has none or the suites have their own.
fn with_go(folder: &Path, arguments: &[&str]) -> Ended {
    let path = std::env::var_os("PATH").unwrap();
    let own = tools("debian-forky/usr/lib/go-1.26/bin");
    let path = std::env::join_paths(std::env::split_paths(&path).chain([own])).unwrap();
    finish(command(folder, arguments).env("PATH", path))
}

fn assemblyscript() -> (TempDir, PathBuf) {
    let (folder, plugin) = example("assemblyscript");
    let modules = tools("assemblyscript/node_modules");
    assert!(modules.is_dir(), "AssemblyScript is not there: cargo xtask ci --prepare");
    std::os::unix::fs::symlink(modules, plugin.join("node_modules")).unwrap();
    (folder, plugin)
}

/// Serves the example's resource with the image that was just made.
fn serve(plugin: &Path, name: &str) -> Server {
    let image = format!("oci://ghcr.io/plugwright/examples/{name}:0.1.0=oci:dist:{name}");
    let arguments = ["run", "-f", "wasmplugin.yaml", "--listen", "127.0.0.1:0", "--workers", "1", "--image", &image];
    Server::start(&mut command(plugin, &arguments))
}

fn values<'a>(headers: &'a [(String, String)], name: &str) -> Vec<&'a str> {
    headers.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str()).collect()
}

#[test]
fn a_plugin_in_go_is_built_packaged_inspected_and_served() {
    let (_folder, plugin) = example("go");
    let packaged = with_go(&plugin, &["package"]).fine();
    assert!(packaged.stdout.starts_with("go-tag sha256:"), "{}", packaged.stdout);
    assert!(packaged.stderr.contains("GOOS=wasip1 GOWORK=off go build -buildmode=c-shared "), "{}", packaged.stderr);
    assert_eq!(with_go(&plugin, &["package"]).fine().stdout, packaged.stdout);
    let inspected = plugwright(&plugin, &["inspect", "oci:dist:go-tag"]).fine().stdout;
    for part in ["language     Go", "Tags requests with a configured header", "loads"] {
        assert!(inspected.contains(part), "{part}: {inspected}");
    }
    plugwright(&plugin, &["verify", "oci:dist:go-tag"]).fine();
    let server = serve(&plugin, "go-tag");
    let response = request(server.address(), "GET", "/from/go", &[("x-tag", "mine")]);
    assert_eq!((response.status, values(&response.headers, "x-served")), (200, vec!["/from/go"]));
    let echoed: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
    let tags = echoed["headers"].as_array().unwrap().iter().filter(|header| header[0] == "x-tag");
    assert_eq!(tags.map(|header| &header[1]).collect::<Vec<_>>(), ["blue"]);
    assert_eq!(server.stop("TERM").code, 0);
}

#[test]
fn a_plugin_in_assemblyscript_is_built_packaged_inspected_and_served() {
    let (folder, plugin) = assemblyscript();
    // From elsewhere, by its folder.
    let packaged =
        plugwright(folder.path(), &["package", "./assemblyscript", "--layout", "assemblyscript/dist"]).fine();
    assert!(packaged.stdout.starts_with("assemblyscript-gate sha256:"), "{}", packaged.stdout);
    let inspected = plugwright(folder.path(), &["inspect", "assemblyscript"]).fine().stdout;
    assert!(inspected.contains("loads"), "{inspected}");
    let server = serve(&plugin, "assemblyscript-gate");
    let denied = request(server.address(), "GET", "/private/x", &[]);
    assert_eq!((denied.status, denied.body.as_slice()), (403, &b"not yours\n"[..]));
    let passed = request(server.address(), "GET", "/public", &[]);
    assert_eq!((passed.status, values(&passed.headers, "x-served-by")), (200, vec!["assemblyscript"]));
    assert_eq!(server.stop("TERM").code, 0);
}

/// What `test --coverage --json` says of a plugin, with a suite that sends a request's headers and no body.
fn coverage(plugin: &Path, name: &str, env: &str) -> serde_json::Value {
    fs::create_dir_all(plugin.join("tests")).unwrap();
    fs::write(plugin.join("tests/config.json"), r#"{"tag": "blue"}"#).unwrap();
    let request =
        "{input: {header: [{key: \":path\", value: /x}]}, result: {has_header: [{key: \":path\", value: /x}]}}";
    let suite = format!("{env}test: [{{name: passes, request_headers: {request}}}]\n");
    fs::write(plugin.join("tests/suite.yaml"), suite).unwrap();
    let ended = with_go(plugin, &["test", name, "--coverage", "--json"]).fine();
    let mut report: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    report["coverage"][0].take()
}

/// The names of functions that were reached, or were not.
fn functions(coverage: &serde_json::Value, reached: bool) -> Vec<&str> {
    let all = coverage["functions"].as_array().unwrap().iter();
    all.filter(|one| one["reached"] == reached).map(|one| one["name"].as_str().unwrap()).collect()
}

#[test]
fn what_no_test_reached_of_a_plugin_in_go_is_known_where_its_module_has_names() {
    let (_folder, plugin) = example("go");
    let env = "env: {config_path: config.json}\n";
    let without = coverage(&plugin, "go-tag", env);
    assert_eq!((&without["plugin"], &without["named"]), (&"go-tag".into(), &false.into()));
    assert!(functions(&without, false).iter().any(|name| name.starts_with("function ")), "{}", without["summary"]);

    let text = fs::read_to_string(plugin.join("plugin.toml")).unwrap();
    fs::write(plugin.join("plugin.toml"), text.replace("-ldflags=-s -w", "-ldflags=-w")).unwrap();
    let named = coverage(&plugin, "go-tag", env);
    let module = fs::read_to_string(plugin.join("go.mod")).unwrap();
    let module = module.lines().next().unwrap().strip_prefix("module ").unwrap();
    assert_eq!(named["own"], format!("packages main and {module}"));
    let (reached, missed) = (functions(&named, true), functions(&named, false));
    assert!(reached.contains(&"main.__stream_.OnHttpRequestHeaders"), "{reached:?}");
    assert!(missed.contains(&"main.__stream_.OnHttpResponseHeaders"), "{missed:?}");
    assert!(reached.iter().chain(&missed).all(|name| name.starts_with("main.")), "{reached:?} {missed:?}");
}

#[test]
fn what_no_test_reached_of_a_plugin_in_assemblyscript_is_known_where_its_module_has_names() {
    let (_folder, plugin) = assemblyscript();
    let without = coverage(&plugin, "assemblyscript-gate", "");
    assert_eq!(without["named"], false);
    // Exports have names in any case.
    assert!(functions(&without, true).contains(&"proxy_on_request_headers"), "{without}");
    assert!(functions(&without, false).contains(&"proxy_on_response_headers"), "{without}");

    let text = fs::read_to_string(plugin.join("plugin.toml")).unwrap();
    fs::write(plugin.join("plugin.toml"), text.replace("\"--optimize\"", "\"--debug\"")).unwrap();
    let named = coverage(&plugin, "assemblyscript-gate", "");
    assert_eq!((&named["named"], &named["own"]), (&true.into(), &"outside of ~lib".into()));
    let (reached, missed) = (functions(&named, true), functions(&named, false));
    assert!(reached.contains(&"assembly/abi/header"), "{reached:?}");
    assert!(missed.contains(&"assembly/abi/addHeader"), "{missed:?}");
    assert!(named["others"].as_array().unwrap().iter().any(|group| group["origin"] == "~lib/rt"), "{named}");
}

#[test]
fn a_go_program_that_is_no_library_is_refused_by_name() {
    let (_folder, plugin) = example("go");
    let text = fs::read_to_string(plugin.join("plugin.toml")).unwrap();
    fs::write(plugin.join("plugin.toml"), text.replace("\"-buildmode=c-shared\", ", "")).unwrap();
    with_go(&plugin, &["package"]).refused(1, &["is a Go program", "hint: build it with -buildmode=c-shared"]);
}

#[test]
fn what_assemblyscript_makes_by_default_is_refused_by_name() {
    let (_folder, plugin) = assemblyscript();
    let text = fs::read_to_string(plugin.join("plugin.toml")).unwrap();
    fs::write(plugin.join("plugin.toml"), text.replace(", \"--use\", \"abort=assembly/abi/abort\"", "")).unwrap();
    let said = plugwright(&plugin, &["package"]).refused(1, &["missing import: env.abort", "hint: AssemblyScript"]);
    assert_eq!(said.stdout, "");
}

#[test]
fn a_plugin_toml_that_is_wrong_says_where() {
    let folder = tempfile::tempdir().unwrap();
    let write = |text: &str| fs::write(folder.path().join("plugin.toml"), text).unwrap();
    let run = |command: &str| plugwright(folder.path(), &[command]);
    write("name = \"x\"\nmodule = \"x.wasm\"\nbuilt = [\"make\"]\n");
    run("package").refused(1, &["plugin.toml:3: unknown field `built`", "`build`"]);
    write("name = \"x\"\nmodule = \"x.wasm\"\n");
    run("package").refused(1, &["`x` has no module", "x.wasm", "hint: "]);
    write("name = \"x\"\nmodule = \"x.wasm\"\nbuild = [\"no-such-program\"]\n");
    run("build").refused(3, &["failed to run `no-such-program` for `x`"]);
    write("name = \"x\"\nmodule = \"x.wasm\"\nbuild = [\"false\"]\n");
    run("build").refused(1, &["`false` could not build `x`", "exit status: 1"]);
    assert!(!folder.path().join("dist").exists());
    plugwright(folder.path(), &["inspect", "."]).refused(3, &["`x` has no module yet", "build ./"]);
}

#[test]
fn plugins_of_a_folder_are_found_by_name() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["one", "two"] {
        let plugin = folder.path().join("plugins").join(name);
        fs::create_dir_all(&plugin).unwrap();
        let text = format!("name = \"{name}\"\nmodule = \"m.wasm\"\nbuild = [\"cp\", \"source\", \"m.wasm\"]\n");
        fs::write(plugin.join("plugin.toml"), text).unwrap();
        fs::write(plugin.join("source"), "not looked at").unwrap();
    }
    let names = |arguments: &[&str]| {
        let built = plugwright(folder.path(), arguments).fine().stdout;
        built.lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&["build"]), ["one", "two"]);
    assert_eq!(names(&["build", "two"]), ["two"]);
    assert_eq!(names(&["build", "plugins/one"]), ["one"]);
    plugwright(folder.path(), &["build", "three"]).refused(2, &["no plugin `three`", "it has one, two"]);
}

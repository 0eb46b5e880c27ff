//! `dev` as a plugin's author uses it: saves, mistakes, failing tests, and an end that leaves nothing behind.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

mod support;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use support::talking::{Talking, module};
use support::{command, plugwright, request};

/// A plugin without the SDK, so that nothing but itself is compiled: it sets `x-version`, and its test is `check`.
fn source(version: &str, check: &str) -> String {
    format!(
        r#"#[cfg(target_family = "wasm")]
mod plugin {{
    unsafe extern "C" {{
        fn proxy_add_header_map_value(map: u32, k: *const u8, kl: usize, v: *const u8, vl: usize) -> u32;
    }}
    #[unsafe(no_mangle)]
    extern "C" fn proxy_abi_version_0_2_1() {{}}
    #[unsafe(no_mangle)]
    extern "C" fn proxy_on_memory_allocate(size: usize) -> *mut u8 {{
        Vec::leak(vec![0; size]).as_mut_ptr()
    }}
    #[unsafe(no_mangle)]
    extern "C" fn proxy_on_configure(_: u32, size: u32) -> u32 {{
        // It takes no configuration.
        u32::from(size == 0)
    }}
    #[unsafe(no_mangle)]
    extern "C" fn proxy_on_response_headers(_: u32, _: u32, _: u32) -> u32 {{
        let (name, value) = ("x-version", "{version}");
        unsafe {{ proxy_add_header_map_value(2, name.as_ptr(), name.len(), value.as_ptr(), value.len()) }};
        0
    }}
}}

#[test]
fn checks() {{
    {check}
}}
"#
    )
}

const MANIFEST: &str = r#"[package]
name = "tiny"
version = "0.1.0"
edition = "2024"

[lib]
crate-type = ["cdylib", "rlib"]

[package.metadata.plugin]
phase = "AUTHZ"
priority = 7

[workspace]
"#;

struct Project(tempfile::TempDir, tempfile::TempDir);

impl Project {
    fn new() -> Self {
        let project = Self(tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir_all(project.path().join("src")).unwrap();
        project.write("Cargo.toml", MANIFEST);
        project.write("src/lib.rs", &source("one", "assert_eq!(1, 1);"));
        project
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path().join(name), text).unwrap();
    }
}

/// `dev`, of the plugin that is named so.
#[track_caller]
fn dev(project: &Project, plugin: &str, arguments: &[&str]) -> Talking {
    let mut command = command(project.path(), &["dev", plugin, "--listen", "127.0.0.1:0", "--quiet"]);
    command.args(arguments).env("XDG_CACHE_HOME", project.1.path()).env_remove("CARGO_TARGET_DIR");
    Talking::start(&mut command)
}

#[test]
fn a_save_is_built_served_and_then_tested_and_a_mistake_leaves_what_was_served() {
    let project = Project::new();
    let mut dev = dev(&project, "tiny", &[]);
    assert_eq!(dev.version().as_deref(), Some("one"));
    dev.wait_for("tests: 1 passed");

    project.write("src/lib.rs", &source("two and more", "assert_eq!(1, 1);"));
    dev.wait_for("src/lib.rs changed");
    assert!(dev.wait_for("built in ").contains(" bytes)"), "{:?}", dev.said);
    dev.wait_for("served ");
    assert_eq!(dev.version().as_deref(), Some("two and more"));
    assert!(dev.wait_for("another module").contains("WasmPlugin default/tiny"));
    dev.wait_for("tests: 1 passed");

    project.write("src/lib.rs", "fn broken( {");
    dev.wait_for("unclosed delimiter");
    dev.wait_for("not served: it does not compile");
    assert_eq!(dev.version().as_deref(), Some("two and more"));

    project.write("src/lib.rs", &source("three", "assert_eq!(1, 2);"));
    dev.wait_for("served ");
    assert_eq!(dev.version().as_deref(), Some("three"));
    dev.wait_for("assertion `left == right` failed");
    dev.wait_for("tests: 1 failed, 0 passed");

    // It refuses a configuration, and so does not start.
    fs::create_dir(project.path().join("tests")).unwrap();
    project.write("tests/config.example.json", r#"{"token": "hunter2hunter2"}"#);
    dev.wait_for("not served, what was served before still is");
    assert_eq!(dev.version().as_deref(), Some("three"));
    project.write("tests/config.example.json", "{}");
    dev.wait_for("nothing changes in the chain");

    // Suites beside it run after its native tests, with the module that is served.
    project.write("tests/callbacks.yaml", &SUITE.replace("one", "three"));
    dev.wait_for("tests: 1 failed, 1 passed in ");
    project.write("src/lib.rs", &source("four", "assert_eq!(1, 1);"));
    dev.wait_for("+ four");
    dev.wait_for("tests: 1 failed, 1 passed in ");
}

#[test]
fn an_end_by_a_signal_ends_everything_that_was_started() {
    for signal in ["INT", "TERM"] {
        let project = Project::new();
        let mark = project.path().join("running");
        // A test that never ends, and says so.
        let check = format!(
            "std::fs::write({mark:?}, std::process::id().to_string()).unwrap(); loop {{ std::thread::park(); }}"
        );
        project.write("src/lib.rs", &source("one", &check));
        let dev = dev(&project, "tiny", &[]);
        let until = Instant::now() + Duration::from_mins(5);
        let test = loop {
            match fs::read_to_string(&mark) {
                Ok(id) if !id.is_empty() => break id,
                _ => assert!(Instant::now() < until, "the test did not start"),
            }
            std::thread::yield_now();
        };
        let (code, said) = dev.stop(signal);
        assert_eq!(code, Some(0), "{said}");
        let gone = || !Path::new("/proc").join(&test).exists();
        while !gone() {
            assert!(Instant::now() < until, "the test goes on after SIG{signal}");
            std::thread::yield_now();
        }
    }
}

#[test]
fn resources_name_the_plugin_by_its_image_and_a_burst_of_saves_is_one_build() {
    let project = Project::new();
    let resource = |url: &str| {
        format!(
            "apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata: {{name: ours, namespace: a}}\n\
             spec: {{url: \"{url}\"}}\n---\n"
        )
    };
    let others = "apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata: {name: b, namespace: a}\n\
                  spec: {url: oci://ghcr.io/acme/b}\n";
    project.write("r.yaml", &(resource("ghcr.io/acme/c:1") + others));
    plugwright(project.path(), &["dev", "tiny", "-f", "r.yaml"])
        .refused(2, &["no resource is the plugin `tiny`'s", "oci://ghcr.io/acme/b", "--as URL"]);
    plugwright(project.path(), &["dev", "nothing"]).refused(2, &["no plugin `nothing`", "it has tiny"]);

    project.write("r.yaml", &resource("ghcr.io/acme/tiny:1"));
    let mut dev = dev(&project, "tiny", &["-f", "r.yaml", "--no-tests"]);
    let page = dev.page();
    assert_eq!(dev.version().as_deref(), Some("one"));
    for at in 0..20 {
        project.write("src/lib.rs", &source(&format!("burst {at}"), ""));
    }
    dev.wait_for("served ");
    assert_eq!(dev.version().as_deref(), Some("burst 19"));
    let builds = dev.said.iter().filter(|line| line.ends_with(" changed")).count();
    assert_eq!(builds, 1, "{:?}", dev.said);
    // The page has what was built, and nobody else's names get it.
    let events = request(&page, "GET", "/__plugwright/events", &[("host", "evil.example")]);
    assert!(events.status >= 400, "{events:?}");
}

#[test]
fn of_all_that_is_in_the_folder_the_plugins_own_manifest_is_taken_and_what_is_none_is_left_alone() {
    let project = Project::new();
    let resource = |kind: &str, spec: &str| {
        format!(
            "apiVersion: extensions.istio.io/v1alpha1\nkind: {kind}\nmetadata: {{name: it, namespace: a}}\nspec: {spec}\n"
        )
    };
    fs::create_dir(project.path().join("manifests")).unwrap();
    let own = resource("TrafficExtension", "{phase: STATS, wasm: {url: \"oci://ghcr.io/acme/tiny:1\"}}");
    let beside =
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p}\nspec: {rules: 7}\n---\n";
    project.write("manifests/all.yaml", &format!("{beside}{own}"));
    project.write("a-wasmplugin.yaml", &resource("WasmPlugin", "{url: \"oci://ghcr.io/acme/other:1\"}"));
    project.write("script.yaml", &resource("TrafficExtension", "{lua: {inlineCode: \"--\"}}"));
    project.write("suite.yaml", SUITE);
    project.write("values.yaml", "kind: [of, things]\nimage: {tag: latest}\n");
    project.write("workflow.yml", "name: ci\non: push\njobs: {}\n");
    project.write("broken.yaml", "a: [\n");
    project.write("template.yaml", "kind: Deployment\n{{- if .Values.x }}\nreplicas: {{ .Values.n }}\n{{- end }}\n");
    let mut dev = dev(&project, "tiny", &["--no-tests"]);
    assert_eq!(dev.version().as_deref(), Some("one"));
    for name in ["broken.yaml:2:1: ", "template.yaml:2:3: "] {
        let said = dev.said.join("\n");
        assert!(said.contains(name) || dev.wait_for(name).contains("it is left alone"), "{said}");
    }
    project.write("src/lib.rs", &source("two", ""));
    assert!(dev.wait_for(": another module").contains("TrafficExtension a/it"), "{:?}", dev.said);
    assert_eq!(dev.said.iter().filter(|line| line.contains("broken.yaml")).count(), 1, "{:?}", dev.said);

    // Half of the manifest is not served as if there were none.
    project.write("manifests/all.yaml", &own.replace("}}", "}"));
    dev.wait_for("not served, what was served before still is:");
    dev.wait_for("all.yaml:");
    // A mistake in it is one, and so is one in what is its own alone.
    project.write("manifests/all.yaml", &own.replace("STATS", "STATZ"));
    dev.wait_for("`STATZ` is not one of");
    fs::remove_file(project.path().join("manifests/all.yaml")).unwrap();
    dev.wait_for("a-wasmplugin.yaml: WasmPlugin `it` is not `tiny`'s, as its url is oci://ghcr.io/acme/other:1");
    dev.wait_for("served ");
    dev.wait_for("  + added default/tiny at ");
    assert_eq!(dev.version().as_deref(), Some("two"));
}

/// A plugin that a program makes: what is in `source`, unless that is no module. It leaves a journal beside, and notes
/// what it said before.
const SCRIPT: &str = r#"echo "tail: $TAIL" >&2
date +%N >> journal
if ! head -c 4 source | grep -q asm; then echo "source:1: no module"; exit 3; fi
mkdir -p out
cat source > out/m.wasm
"#;

const PLUGIN: &str = r#"name = "made"
module = "out/m.wasm"
build = ["sh", "make.sh"]
env = { TAIL = "one" }
phase = "AUTHZ"
root-ids = ["m"]
"#;

const SUITE: &str = r#"test:
- name: the version is in the response
  response_headers:
    input: {header: [{key: ":status", value: "200"}]}
    result: {has_header: [{key: x-version, value: "one"}]}
"#;

#[test]
fn a_plugin_that_another_program_makes_is_followed_built_served_and_tested_as_well() {
    let project = Project(tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::create_dir_all(project.path().join("made/tests")).unwrap();
    // Whole at once: half a file is another change.
    let write = |name: &str, content: &[u8]| {
        fs::write(project.1.path().join("new"), content).unwrap();
        fs::rename(project.1.path().join("new"), project.path().join("made").join(name)).unwrap();
    };
    write("plugin.toml", PLUGIN.as_bytes());
    write("make.sh", SCRIPT.as_bytes());
    write("source", &module("one"));
    write("tests/callbacks.yaml", SUITE.as_bytes());
    let mut dev = dev(&project, "./made", &[]);
    dev.wait_for("building made for development");
    dev.wait_for("made: running `TAIL=one sh make.sh` in ");
    dev.wait_for("tail: one");
    dev.wait_for("built in ");
    assert_eq!(dev.version().as_deref(), Some("one"));
    // Its own file would have it built for ever.
    dev.wait_for("made/journal changes whenever it is built, and is taken for a part of what is made");

    write("source", &module("two"));
    assert!(dev.wait_for(" changed").contains("made/source changed"), "{:?}", dev.said);
    dev.wait_for("served ");
    dev.wait_for("  ~ WasmPlugin default/made: another module, ");
    assert_eq!(dev.version().as_deref(), Some("two"));
    dev.wait_for("tests: 1 failed, 0 passed in ");

    write("source", b"text");
    dev.wait_for("source:1: no module");
    dev.wait_for("`sh` ended with exit status: 3");
    dev.wait_for("not served: it does not compile; what was served before still is");
    assert_eq!(dev.version().as_deref(), Some("two"));

    // What plugin.toml says is followed, too, and has to be right.
    write("source", &module("one"));
    dev.wait_for("tests: 1 passed in ");
    write("plugin.toml", PLUGIN.replace("phase", "phaze").as_bytes());
    dev.wait_for("not served, what was served before still is:");
    dev.wait_for("plugin.toml:5: unknown field `phaze`");
    write("plugin.toml", PLUGIN.replace("\"one\"", "\"other\"").replace("AUTHZ", "AUTHN").as_bytes());
    dev.wait_for("made: running `TAIL=other sh make.sh` in ");
    dev.wait_for("tail: other");
    dev.wait_for("  ~ changed default/made at ");
    dev.wait_for("tests: 1 passed in ");
    let builds = dev.said.iter().filter(|line| line.ends_with(" changed")).count();
    let (code, said) = dev.stop("INT");
    assert_eq!(code, Some(0), "{said}");
    // Two for the journal, and one for each thing that was written.
    assert!(builds <= 2 + 5, "{builds} builds in\n{said}");
}

#[test]
fn a_module_that_nobody_here_makes_is_followed_where_it_is() {
    let project = Project(tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    project.write("plugin.toml", "name = \"made\"\nmodule = \"m.wasm\"\n");
    plugwright(project.path(), &["dev", "made"]).refused(1, &["`made` has no module", "hint: build it"]);
    fs::write(project.path().join("m.wasm"), module("one")).unwrap();
    let mut dev = dev(&project, "made", &[]);
    fs::write(project.path().join("m.wasm"), module("two")).unwrap();
    dev.wait_for("m.wasm changed");
    dev.wait_for("served ");
    assert_eq!(dev.version().as_deref(), Some("two"));
    let (code, said) = dev.stop("TERM");
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains("tests: "), "there are none: {said}");
}

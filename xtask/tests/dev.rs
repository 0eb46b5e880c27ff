//! `dev` as a plugin's author uses it: saves, mistakes, failing tests, and an end that leaves nothing behind.

#![cfg(unix)]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot set itself up fails")]

mod support;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

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

/// A `dev` whose standard error is read line by line.
struct Dev {
    child: Child,
    address: String,
    page: String,
    lines: Receiver<String>,
    said: Vec<String>,
}

impl Dev {
    #[track_caller]
    fn start(project: &Project, arguments: &[&str]) -> Self {
        let mut command = command(project.path(), &["dev", "tiny", "--listen", "127.0.0.1:0", "--quiet"]);
        command.args(arguments).env("XDG_CACHE_HOME", project.1.path());
        command.env_remove("CARGO_TARGET_DIR").stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (sender, lines) = channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let Some(address) = line.trim_end().strip_prefix("listening on http://") else {
            panic!("{line:?} {:?}", lines.iter().collect::<Vec<_>>())
        };
        let mut dev = Self { address: address.to_owned(), page: String::new(), child, lines, said: Vec::new() };
        let page = dev.wait_for("trace page on http://");
        page.trim_start_matches("trace page on http://").trim_end_matches("/__plugwright").clone_into(&mut dev.page);
        dev
    }

    #[track_caller]
    fn wait_for(&mut self, part: &str) -> String {
        let until = Instant::now() + Duration::from_mins(5);
        loop {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.said.push(line.clone());
                    if line.contains(part) {
                        return line;
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("no {part:?} in\n{}", self.said.join("\n"))
                }
            }
        }
    }

    fn version(&self) -> Option<String> {
        let reply = request(&self.address, "GET", "/", &[]);
        reply.headers.into_iter().find(|(name, _)| name == "x-version").map(|(_, value)| value)
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_save_is_built_served_and_then_tested_and_a_mistake_leaves_what_was_served() {
    let project = Project::new();
    let mut dev = Dev::start(&project, &[]);
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
        let mut dev = Dev::start(&project, &[]);
        let until = Instant::now() + Duration::from_mins(5);
        let test = loop {
            match fs::read_to_string(&mark) {
                Ok(id) if !id.is_empty() => break id,
                _ => assert!(Instant::now() < until, "the test did not start"),
            }
            std::thread::yield_now();
        };
        assert!(
            Command::new("kill").args([format!("-{signal}"), dev.child.id().to_string()]).status().unwrap().success()
        );
        assert_eq!(dev.child.wait().unwrap().code(), Some(0));
        // Standard error ends with the last process that has it.
        dev.said.extend(dev.lines.iter());
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
    let mut dev = Dev::start(&project, &["-f", "r.yaml", "--no-tests"]);
    assert_eq!(dev.version().as_deref(), Some("one"));
    for at in 0..20 {
        project.write("src/lib.rs", &source(&format!("burst {at}"), ""));
    }
    dev.wait_for("served ");
    assert_eq!(dev.version().as_deref(), Some("burst 19"));
    let builds = dev.said.iter().filter(|line| line.ends_with(" changed")).count();
    assert_eq!(builds, 1, "{:?}", dev.said);
    // The page has what was built, and nobody else's names get it.
    let events = request(&dev.page, "GET", "/__plugwright/events", &[("host", "evil.example")]);
    assert!(events.status >= 400, "{events:?}");
}

//! `cargo plugwright`, installed outside the repository, on a cargo project that knows nothing of it.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use support::{finish, repository};

fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // What cargo says to the programs it runs must not reach a cargo that runs on its own.
    command.env_remove("CARGO_MANIFEST_DIR").env_remove("CARGO_PKG_NAME");
    command
}

fn write(folder: &Path, file: &str, text: &str) {
    let path = folder.join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

#[test]
fn it_packages_a_plugin_of_any_cargo_project() {
    let folder = tempfile::tempdir().unwrap();
    let install = ["install", "--path", "xtask", "--locked", "--debug", "--quiet", "--no-track", "--root"];
    finish(
        cargo()
            .current_dir(repository())
            .args(install)
            .arg(folder.path())
            .arg("--target-dir")
            .arg(repository().join("target")),
    )
    .fine();

    let project = folder.path().join("project");
    let manifest = format!(
        "[package]\nname = \"hello\"\nversion = \"1.2.3\"\nedition = \"2024\"\nlicense = \"MIT\"\n\
         [lib]\ncrate-type = [\"cdylib\"]\n[dependencies]\nserde = \"1\"\nplugwright-sdk = {{ path = {:?} }}\n\
         [package.metadata.plugin]\nphase = \"STATS\"\nroot-ids = [\"hello\"]\n",
        repository().join("sdk")
    );
    write(&project, "Cargo.toml", &manifest);
    let source = "use plugwright_sdk::{ConfigError, Flow, Host, MapType, Plugin};\n\
                  struct Hello;\n\
                  impl Plugin for Hello {\n    type Config = ();\n    \
                  fn configure(_: (), _: &mut impl Host) -> Result<Self, ConfigError> { Ok(Hello) }\n    \
                  fn unconfigured(_: &mut impl Host) -> Result<Self, ConfigError> { Ok(Hello) }\n    \
                  fn on_response_headers(&self, host: &mut impl Host, _: bool) -> Flow {\n        \
                  let _ = host.add_header(MapType::ResponseHeaders, \"x-hello\", \"world\");\n        Flow::Continue\n    \
                  }\n}\nplugwright_sdk::register!(Hello);\n";
    write(&project, "src/lib.rs", source);

    let path = std::env::join_paths(
        [folder.path().join("bin")].into_iter().chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    )
    .unwrap();
    let plugwright = |arguments: &[&str]| {
        let mut command = cargo();
        command.current_dir(&project).env("PATH", &path).arg("plugwright").args(arguments);
        finish(&mut command)
    };
    let packaged = plugwright(&["package"]).fine();
    let words: Vec<&str> = packaged.stdout.split_whitespace().collect();
    assert!(matches!(words[..], ["hello", digest, _] if digest.starts_with("sha256:")), "{}", packaged.stdout);
    assert!(packaged.stderr.contains("cargo plugwright push oci:dist:hello"), "{}", packaged.stderr);
    let verified = plugwright(&["verify", "oci:dist:hello"]).fine();
    assert!(verified.stdout.contains("runtime-config"), "{}", verified.stdout);

    // By its own name, as completions and manual pages have it.
    let itself = folder.path().join("bin/cargo-plugwright");
    let called = finish(Command::new(itself).env_remove("CARGO_MANIFEST_DIR").current_dir(&project).arg("lint"));
    called.refused(2, &["Usage: cargo-plugwright lint "]);

    let module = fs::read(project.join("target/plugins/hello.wasm")).unwrap();
    let root = repository().to_str().unwrap();
    assert!(!module.windows(root.len()).any(|window| window == root.as_bytes()), "the SDK's folder is in the module");
}

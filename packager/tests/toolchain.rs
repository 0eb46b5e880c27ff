//! Which toolchain is chosen, and what is said when none is there. Compilers are scripts that answer like rustc.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]
#![cfg(unix)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use packager::build::{Installer, Kind, Preference, ToolchainError, Tools, prepare};

/// A machine with nothing on it; each test puts there what it needs.
struct Machine {
    folder: tempfile::TempDir,
    tools: Tools,
}

impl Machine {
    fn bare() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let tools = Tools {
            rustc: at("rustc"),
            rustup: None,
            system_rustc: at("system-rustc"),
            system_libc: at("libc"),
            wasm_ld: None,
            apt_get: None,
            root: false,
            directory: folder.path().to_owned(),
        };
        Self { folder, tools }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn script(&self, name: &str, body: &str) -> PathBuf {
        let path = self.at(name);
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// A compiler whose sysroot is the folder `SYSROOT`; it has the target once `SYSROOT/wasm/libstd-1.rlib` exists.
    fn compiler(&self, name: &str, sysroot: &str) -> PathBuf {
        let root = self.at(sysroot);
        fs::create_dir_all(root.join("wasm")).unwrap();
        self.script(
            name,
            &format!(
                "case \"$*\" in\n-vV) printf 'rustc 1.99.0 (abc 2026-01-01)\\nhost: h\\ncommit-hash: abc\\n';;\n\
                 '--print sysroot') echo {root};;\n*) echo {root}/wasm;;\nesac",
                root = root.display()
            ),
        )
    }

    fn add_target(&self, sysroot: &str) {
        fs::write(self.at(sysroot).join("wasm/libstd-1.rlib"), "").unwrap();
    }

    fn add_distribution(&self) {
        self.compiler("system-rustc", "usr");
        let library = self.at("usr/lib/rustlib/src/rust/library/std");
        fs::create_dir_all(&library).unwrap();
        fs::write(library.join("Cargo.toml"), "").unwrap();
        fs::create_dir_all(self.at("libc")).unwrap();
        fs::write(self.at("libc/libc.a"), "").unwrap();
    }

    fn prepare(&self, preference: Preference, allowed: bool) -> (Result<Kind, ToolchainError>, Vec<String>) {
        let mut said = Vec::new();
        let mut talk = |sentence: &str| said.push(sentence.to_owned());
        let toolchain = prepare(&self.tools, preference, &mut Installer { allowed, talk: &mut talk });
        (toolchain.map(|toolchain| toolchain.kind), said)
    }
}

fn message(error: &ToolchainError) -> String {
    error.to_string()
}

#[test]
fn a_target_that_is_present_is_used_and_nothing_is_installed() {
    let mut machine = Machine::bare();
    machine.compiler("rustc", "active");
    machine.add_target("active");
    machine.tools.rustup = Some(machine.script("rustup", "echo must not run >&2; exit 1"));
    let (toolchain, said) = machine.prepare(Preference::Auto, true);
    assert_eq!(toolchain.unwrap(), Kind::Prebuilt);
    assert!(said.is_empty(), "{said:?}");
}

#[test]
fn a_missing_target_is_added_with_rustup_and_said() {
    let mut machine = Machine::bare();
    machine.compiler("rustc", "active");
    let library = machine.at("active/wasm/libstd-1.rlib");
    machine.tools.rustup = Some(machine.script("rustup", &format!("touch {}", library.display())));
    let (toolchain, said) = machine.prepare(Preference::Auto, true);
    assert_eq!(toolchain.unwrap(), Kind::Prebuilt);
    assert_eq!(said, ["adding the wasm32-wasip1 target: rustup target add wasm32-wasip1"]);
}

#[test]
fn offline_rustup_falls_through_to_the_distribution() {
    let mut machine = Machine::bare();
    machine.compiler("rustc", "active");
    machine.tools.rustup = Some(machine.script("rustup", "exit 1"));
    machine.tools.wasm_ld = Some(machine.script("wasm-ld", ""));
    machine.add_distribution();
    let (toolchain, _) = machine.prepare(Preference::Auto, true);
    assert!(matches!(toolchain.unwrap(), Kind::Distribution { linker, .. } if linker.ends_with("wasm-ld")));
}

#[test]
fn the_active_compilers_linker_is_preferred() {
    let mut machine = Machine::bare();
    machine.compiler("rustc", "active");
    machine.tools.wasm_ld = Some(machine.script("wasm-ld", ""));
    machine.add_distribution();
    let linker = machine.at("active/lib/rustlib/h/bin/rust-lld");
    fs::create_dir_all(linker.parent().unwrap()).unwrap();
    fs::write(&linker, "").unwrap();
    let (toolchain, _) = machine.prepare(Preference::Distribution, false);
    assert_eq!(toolchain.unwrap(), Kind::Distribution { linker, libc: machine.at("libc") });
}

#[test]
fn no_install_runs_no_installer_and_gives_the_command() {
    let mut machine = Machine::bare();
    machine.compiler("rustc", "active");
    let trace = machine.at("ran");
    let touch = format!("touch {}", trace.display());
    machine.tools.rustup = Some(machine.script("rustup", &touch));
    machine.tools.apt_get = Some(machine.script("apt-get", &touch));
    machine.tools.root = true;
    let (toolchain, said) = machine.prepare(Preference::Auto, false);
    let error = toolchain.unwrap_err();
    assert!(!trace.exists() && said.is_empty());
    assert!(error.command().starts_with("rustup target add wasm32-wasip1"), "{}", error.command());
    assert!(error.command().contains("apt-get install -y --no-install-recommends rustc-web"), "{}", error.command());
    assert!(message(&error).contains("installing is not allowed"), "{}", message(&error));
}

#[test]
fn apt_installs_only_as_root() {
    let mut machine = Machine::bare();
    let log = machine.at("log");
    let install = format!("echo \"$@\" >> {}", log.display());
    machine.tools.apt_get = Some(machine.script("apt-get", &install));
    let (toolchain, _) = machine.prepare(Preference::Distribution, true);
    assert!(toolchain.unwrap_err().command().starts_with("sudo "));
    assert!(!log.exists());

    machine.tools.root = true;
    let (toolchain, said) = machine.prepare(Preference::Distribution, true);
    assert!(message(&toolchain.unwrap_err()).contains("after installing: no compiler at"));
    assert_eq!(said.len(), 1);
    let ran = fs::read_to_string(&log).unwrap();
    assert!(ran.contains("install -q -y --no-install-recommends rustc-web rust-web-src wasi-libc lld"), "{ran}");
}

#[test]
fn a_machine_with_nothing_is_told_to_get_rustup() {
    let (toolchain, _) = Machine::bare().prepare(Preference::Auto, true);
    let error = toolchain.unwrap_err();
    assert_eq!(error.command(), "install rustup, then: rustup target add wasm32-wasip1");
    assert!(message(&error).contains("does not run"), "{}", message(&error));
}

#[test]
fn an_incomplete_distribution_says_what_is_missing() {
    let check = |break_it: &dyn Fn(&Path), expected: &str| {
        let machine = Machine::bare();
        machine.compiler("rustc", "active");
        machine.add_distribution();
        break_it(machine.folder.path());
        let (toolchain, _) = machine.prepare(Preference::Distribution, false);
        let text = message(&toolchain.unwrap_err());
        assert!(text.contains(expected), "{text}");
    };
    check(&|root| fs::remove_file(root.join("libc/libc.a")).unwrap(), "no libc for WASI");
    check(&|root| fs::remove_dir_all(root.join("usr/lib")).unwrap(), "no library source");
    check(&|_| (), "no rust-lld beside the active compiler and no wasm-ld");
}

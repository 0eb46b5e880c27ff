//! When cargo need not be asked: with a real workspace of tiny plugins.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use packager::build::fresh::{Question, remember, up_to_date};
use packager::build::{Installer, Preference, compile, discover, prepare};
use support::tools;
use tempfile::TempDir;

/// A workspace of the plugins `one` and `two`; `one` has a second source file and reads `GREETING`.
struct Project {
    folder: TempDir,
    variables: BTreeMap<String, String>,
}

impl Project {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let project = Self { folder, variables: std::env::vars().filter(|(name, _)| name != "GREETING").collect() };
        project.write("Cargo.toml", "[workspace]\nresolver = \"3\"\nmembers = [\"plugins/*\"]\n");
        project.plugin("one", "pub mod other;\npub const GREETING: Option<&str> = option_env!(\"GREETING\");\n");
        project.write("plugins/one/src/other.rs", "pub const NUMBER: u32 = 1;\n");
        project.plugin("two", "#[unsafe(no_mangle)]\npub extern \"C\" fn two() -> u32 { 2 }\n");
        project
    }

    fn root(&self) -> PathBuf {
        self.folder.path().canonicalize().unwrap()
    }

    /// Writes as somebody does who has gone for a coffee since: builds do not trust what is as young as themselves.
    fn write(&self, name: &str, text: &str) {
        let path = self.folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_mins(1)).unwrap();
    }

    fn plugin(&self, name: &str, source: &str) {
        let manifest = format!(
            "[package]\nname = \"{name}\"\nversion = \"1.0.0\"\nedition = \"2024\"\n[lib]\ncrate-type = [\"cdylib\"]\n\
             [package.metadata.plugin]\n"
        );
        self.write(&format!("plugins/{name}/Cargo.toml"), &manifest);
        self.write(&format!("plugins/{name}/src/lib.rs"), source);
    }

    fn question(&self, directory: &Path) -> Question {
        Question {
            directory: directory.to_owned(),
            manifest: None,
            cargo: std::env::var_os("CARGO").map_or_else(|| "cargo".into(), PathBuf::from),
            preference: Preference::Auto,
            variables: self.variables.clone(),
        }
    }

    fn build(&self, plugins: &[&str]) {
        let question = self.question(&self.root());
        let workspace = discover(&question.cargo, &self.root(), None).unwrap();
        let mut talk = |_: &str| ();
        let toolchain =
            prepare(&tools(&self.root()), Preference::Auto, &mut Installer { allowed: true, talk: &mut talk }).unwrap();
        let started = SystemTime::now();
        let selected = workspace.select(&owned(plugins)).unwrap();
        let built = compile(&question.cargo, &workspace, &selected, &toolchain).unwrap();
        remember(&question, &workspace, &toolchain, &built, started).unwrap();
    }

    /// The plugins that need no cargo, when `asked` is asked for.
    fn fresh(&self, asked: &[&str]) -> Option<Vec<String>> {
        self.fresh_in(&self.root(), asked)
    }

    fn fresh_in(&self, directory: &Path, asked: &[&str]) -> Option<Vec<String>> {
        let (root, built) = up_to_date(&self.question(directory), &owned(asked))?;
        assert_eq!(root, self.root());
        Some(built.into_iter().map(|built| built.plugin.name).collect())
    }
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn a_build_is_remembered_until_something_it_depends_on_changes() {
    let mut project = Project::new();
    assert_eq!(project.fresh(&[]), None, "nothing was built");
    project.build(&[]);
    let both = Some(owned(&["one", "two"]));
    assert_eq!(project.fresh(&[]), both);
    assert_eq!(project.fresh(&["two", "two"]), Some(owned(&["two"])));
    assert_eq!(project.fresh(&["three"]), None, "an unknown name is for cargo's answer to say");
    assert_eq!(project.fresh_in(&project.root().join("plugins/one/src"), &[]), both);

    project.write("plugins/one/src/other.rs", "pub const NUMBER: u32 = 2;\n");
    assert_eq!(project.fresh(&[]), None);
    assert_eq!(project.fresh(&["two"]), Some(owned(&["two"])), "the other plugin has nothing to do with it");
    project.build(&["one"]);
    assert_eq!(project.fresh(&[]), both, "what was known of the other plugin is still true");

    project.variables.insert("GREETING".to_owned(), "hello".to_owned());
    assert_eq!(project.fresh(&["one"]), None, "a variable that a source reads was set");
    project.variables.remove("GREETING");
    project.variables.insert("CARGO_PROFILE_RELEASE_LTO".to_owned(), "off".to_owned());
    assert_eq!(project.fresh(&["one"]), None, "a variable that cargo reads was set");
    project.variables.remove("CARGO_PROFILE_RELEASE_LTO");
    assert_eq!(project.fresh(&[]), both);

    let root = project.root();
    let lock = root.join("Cargo.lock");
    let locked = fs::read(&lock).unwrap();
    fs::write(&lock, [locked.as_slice(), b"\n"].concat()).unwrap();
    assert_eq!(project.fresh(&[]), None, "Cargo.lock");
    fs::write(&lock, locked).unwrap();
    assert_eq!(project.fresh(&[]), both);

    fs::write(root.join("rust-toolchain.toml"), "[toolchain]\nchannel = \"nightly\"\n").unwrap();
    assert_eq!(project.fresh(&[]), None, "rust-toolchain.toml");
    fs::remove_file(root.join("rust-toolchain.toml")).unwrap();

    let module = root.join("target/plugins/two.wasm");
    let good = fs::read(&module).unwrap();
    fs::write(&module, b"\0asm").unwrap();
    assert_eq!(project.fresh(&[]), None, "somebody has changed the module");
    fs::write(&module, good).unwrap();
    assert_eq!(project.fresh(&[]), both);

    project.plugin("three", "");
    assert_eq!(project.fresh(&[]), None, "there is one more plugin");
}

#[test]
fn another_project_inside_the_folder_is_not_taken_for_it() {
    let project = Project::new();
    project.build(&[]);
    project.write("elsewhere/Cargo.toml", "[workspace]\n[package]\nname = \"elsewhere\"\n");
    assert_eq!(project.fresh_in(&project.root().join("elsewhere"), &[]), None);
}

#[test]
fn sources_written_while_cargo_ran_are_not_believed() {
    let project = Project::new();
    let source = project.root().join("plugins/two/src/lib.rs");
    fs::File::options()
        .write(true)
        .open(&source)
        .unwrap()
        .set_modified(SystemTime::now() + Duration::from_mins(1))
        .unwrap();
    project.build(&[]);
    assert_eq!(project.fresh(&[]), None);
}

#[test]
fn a_build_script_is_left_to_cargo() {
    let project = Project::new();
    project.write("plugins/one/build.rs", "fn main() {}\n");
    project.build(&[]);
    assert_eq!(project.fresh(&[]), None);
}

#[test]
fn a_record_that_is_broken_is_no_record() {
    let project = Project::new();
    project.build(&[]);
    fs::write(project.root().join("target/plugins/.fresh.json"), "{\"version\":1,").unwrap();
    assert_eq!(project.fresh(&[]), None);
}

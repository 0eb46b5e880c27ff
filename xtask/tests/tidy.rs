//! The repository's own rules: who depends on whom, how long files may be, what documents must name.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::{finish, repository};

/// Every package that `package` pulls in for a normal build.
fn dependencies(package: &str) -> BTreeSet<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(repository()).args(["tree", "--prefix", "none", "--edges", "normal", "--package", package]);
    let tree = finish(&mut command).fine().stdout;
    tree.lines().skip(1).filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[track_caller]
fn check_without(package: &str, unwanted: &[&str]) {
    let found = dependencies(package);
    assert!(!found.is_empty());
    for name in unwanted {
        assert!(!found.contains(*name), "`{package}` must not depend on `{name}`");
    }
}

#[test]
fn the_command_line_does_not_wait_for_the_engine() {
    check_without("xtask", &["wasmtime", "harness", "hyper", "tokio", "registry-tests"]);
}

#[test]
fn libraries_know_only_what_the_design_lets_them() {
    check_without("packager", &["mesh", "harness", "clap", "wasmtime"]);
    check_without("mesh", &["packager", "harness", "clap", "ureq"]);
    check_without("harness", &["packager", "clap", "ureq"]);
    check_without("registry-tests", &["packager", "mesh", "harness", "clap"]);
    check_without("plugwright-sdk", &["packager", "mesh", "harness", "jose"]);
    check_without("jose", &["packager", "mesh", "harness", "plugwright-sdk", "ring"]);
    check_without("page", &["packager", "mesh", "harness", "suites", "tokio"]);
    check_without("basic-auth", &["packager", "mesh", "harness"]);
}

fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') && name != "dist" {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

#[test]
fn files_open_with_a_sentence_and_stay_readable_in_one_sitting() {
    let mut files = Vec::new();
    sources(repository(), &mut files);
    assert!(files.len() > 20);
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let lines = text.lines().count();
        assert!(lines <= 800, "{}: {lines} lines, split it", file.display());
        let first = text.lines().next().unwrap_or_default();
        assert!(first.starts_with("//! "), "{}: opens with `{first}`, not with what it is for", file.display());
    }
}

#[test]
fn every_plugin_has_its_documents() {
    for entry in fs::read_dir(repository().join("plugins")).unwrap() {
        let plugin = entry.unwrap().path();
        for file in ["README.md", "tests/config.example.json"] {
            assert!(plugin.join(file).is_file(), "{} has no {file}", plugin.display());
        }
    }
}

/// A file that docs/differences.md names, by its name alone where it is the harness's.
fn named_file(name: &str) -> Option<PathBuf> {
    let folders = ["", "harness/tests/suite", "harness/tests/envoy/scenarios", "xtask/tests"];
    folders.iter().map(|folder| repository().join(folder).join(name)).find(|path| path.exists())
}

#[test]
fn every_difference_names_tests_that_are_there() {
    let text = fs::read_to_string(repository().join("docs/differences.md")).unwrap();
    let mut names = 0;
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("|---")).collect();
    for row in rows {
        let (_, cell) = row.trim_end_matches(" |").rsplit_once(" | ").unwrap();
        let mut code = String::new();
        for name in cell.split('`').skip(1).step_by(2) {
            if let Some(start) = name.strip_suffix('…') {
                assert!(code.contains(&format!("fn {start}")), "there is no test `{name}`: {row}");
            } else if name.contains(['.', '/']) {
                let path = named_file(name).unwrap_or_else(|| panic!("there is no {name}: {row}"));
                code = fs::read_to_string(path).unwrap_or_default();
                names += 1;
            } else {
                assert!(code.contains(&format!("fn {name}(")), "there is no test `{name}`: {row}");
            }
        }
    }
    assert!(names > 50, "{names}");
    let files = fs::read_dir(repository().join("harness/tests/envoy/scenarios")).unwrap();
    let texts = files.map(|file| fs::read_to_string(file.unwrap().path()).unwrap());
    let scenarios: usize = texts.map(|text| text.lines().filter(|line| line.starts_with("=== ")).count()).sum();
    assert!(text.contains(&format!(" {scenarios} scenarios")), "there are {scenarios} scenarios");
}

/// The cells of the last column of a README's table of threats.
fn named_tests(readme: &str) -> Vec<String> {
    let rows = readme.lines().skip_while(|line| *line != "| threat | defence | test |").skip(2);
    let cells =
        rows.take_while(|line| line.starts_with('|')).filter_map(|row| row.trim_end_matches('|').rsplit_once(" | "));
    let quoted = |(_, cell): (&str, &str)| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    cells.flat_map(quoted).filter(|name| Path::new(name).extension().is_none()).collect()
}

#[test]
fn every_threat_that_a_plugin_names_is_tested_as_it_says() {
    let mut shared = Vec::new();
    sources(&repository().join("jose"), &mut shared);
    for entry in fs::read_dir(repository().join("plugins")).unwrap() {
        let plugin = entry.unwrap().path();
        let mut files = shared.clone();
        sources(&plugin, &mut files);
        let code: String = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
        let names = named_tests(&fs::read_to_string(plugin.join("README.md")).unwrap());
        assert!(names.len() >= 3, "{}: names {} tests beside its threats", plugin.display(), names.len());
        for name in names {
            let function = match name.strip_suffix('…') {
                Some(start) => format!("fn {start}"),
                None => format!("fn {name}("),
            };
            assert!(code.contains(&function), "{}: there is no test `{name}`", plugin.display());
        }
    }
}

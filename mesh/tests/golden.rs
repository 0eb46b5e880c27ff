//! `NAME.in.yaml` becomes `NAME.out.yaml`: migrations, and everything that is said of bad input.
//!
//! `PLUGWRIGHT_BLESS=1` writes the outputs instead of comparing them.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot set itself up fails")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use mesh::migrate::{Kind, NewImage, Options, migrate};
use mesh::model::Phase;
use mesh::{Problem, Source, read};

fn inputs(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(folder);
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut inputs: Vec<_> = entries.filter(|path| path.to_string_lossy().ends_with(".in.yaml")).collect();
    inputs.sort();
    assert!(inputs.len() > 2);
    inputs
}

#[track_caller]
fn check(folder: &str, produce: impl Fn(&Source) -> String) {
    for input in inputs(folder) {
        let name = input.file_name().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&input).unwrap();
        let found = produce(&Source { file: name.clone(), text });
        let output = input.with_file_name(name.replace(".in.yaml", ".out.yaml"));
        if std::env::var_os("PLUGWRIGHT_BLESS").is_some() {
            std::fs::write(&output, found).unwrap();
        } else {
            let expected = std::fs::read_to_string(&output).unwrap_or_default();
            assert_eq!(found, expected, "{name}; PLUGWRIGHT_BLESS=1 accepts what was found");
        }
    }
}

/// The first line's `# options:`.
fn options(text: &str) -> Options {
    let mut options = Options {
        to: Kind::WasmPlugin,
        namespaces: BTreeMap::new(),
        keep_inbound: false,
        root_namespace: "istio-system".to_owned(),
        images: BTreeMap::new(),
    };
    let mut words = text.lines().next().and_then(|line| line.strip_prefix("# options: ")).unwrap_or("").split(' ');
    while let Some(word) = words.next().filter(|word| !word.is_empty()) {
        let mut value = || words.next().unwrap().to_owned();
        match word {
            "--keep-inbound" => options.keep_inbound = true,
            "--to" => {
                options.to = if value() == "WasmPlugin" { Kind::WasmPlugin } else { Kind::TrafficExtension };
            }
            "--control-plane-namespace" => options.root_namespace = value(),
            "--namespace-map" => {
                let value = value();
                let (old, new) = value.split_once('=').unwrap();
                options.namespaces.insert(old.to_owned(), new.to_owned());
            }
            "--image" => {
                let value = value();
                let [image, url, phase, priority] = value.split(['=', ',']).collect::<Vec<_>>()[..] else { panic!() };
                assert_eq!(phase, "AUTHN");
                let new =
                    NewImage { url: url.to_owned(), phase: Phase::Authn, priority: Some(priority.parse().unwrap()) };
                options.images.insert(image.to_owned(), new);
            }
            other => panic!("{other}"),
        }
    }
    options
}

fn say(problems: &[Problem]) -> String {
    problems.iter().fold(String::new(), |mut text, problem| {
        let hint = problem.hint().map(|hint| format!("\n#   hint: {hint}")).unwrap_or_default();
        writeln!(text, "# {problem}{hint}").unwrap();
        text
    })
}

#[test]
fn migrations() {
    check("migrate", |source| {
        let options = options(&source.text);
        let migration = migrate(std::slice::from_ref(source), &options).unwrap();
        let mut text = migration.text;
        for remark in &migration.remarks {
            writeln!(text, "# remark: {remark}").unwrap();
        }
        for difference in &migration.differences {
            writeln!(text, "# differs: {difference}").unwrap();
        }
        text
    });
}

#[test]
fn what_is_migrated_already_stays_as_it_is() {
    for input in inputs("migrate") {
        let text = std::fs::read_to_string(&input).unwrap();
        let mut options = options(&text);
        let once = migrate(&[Source { file: "f".to_owned(), text }], &options).unwrap();
        options.namespaces.clear();
        let again = migrate(&[Source { file: "f".to_owned(), text: once.text.clone() }], &options).unwrap();
        assert_eq!((again.migrated, again.text, again.differences), (0, once.text, vec![]), "{}", input.display());
    }
}

#[test]
fn errors() {
    check("errors", |source| {
        if source.text.starts_with("# migrate") {
            return say(&migrate(std::slice::from_ref(source), &options("")).unwrap_err());
        }
        let reading = read(std::slice::from_ref(source));
        assert!(!reading.errors.is_empty());
        format!("{}# warnings:\n{}", say(&reading.errors), say(&reading.warnings))
    });
}

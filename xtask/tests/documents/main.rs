//! Does what the documents say: every fenced block of every document is executed, or checked in another named way.
//!
//! `docs/guide/README.md` has the rules for readers. A block's first words say what is done with it:
//!
//! | block | |
//! |---|---|
//! | `sh` | runs to its end, with success |
//! | `sh server` | goes on running until the document ends, and then ends well on SIGTERM |
//! | `text` | what the `sh` before it prints on standard output |
//! | `text server` | what the last server says next; it is waited for |
//! | `console` | commands after `$ `, each with all that it says; `…` stands for anything |
//! | a format, after a sentence that ends in a file's name and a colon | is written to that file |
//! | a format without a file | an excerpt: read by whoever reads such a thing |
//! | `sh cluster` | commands for a cluster: their manifests are linted and explained |
//! | `sh elsewhere` | needs an account or a network; read by a shell, not run; each is listed in `ELSEWHERE` |
//! | `sh ci` | the command that runs this test |
//!
//! Addresses that a reader would use may be taken on this machine, and nobody has an account at ghcr for a test: other
//! ports, and a registry on this machine, stand in their place wherever a document names them.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot set itself up fails")]
#![expect(clippy::print_stdout, reason = "whoever sees it fail wants to know in which block")]

mod block;
mod excerpt;
mod stage;
#[path = "../support/mod.rs"]
mod support;
mod transcript;

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use block::{Block, blocks};
use stage::Stage;
use support::repository;

/// The guide, in the order in which it is read, and the documents that go on with its plugin.
const GUIDE: [&str; 14] = [
    "docs/guide/first-plugin.md",
    "docs/dev.md",
    "docs/reload.md",
    "docs/trace.md",
    "docs/guide/configuration.md",
    "docs/guide/testing.md",
    "docs/guide/callouts.md",
    "docs/guide/publishing.md",
    "docs/guide/deploying.md",
    "docs/guide/explain.md",
    "docs/guide/migrating.md",
    "docs/guide/coming-from.md",
    "docs/guide/shells.md",
    "docs/guide/troubleshooting.md",
];

/// Documents whose commands are for the repository itself.
const REPOSITORY: [&str; 4] = ["README.md", "docs/testing.md", "docs/chain-tests.md", "examples/ambient/README.md"];

/// Documents whose commands another test runs, and where.
const ELSEWHERE_TESTED: [(&str, &str); 1] = [("examples/openid/README.md", "xtask/tests/openid.rs")];

/// Documents without a block.
const PROSE: [&str; 5] =
    ["CONTRIBUTING.md", "docs/differences.md", "docs/guide/README.md", "docs/inspect.md", "docs/plugin-toml.md"];

/// Commands that are shown and cannot be run here, each with what stands for it.
const ELSEWHERE: [(&str, &str); 3] = [
    ("git clone https://github.com/plugwright/plugwright", "this is the clone"),
    ("cargo install --locked --path xtask", "`xtask/tests/installed.rs` installs it"),
    ("docker login ghcr.io", "a registry's account; `registry-tests` logs in to registries"),
];

fn markdown(folder: &str, into: &mut BTreeSet<String>) {
    for entry in fs::read_dir(repository().join(folder)).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{folder}/{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            markdown(&path, into);
        } else if Path::new(&path).extension().is_some_and(|extension| extension == "md") {
            into.insert(path);
        }
    }
}

#[test]
fn no_document_is_left_out() {
    let mut found = BTreeSet::from(["README.md".to_owned(), "CONTRIBUTING.md".to_owned()]);
    markdown("docs", &mut found);
    for example in fs::read_dir(repository().join("examples")).unwrap() {
        let readme = format!("examples/{}/README.md", example.unwrap().file_name().to_str().unwrap());
        if repository().join(&readme).is_file() {
            found.insert(readme);
        }
    }
    let elsewhere = ELSEWHERE_TESTED.iter().map(|(name, test)| {
        assert!(repository().join(test).is_file(), "{test}");
        name
    });
    let listed = GUIDE.iter().chain(&REPOSITORY).chain(&PROSE).chain(elsewhere).map(|&name| name.to_owned()).collect();
    assert_eq!(found, listed, "found left, listed right");
    for name in PROSE {
        assert_eq!(read(name).len(), 0, "{name} has a block: list it where it is run");
    }
}

#[test]
fn the_index_links_every_chapter_and_no_link_is_broken() {
    let index = fs::read_to_string(repository().join("docs/guide/README.md")).unwrap();
    for chapter in GUIDE.iter().filter_map(|name| name.strip_prefix("docs/guide/")) {
        assert!(index.contains(&format!("({chapter})")), "docs/guide/README.md does not link {chapter}");
    }
    for name in GUIDE.iter().chain(&REPOSITORY).chain(&PROSE) {
        let file = repository().join(name);
        let text = fs::read_to_string(&file).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link) {
            let path = link.split('#').next().unwrap();
            if !link.contains("://") && !path.is_empty() {
                assert!(file.with_file_name("").join(path).exists(), "{name} links {link}");
            }
        }
    }
}

fn read(name: &str) -> Vec<Block> {
    let text = fs::read_to_string(repository().join(name)).unwrap();
    blocks(&text).unwrap_or_else(|error| panic!("{name}{error}"))
}

/// Does what a document says; the blocks where that did not work.
fn check(name: &str, stage: &mut Stage) -> Vec<String> {
    let started = std::time::Instant::now();
    let blocks = read(name);
    assert!(!blocks.is_empty(), "{name} has no block");
    stage.enter();
    let mut failed = Vec::new();
    for block in &blocks {
        println!("{name}:{}: {}\n{}", block.line, block.kind, block.text);
        // The blocks after one that fails often do well, and all that is wrong with a document is worth knowing.
        if catch_unwind(AssertUnwindSafe(|| stage.run(block))).is_err() {
            println!("{name}:{}: FAILED", block.line);
            failed.push(format!("{name}:{}", block.line));
        }
    }
    if catch_unwind(AssertUnwindSafe(|| stage.leave())).is_err() {
        failed.push(format!("{name}: its servers"));
    }
    println!("{name} took {:.1} s", started.elapsed().as_secs_f64());
    failed
}

#[test]
fn the_guide_does_what_it_says() {
    let mut stage = Stage::of_a_reader();
    let failed: Vec<_> = GUIDE.iter().flat_map(|name| check(name, &mut stage)).collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn the_repositorys_documents_do_what_they_say() {
    let mut stage = Stage::of_the_repository();
    let failed: Vec<_> = REPOSITORY.iter().flat_map(|name| check(name, &mut stage)).collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

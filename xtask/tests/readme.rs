//! Runs every command block of the READMEs, in order, as a reader would.
//!
//! A block marked `sh` runs to its end; `sh server` keeps running while the blocks after it run; a `text` block is what
//! the block before it prints; `sh ci` is the command that runs this test, and what CI runs.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot set itself up fails")]
#![expect(clippy::print_stdout, reason = "whoever sees it fail wants to know in which block")]

mod support;

use std::fs;
use std::net::TcpListener;
use std::process::{Command, Stdio};

use support::{Server, finish, repository};

struct Block {
    kind: String,
    text: String,
}

fn blocks(markdown: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut open = false;
    for line in markdown.lines() {
        match (open, line.strip_prefix("```")) {
            (false, Some(kind)) => {
                blocks.push(Block { kind: kind.to_owned(), text: String::new() });
                open = true;
            }
            (true, Some(_)) => open = false,
            (true, None) => {
                let block = blocks.last_mut().unwrap();
                block.text.push_str(line);
                block.text.push('\n');
            }
            (false, None) => {}
        }
    }
    blocks
}

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-e", "-c", script]).current_dir(repository()).stdin(Stdio::null());
    command
}

fn free_port() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// Runs the blocks of a file, of which there are at least so many that do something.
#[track_caller]
fn check(file: &str, least: usize) {
    let mut text = fs::read_to_string(repository().join(file)).unwrap();
    // The ports a reader would use may be taken on this machine.
    for port in ["127.0.0.1:8080", "127.0.0.1:8081", "127.0.0.1:5000"] {
        text = text.replace(port, &free_port());
    }
    let mut servers = Vec::new();
    let mut printed = String::new();
    let mut ran = 0;
    for block in blocks(&text) {
        match block.kind.as_str() {
            "sh" => {
                println!("{}", block.text);
                printed = finish(&mut shell(&block.text)).fine().stdout;
                ran += 1;
            }
            "sh server" => {
                println!("{}", block.text);
                servers.push(Server::start(&mut shell(&format!("exec {}", block.text))));
                ran += 1;
            }
            "sh ci" => {
                let ci = fs::read_to_string(repository().join(".ci/run")).unwrap();
                assert!(ci.lines().any(|line| line == format!("exec {}", block.text.trim_end())), "{ci}");
            }
            // An example, which is shown and not run.
            "yaml" => {}
            "text" => assert_eq!(printed, block.text),
            other => panic!("a block of unknown kind `{other}`: {}", block.text),
        }
    }
    assert!(ran >= least, "only {ran} blocks were found");
    for server in servers {
        let ended = server.stop("TERM");
        assert_eq!(ended.code, 0, "{}", ended.stderr);
    }
}

#[test]
fn every_block_does_what_the_readme_says() {
    check("README.md", 5);
}

#[test]
fn every_block_about_testing_does_what_it_says() {
    check("docs/testing.md", 2);
}

#[test]
fn every_block_of_the_ambient_guide_does_what_it_says() {
    check("examples/ambient/README.md", 8);
}

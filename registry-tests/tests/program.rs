//! `plugwright-registry` as a program: what it prints, and how it ends.

#![expect(clippy::unwrap_used, reason = "what the tests share is not itself a test")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};

fn start(arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_plugwright-registry"))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn listening(child: &mut Child) -> String {
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    line.trim_end().strip_prefix("listening on http://").unwrap().to_owned()
}

/// How it ended, and what it said on standard error.
fn ended(mut child: Child) -> (Option<i32>, String) {
    let mut text = String::new();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    (child.wait().unwrap().code(), text)
}

#[test]
fn it_says_where_it_listens_and_stops_when_told() {
    for signal in ["-TERM", "-INT"] {
        let mut child = start(&["--listen", "127.0.0.1:0"]);
        let address = listening(&mut child);
        assert!(std::net::TcpStream::connect(&address).is_ok());
        Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
        assert_eq!(ended(child), (Some(0), String::new()), "{signal}");
    }
}

#[test]
fn a_port_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, text) = ended(start(&["--listen", &address]));
    assert_eq!(code, Some(3));
    assert!(text.starts_with(&format!("error: failed to serve {address}: ")), "{text}");
}

#[test]
fn a_folder_that_cannot_be_used_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let (code, text) = ended(start(&["--listen", "127.0.0.1:0", "--dir", file.path().to_str().unwrap()]));
    assert_eq!(code, Some(3));
    assert!(text.contains(file.path().to_str().unwrap()), "{text}");
}

#[test]
fn bad_flags_are_a_usage_error() {
    for arguments in [&["--nope"][..], &["--listen"], &["--listen", "nowhere"], &["--nope", "x"]] {
        let (code, text) = ended(start(arguments));
        assert_eq!(code, Some(2), "{arguments:?}");
        assert!(text.contains("usage: plugwright-registry"), "{text}");
    }
}

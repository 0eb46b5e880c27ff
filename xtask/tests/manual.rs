//! Shell completions and manual pages have every command, and are what shells and `man` read.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use support::{finish, plugwright};

/// The commands that `--help` lists.
fn commands() -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let help = plugwright(folder.path(), &["--help"]).fine().stdout;
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names: Vec<_> = names.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect();
    assert!(names.len() > 15, "{help}");
    names
}

#[test]
fn every_command_has_a_page() {
    let folder = tempfile::tempdir().unwrap();
    let written = plugwright(folder.path(), &["man", "--out", "pages"]).fine().stdout;
    for command in commands().iter().filter(|command| *command != "help") {
        let page = format!("pages/cargo-plugwright-{command}.1");
        assert!(written.lines().any(|line| line == page), "{page}: {written}");
        let text = fs::read_to_string(folder.path().join(page)).unwrap();
        assert!(text.contains(".SH SYNOPSIS"), "{text}");
    }
    fs::write(folder.path().join("file"), "").unwrap();
    plugwright(folder.path(), &["man", "--out", "file"]).refused(3, &["failed to write file"]);
}

/// What bash makes of the last word of a command line: the function that was registered gets the command, the word, and
/// the one before.
fn completed_by_bash(folder: &Path, line: &[&str]) -> String {
    let script = "source ./completions; COMP_WORDS=(cargo-plugwright \"$@\"); COMP_CWORD=$#; \
                  function=$(complete -p cargo-plugwright | sed 's/.*-F \\([^ ]*\\).*/\\1/'); \
                  $function cargo-plugwright \"${COMP_WORDS[$COMP_CWORD]}\" \"${COMP_WORDS[$((COMP_CWORD - 1))]}\"; \
                  echo \"${COMPREPLY[@]}\"";
    let said = finish(Command::new("bash").current_dir(folder).args(["-c", script, "bash"]).args(line)).fine();
    said.stdout.trim_end().to_owned()
}

#[test]
fn completions_have_every_command_and_bash_reads_them() {
    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = plugwright(folder.path(), &["completions", shell]).fine().stdout;
        for command in commands() {
            assert!(script.contains(&command), "{shell}: {command}");
        }
        if shell == "bash" {
            fs::write(folder.path().join("completions"), &script).unwrap();
            let completed = |line: &[&str]| completed_by_bash(folder.path(), line);
            assert_eq!(completed(&["pack"]), "package");
            assert_eq!(completed(&["run", "--imag"]), "--image");
            assert_eq!(completed(&["new", "--template", "net"]), "network");
            assert_eq!(completed(&["test-host", "--he"]), "--help");
            assert_eq!(completed(&["bench", "reg"]), "registry");
            assert_eq!(completed(&["bench", "proxy", "--hel"]), "--help");
        }
    }
}

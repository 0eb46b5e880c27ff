//! The protocol of `docker-credential-…` programs: `get`, the server on standard input, JSON on standard output.

use std::ffi::OsStr;
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde::Deserialize;

use super::{Credential, CredentialsError, Secret};

/// A helper may ask its user to unlock a keychain, so it gets time.
const LIMIT: Duration = Duration::from_mins(1);
const ANSWER_LIMIT: u64 = 256 * 1024;
const MESSAGE_LIMIT: usize = 256;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default)]
    username: String,
    secret: String,
}

pub(super) fn get(
    name: &str,
    server: &str,
    search: &OsStr,
    config: &Path,
) -> Result<Option<Credential>, CredentialsError> {
    let fine = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if !fine {
        return Err(CredentialsError::HelperName { name: bounded(name), path: config.to_owned() });
    }
    let program = format!("docker-credential-{name}");
    let found = find(&program, search)
        .ok_or_else(|| CredentialsError::HelperMissing { program: program.clone(), path: config.to_owned() })?;
    let run = |source| CredentialsError::HelperRun { program: program.clone(), source };
    let child = Command::new(found)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(run)?;
    let Some(output) = converse(child, server, LIMIT).map_err(run)? else {
        return Err(CredentialsError::HelperTimeout { program, limit: LIMIT });
    };
    if !output.status.success() {
        // Helpers say so on standard output, and only a few of them on standard error.
        let said = [String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)].join(" ");
        if said.contains("credentials not found") {
            return Ok(None);
        }
        let message = bounded(String::from_utf8_lossy(&output.stderr).trim());
        let message = if message.is_empty() { "nothing on standard error".to_owned() } else { message };
        let status = output.status.to_string();
        return Err(CredentialsError::HelperFailed { program, server: bounded(server), status, message });
    }
    let answer: Answer =
        serde_json::from_slice(&output.stdout).map_err(|_| CredentialsError::HelperAnswer { program })?;
    if answer.username.is_empty() && answer.secret.is_empty() {
        return Ok(None);
    }
    let secret = Secret::new(answer.secret);
    Ok(Some(match answer.username.as_str() {
        "<token>" => Credential::IdentityToken(secret),
        _ => Credential::Basic { username: answer.username, password: secret },
    }))
}

/// Relative entries are left out: a program in the current folder is not the user's helper.
fn find(program: &str, search: &OsStr) -> Option<PathBuf> {
    std::env::split_paths(search)
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(program))
        .find(|path| path.is_file())
}

/// What the helper said, or nothing where it did not end in time; then it is killed.
pub(super) fn converse(
    mut child: Child,
    server: &str,
    limit: Duration,
) -> std::io::Result<Option<std::process::Output>> {
    let (sender, receiver) = mpsc::channel();
    let stderr = child.stderr.take();
    let stdout = child.stdout.take();
    let errors = std::thread::spawn(move || read(stderr));
    std::thread::spawn(move || sender.send(read(stdout)));
    if let Some(mut stdin) = child.stdin.take() {
        match stdin.write_all(server.as_bytes()) {
            // A helper that ends without reading has its say through its exit status.
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => return Err(error),
            _ => {}
        }
    }
    let Ok(stdout) = receiver.recv_timeout(limit) else {
        child.kill()?;
        child.wait()?;
        return Ok(None);
    };
    let status = child.wait()?;
    let stderr = errors.join().unwrap_or_default();
    Ok(Some(std::process::Output { status, stdout, stderr }))
}

fn read(pipe: Option<impl Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        let _ = pipe.take(ANSWER_LIMIT).read_to_end(&mut bytes);
    }
    bytes
}

/// Text from outside, for an error message: short, and without anything a terminal would obey.
pub(super) fn bounded(text: &str) -> String {
    crate::registry::printable(text, MESSAGE_LIMIT)
}

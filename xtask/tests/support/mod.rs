//! What the command-line suites share: the command itself, servers that it starts, and a plain upstream.

#![expect(dead_code, reason = "each suite uses a part of it")]
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot set itself up fails")]

pub(crate) mod browser;
pub(crate) mod envoy;
pub(crate) mod examples;
pub(crate) mod registry;
#[cfg(unix)]
pub(crate) mod talking;

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;

/// The repository's root.
pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    #[track_caller]
    pub(crate) fn fine(self) -> Self {
        assert_eq!(self.code, 0, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// It ended with this code, an `error:` that has all these parts, and no panic.
    #[track_caller]
    pub(crate) fn refused(self, code: i32, parts: &[&str]) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        assert!(self.stderr.contains("error: "), "{}", self.stderr);
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        for part in parts {
            assert!(self.stderr.contains(part), "`{part}` is not in:\n{}", self.stderr);
        }
        self
    }
}

/// The command line, in a folder.
pub(crate) fn command(folder: &Path, arguments: &[impl AsRef<OsStr>]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cargo-plugwright"));
    command.current_dir(folder).args(arguments).stdin(Stdio::null()).env_remove("RUST_BACKTRACE");
    command
}

/// Cargo, in the repository, as somebody at a terminal calls it. What it says of the package whose test this is would be
/// taken for a change by build scripts, and have them compile again.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    command.current_dir(repository()).args(arguments);
    command
}

/// Builds what the program hands over to, by package and program: one that is not called in its repository builds none anew.
pub(crate) fn build_programs(programs: &[(&str, &str)]) {
    for (package, binary) in programs {
        finish(&mut cargo(&["build", "--quiet", "--package", package, "--bin", binary])).fine();
    }
}

/// Run it to its end.
pub(crate) fn plugwright(folder: &Path, arguments: &[impl AsRef<OsStr>]) -> Ended {
    finish(&mut command(folder, arguments))
}

/// Run a program to its end.
pub(crate) fn finish(command: &mut Command) -> Ended {
    let output = command.output().unwrap_or_else(|error| panic!("{}: {error}", command.get_program().display()));
    Ended {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Both sample plugins as images in a layout of this test run's own, packaged once.
pub(crate) fn dist() -> &'static Path {
    static DIST: LazyLock<PathBuf> = LazyLock::new(|| {
        let dist = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("dist-{}", std::process::id()));
        plugwright(repository(), &["package", "--layout", dist.to_str().unwrap()]).fine();
        dist
    });
    &DIST
}

/// A server that said where it listens. It is told to stop when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) url: String,
    stderr: std::thread::JoinHandle<String>,
}

impl Server {
    /// Start a command that prints `listening on URL` once it serves.
    #[track_caller]
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut errors = child.stderr.take().unwrap();
        let stderr = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = errors.read_to_string(&mut text);
            text
        });
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        match line.trim_end().strip_prefix("listening on ") {
            Some(url) => Self { url: url.to_owned(), child, stderr },
            None => {
                let _ = child.wait();
                panic!("it does not listen but says `{line}` and:\n{}", stderr.join().unwrap())
            }
        }
    }

    pub(crate) fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    /// Ask it to stop with a signal; how it ended, and what it said on standard error.
    pub(crate) fn stop(mut self, signal: &str) -> Ended {
        self.signal(signal);
        let code = self.child.wait().unwrap().code().unwrap_or(-1);
        let stderr = std::mem::replace(&mut self.stderr, std::thread::spawn(String::new));
        Ended { code, stdout: String::new(), stderr: stderr.join().unwrap() }
    }

    pub(crate) fn signal(&self, signal: &str) {
        let _ = Command::new("kill").args([format!("-{signal}"), self.child.id().to_string()]).status();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.signal("KILL");
        let _ = self.child.wait();
    }
}

/// An HTTP/1.1 exchange: status, headers in order with lower-case names, body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// Send one request as written, on a connection of its own, and read the answer to the end.
pub(crate) fn exchange(address: &str, request: &str) -> Response {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let split = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("a response head");
    let head = String::from_utf8(bytes[..split].to_vec()).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines
        .map(|line| line.split_once(':').unwrap())
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    Response { status, headers, body: bytes[split + 4..].to_vec() }
}

/// `METHOD PATH` with these headers, on a connection that closes after the answer.
pub(crate) fn request(address: &str, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
    let mut text = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
    for (name, value) in headers {
        let _ = write!(text, "{name}: {value}\r\n");
    }
    exchange(address, &(text + "\r\n"))
}

/// An upstream that answers every request with the same head and body, until the test ends.
pub(crate) fn upstream(response: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                loop {
                    let mut length = 0;
                    let mut line = String::new();
                    loop {
                        line.clear();
                        if reader.read_line(&mut line).unwrap_or(0) == 0 {
                            return;
                        }
                        let lower = line.to_ascii_lowercase();
                        if let Some(value) = lower.strip_prefix("content-length:") {
                            length = value.trim().parse().unwrap_or(0);
                        }
                        if line == "\r\n" {
                            break;
                        }
                    }
                    let _ = std::io::copy(&mut (&mut reader).take(length), &mut std::io::sink());
                    if stream.write_all(response.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

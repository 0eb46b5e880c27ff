//! A server that is listened to while it serves, and a module to serve.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use super::request;

/// A server whose standard error is read line by line. It is killed when dropped.
pub(crate) struct Talking {
    child: Child,
    /// Where it listens.
    pub(crate) address: String,
    lines: Receiver<String>,
    /// What has been read of it.
    pub(crate) said: Vec<String>,
}

impl Talking {
    /// Start a command that prints `listening on URL` once it serves.
    #[track_caller]
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let Some(address) = line.trim_end().strip_prefix("listening on http://") else {
            let _ = child.wait();
            panic!("it does not listen but says {line:?} and {:?}", lines.iter().collect::<Vec<_>>())
        };
        Self { address: address.to_owned(), child, lines, said: Vec::new() }
    }

    /// Waits for a line of standard error that has this in it.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, part: &str) -> String {
        let until = Instant::now() + Duration::from_mins(5);
        while let Ok(line) = self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
            self.said.push(line.clone());
            if line.contains(part) {
                return line;
            }
        }
        panic!("no {part:?} in\n{}", self.said.join("\n"))
    }

    /// Waits for where the trace page is, as an address.
    #[track_caller]
    pub(crate) fn page(&mut self) -> String {
        let line = self.wait_for("trace page on http://");
        line.trim_start_matches("trace page on http://").trim_end_matches("/__plugwright").to_owned()
    }

    /// A header of the answer to `GET /`.
    #[track_caller]
    pub(crate) fn header(&self, wanted: &str) -> Option<String> {
        let reply = request(&self.address, "GET", "/", &[]);
        assert_eq!(reply.status, 200);
        reply.headers.into_iter().find(|(name, _)| name == wanted).map(|(_, value)| value)
    }

    /// What [`module`] was made with.
    #[track_caller]
    pub(crate) fn version(&self) -> Option<String> {
        self.header("x-version")
    }

    /// Ends it with a signal; its exit code, and everything on standard error, which ends with the last of its processes.
    pub(crate) fn stop(mut self, signal: &str) -> (Option<i32>, String) {
        let status = Command::new("kill").args([format!("-{signal}"), self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
        let code = self.child.wait().unwrap().code();
        self.said.extend(self.lines.iter());
        (code, self.said.join("\n"))
    }
}

impl Drop for Talking {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A module that sets the response header `x-version`, and says so when it has the body of a request.
pub(crate) fn module(version: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
            (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
            (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (data (i32.const 16) "x-version") (data (i32.const 32) "{version}") (data (i32.const 48) "body of {version}")
            (func (export "proxy_abi_version_0_2_1")) (func (export "_initialize"))
            (func (export "malloc") (param i32) (result i32) i32.const 1024)
            (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32)
                (drop (call $log (i32.const 2) (i32.const 48) (i32.const {}))) i32.const 0)
            (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
                (drop (call $add (i32.const 2) (i32.const 16) (i32.const 9) (i32.const 32) (i32.const {}))) i32.const 0))"#,
        8 + version.len(),
        version.len()
    );
    wat::parse_str(text).unwrap()
}

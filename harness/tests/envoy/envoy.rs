//! One Envoy process with a listener for each scenario.

use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::site::ON_HOST;
use crate::view::{View, log_line};

/// A line of Envoy's log.
#[derive(Debug, Clone)]
struct Line {
    thread: String,
    level: String,
    logger: String,
    text: String,
}

#[derive(Default)]
struct Log(Mutex<(Vec<Line>, bool)>, Condvar);

/// A running Envoy. It is killed when dropped.
pub(crate) struct Envoy {
    child: Child,
    log: Arc<Log>,
    admin: String,
    main_thread: String,
    listeners: Vec<(String, SocketAddr)>,
}

impl Envoy {
    /// Starts it with the bootstraps of `mesh::envoy`, merged: listeners by a listener discovery file, so that one
    /// which is refused does not end the process.
    pub(crate) fn start(folder: &Path, bootstraps: Vec<Value>) -> Self {
        let (mut listeners, mut clusters) = (Vec::new(), Vec::new());
        let mut merged = Value::Null;
        for mut bootstrap in bootstraps {
            let mut take = |name: &str| match bootstrap["static_resources"][name].take() {
                Value::Array(items) => items,
                _ => Vec::new(),
            };
            listeners.extend(take("listeners"));
            clusters.extend(take("clusters"));
            merged = bootstrap;
        }
        for listener in &mut listeners {
            listener["@type"] = "type.googleapis.com/envoy.config.listener.v3.Listener".into();
        }
        let discovery = folder.join("listeners.json");
        std::fs::write(&discovery, json!({"resources": listeners}).to_string()).unwrap();
        merged["static_resources"] = json!({"clusters": clusters});
        merged["dynamic_resources"] =
            json!({"lds_config": {"resource_api_version": "V3", "path_config_source": {"path": discovery}}});
        let bootstrap = folder.join("envoy.json");
        std::fs::write(&bootstrap, merged.to_string()).unwrap();
        let admin = folder.join("admin");
        let mut command = Command::new(program());
        command.arg("--config-path").arg(&bootstrap).arg("--admin-address-path").arg(&admin);
        command.args(["--concurrency", "1", "--use-dynamic-base-id", "--log-level", "info"]);
        command.args(["--file-flush-interval-msec", "10", "--log-format", "[[%t|%l|%n]] %v"]);
        command.env(ON_HOST.0, ON_HOST.1).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let log = Arc::new(Log::default());
        let (reader, into) = (BufReader::new(child.stderr.take().unwrap()), log.clone());
        std::thread::spawn(move || into.collect(reader));
        let mut envoy = Self { child, log, admin: String::new(), main_thread: String::new(), listeners: Vec::new() };
        // Listeners of a file are in place before the loop that serves them starts, but for their own warming up.
        let ready = "all dependencies initialized. starting workers";
        let started = envoy.log.wait_for(Duration::from_mins(2), |line| line.text.contains(ready));
        envoy.main_thread = started.unwrap_or_else(|last| panic!("Envoy did not start: {last:#?}")).thread;
        envoy.admin = std::fs::read_to_string(&admin).unwrap();
        let answer = envoy.ask("GET", "/listeners?format=json");
        let text = String::from_utf8(answer).unwrap();
        // The admin interface answers in chunks: the JSON is what is between the first and the last brace.
        let lines: String = text[text.find('{').unwrap()..=text.rfind('}').unwrap()]
            .split("\r\n")
            .enumerate()
            .filter(|(at, _)| at % 2 == 0)
            .map(|(_, line)| line)
            .collect();
        let status: Value = serde_json::from_str(&lines).unwrap_or_else(|error| panic!("{error}: {text}"));
        for listener in status["listener_statuses"].as_array().unwrap() {
            let Some(port) = listener.pointer("/local_address/socket_address/port_value") else { continue };
            let port = u16::try_from(port.as_u64().unwrap()).unwrap();
            let name = listener["name"].as_str().unwrap().to_owned();
            envoy.listeners.push((name, SocketAddr::from(([127, 0, 0, 1], port))));
        }
        envoy
    }

    /// Where a listener is, by the port that its chain is for; or why it was refused.
    pub(crate) fn listener(&self, port: u16) -> Result<SocketAddr, String> {
        let name = format!("127.0.0.1_{port}");
        if let Some((_, address)) = self.listeners.iter().find(|(known, _)| *known == name) {
            return Ok(*address);
        }
        // Why is logged before, once the listener before this one is dealt with.
        let lines = self.log.0.lock().unwrap();
        let about = |line: &Line| line.text.starts_with("lds: ");
        let refused = lines.0.iter().position(|line| about(line) && line.text.contains(&name));
        let refused = refused.unwrap_or_else(|| panic!("Envoy says nothing about {name}"));
        let from = lines.0[..refused].iter().rposition(about).unwrap_or(0);
        let reasons = lines.0[from..=refused].iter().filter(|line| line.level != "info");
        Err(reasons.map(|line| line.text.as_str()).collect::<Vec<_>>().join("\n"))
    }

    /// Blocks until a line of this scenario with this text has been logged by a worker.
    pub(crate) fn wait_for(&self, id: &str, text: &str) {
        let main = self.main_thread.clone();
        // What is missing shows in the comparison.
        let _ = self.log.wait_for(Duration::from_secs(5), |line| {
            line.thread != main && line.text.contains(id) && line.text.contains(text)
        });
    }

    fn ask(&self, method: &str, path: &str) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.admin.trim()).unwrap();
        write!(stream, "{method} {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n").unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let head = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        bytes.split_off(head + 4)
    }

    /// Everything that was logged so far, added to the views, by scenario.
    pub(crate) fn logs(&self, views: &mut [View]) {
        let lines = self.log.0.lock().unwrap();
        if lines.1 {
            let last: Vec<_> =
                lines.0.iter().filter(|line| line.level != "access").rev().take(30).map(|line| &line.text).collect();
            panic!("Envoy ended; the newest line comes first: {last:#?}");
        }
        let mut last = None;
        for line in &lines.0 {
            if line.level == "access" {
                if let Some(view) = index(&line.logger).and_then(|index| views.get_mut(index)) {
                    view.access.push(line.text.clone());
                }
                continue;
            }
            if line.thread == self.main_thread {
                continue;
            }
            let of = index_within(&line.text);
            // A trap does not say whose it is: it follows what that callback logged.
            if line.text.starts_with("Function: ") || of.is_some() {
                last = of.or(last);
                if let Some((index, view)) = last.and_then(|index| Some((index, views.get_mut(index)?))) {
                    view.logs.extend(log_line(
                        &line.level,
                        line.text.lines().next().unwrap_or_default(),
                        &crate::site::id(index),
                    ));
                }
            }
        }
    }
}

fn index(id: &str) -> Option<usize> {
    id.strip_prefix('s')?.parse().ok()
}

/// The first `sNNN` in a text.
fn index_within(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let at = (0..bytes.len().saturating_sub(3)).find(|at| {
        bytes[*at] == b's'
            && bytes[at + 1..at + 4].iter().all(u8::is_ascii_digit)
            && (*at == 0 || !bytes[at - 1].is_ascii_alphanumeric())
    })?;
    text[at + 1..at + 4].parse().ok()
}

impl Log {
    fn collect(&self, mut reader: impl BufRead) {
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            let text = String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned();
            line.clear();
            let mut lines = self.0.lock().unwrap();
            let parsed = text.strip_prefix("[[").and_then(|text| text.split_once("]] ")).and_then(|(head, text)| {
                let mut head = head.split('|').map(str::to_owned);
                Some(Line { thread: head.next()?, level: head.next()?, logger: head.next()?, text: text.to_owned() })
            });
            match (parsed, lines.0.last_mut()) {
                (Some(parsed), _) => lines.0.push(parsed),
                (None, Some(last)) => last.text += &format!("\n{text}"),
                (None, None) => {}
            }
            self.1.notify_all();
        }
        self.0.lock().unwrap().1 = true;
        self.1.notify_all();
    }

    /// The first such line; the newest ones when there is none in time.
    fn wait_for(&self, patience: Duration, wanted: impl Fn(&Line) -> bool) -> Result<Line, Vec<Line>> {
        let lines = self.0.lock().unwrap();
        let (lines, _) =
            self.1.wait_timeout_while(lines, patience, |(lines, ended)| !*ended && !lines.iter().any(&wanted)).unwrap();
        match lines.0.iter().find(|line| wanted(line)) {
            Some(line) => Ok(line.clone()),
            None => Err(lines.0[lines.0.len().saturating_sub(12)..].to_vec()),
        }
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn program() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let program = root.join("target/tools/envoy-1.40.0/envoy/_bin/envoy");
    assert!(program.is_file(), "no Envoy at {}: run `cargo xtask ci --prepare`", program.display());
    program
}

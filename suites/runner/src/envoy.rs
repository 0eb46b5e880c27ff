//! A real Envoy beside the harness: started with a test's chain, listened to, ended.

pub(crate) mod bootstrap;
pub(crate) mod exchange;
pub(crate) mod grpc;
pub(crate) mod log;
pub(crate) mod servers;
pub(crate) mod transcript;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use log::{Line, Log};

/// How long Envoy may take to start: its machine may be busy.
const START: Duration = Duration::from_mins(1);
/// How long it may take to end.
const END: Duration = Duration::from_secs(5);
/// How long nothing has to happen for a proxy to be at rest, and for how long that is waited for at most.
const QUIET: (Duration, Duration) = (Duration::from_millis(30), Duration::from_secs(1));
/// Between looks at what cannot be waited for.
const PAUSE: Duration = Duration::from_millis(3);

/// Ends Envoy when this process is gone, however that came: its standard input is closed then. The exit code is Envoy's.
const SUPERVISOR: &str = r#"exec 3<&0
"$@" </dev/null 3<&- &
pid=$!
(cat <&3; kill -KILL "$pid") >/dev/null 2>&1 &
wait "$pid"
"#;

/// Where the program is, and how patient to be with it.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    /// The longest that one step of an exchange may take.
    pub(crate) patience: Duration,
}

/// A running Envoy. It is killed when dropped.
pub(crate) struct Envoy {
    child: Child,
    log: Arc<Log>,
    admin: SocketAddr,
    listener: SocketAddr,
    /// Has its bootstrap, which may hold a test's secrets.
    _folder: tempfile::TempDir,
}

impl Envoy {
    /// Starts it with one worker. The error is Envoy's own reason where it refuses its configuration.
    pub(crate) async fn start(
        program: &Program,
        bootstrap: &Value,
        environment: &[(String, String)],
    ) -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("failed to start {}: {error}", program.path.display());
        let folder = tempfile::Builder::new().prefix("plugwright-envoy-").tempdir().map_err(failed)?;
        let file = folder.path().join("envoy.json");
        std::fs::write(&file, bootstrap.to_string()).map_err(failed)?;
        let mut command = Command::new("/bin/sh");
        let mut arguments: Vec<OsString> = vec!["-c".into(), SUPERVISOR.into(), "envoy".into()];
        arguments.extend([program.path.clone().into(), "--config-path".into(), file.into()]);
        let rest = ["--concurrency", "1", "--use-dynamic-base-id", "--log-level", "info"];
        arguments.extend(rest.iter().map(OsString::from));
        // What wasm's traces have is which callback said what, and what it returned.
        let rest = ["--component-log-level", "wasm:trace,lua:trace", "--log-format", log::FORMAT];
        arguments.extend(rest.iter().map(OsString::from));
        arguments.extend(["--file-flush-interval-msec", "10", "--drain-time-s", "1"].iter().map(OsString::from));
        command.args(arguments).env_clear();
        for name in ["PATH", "HOME", "TMPDIR"] {
            command.envs(std::env::var_os(name).map(|value| (name, value)));
        }
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(failed)?;
        let log = Log::of(child.stderr.take());
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut envoy = Self { child, log, admin: nowhere, listener: nowhere, _folder: folder };
        envoy.ready().await?;
        Ok(envoy)
    }

    async fn ready(&mut self) -> Result<(), String> {
        let until = Instant::now() + START;
        let started = self.log.until(until, |lines| lines.iter().any(Line::is_start)).await;
        if !started {
            return Err(match self.ended() {
                Some(how) => match self.reasons() {
                    Some(reasons) => format!("Envoy refuses the chain:{reasons}"),
                    None => format!("Envoy{how} before it served"),
                },
                None => format!("Envoy did not start within {} s", START.as_secs()),
            });
        }
        let admin = self.log.find(|line| line.text.strip_prefix("admin address: ")?.parse().ok());
        self.admin = admin.ok_or("Envoy does not say where its administration is")?;
        let text = self.ask("GET", "/listeners?format=json").await?;
        let status: Value = serde_json::from_str(&text).map_err(|error| format!("Envoy's listeners: {error}"))?;
        let ports = status["listener_statuses"].as_array().into_iter().flatten();
        let at = "/local_address/socket_address/port_value";
        let mut ports = ports.filter_map(|listener| listener.pointer(at)?.as_u64());
        let port = ports.find_map(|port| u16::try_from(port).ok()).ok_or("Envoy has no listener")?;
        self.listener = SocketAddr::from(([127, 0, 0, 1], port));
        // Plugins start on the worker's own thread.
        while !self.ask("GET", "/stats?filter=listener_manager.workers_started").await?.contains("workers_started: 1") {
            if Instant::now() > until {
                return Err(format!("Envoy's worker did not start within {} s{}", START.as_secs(), self.newest()));
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Where the chain is.
    pub(crate) fn listener(&self) -> SocketAddr {
        self.listener
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    /// All metrics, in Prometheus' text format.
    pub(crate) async fn metrics(&self) -> Result<String, String> {
        self.ask("GET", "/stats/prometheus").await
    }

    /// Waits until nothing is logged any more.
    pub(crate) async fn rest(&self) {
        let until = Instant::now() + QUIET.1;
        let mut before = None;
        while before != Some(self.log.len()) && Instant::now() < until {
            before = Some(self.log.len());
            tokio::time::sleep(QUIET.0).await;
        }
    }

    /// How it ended, if it did: in words that follow `Envoy`.
    pub(crate) fn ended(&mut self) -> Option<String> {
        // One that says nothing more ends at once.
        let status = if self.log.is_over() { self.child.wait().ok()? } else { self.child.try_wait().ok()?? };
        Some(match status.code() {
            // As shells tell signals.
            Some(code @ 129..160) => format!(" ended with signal {}", code - 128),
            Some(code) => format!(" ended with exit code {code}"),
            None => " was killed".to_owned(),
        })
    }

    /// Why a test has no answer: Envoy is gone, or hangs. The hanging one is ended.
    pub(crate) async fn silence(&mut self) -> String {
        // The line that says why may be on its way.
        self.rest().await;
        let why = match self.ended() {
            Some(how) => format!("Envoy{how}"),
            None => "Envoy does not answer, and was ended".to_owned(),
        };
        self.kill();
        format!("{why}{}", self.newest())
    }

    /// Has it end, so that everything it has to say is in its log.
    pub(crate) async fn stop(&mut self) {
        // A crash ends it as well.
        let _ = self.ask("POST", "/quitquitquit").await;
        let all = self.log.until_end(Instant::now() + END).await;
        if !all {
            self.kill();
        }
    }

    fn kill(&mut self) {
        // The supervisor sees that, and kills.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }

    /// Why it did not start, in its own words.
    fn reasons(&self) -> Option<String> {
        let lines = self.log.lines();
        let is = |line: &&Line| ["error", "critical"].contains(&line.level.as_str());
        let texts: Vec<String> = lines.iter().filter(is).map(|line| format!("\n  {}", line.text)).collect();
        (!texts.is_empty()).then(|| texts.concat())
    }

    /// What it complained of last.
    fn newest(&self) -> String {
        let lines = self.log.lines();
        let since = lines.iter().position(Line::is_start).unwrap_or(0);
        let is = |line: &&Line| ["warning", "error", "critical"].contains(&line.level.as_str()) && !line.is_backtrace();
        let newest: Vec<&Line> = lines.iter().skip(since).filter(is).rev().take(3).collect();
        newest.iter().rev().map(|line| format!("\n  {}", line.text)).collect::<Vec<_>>().concat()
    }

    async fn ask(&self, method: &str, path: &str) -> Result<String, String> {
        let asking = async {
            let stream = TcpStream::connect(self.admin).await.map_err(|error| error.to_string())?;
            let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
            let (mut sender, connection) = handshake.map_err(|error| error.to_string())?;
            tokio::task::spawn_local(async move {
                // How it ends is seen in the response.
                let _ = connection.await;
            });
            let request = http::Request::builder().method(method).uri(path).header(http::header::HOST, "admin");
            let request = request.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
            let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
            let body = response.into_body().collect().await.map_err(|error| error.to_string())?;
            Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
        };
        match tokio::time::timeout(END, asking).await {
            Ok(answer) => answer.map_err(|error: String| format!("Envoy's administration does not answer: {error}")),
            Err(_) => Err(format!("Envoy's administration does not answer within {} s", END.as_secs())),
        }
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        self.kill();
    }
}

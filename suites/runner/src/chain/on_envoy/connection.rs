//! A TCP connection through a real Envoy.

use std::time::{Duration, Instant};

use suites::chain::model::{Closer, Connection, LogLevel};
use tokio::net::TcpStream;

use super::super::Run;
use super::super::connection::{Ends, Ground};
use super::super::end::End;
use super::{ACCOUNT, Running, Skipped, calls_on, hangs, said};
use crate::envoy::log::Line as Logged;
use crate::envoy::transcript::{self, Call};
use crate::envoy::{Envoy, Program};

/// Between looks at what is about to come.
const BETWEEN: Duration = Duration::from_millis(5);

/// A connection, from its first step to its end.
pub(super) async fn connect(
    run: &mut Run<'_>,
    path: &str,
    connection: &Connection,
    level: LogLevel,
    (program, running): (&Program, &mut Running),
    skipped: &mut Skipped,
) -> Result<(), String> {
    let from = running.envoy.log().len();
    if let Some(span) = connection.advance {
        tokio::time::sleep(span.0).await;
    }
    running.upstream.take();
    let stream = TcpStream::connect(running.envoy.listener()).await;
    let stream = stream.map_err(|error| format!("failed to connect to Envoy: {error}"))?;
    // What is written is there at once.
    let _ = stream.set_nodelay(true);
    let ends = Ends { client: End::new(stream), upstream: running.upstream.clone() };
    let mut there = There { envoy: &mut running.envoy, patience: program.patience };
    let mut outcome = run.connection(path, connection, &ends, &mut there).await?;
    ends.client.reset();
    let log = running.envoy.log();
    let closed = |lines: &[Logged]| closer(lines.get(from..).unwrap_or_default(), transcript::main_thread(lines));
    if connection.expect.as_ref().is_some_and(|expect| expect.closed_by.is_some()) {
        log.until(Instant::now() + ACCOUNT, |lines| closed(lines).is_some()).await;
    }
    running.envoy.rest().await;
    let (lines, calls) = {
        let all = running.envoy.log().lines();
        outcome.closed_by = closed(&all);
        let main = transcript::main_thread(&all);
        let new = all.get(from..).unwrap_or_default();
        (said(new, main, level), calls_on(main, new))
    };
    if let Some(expect) = &connection.expect {
        if expect.callouts.is_some() {
            skipped.callouts(format!("{path}.expect.callouts"), calls);
        }
        if outcome.closed_by.is_none() {
            let why = "no plugin of the chain is told of a connection's end";
            skipped.skip(format!("{path}.expect.closedBy"), why);
        }
    }
    run.judge_connection(path, connection, &outcome, &lines)
}

/// Envoy, whose time is real.
struct There<'e> {
    envoy: &'e mut Envoy,
    patience: Duration,
}

impl Ground for There<'_> {
    async fn pass(&mut self, span: Duration) {
        tokio::time::sleep(span).await;
    }

    async fn settle(&mut self, is_so: &dyn Fn() -> bool) -> Result<(), String> {
        self.envoy.rest().await;
        let until = Instant::now() + ACCOUNT;
        let settled = async {
            let within = || transcript::calls(&self.envoy.log().lines()).last().is_some_and(Call::is_open);
            while !is_so() && Instant::now() < until || within() {
                tokio::time::sleep(BETWEEN).await;
            }
        };
        let hangs = tokio::select! {
            () = settled => false,
            () = hangs(self.envoy, self.patience) => true,
        };
        if hangs || self.envoy.log().is_over() { Err(self.envoy.silence().await) } else { Ok(()) }
    }
}

/// Who closed a connection, by what its plugins did and were told.
fn closer(lines: &[Logged], main: Option<&str>) -> Option<Closer> {
    let mut closer = None;
    for line in lines.iter().filter(|line| line.logger == "wasm" && Some(line.thread.as_str()) != main) {
        let text = line.text.as_str();
        let asks = text.starts_with("[vm->host] ") && text.contains(".proxy_close_stream(");
        if asks || text.starts_with("Function: ") && text.contains(" failed: ") {
            return Some(Closer::Plugin);
        }
        let told = text.strip_prefix("[host->vm] proxy_on_downstream_connection_close(");
        match told.and_then(|arguments| arguments.trim_end_matches(')').rsplit_once(", ")) {
            Some((_, "2")) => closer = closer.or(Some(Closer::Client)),
            Some(_) => closer = closer.or(Some(Closer::Upstream)),
            None => {}
        }
    }
    closer
}

//! `bench dev`: how long it takes from a save to the first response of the new code.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::checkout;
use crate::report::{Failure, data, note};
use crate::{environment, handover};

/// The line of the plugin that is edited, and what it becomes.
const LINE: &str = "host.add_header(MapType::ResponseHeaders, name, value)";

/// Measure the time from a save of one line to the first response of the new code, in `dev`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Saves to measure.
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
    saves: u32,
}

/// Ends with what it is measured for.
struct Dev(Child);

impl Drop for Dev {
    fn drop(&mut self) {
        // The harness ends, and what watches for it with it.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let root = checkout()?;
    let failed = |error: std::io::Error| Failure::environment(error).context("failed to measure `dev`");
    let scratch = tempfile::tempdir().map_err(failed)?;
    let folder = scratch.path();
    copied(root, folder).map_err(failed)?;
    // Built before, so that it is not a part of anything.
    handover::locate("harness", "plugwright-harness")?;
    note("building the plugin for the first time");
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    command.current_dir(folder).args(["dev", "header-append", "--listen", "127.0.0.1:0", "--quiet"]);
    command.env("CARGO", environment::cargo()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut dev = Dev(command.spawn().map_err(failed)?);
    let mut line = String::new();
    if let Some(stdout) = dev.0.stdout.take() {
        BufReader::new(stdout).read_line(&mut line).map_err(failed)?;
    }
    let address = line.trim_end().strip_prefix("listening on http://");
    let address = address.ok_or_else(|| Failure::environment("`dev` does not serve the copied plugin"))?;
    let source = folder.join("plugins/header-append/src/lib.rs");
    let text = fs::read_to_string(&source).map_err(failed)?;
    if !text.contains(LINE) {
        return Err(Failure::bad(format!("plugins/header-append/src/lib.rs has no line `{LINE}` any more")));
    }
    let mut times = Vec::new();
    for save in 0..=args.saves {
        let value = format!("save {save}");
        let edited = LINE.replace("value)", &format!("{{ let _ = value; {value:?} }})"));
        fs::write(&source, text.replace(LINE, &edited)).map_err(failed)?;
        let began = Instant::now();
        while !answer(address).map_err(failed)?.contains(&value) {
            if began.elapsed() > Duration::from_mins(2) {
                return Err(Failure::environment("a save was not served within two minutes"));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        // The first one has the incremental build's own beginning in it.
        if save > 0 {
            times.push(began.elapsed());
        }
    }
    times.sort_unstable();
    let at = |index: usize| times.get(index).copied().unwrap_or_default().as_secs_f64();
    let (median, least, most) = (at(times.len() / 2), at(0), at(times.len() - 1));
    data(format!("save to served: median {median:.2} s of {} saves, {least:.2} s to {most:.2} s", times.len()));
    Ok(())
}

/// The workspace as far as the plugin needs it. Its lock file keeps the versions.
fn copied(root: &Path, folder: &Path) -> std::io::Result<()> {
    for name in ["sdk", "plugins/header-append", "Cargo.lock"] {
        copy(&root.join(name), &folder.join(name))?;
    }
    let manifest = fs::read_to_string(root.join("Cargo.toml"))?;
    // The same workspace with these members.
    let lines = manifest.lines().map(|line| match line.split(" = ").next() {
        Some("members") => "members = [\"sdk\", \"plugins/*\"]",
        Some("default-members") => "",
        _ => line,
    });
    fs::write(folder.join("Cargo.toml"), lines.collect::<Vec<_>>().join("\n"))
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    if from.is_dir() {
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            if entry.file_name() != "target" {
                copy(&entry.path(), &to.join(entry.file_name()))?;
            }
        }
        return Ok(());
    }
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::copy(from, to).map(drop)
}

/// The whole answer to a request.
fn answer(address: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

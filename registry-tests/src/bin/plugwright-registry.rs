//! The test registry as a program.

use std::io::Write as _;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::process::ExitCode;

use registry_tests::{Options, Registry};
use tokio::signal::unix::{SignalKind, signal};

const USAGE: &str = "usage: plugwright-registry [--listen HOST:PORT] [--dir DIR]

Serve an OCI registry for trying things out: no authentication, no TLS.

  --listen HOST:PORT  where to listen; port 0 takes a free one [default: 127.0.0.1:5000]
  --dir DIR           keep everything in this folder instead of in memory
";

fn main() -> ExitCode {
    match options(std::env::args_os().skip(1)) {
        Ok(Some(options)) => {
            let listen = options.listen;
            let place = options.directory.as_ref().map(|dir| format!(" from {}", dir.display())).unwrap_or_default();
            match serve(options) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    let _ = writeln!(std::io::stderr(), "error: failed to serve {listen}{place}: {error}");
                    ExitCode::from(3)
                }
            }
        }
        Ok(None) => {
            let _ = write!(std::io::stdout(), "{USAGE}");
            ExitCode::SUCCESS
        }
        Err(reason) => {
            let _ = writeln!(std::io::stderr(), "error: {reason}\n\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

/// What the command line asks for; nothing where it asks for help.
fn options(mut arguments: impl Iterator<Item = std::ffi::OsString>) -> Result<Option<Options>, String> {
    let mut options = Options { listen: SocketAddr::from(([127, 0, 0, 1], 5000)), ..Options::default() };
    while let Some(flag) = arguments.next() {
        let flag = flag.to_string_lossy().into_owned();
        if matches!(flag.as_str(), "-h" | "--help") {
            return Ok(None);
        }
        let value = arguments.next().ok_or_else(|| format!("`{flag}` is unknown or lacks its value"))?;
        match flag.as_str() {
            "--listen" => options.listen = address(&value.to_string_lossy())?,
            "--dir" => options.directory = Some(PathBuf::from(value)),
            _ => return Err(format!("`{flag}` is unknown")),
        }
    }
    Ok(Some(options))
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let first = text.to_socket_addrs().ok().and_then(|mut addresses| addresses.next());
    first.ok_or_else(|| format!("`{text}` is not an address: expected HOST:PORT"))
}

fn serve(options: Options) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // Before the address is told, so that whoever reads it can stop us.
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let registry = Registry::start(options)?;
        writeln!(std::io::stdout(), "listening on {}", registry.url())?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok(())
    })
}

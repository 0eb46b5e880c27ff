//! The test registry as a program.

use std::io::Write as _;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use registry_tests::{Options, Registry};
use tokio::signal::unix::{SignalKind, signal};

/// Serve an OCI registry for trying things out: no authentication, no TLS.
#[derive(Parser)]
#[command(name = "plugwright-registry")]
struct Arguments {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:5000", value_parser = address)]
    listen: SocketAddr,
    /// Keep everything in this folder instead of in memory.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let no_address = || "expected HOST:PORT".to_owned();
    text.to_socket_addrs().map_err(|_| no_address())?.next().ok_or_else(no_address)
}

fn main() -> ExitCode {
    let Arguments { listen, dir } = Arguments::parse();
    let place = dir.as_ref().map(|dir| format!(", keeping everything in {}", dir.display())).unwrap_or_default();
    match serve(Options { listen, directory: dir, ..Options::default() }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: failed to serve a registry on {listen}{place}: {error}");
            ExitCode::from(3)
        }
    }
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

//! `cargo xtask registry`.

use std::ffi::OsString;
use std::path::PathBuf;

use super::surroundings::address;
use crate::handover;
use crate::report::Failure;

/// Serve a registry for trying things out: no authentication, no TLS.
///
/// Prints `listening on http://ADDRESS` once it serves; SIGTERM and SIGINT stop it.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Address to listen on; port 0 picks a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:5000", value_parser = address)]
    listen: String,
    /// Keep everything in this folder instead of in memory.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let mut arguments: Vec<OsString> = vec!["--listen".into(), (&args.listen).into()];
    if let Some(dir) = &args.dir {
        arguments.extend(["--dir".into(), dir.into()]);
    }
    Err(handover::exec("registry-tests", "plugwright-registry", arguments, None))
}

//! `cargo xtask man`.

use std::path::PathBuf;

use crate::report::{Failure, data};

/// Write the manual's pages, one for each command, and print where they are.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The folder for them; it is made where it is missing.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

pub(crate) fn run(args: &Args, command: clap::Command) -> Result<(), Failure> {
    let failed =
        |error: std::io::Error| Failure::environment(error).context(&format!("failed to write {}", args.out.display()));
    std::fs::create_dir_all(&args.out).map_err(failed)?;
    clap_mangen::generate_to(command, &args.out).map_err(failed)?;
    let entries = std::fs::read_dir(&args.out).map_err(failed)?.filter_map(Result::ok).map(|entry| entry.path());
    let mut pages: Vec<_> = entries.filter(|path| path.extension().is_some_and(|extension| extension == "1")).collect();
    pages.sort();
    for page in pages {
        data(page.display().to_string());
    }
    Ok(())
}

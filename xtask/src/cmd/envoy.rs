//! `cargo xtask envoy`.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};

use mesh::envoy::{EnvoyError, bootstrap};
use mesh::plan::Plan;

use super::run::{PlanFlags, plan};
use super::watch::Watched;
use crate::output::{self, Readers};
use crate::report::{Failure, data, note};
use crate::{environment, handover, tools};

/// Write the Envoy configuration of the chain that `run` would serve, or run a real Envoy with it.
///
/// The configuration is static and complete: modules are in it as files of the fetch cache, and what Istio's agent
/// would have decided is decided. It may hold secrets of the resources. Filters that only Istio's own build of Envoy
/// has (metadata exchange, ALPN, Istio's metrics) are left out.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    flags: PlanFlags,
    /// Write to this file, readable by its owner alone, instead of standard output.
    #[arg(long, value_name = "FILE", conflicts_with = "exec", help_heading = None::<&str>)]
    out: Option<PathBuf>,
    /// Run Envoy: the one that $ENVOY names, else the one on the path, else one that is fetched.
    #[arg(long, help_heading = None::<&str>)]
    exec: bool,
}

/// The system's public roots, which an Envoy without certificates of its own is told to trust.
const ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let mut plan = plan(&args.flags, &mut Watched::default())?;
    if !plan.ca_certificates.is_empty() {
        match std::fs::read_to_string(ROOTS) {
            Ok(roots) => plan.ca_certificates.insert(0, roots),
            Err(error) => note(format!("warning: only --upstream-ca is trusted: failed to read {ROOTS}: {error}")),
        }
    }
    let written = bootstrap(&plan).map_err(failure)?;
    let text = serde_json::to_string_pretty(&written)
        .map_err(|error| Failure::bad(format!("failed to write the bootstrap: {error}")))?;
    if args.exec {
        return Err(exec(&text, &plan)?);
    }
    match &args.out {
        None => data(text),
        Some(file) => {
            // It may hold secrets.
            output::write(file, format!("{text}\n").as_bytes(), Readers::Owner)?;
            note(format!("{} is written", file.display()));
        }
    }
    Ok(())
}

fn failure(error: EnvoyError) -> Failure {
    match error {
        EnvoyError::Listen { .. } | EnvoyError::Url { .. } | EnvoyError::NoUpstream => Failure::usage(error),
        EnvoyError::NotTranslated { .. } | EnvoyError::NoModule { .. } => Failure::bad(error),
    }
}

/// Runs Envoy, passes signals on, and takes the bootstrap away at the end. Envoy refuses to read standard input or an
/// unnamed file, and its arguments are for everybody to see, so that a private file it must be.
const SUPERVISOR: &str = r#"file=$1; shift
trap 'kill -TERM "$pid" 2>/dev/null' TERM INT HUP
"$@" & pid=$!
wait "$pid"; code=$?
while kill -0 "$pid" 2>/dev/null; do wait "$pid"; code=$?; done
rm -f "$file"
exit "$code"
"#;

fn exec(text: &str, plan: &Plan) -> Result<Failure, Failure> {
    let program = program()?;
    let failed = |error: &dyn std::fmt::Display| {
        Failure::environment(format!("failed to write the bootstrap for Envoy: {error}"))
    };
    let mut file =
        tempfile::Builder::new().prefix("plugwright-envoy-").suffix(".json").tempfile().map_err(|e| failed(&e))?;
    file.write_all(text.as_bytes()).map_err(|e| failed(&e))?;
    let (_, path) = file.keep().map_err(|e| failed(&e))?;
    let mut arguments: Vec<OsString> = vec!["-c".into(), SUPERVISOR.into(), "envoy".into(), path.clone().into()];
    arguments.extend([program.clone().into(), "--config-path".into(), path.clone().into()]);
    let logs = ["--use-dynamic-base-id", "--log-level", "warning", "--component-log-level", "wasm:info,lua:info"];
    arguments.extend(logs.iter().map(OsString::from));
    if let Some(workers) = plan.workers {
        arguments.extend(["--concurrency".into(), workers.to_string().into()]);
    }
    note(format!("running {}", program.display()));
    let failure = handover::replace_by(Path::new("/bin/sh"), arguments, None);
    // Nobody runs who would.
    let _ = std::fs::remove_file(path);
    Ok(failure)
}

/// The Envoy that `$ENVOY` names, else the one on the path, else one that is fetched.
pub(crate) fn program() -> Result<PathBuf, Failure> {
    match environment::envoy() {
        Some(program) if is_program(&program) => Ok(program),
        Some(program) => Err(Failure::environment(format!("failed to run Envoy: {} is no program", program.display()))
            .hint("without $ENVOY the one on the path is taken, else one is fetched")),
        None => tools::envoy(&tools_folder()?),
    }
}

/// Whether it can be run, as far as is seen from here.
fn is_program(path: &Path) -> bool {
    #[cfg(unix)]
    let may_run = |file: &std::fs::Metadata| std::os::unix::fs::PermissionsExt::mode(&file.permissions()) & 0o111 != 0;
    #[cfg(not(unix))]
    let may_run = |_: &std::fs::Metadata| true;
    std::fs::metadata(path).is_ok_and(|file| file.is_file() && may_run(&file))
}

/// In a checkout the folder that the suites use, else one in the cache.
fn tools_folder() -> Result<PathBuf, Failure> {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).parent().filter(|root| root.join(".ci/run").is_file());
    match checkout {
        Some(root) => Ok(root.join("target/tools")),
        None => Ok(environment::cache()?.join("tools")),
    }
}

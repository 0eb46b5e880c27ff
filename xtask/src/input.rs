//! Reads the operator's resource files: YAML or JSON, folders of them, standard input.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use mesh::{Locator, Problem, ProxyError, Reading, Resources, Source};

use crate::report::{Failure, note};

/// More than any dump of a cluster has; less than a machine can hold.
const LARGEST: u64 = 256 << 20;

/// Read and validate everything, telling warnings on the way. All errors are in the one failure.
pub(crate) fn read(files: &[PathBuf]) -> Result<Resources, Failure> {
    checked(&sources(files)?)
}

/// The same without a word about warnings and what was skipped.
pub(crate) fn quietly(files: &[PathBuf]) -> Result<Resources, Failure> {
    let reading = mesh::read(&sources(files)?);
    if reading.errors.is_empty() {
        return Ok(reading.resources);
    }
    let errors: Vec<String> = reading.errors.iter().map(with_hint).collect();
    Err(Failure::bad(errors.join("\nerror: ")))
}

/// The same, with what finds the place of any field afterwards.
pub(crate) fn read_located(files: &[PathBuf]) -> Result<(Resources, Locator), Failure> {
    let (reading, locator) = mesh::read_located(&sources(files)?);
    Ok((told(reading)?, locator))
}

/// Read the texts only.
pub(crate) fn sources(files: &[PathBuf]) -> Result<Vec<Source>, Failure> {
    let mut sources = Vec::new();
    for file in files {
        if file.as_os_str() == "-" {
            sources.push(Source { file: "-".to_owned(), text: text(std::io::stdin().lock(), "standard input")? });
        } else if file.is_dir() {
            for file in resource_files(file)? {
                sources.push(source(&file)?);
            }
        } else {
            sources.push(source(file)?);
        }
    }
    Ok(sources)
}

/// Validate everything, telling warnings on the way. All errors are in the one failure.
pub(crate) fn checked(sources: &[Source]) -> Result<Resources, Failure> {
    told(mesh::read(sources))
}

/// What was read, when nothing is wrong with it. Warnings are told on the way; all errors are in the one failure.
pub(crate) fn told(reading: Reading) -> Result<Resources, Failure> {
    for warning in &reading.warnings {
        note(format!("warning: {}", with_hint(warning)));
    }
    if !reading.errors.is_empty() {
        let errors: Vec<String> = reading.errors.iter().map(with_hint).collect();
        return Err(Failure::bad(errors.join("\nerror: ")));
    }
    tell_skipped(&reading.resources);
    Ok(reading.resources)
}

/// Say what was not looked at.
pub(crate) fn tell_skipped(resources: &Resources) {
    if !resources.skipped.is_empty() {
        let kinds: Vec<String> = resources.skipped.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        note(format!("skipped: {}", kinds.join(", ")));
    }
}

/// There is no proxy of that name; for a workload without one, the hint is the waypoint before it.
pub(crate) fn no_proxy(error: ProxyError) -> Failure {
    let hint = match &error {
        ProxyError::Ambient(ambient) => ambient.waypoints.first().map(|one| format!("`--workload {}`", one.waypoint)),
        _ => None,
    };
    Failure::usage(error).hints(hint)
}

fn with_hint(problem: &Problem) -> String {
    match problem.hint() {
        Some(hint) => format!("{problem}\n  hint: {hint}"),
        None => problem.to_string(),
    }
}

/// Reads one file of text.
pub(crate) fn source(file: &Path) -> Result<Source, Failure> {
    let name = file.display().to_string();
    let opened = File::open(file).map_err(|error| Failure::environment(format!("failed to read {name}: {error}")))?;
    if opened.metadata().is_ok_and(|file| file.len() > LARGEST) {
        return Err(too_large(&name));
    }
    Ok(Source { text: text(opened, &name)?, file: name })
}

fn too_large(name: &str) -> Failure {
    Failure::bad(format!("{name}: more than {} MiB, which no resources have", LARGEST >> 20))
}

/// Text, as much of it as resources can be.
fn text(from: impl Read, name: &str) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    // What is there may be more than its length says, as with a device.
    from.take(LARGEST + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::environment(format!("failed to read {name}: {error}")))?;
    if bytes.len() as u64 > LARGEST {
        return Err(too_large(name));
    }
    let is_utf16 = bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]);
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let failure = Failure::bad(format!("{name}: not text in UTF-8: byte {at} begins no character"));
        failure.hints(is_utf16.then(|| "it is text in UTF-16: save it in UTF-8".to_owned()))
    })
}

/// A folder's YAML and JSON files, by name.
pub(crate) fn resource_files(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failed = |error: std::io::Error| Failure::environment(format!("failed to read {}: {error}", folder.display()));
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let is_resource = path.extension().is_some_and(|kind| kind == "yaml" || kind == "yml" || kind == "json");
        if is_resource && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(Failure::usage(format!("{} has no .yaml, .yml or .json file", folder.display())));
    }
    Ok(files)
}

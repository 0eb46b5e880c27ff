//! Files that are either the old content or the new, never half of one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// Write `bytes` to `path` through a temporary file in the same folder, which is created when missing. The content is
/// on disk before the name points at it.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    fs::create_dir_all(folder)?;
    let mut file = temporary(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// How what somebody names as an output is written.
#[derive(Debug)]
pub enum Output {
    /// As a file that takes the place of the one at this path, if there is one.
    Replace(PathBuf),
    /// As a stream into what is there: a device such as `/dev/null`, a pipe. A file must not take its place.
    Stream(File),
}

/// Tells how to write to `path`. A symbolic link stays, and what it leads to is written.
pub fn output(path: &Path) -> io::Result<Output> {
    match fs::metadata(path) {
        Ok(found) if found.is_file() => fs::canonicalize(path).map(Output::Replace),
        Ok(found) if !found.is_dir() => OpenOptions::new().write(true).open(path).map(Output::Stream),
        // What is wrong with a folder is said by who tries to replace it.
        _ => Ok(Output::Replace(path.to_owned())),
    }
}

/// A file in a folder that goes unless it is given a name; then it is as readable as any.
pub(crate) fn temporary(folder: &Path) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    // Else it is its owner's only.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644));
    builder.prefix(".tmp-").tempfile_in(folder)
}

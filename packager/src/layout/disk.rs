//! Files that appear whole or not at all.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use super::LayoutError;

const TEMPORARY_PREFIX: &str = ".plugwright-";
const TEMPORARY_SUFFIX: &str = ".tmp";

pub(super) fn failed(action: &'static str, path: &Path) -> impl Fn(io::Error) -> LayoutError {
    move |source| LayoutError::Io { action, path: path.to_owned(), source }
}

/// Read a small file; more than `limit` bytes is an error.
pub(super) fn read(path: &Path, limit: u64) -> Result<Vec<u8>, LayoutError> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed("read", path))?;
    file.take(limit + 1).read_to_end(&mut bytes).map_err(failed("read", path))?;
    if bytes.len() as u64 > limit {
        return Err(LayoutError::Parse { path: path.to_owned(), reason: format!("larger than {limit} bytes") });
    }
    Ok(bytes)
}

/// Write a file: fill a temporary one in the same folder, flush it to the disk, give it its name. Whatever `fill` does
/// or fails to do, `path` is left as it was or becomes complete.
pub(super) fn write(path: &Path, fill: impl FnOnce(&mut File) -> Result<(), LayoutError>) -> Result<(), LayoutError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut options = tempfile::Builder::new();
    options.prefix(TEMPORARY_PREFIX).suffix(TEMPORARY_SUFFIX);
    // As readable as any file; a temporary file is its owner's only.
    #[cfg(unix)]
    options.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644));
    let mut temporary = options.tempfile_in(folder).map_err(failed("create a file in", folder))?;
    fill(temporary.as_file_mut())?;
    temporary.as_file().sync_all().map_err(failed("write", path))?;
    temporary.persist(path).map_err(|error| failed("write", path)(error.error))?;
    Ok(())
}

pub(super) fn write_bytes(path: &Path, bytes: &[u8]) -> Result<(), LayoutError> {
    write(path, |file| file.write_all(bytes).map_err(failed("write", path)))
}

/// Make the names in a folder as durable as the files' contents.
pub(super) fn sync_folder(path: &Path) -> Result<(), LayoutError> {
    // Elsewhere a folder cannot be opened, and renaming is as durable as it gets.
    if cfg!(unix) {
        File::open(path).and_then(|folder| folder.sync_all()).map_err(failed("flush", path))?;
    }
    Ok(())
}

/// Whether a name is that of a file which a stopped writer left.
pub(super) fn is_temporary(name: &str) -> bool {
    name.starts_with(TEMPORARY_PREFIX) && name.ends_with(TEMPORARY_SUFFIX)
}

/// Names in a folder, sorted; none where there is no folder.
pub(super) fn names(folder: &Path) -> Result<Vec<String>, LayoutError> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed("list", folder))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry.map_err(failed("list", folder))?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

pub(super) fn remove(path: &Path) -> Result<(), LayoutError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

//! Writes files whole or not at all: under a temporary name, synced, and renamed. Devices and pipes are written to.

use std::io::Write as _;
use std::path::Path;

use packager::file::{Output, output};

use crate::report::Failure;

/// Who may read what is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readers {
    /// Whoever may read the file that is replaced; of a new one, this user.
    AsBefore,
    /// This user alone.
    Owner,
}

/// Writes a file, or leaves what is there as it is.
pub(crate) fn write(path: &Path, bytes: &[u8], readers: Readers) -> Result<(), Failure> {
    let failed =
        |error: &dyn std::fmt::Display| Failure::environment(format!("failed to write {}: {error}", path.display()));
    let target = match output(path).map_err(|error| failed(&error))? {
        Output::Replace(target) => target,
        Output::Stream(mut stream) => return stream.write_all(bytes).map_err(|error| failed(&error)),
    };
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // The temporary file's own name would be in the message.
    if !folder.is_dir() {
        return Err(failed(&format_args!("there is no folder {}", folder.display())));
    }
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(|error| failed(&error.kind()))?;
    file.write_all(bytes).map_err(|error| failed(&error))?;
    if let (Readers::AsBefore, Ok(old)) = (readers, std::fs::metadata(path)) {
        file.as_file().set_permissions(old.permissions()).map_err(|error| failed(&error))?;
    }
    file.as_file().sync_all().map_err(|error| failed(&error))?;
    file.persist(&target).map_err(|error| failed(&error.error))?;
    Ok(())
}

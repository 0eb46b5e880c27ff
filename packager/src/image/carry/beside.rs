//! What lies beside a module in its folder and says something about it.

use std::io;
use std::path::{Path, PathBuf};

use crate::image::{MaistraManifest, Metadata, RUNTIME_CONFIG_FILE, RuntimeConfig, RuntimeConfigError, maistra};

/// The files are a few lines long.
const MAX_SIZE: u64 = 1 << 20;

/// A file beside a module that cannot be used. To go on without it could change what the plugin is.
#[derive(Debug, thiserror::Error)]
pub enum BesideError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not a runtime configuration.
    #[error("{}, beside the module, is not a runtime configuration", path.display())]
    RuntimeConfig {
        /// The file.
        path: PathBuf,
        /// Why.
        source: RuntimeConfigError,
    },
}

/// What is said about a module by a `runtime-config.json` in its folder (Wasm Image Specification, "Format") and by a
/// `manifest.yaml` that names the module (Maistra); and which files these are.
pub fn metadata_beside(module: &Path) -> Result<(Metadata, Vec<PathBuf>), BesideError> {
    let folder = module.parent().unwrap_or(Path::new(""));
    let (mut metadata, mut used) = (Metadata::default(), Vec::new());
    let path = folder.join(RUNTIME_CONFIG_FILE);
    if let Some(bytes) = read(&path)? {
        let config =
            RuntimeConfig::parse(&bytes).map_err(|source| BesideError::RuntimeConfig { path: path.clone(), source })?;
        config.complete(&mut metadata);
        used.push(path);
    }
    let path = folder.join(maistra::FILE);
    if let Some(bytes) = read(&path)?
        && let Ok(manifest) = MaistraManifest::parse(&bytes)
        && Path::new(&manifest.module).file_name() == module.file_name()
    {
        manifest.complete(&mut metadata);
        used.push(path);
    }
    Ok((metadata, used))
}

/// A file's content; `None` if there is none of that name.
fn read(path: &Path) -> Result<Option<Vec<u8>>, BesideError> {
    let read = || {
        let file = std::fs::File::open(path)?;
        let size = file.metadata()?.len();
        if size > MAX_SIZE {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has {size} bytes")));
        }
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(file, MAX_SIZE), &mut bytes)?;
        Ok(bytes)
    };
    match read() {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(BesideError::Read { path: path.to_owned(), source }),
    }
}

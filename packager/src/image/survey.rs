//! What an archive layer holds that a plugin may be made of.

use std::io::Read;

use super::extract::{MAX_NAMES, MAX_RUNTIME_CONFIG_SIZE};
use super::unpack::{SLACK, base_name, is_wasm_name, through, whole};
use super::{ExtractError, MODULE_FILE, RUNTIME_CONFIG_FILE, maistra};
use crate::blob::Blob;
use crate::module::MAX_MODULE_SIZE;

/// A Maistra manifest is seven lines.
const MAX_MANIFEST_FILE: u64 = 64 << 10;

/// What was found, by paths without `./` and `/` before them.
#[derive(Default)]
pub(super) struct Survey {
    /// The file that Istio would take.
    pub(super) plugin: Option<String>,
    /// Files whose names end in `.wasm`.
    pub(super) modules: Vec<String>,
    /// `manifest.yaml` at the root.
    pub(super) manifest: Option<Vec<u8>>,
    /// `runtime-config.json`.
    pub(super) runtime_config: Option<Vec<u8>>,
}

/// Look through all of a layer, however it is compressed.
pub(super) fn survey(layer: &Blob) -> Result<Survey, ExtractError> {
    through(layer, MAX_MODULE_SIZE + SLACK, |archive| {
        let mut found = Survey::default();
        for entry in tar::Archive::new(archive).entries()? {
            let mut entry = entry?;
            let path = path_of(&entry);
            let base = base_name(path.as_bytes());
            if base == MODULE_FILE.as_bytes() && found.plugin.is_none() {
                found.plugin = Some(path);
            } else if path == maistra::FILE && entry.size() <= MAX_MANIFEST_FILE {
                found.manifest = Some(whole(&mut entry)?);
            } else if base == RUNTIME_CONFIG_FILE.as_bytes()
                && found.runtime_config.is_none()
                && entry.size() <= MAX_RUNTIME_CONFIG_SIZE
            {
                found.runtime_config = Some(whole(&mut entry)?);
            } else if is_wasm_name(&path) && entry.header().entry_type().is_file() && found.modules.len() < MAX_NAMES {
                found.modules.push(path);
            }
        }
        Ok(found)
    })
}

/// One file of a layer, by a path that a [`Survey`] or a manifest has given; `None` if it is not there.
pub(super) fn file_at(layer: &Blob, wanted: &str, limit: u64) -> Result<Option<Vec<u8>>, ExtractError> {
    let wanted = relative(wanted);
    let mut too_large = false;
    let found = through(layer, limit.max(MAX_MODULE_SIZE).saturating_add(SLACK), |archive| {
        for entry in tar::Archive::new(archive).entries()? {
            let mut entry = entry?;
            if path_of(&entry) == wanted {
                too_large = entry.size() > limit;
                return if too_large { Ok(None) } else { whole(&mut entry).map(Some) };
            }
        }
        Ok(None)
    })?;
    if too_large {
        let digest = layer.descriptor.digest().to_string();
        return Err(ExtractError::TooLarge { file: MODULE_FILE, digest, limit });
    }
    Ok(found)
}

fn path_of(entry: &tar::Entry<'_, impl Read>) -> String {
    relative(&String::from_utf8_lossy(&entry.path_bytes())).to_owned()
}

fn relative(path: &str) -> &str {
    path.trim_start_matches("./").trim_start_matches('/')
}

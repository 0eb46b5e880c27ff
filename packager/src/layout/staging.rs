//! A place in a layout's own file system for blobs on their way in, so that they need not be written twice.

use std::fs::{self, File};
use std::path::Path;

use oci_spec::image::Descriptor;
use tempfile::TempDir;

use super::{Layout, LayoutError, Put, disk};
use crate::blob::{Blob, Content, Image};

const PREFIX: &str = ".plugwright-staging-";

/// A folder in a layout, which goes when this is dropped. One that a killed process left goes with the next one made.
#[derive(Debug)]
pub struct Staging {
    folder: TempDir,
    /// Says that somebody still uses it.
    _lock: File,
}

impl Staging {
    /// The folder. Whoever writes files into it vouches for them: each under the hexadecimal digits of its digest, and
    /// only once size and digest have been checked.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn holds(&self, blob: &Blob) -> bool {
        matches!(&blob.content, Content::File(path) if path.parent() == Some(self.path()))
    }
}

impl Layout {
    /// Make a folder for [`put_staged`](Layout::put_staged).
    pub fn staging(&self) -> Result<Staging, LayoutError> {
        // Held so that no folder is swept up between being made and being locked.
        let _lock = self.lock()?;
        for name in disk::names(&self.root)?.iter().filter(|name| name.starts_with(PREFIX)) {
            let folder = self.root.join(name);
            if File::open(&folder).is_ok_and(|folder| folder.try_lock().is_ok()) {
                fs::remove_dir_all(&folder).map_err(disk::failed("remove", &folder))?;
            }
        }
        let made = tempfile::Builder::new().prefix(PREFIX).tempdir_in(&self.root);
        let folder = made.map_err(disk::failed("create a folder in", &self.root))?;
        let lock = File::open(folder.path()).and_then(|folder| folder.lock().map(|()| folder));
        let lock = lock.map_err(disk::failed("lock", folder.path()))?;
        Ok(Staging { folder, _lock: lock })
    }

    /// Put a blob that the layout has and that is sound at `path` as well, which is in its staging folder.
    pub fn stage(&self, descriptor: &Descriptor, path: &Path) -> bool {
        let Ok(blob) = self.blob(descriptor.clone()) else { return false };
        let Content::File(stored) = &blob.content else { return false };
        stored.is_file()
            && blob.open().and_then(crate::blob::BlobReader::finish).is_ok()
            && fs::hard_link(stored, path).is_ok()
    }

    /// [`put`](Layout::put) an image whose blobs lie in `staging`: they are moved, and not read again.
    pub fn put_staged(&self, image: &Image, name: &str, staging: &Staging) -> Result<Put, LayoutError> {
        self.put_from(image, name, Some(staging))
    }
}

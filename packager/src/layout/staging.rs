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

    /// Put a blob that is in memory into the folder.
    pub(super) fn take(&self, blob: &mut Blob) -> Result<(), LayoutError> {
        if let Content::Bytes(bytes) = &blob.content {
            let path = self.path().join(blob.digest()?.hex());
            fs::write(&path, bytes).map_err(disk::failed("write", &path))?;
            blob.content = Content::File(path);
        }
        Ok(())
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

    /// [`put`](Layout::put) an image whose blobs lie in `staging`: they are moved, and neither read again nor
    /// flushed to the disk: after a power cut a blob may be damaged, which its digest tells, and is pulled again.
    pub fn put_staged(&self, image: &Image, name: &str, staging: &Staging) -> Result<Put, LayoutError> {
        self.put_from(image, name, Some(staging))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::image::media_type;

    fn image(layer: &[u8]) -> Image {
        let config = Blob::from_bytes(media_type::CONFIG, b"{}".as_slice());
        let layers = vec![Blob::from_bytes(media_type::LAYER, layer)];
        let manifest = serde_json::json!({"schemaVersion": 2, "mediaType": media_type::MANIFEST,
            "config": config.descriptor, "layers": [layers[0].descriptor]});
        let (manifest, media_type) = (manifest.to_string().into_bytes().into(), media_type::MANIFEST.to_owned());
        Image { manifest, media_type, config, layers }
    }

    /// The same image, its blobs as files in the staging folder.
    fn staged(image: &Image, staging: &Staging) -> Image {
        let file = |blob: &Blob| {
            let path = staging.path().join(blob.digest().unwrap().hex());
            fs::write(&path, blob.read(1 << 20).unwrap()).unwrap();
            Blob { content: Content::File(path), ..blob.clone() }
        };
        let layers = image.layers.iter().map(file).collect();
        Image { config: file(&image.config), layers, ..image.clone() }
    }

    fn names(layout: &Layout) -> Vec<String> {
        disk::names(layout.root()).unwrap()
    }

    #[test]
    fn staged_blobs_are_moved_in_and_the_folder_goes() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::open_or_create(root.path()).unwrap();
        let image = image(b"layer");
        let staging = layout.staging().unwrap();
        let put = layout.put_staged(&staged(&image, &staging), "x", &staging).unwrap();
        assert!(!put.unchanged && put.digest == image.digest());
        assert_eq!(disk::names(staging.path()).unwrap(), Vec::<String>::new());
        drop(staging);
        assert!(!names(&layout).iter().any(|name| name.starts_with(PREFIX)));
        assert_eq!(layout.image("x").unwrap().layers[0].read(9).unwrap(), b"layer");
    }

    #[test]
    fn a_blob_that_is_there_is_staged_unless_it_is_damaged() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::open_or_create(root.path()).unwrap();
        let image = image(b"layer");
        layout.put(&image, "x").unwrap();
        let staging = layout.staging().unwrap();
        let (layer, path) = (&image.layers[0].descriptor, staging.path().join("some"));
        assert!(layout.stage(layer, &path));
        assert_eq!(fs::read(&path).unwrap(), b"layer");
        let stored = layout.blob_path(&Digest::of(b"layer"));
        fs::remove_file(&stored).unwrap();
        fs::write(&stored, b"lay\0r").unwrap();
        assert!(!layout.stage(layer, &staging.path().join("other")));
        let again = layout.put_staged(&staged(&image, &staging), "x", &staging).unwrap();
        assert!(again.unchanged);
        assert_eq!(fs::read(stored).unwrap(), b"layer", "what was damaged has been replaced");
    }

    #[test]
    fn a_folder_that_was_left_goes_and_one_in_use_stays() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::open_or_create(root.path()).unwrap();
        fs::create_dir(root.path().join(format!("{PREFIX}left"))).unwrap();
        let used = layout.staging().unwrap();
        let more = layout.staging().unwrap();
        assert!(used.path().is_dir() && more.path().is_dir());
        assert!(!names(&layout).contains(&format!("{PREFIX}left")));
    }
}

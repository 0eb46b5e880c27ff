//! OCI image layouts: a folder of blobs and an index of names (OCI image specification, "Image Layout").
//!
//! A reader sees either the layout before a [`put`](Layout::put) or the one after it, whenever the writer is stopped:
//! files appear by renaming, blobs before the index that refers to them. Writers take turns by a lock.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! let layout = packager::layout::Layout::open_or_create(&folder.path().join("dist"))?;
//! assert!(layout.entries()?.is_empty());
//! # Ok(())
//! # }
//! ```

mod collect;
mod disk;
mod index;
mod staging;
#[cfg(test)]
mod tests;
mod write;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oci_spec::image::{ANNOTATION_REF_NAME, Descriptor};

use crate::blob::{Blob, BlobError, Content, Image, digest_of};
use crate::digest::Digest;
use crate::image::{self, MAX_MANIFEST_SIZE, ManifestError, media_type};
use index::Index;
pub use staging::Staging;

/// The file that makes a folder a layout.
const MARKER_FILE: &str = "oci-layout";
const INDEX_FILE: &str = "index.json";
const VERSION: &str = "1.0.0";

/// Why a layout cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// The folder is no layout.
    #[error("`{}` is not an OCI image layout: it has no file `oci-layout`", path.display())]
    NotALayout {
        /// The folder.
        path: PathBuf,
    },
    /// The folder is no layout, and something else is in it.
    #[error("`{}` is not an OCI image layout and not empty: it has `{found}`", path.display())]
    Occupied {
        /// The folder.
        path: PathBuf,
        /// Something found in it.
        found: String,
    },
    /// A layout of another version.
    #[error("`{}` has layout version `{version}`; expected {VERSION}", path.display())]
    Version {
        /// The file `oci-layout`.
        path: PathBuf,
        /// The version found.
        version: String,
    },
    /// A file of the layout is not what the specification says.
    #[error("`{}` cannot be parsed: {reason}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The file system failed.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried, for example `write`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No entry has that name.
    #[error("no image named `{name}` in `{}`; it has {}", path.display(), listed(.names))]
    NotFound {
        /// The folder.
        path: PathBuf,
        /// The name asked for.
        name: String,
        /// The names there are.
        names: Vec<String>,
    },
    /// Several entries have that name.
    #[error("{count} images are named `{name}` in `{}`", path.display())]
    SeveralNamed {
        /// The folder.
        path: PathBuf,
        /// The name.
        name: String,
        /// How many.
        count: usize,
    },
    /// A name that the specification does not allow.
    #[error("`{name}` is not a name for an image: letters and digits, separated by one of `-._:@+/` or by `--`")]
    Name {
        /// The name.
        name: String,
    },
    /// A manifest of the layout is not an image's.
    #[error("`{name}` in `{}` is not an image that can be read", path.display())]
    Manifest {
        /// The folder.
        path: PathBuf,
        /// The entry's name or digest.
        name: String,
        /// What is wrong with it.
        source: ManifestError,
    },
    /// A blob is missing, corrupt, or not what its descriptor says.
    #[error(transparent)]
    Blob(#[from] BlobError),
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { format!("`{}`", names.join("`, `")) }
}

impl LayoutError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotALayout { .. } => Some("make one with `cargo xtask package`".to_owned()),
            Self::Occupied { .. } => Some("choose an empty folder, or one that does not exist yet".to_owned()),
            Self::SeveralNamed { .. } => Some("refer to the image by its digest".to_owned()),
            Self::Manifest { path, name, source } => {
                source.hint().map(|hint| hint.replace("REF", &format!("oci:{}:{name}", path.display())))
            }
            Self::Blob(BlobError::Digest { .. } | BlobError::Size { .. }) => {
                Some("package or pull the image again: it replaces damaged blobs".to_owned())
            }
            _ => None,
        }
    }
}

/// An entry of a layout's index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name, `org.opencontainers.image.ref.name`, if it has one.
    pub name: Option<String>,
    /// What it refers to.
    pub descriptor: Descriptor,
}

/// What a [`put`](Layout::put) did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Put {
    /// The manifest's digest.
    pub digest: Digest,
    /// Whether the name referred to this image already.
    pub unchanged: bool,
    /// Blobs removed since nothing referred to them any more; `None` where that could not be done, or where a manifest
    /// could not be read, so that what it refers to is unknown and everything was kept.
    pub collected: Option<usize>,
}

/// An OCI image layout in a folder.
#[derive(Debug, Clone)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// Open a layout that exists.
    pub fn open(root: &Path) -> Result<Self, LayoutError> {
        let layout = Self { root: root.to_owned() };
        layout.check_marker()?;
        Ok(layout)
    }

    /// Open a layout, or make one where there is no folder or an empty one. A folder with anything else in it is refused.
    pub fn open_or_create(root: &Path) -> Result<Self, LayoutError> {
        let layout = Self { root: root.to_owned() };
        match layout.check_marker() {
            Err(LayoutError::NotALayout { .. }) => layout.create()?,
            checked => checked?,
        }
        Ok(layout)
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The index's entries, in its order.
    pub fn entries(&self) -> Result<Vec<Entry>, LayoutError> {
        let entry = |descriptor: Descriptor| {
            let name = descriptor.annotations().as_ref().and_then(|all| all.get(ANNOTATION_REF_NAME)).cloned();
            Entry { name, descriptor }
        };
        Ok(self.index()?.descriptors()?.into_iter().map(entry).collect())
    }

    /// The image of a name.
    ///
    /// Its manifest has been verified; its blobs are verified as they are read.
    pub fn image(&self, name: &str) -> Result<Image, LayoutError> {
        let entries = self.entries()?;
        let named: Vec<_> = entries.iter().filter(|entry| entry.name.as_deref() == Some(name)).collect();
        match named[..] {
            [entry] => self.load(&entry.descriptor, name),
            [] => Err(self.not_found(name, entries)),
            _ => Err(LayoutError::SeveralNamed { path: self.root.clone(), name: name.to_owned(), count: named.len() }),
        }
    }

    /// The image whose manifest has this digest, listed in the index or in an index that it lists.
    pub fn by_digest(&self, digest: &Digest) -> Result<Image, LayoutError> {
        let entries = self.entries()?;
        let mut pending: Vec<_> = entries.iter().map(|entry| entry.descriptor.clone()).collect();
        let mut seen = Vec::new();
        while let Some(descriptor) = pending.pop() {
            let found = digest_of(&descriptor)?;
            if found == *digest {
                return self.load(&descriptor, digest.as_str());
            }
            if media_type::is_index(descriptor.media_type().as_ref()) && !seen.contains(&found) {
                let nested = self.blob(descriptor)?.read(MAX_MANIFEST_SIZE)?;
                pending.extend(Index::parse(&self.blob_path(&found), &nested)?.descriptors()?);
                seen.push(found);
            }
        }
        Err(self.not_found(digest.as_str(), entries))
    }

    /// The bytes of a manifest or an index that an entry refers to, verified.
    pub fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>, LayoutError> {
        Ok(self.blob(descriptor.clone())?.read(MAX_MANIFEST_SIZE)?)
    }

    fn not_found(&self, name: &str, entries: Vec<Entry>) -> LayoutError {
        let names = entries.into_iter().filter_map(|entry| entry.name).collect();
        LayoutError::NotFound { path: self.root.clone(), name: name.to_owned(), names }
    }

    fn load(&self, descriptor: &Descriptor, name: &str) -> Result<Image, LayoutError> {
        let refused = |source| LayoutError::Manifest { path: self.root.clone(), name: name.to_owned(), source };
        let media_type = descriptor.media_type().to_string();
        if media_type::is_index(&media_type) {
            return Err(refused(ManifestError::Index { media_type }));
        }
        let manifest: Arc<[u8]> = self.blob(descriptor.clone())?.read(MAX_MANIFEST_SIZE)?.into();
        image::parse(manifest, &media_type, |digest| Content::File(self.blob_path(digest))).map_err(refused)
    }

    fn blob(&self, descriptor: Descriptor) -> Result<Blob, BlobError> {
        let content = Content::File(self.blob_path(&digest_of(&descriptor)?));
        Ok(Blob { descriptor, content })
    }

    fn blobs(&self) -> PathBuf {
        self.root.join("blobs").join("sha256")
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }

    fn index(&self) -> Result<Index, LayoutError> {
        let path = self.root.join(INDEX_FILE);
        let bytes = disk::read(&path, MAX_MANIFEST_SIZE)?;
        Index::parse(&path, &bytes)
    }

    fn check_marker(&self) -> Result<(), LayoutError> {
        let path = self.root.join(MARKER_FILE);
        let bytes = match disk::read(&path, MAX_MANIFEST_SIZE) {
            Err(LayoutError::Io { source, .. })
                if matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
            {
                return Err(LayoutError::NotALayout { path: self.root.clone() });
            }
            read => read?,
        };
        let invalid = |reason: &str| LayoutError::Parse { path: path.clone(), reason: reason.to_owned() };
        let marker: serde_json::Value = serde_json::from_slice(&bytes).map_err(|error| invalid(&error.to_string()))?;
        match marker.get("imageLayoutVersion").and_then(serde_json::Value::as_str) {
            Some(VERSION) => Ok(()),
            Some(version) => Err(LayoutError::Version { version: version.to_owned(), path }),
            None => Err(invalid("`imageLayoutVersion` is not a string")),
        }
    }
}

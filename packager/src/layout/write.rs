//! Writing into a layout, one writer at a time.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use oci_spec::image::ANNOTATION_REF_NAME;
use serde_json::{Map, Value, json};

use super::index::Index;
use super::{INDEX_FILE, Layout, LayoutError, MARKER_FILE, Put, Staging, VERSION, collect, disk};
use crate::blob::{Blob, Content, Image};
use crate::image::{MAX_MANIFEST_SIZE, media_type};

/// Held by whoever writes. It stays behind, empty: removing it would let two writers hold two files of that name.
const LOCK_FILE: &str = ".plugwright.lock";

impl Layout {
    /// Put an image under a name. What had that name before is replaced; other entries stay as they are, whoever wrote
    /// them; then blobs that nothing refers to are removed.
    ///
    /// Blobs are verified on the way in. On an error the layout is as it was.
    pub fn put(&self, image: &Image, name: &str) -> Result<Put, LayoutError> {
        self.put_from(image, name, None)
    }

    pub(super) fn put_from(&self, image: &Image, name: &str, staging: Option<&Staging>) -> Result<Put, LayoutError> {
        check_name(name)?;
        let _lock = self.lock()?;
        let mut index = self.index()?;
        let digest = image.digest();
        let mut manifest = Blob::from_bytes(&image.media_type, image.manifest.clone());
        let mut config = image.config.clone();
        if let Some(staging) = staging {
            staging.take(&mut manifest)?;
            staging.take(&mut config)?;
        }
        for blob in image.layers.iter().chain([&config, &manifest]) {
            match &blob.content {
                Content::File(path) if staging.is_some_and(|staging| staging.holds(blob)) => self.adopt(blob, path)?,
                _ => self.store(blob)?,
            }
        }
        let unchanged = index.names_only(name, digest.as_str());
        if !unchanged {
            // What the index refers to is on the disk before the index is.
            if staging.is_none() {
                disk::sync_folder(&self.blobs())?;
            }
            index.replace(name, entry(image, &manifest, name));
            disk::write_bytes(&self.root.join(INDEX_FILE), &index.to_bytes())?;
            if staging.is_none() {
                disk::sync_folder(&self.root)?;
            }
        }
        // The image is in; what could not be removed is for the next time.
        let collected = collect::collect(self, &index).unwrap_or_default();
        Ok(Put { digest, unchanged, collected })
    }

    /// Move a file that has been verified to where the blob belongs, replacing what may be there.
    fn adopt(&self, blob: &Blob, file: &Path) -> Result<(), LayoutError> {
        let path = self.blob_path(&blob.digest()?);
        if fs::metadata(file).is_err() && path.is_file() {
            // An image may name one blob twice; it has been moved then.
            return Ok(());
        }
        // Not flushed first: what came from elsewhere can come again, and after a power cut it is found out by its digest.
        fs::rename(file, &path).map_err(disk::failed("write", &path))
    }

    /// Store a blob unless it is there and sound.
    fn store(&self, blob: &Blob) -> Result<(), LayoutError> {
        let path = self.blob_path(&blob.digest()?);
        let stored = self.blob(blob.descriptor.clone())?;
        if path.is_file() && stored.open().and_then(crate::blob::BlobReader::finish).is_ok() {
            return Ok(());
        }
        let mut content = blob.open()?;
        disk::write(&path, |file| {
            let copied = io::copy(&mut content, file);
            // If the content is at fault, that explains why copying failed.
            content.finish()?;
            copied.map(|_| ()).map_err(disk::failed("write", &path))
        })
    }

    /// Make the folder a layout. The marker comes last: until then the folder is no layout to anyone, and the next
    /// attempt goes on from what this one left.
    pub(super) fn create(&self) -> Result<(), LayoutError> {
        let ours = |name: &String| {
            [LOCK_FILE, MARKER_FILE, INDEX_FILE, "blobs"].contains(&name.as_str()) || disk::is_temporary(name)
        };
        let names = disk::names(&self.root)?;
        let begun = names.iter().any(|name| name == LOCK_FILE) && names.iter().all(ours);
        if let Some(found) = names.first().filter(|_| !begun) {
            return Err(LayoutError::Occupied { path: self.root.clone(), found: found.clone() });
        }
        fs::create_dir_all(&self.root).map_err(disk::failed("create", &self.root))?;
        let _lock = self.lock()?;
        let marker = self.root.join(MARKER_FILE);
        if marker.exists() {
            return self.check_marker();
        }
        fs::create_dir_all(self.blobs()).map_err(disk::failed("create", &self.blobs()))?;
        let index = self.root.join(INDEX_FILE);
        disk::write_bytes(&index, &Index::empty(&index).to_bytes())?;
        disk::write_bytes(&marker, json!({ "imageLayoutVersion": VERSION }).to_string().as_bytes())?;
        disk::sync_folder(&self.root)
    }

    pub(super) fn lock(&self) -> Result<File, LayoutError> {
        let path = self.root.join(LOCK_FILE);
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(disk::failed("lock", &path))?;
        file.lock().map_err(disk::failed("lock", &path))?;
        fs::create_dir_all(self.blobs()).map_err(disk::failed("create", &self.blobs()))?;
        Ok(file)
    }
}

fn entry(image: &Image, manifest: &Blob, name: &str) -> Value {
    let mut entry = Map::new();
    entry.insert("mediaType".to_owned(), json!(image.media_type));
    entry.insert("digest".to_owned(), json!(manifest.descriptor.digest().to_string()));
    entry.insert("size".to_owned(), json!(image.manifest.len()));
    if let Some(platform) = platform(image) {
        entry.insert("platform".to_owned(), platform);
    }
    entry.insert("annotations".to_owned(), json!({ ANNOTATION_REF_NAME: name }));
    Value::Object(entry)
}

/// The platform that an image's configuration names, where it is of a kind that names one.
fn platform(image: &Image) -> Option<Value> {
    if ![media_type::CONFIG, media_type::DOCKER_CONFIG].contains(&image.config.descriptor.media_type().as_ref()) {
        return None;
    }
    let config: Value = serde_json::from_slice(&image.config.read(MAX_MANIFEST_SIZE).ok()?).ok()?;
    let field = |name| config.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    Some(json!({ "architecture": field("architecture")?, "os": field("os")? }))
}

/// OCI image specification, "Annotations", on `org.opencontainers.image.ref.name`.
fn check_name(name: &str) -> Result<(), LayoutError> {
    let component = |component: &str| {
        let mut previous = None;
        let well_formed = component.replace("--", "-").bytes().all(|byte| {
            let separator = b"-._:@+".contains(&byte);
            let fits = byte.is_ascii_alphanumeric() || (separator && previous.is_some_and(|last| last));
            previous = Some(!separator);
            fits
        });
        well_formed && previous == Some(true)
    };
    if name.split('/').all(component) { Ok(()) } else { Err(LayoutError::Name { name: name.to_owned() }) }
}

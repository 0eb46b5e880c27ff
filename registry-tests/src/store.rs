//! Where things are kept: in memory, or in a folder in which a crash leaves nothing half-written.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tempfile::NamedTempFile;

/// Keys are relative paths whose parts have been checked by whoever makes them.
pub(crate) enum Store {
    Memory(Mutex<BTreeMap<String, Bytes>>),
    Folder(PathBuf),
}

impl Store {
    pub(crate) fn memory() -> Self {
        Self::Memory(Mutex::default())
    }

    pub(crate) fn folder(path: &Path) -> io::Result<Self> {
        fs::create_dir_all(path.join("uploads"))?;
        // Uploads that a crash cut off are of no use to anyone.
        for left in fs::read_dir(path.join("uploads"))? {
            fs::remove_file(left?.path())?;
        }
        Ok(Self::Folder(path.to_owned()))
    }

    pub(crate) fn get(&self, key: &str) -> io::Result<Option<Bytes>> {
        match self {
            Self::Memory(map) => Ok(lock(map).get(key).cloned()),
            Self::Folder(root) => match fs::read(root.join(key)) {
                Ok(bytes) => Ok(Some(bytes.into())),
                Err(error) if is_absence(&error) => Ok(None),
                Err(error) => Err(error),
            },
        }
    }

    /// Size of what a key holds.
    pub(crate) fn size(&self, key: &str) -> io::Result<Option<u64>> {
        match self {
            Self::Memory(map) => Ok(lock(map).get(key).map(|bytes| bytes.len() as u64)),
            Self::Folder(root) => match fs::metadata(root.join(key)) {
                Ok(metadata) => Ok(metadata.is_file().then_some(metadata.len())),
                Err(error) if is_absence(&error) => Ok(None),
                Err(error) => Err(error),
            },
        }
    }

    pub(crate) fn put(&self, key: &str, bytes: &[u8]) -> io::Result<()> {
        let mut file = self.temporary()?;
        file.write_all(bytes)?;
        self.put_file(key, file)
    }

    /// A file to collect an upload in.
    pub(crate) fn temporary(&self) -> io::Result<NamedTempFile> {
        match self {
            Self::Memory(_) => NamedTempFile::new(),
            Self::Folder(root) => NamedTempFile::new_in(root.join("uploads")),
        }
    }

    pub(crate) fn put_file(&self, key: &str, file: NamedTempFile) -> io::Result<()> {
        match self {
            Self::Memory(map) => {
                let bytes = fs::read(file.path())?;
                lock(map).insert(key.to_owned(), bytes.into());
            }
            Self::Folder(root) => {
                let path = root.join(key);
                let folder = path.parent().unwrap_or(root);
                fs::create_dir_all(folder)?;
                file.as_file().sync_all()?;
                file.persist(&path).map_err(|error| error.error)?;
                File::open(folder)?.sync_all()?;
            }
        }
        Ok(())
    }

    /// Remove a key; whether there was one.
    pub(crate) fn delete(&self, key: &str) -> io::Result<bool> {
        match self {
            Self::Memory(map) => Ok(lock(map).remove(key).is_some()),
            Self::Folder(root) => match fs::remove_file(root.join(key)) {
                Ok(()) => Ok(true),
                Err(error) if is_absence(&error) => Ok(false),
                Err(error) => Err(error),
            },
        }
    }

    /// Names right under a folder, sorted.
    pub(crate) fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let mut names = match self {
            Self::Memory(map) => {
                let prefix = format!("{folder}/");
                lock(map)
                    .keys()
                    .filter_map(|key| key.strip_prefix(&prefix))
                    .filter(|rest| !rest.contains('/'))
                    .map(str::to_owned)
                    .collect()
            }
            Self::Folder(root) => match fs::read_dir(root.join(folder)) {
                Ok(entries) => entries
                    .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
                    .collect::<io::Result<Vec<_>>>()?,
                Err(error) if is_absence(&error) => Vec::new(),
                Err(error) => return Err(error),
            },
        };
        names.sort();
        Ok(names)
    }
}

fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Nothing that holds the lock can be left half-done by a panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(store: &Store) {
        assert_eq!(store.get("a/b").unwrap(), None);
        store.put("a/b", b"1").unwrap();
        store.put("a/c", b"22").unwrap();
        store.put("a/d/e", b"").unwrap();
        assert_eq!(store.get("a/b").unwrap().as_deref(), Some(&b"1"[..]));
        assert_eq!(store.size("a/c").unwrap(), Some(2));
        assert!(store.list("a").unwrap().starts_with(&["b".to_owned(), "c".to_owned()]));
        assert!(store.delete("a/b").unwrap());
        assert!(!store.delete("a/b").unwrap());
        assert!(store.list("nowhere").unwrap().is_empty());
    }

    #[test]
    fn memory_and_folder_behave_alike() {
        check(&Store::memory());
        let folder = tempfile::tempdir().unwrap();
        check(&Store::folder(folder.path()).unwrap());
        assert!(Store::folder(folder.path()).unwrap().get("a/c").unwrap().is_some(), "a folder outlives its registry");
    }

    #[test]
    fn an_upload_that_a_crash_cut_off_is_swept_up() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::folder(folder.path()).unwrap();
        let left = store.temporary().unwrap().keep().unwrap().1;
        Store::folder(folder.path()).unwrap();
        assert!(!left.exists());
    }
}

//! The cache's folder: modules under `NAME/CHECKSUM.wasm`, an index beside them, and a lock for whoever changes it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tempfile::NamedTempFile;

use super::cache::CacheError;
use super::decide::State;

const INDEX: &str = "index.json";
const LOCK: &str = "lock";
const TEMPORARY: &str = ".tmp-";
/// A file in the making is not older than this, unless its maker was killed.
const LONGEST_WRITE: Duration = Duration::from_hours(1);

#[derive(Debug, Clone)]
pub(super) struct Disk {
    folder: PathBuf,
}

impl Disk {
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// Where a module is, or would be.
    pub(super) fn path(&self, module: &str) -> PathBuf {
        self.folder.join(module)
    }

    /// What is remembered right now. The index is replaced as a whole, so reading it needs no lock. An index that cannot
    /// be understood remembers nothing: everything in the cache can be pulled again.
    pub(super) fn read(&self) -> Result<State, CacheError> {
        let path = self.folder.join(INDEX);
        match fs::read(&path) {
            Ok(bytes) => {
                let mut state: State = serde_json::from_slice(&bytes).unwrap_or_default();
                state.modules.retain(|module, _| is_module(module));
                Ok(state)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(State::default()),
            Err(source) => Err(CacheError { action: "read", path, source }),
        }
    }

    /// Change what is remembered, alone.
    pub(super) fn update<T>(&self, change: impl FnOnce(&mut State) -> T) -> Result<T, CacheError> {
        let _lock = self.lock()?;
        let mut state = self.read()?;
        let outcome = change(&mut state);
        self.write(&state)?;
        Ok(outcome)
    }

    /// A file for a module that is on its way; readable for its owner alone.
    pub(super) fn incoming(&self) -> Result<NamedTempFile, CacheError> {
        fs::create_dir_all(&self.folder).map_err(failed("create", &self.folder))?;
        empty(&self.folder).map_err(failed("create a file in", &self.folder))
    }

    /// A module could not be written to its file.
    pub(super) fn failed_writing(&self, error: io::Error) -> CacheError {
        failed("write to", &self.folder)(error)
    }

    /// Put a module that has come in there, and remember it. It has its name only when all of it is on the disk.
    pub(super) fn put(
        &self,
        module: &str,
        incoming: NamedTempFile,
        change: impl FnOnce(&mut State),
    ) -> Result<PathBuf, CacheError> {
        let path = self.path(module);
        let folder = path.parent().unwrap_or(&self.folder).to_owned();
        incoming.as_file().sync_all().map_err(failed("write", &path))?;
        // Purging takes away what the index does not know, so the name comes under the lock.
        let _lock = self.lock()?;
        fs::create_dir_all(&folder).map_err(failed("create", &folder))?;
        incoming.persist(&path).map_err(|error| failed("write", &path)(error.error))?;
        sync_folder(&folder).map_err(failed("flush", &folder))?;
        let mut state = self.read()?;
        change(&mut state);
        self.write(&state)?;
        Ok(path)
    }

    /// Forget what `expired` says, and remove every file that is not remembered. Gives how many were forgotten.
    pub(super) fn purge(&self, expired: impl FnOnce(&mut State) -> Vec<String>) -> Result<usize, CacheError> {
        let _lock = self.lock()?;
        let mut state = self.read()?;
        let expired = expired(&mut state);
        self.write(&state)?;
        let entries = entries(&self.folder)?;
        for file in entries.iter().filter(|entry| is_left(entry) || is_earlier(entry)) {
            fs::remove_file(file.path()).map_err(failed("remove", &file.path()))?;
        }
        for folder in entries.iter().filter(|entry| entry.file_name().len() == 64).map(fs::DirEntry::path) {
            let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            for file in self::entries(&folder)? {
                let module = format!("{name}/{}", file.file_name().to_string_lossy());
                if is_module(&module) && !state.modules.contains_key(&module) {
                    fs::remove_file(file.path()).map_err(failed("remove", &file.path()))?;
                }
            }
            // Only an empty one goes.
            let _ = fs::remove_dir(&folder);
        }
        Ok(expired.len())
    }

    fn write(&self, state: &State) -> Result<(), CacheError> {
        let path = self.folder.join(INDEX);
        let write = || {
            let bytes = serde_json::to_vec(state)?;
            temporary(&self.folder, &bytes)?.persist(&path).map_err(|error| error.error)?;
            sync_folder(&self.folder)
        };
        write().map_err(failed("write", &path))
    }

    /// Held until dropped; the system drops it for a process that is killed.
    fn lock(&self) -> Result<File, CacheError> {
        fs::create_dir_all(&self.folder).map_err(failed("create", &self.folder))?;
        let path = self.folder.join(LOCK);
        let lock = || {
            let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
            file.lock().map(|()| file)
        };
        lock().map_err(failed("lock", &path))
    }
}

/// Whether a name from an index or a folder is one that this cache gives: 64 digits, a slash, 64 digits, `.wasm`.
fn is_module(name: &str) -> bool {
    name.split_once('/').is_some_and(|(name, file)| is_hex(name) && file.strip_suffix(".wasm").is_some_and(is_hex))
}

/// Whether this is a module as earlier versions kept it: without a folder, and in no index.
fn is_earlier(file: &fs::DirEntry) -> bool {
    let name = file.file_name().to_string_lossy().into_owned();
    name.strip_suffix(".wasm").is_some_and(is_hex) && file.file_type().is_ok_and(|kind| kind.is_file())
}

fn is_hex(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn entries(folder: &Path) -> Result<Vec<fs::DirEntry>, CacheError> {
    fs::read_dir(folder).and_then(Iterator::collect).map_err(failed("list", folder))
}

/// Whether this is what a killed process was writing.
fn is_left(file: &fs::DirEntry) -> bool {
    let age = || SystemTime::now().duration_since(file.metadata()?.modified()?).map_err(io::Error::other);
    file.file_name().to_string_lossy().starts_with(TEMPORARY) && age().is_ok_and(|age| age > LONGEST_WRITE)
}

/// Bytes on the disk that have no name yet, readable for their owner alone.
fn temporary(folder: &Path, bytes: &[u8]) -> io::Result<NamedTempFile> {
    let mut file = empty(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    Ok(file)
}

fn empty(folder: &Path) -> io::Result<NamedTempFile> {
    tempfile::Builder::new().prefix(TEMPORARY).tempfile_in(folder)
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    // Elsewhere a folder cannot be opened, and renaming is as durable as it gets.
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

fn failed(action: &'static str, path: &Path) -> impl Fn(io::Error) -> CacheError {
    move |source| CacheError { action, path: path.to_owned(), source }
}

//! Compiled modules in a folder, so that each is compiled once on a machine and not at each start.
//!
//! What comes out of it is executed, and the engine does not check it. So an entry counts only when it is a file of this
//! user alone in a folder of this user alone, when it was written by whoever has the folder's key, and for the module,
//! the engine and the processor that are asked for. Anything else is removed, and the module compiled again.

use std::fs::{self, DirBuilder, File};
use std::hash::{Hash as _, Hasher};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use ring::hmac;
use sha2::{Digest as _, Sha256};
use wasmtime::{Engine, Module};

use crate::module::hex;

/// All entries together, by default.
const LIMIT: u64 = 512 << 20;
/// A larger file is none of ours: the largest module that is loaded compiles to less.
const MAX_ENTRY: u64 = 256 << 20;
/// The file that has the folder's key.
const KEY: &str = "key";
const KEY_BYTES: usize = 32;
const TAG_BYTES: usize = 32;
const EXTENSION: &str = "code";
/// Everything but the owner's permissions.
const OTHERS: u32 = 0o077;

/// Why a folder is not used.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// It could not be made, read or written.
    #[error("{operation} {path}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Somebody else could have put something into it.
    #[error("{path} {reason}, so that others could put code into it; remove it, or `chmod 700` it")]
    NotOurs {
        /// The folder, or its key.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// A folder of compiled modules that belongs to this user alone.
pub struct CodeCache {
    folder: PathBuf,
    owner: u32,
    key: hmac::Key,
    limit: u64,
    problem: Mutex<Option<String>>,
}

impl std::fmt::Debug for CodeCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CodeCache").field("folder", &self.folder).field("limit", &self.limit).finish_non_exhaustive()
    }
}

impl CodeCache {
    /// Uses a folder, which is made when it is missing. It is refused when it is not this user's, when others have any
    /// right in it, and when it is a symbolic link.
    pub fn open(folder: &Path) -> Result<Self, CacheError> {
        let failed = |operation| move |source| CacheError::Io { operation, path: folder.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed("create the folder"))?;
        let found = fs::symlink_metadata(folder).map_err(failed("look at"))?;
        let not_ours = |reason| CacheError::NotOurs { path: folder.to_owned(), reason };
        if !found.is_dir() {
            return Err(not_ours("is no folder"));
        }
        // Whoever this process is: the owner of what it makes.
        let made = tempfile::NamedTempFile::new_in(folder).and_then(|file| file.as_file().metadata());
        let owner = made.map_err(failed("write to"))?.uid();
        if found.uid() != owner {
            return Err(not_ours("is another user's"));
        }
        if found.mode() & OTHERS != 0 {
            return Err(not_ours("is open to other users"));
        }
        let key = key(&folder.join(KEY), owner)?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
        Ok(Self { folder: folder.to_owned(), owner, key, limit: LIMIT, problem: Mutex::default() })
    }

    /// Keeps at most `bytes`; what was not used for longest goes first.
    #[must_use]
    pub fn limited_to(mut self, bytes: u64) -> Self {
        self.limit = bytes;
        self
    }

    /// Why the module compiled last is not kept, if it is not.
    pub fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The compiled form of the module with this digest, if there is one that can be trusted.
    pub(crate) fn load(&self, engine: &Engine, sha256: &str) -> Option<Module> {
        let environment = environment(engine);
        let path = self.entry(&environment, sha256);
        let mut file = open_own(&path, self.owner).ok()??;
        let module = self.read(&mut file, engine, &environment, sha256);
        if module.is_some() {
            // Only the order of removal depends on it.
            let _ = file.set_modified(SystemTime::now());
        } else {
            // It would only be looked at in vain again.
            let _ = fs::remove_file(&path);
        }
        module
    }

    fn read(&self, file: &mut File, engine: &Engine, environment: &[u8], sha256: &str) -> Option<Module> {
        let size = file.metadata().ok()?.len();
        if size > MAX_ENTRY {
            return None;
        }
        let mut bytes = Vec::with_capacity(usize::try_from(size).ok()?);
        file.take(MAX_ENTRY).read_to_end(&mut bytes).ok()?;
        let (tag, code) = bytes.split_at_checked(TAG_BYTES)?;
        let signed = signed(environment, sha256, code);
        hmac::verify(&self.key, &signed, tag).ok()?;
        deserialize(engine, code)
    }

    /// Keeps a compiled module. When that fails it is merely compiled again the next time.
    pub(crate) fn store(&self, engine: &Engine, sha256: &str, module: &Module) {
        let stored = self.try_store(engine, sha256, module);
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = stored.err().map(|error| error.to_string());
    }

    fn try_store(&self, engine: &Engine, sha256: &str, module: &Module) -> io::Result<()> {
        let environment = environment(engine);
        let code = module.serialize().map_err(io::Error::other)?;
        if (code.len() + TAG_BYTES) as u64 > MAX_ENTRY.min(self.limit) {
            return Ok(());
        }
        let tag = hmac::sign(&self.key, &signed(&environment, sha256, &code));
        // Under a temporary name, so that an entry is there as a whole or not at all. Not synced: a damaged one is told
        // by its tag.
        let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
        file.write_all(tag.as_ref())?;
        file.write_all(&code)?;
        file.persist(self.entry(&environment, sha256)).map_err(|error| error.error)?;
        self.trim()
    }

    fn entry(&self, environment: &[u8], sha256: &str) -> PathBuf {
        let environment = hex(environment.get(..8).unwrap_or_default());
        self.folder.join(format!("{sha256}-{environment}.{EXTENSION}"))
    }

    /// Removes what was not used for longest, and what interrupted writers have left, until the rest fits.
    fn trim(&self) -> io::Result<()> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let found = match entry.metadata() {
                Ok(found) if found.is_file() && entry.file_name() != KEY => found,
                // The key, or what somebody else has just removed.
                _ => continue,
            };
            entries.push((found.modified()?, found.len(), entry.path()));
        }
        entries.sort();
        let mut total: u64 = entries.iter().map(|(_, size, _)| size).sum();
        for (_, size, path) in entries {
            if total <= self.limit {
                break;
            }
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => total -= size,
            }
        }
        Ok(())
    }
}

/// What a tag is made of: nothing of an entry can be another's.
fn signed(environment: &[u8], sha256: &str, code: &[u8]) -> Vec<u8> {
    let digest = Sha256::digest(code);
    [b"plugwright code 1\0", environment, sha256.as_bytes(), digest.as_slice()].concat()
}

/// The engine's version and configuration, and the processor that it compiles for.
fn environment(engine: &Engine) -> [u8; 32] {
    struct Digest(Sha256);
    impl Hasher for Digest {
        fn finish(&self) -> u64 {
            0
        }

        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
    }
    let mut digest = Digest(Sha256::new());
    engine.precompile_compatibility_hash().hash(&mut digest);
    digest.0.finalize().into()
}

#[expect(unsafe_code, reason = "the engine takes the word of whoever has the code that it wrote it")]
fn deserialize(engine: &Engine, code: &[u8]) -> Option<Module> {
    // SAFETY: the bytes are in this process's own memory, and the caller has verified with a key which nobody but this
    // user can read that they are what `Module::serialize` gave. The engine itself refuses another version's.
    unsafe { Module::deserialize(engine, code) }.ok()
}

/// Opens a file that only this user can have written; `None` when it is something else, which is then removed.
fn open_own(path: &Path, owner: u32) -> io::Result<Option<File>> {
    let ours = |found: &fs::Metadata| found.is_file() && found.uid() == owner && found.mode() & OTHERS == 0;
    // Nobody else can put another file there meanwhile; nor would it be ours.
    if ours(&fs::symlink_metadata(path)?) {
        let file = File::open(path)?;
        if ours(&file.metadata()?) {
            return Ok(Some(file));
        }
    }
    fs::remove_file(path)?;
    Ok(None)
}

/// The folder's key, which is made when there is none.
fn key(path: &Path, owner: u32) -> Result<[u8; KEY_BYTES], CacheError> {
    let failed = |operation| move |source| CacheError::Io { operation, path: path.to_owned(), source };
    match open_own(path, owner) {
        Ok(Some(file)) => {
            let mut key = Vec::new();
            file.take(KEY_BYTES as u64 + 1).read_to_end(&mut key).map_err(failed("read"))?;
            if let Ok(key) = key.try_into() {
                return Ok(key);
            }
            // Whatever was signed with it is compiled again.
            fs::remove_file(path).map_err(failed("remove the broken key"))?;
        }
        Ok(None) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed("read")(error)),
    }
    let mut key = [0; KEY_BYTES];
    getrandom::fill(&mut key).map_err(|error| failed("make a key for")(io::Error::other(error.to_string())))?;
    let folder = path.parent().unwrap_or(path);
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed("write"))?;
    file.write_all(&key).map_err(failed("write"))?;
    match file.persist_noclobber(path) {
        Ok(_) => Ok(key),
        // Another process was quicker: its key is everybody's.
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
            let not_ours = || CacheError::NotOurs { path: path.to_owned(), reason: "has no key of this user's" };
            let mut file = open_own(path, owner).map_err(failed("read"))?.ok_or_else(not_ours)?;
            file.read_exact(&mut key).map_err(failed("read"))?;
            Ok(key)
        }
        Err(error) => Err(failed("write")(error.error)),
    }
}

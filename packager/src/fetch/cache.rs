//! A cache of modules on disk, with the keys and decisions of Istio's agent, for any number of processes at once.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tempfile::NamedTempFile;

use super::decide::{Entry, Lookup};
use super::disk::Disk;
use super::request::{Key, ModuleRequest, Understood};
use super::why::{Action, Explanation, Why};
use super::{FetchError, FetchOptions, IntoFile, Source, fetch, from_url, pull_module, resolve};
use crate::digest::Digest;
use crate::reference::Reference;

/// Istio's `DefaultModuleExpiry`.
const EXPIRY: Duration = Duration::from_hours(24);
/// Istio's `DefaultPurgeInterval`.
const PURGE_INTERVAL: Duration = Duration::from_hours(1);

/// Modules in a folder, as Istio's agent keeps them: the same keys, and the same decisions about when to pull.
///
/// Unlike the agent's, which is in its memory, it outlives the process. A module is verified each time it is taken; one
/// that is damaged is pulled again. Any number of processes may use the folder, and be killed while they do: a module
/// appears whole or not at all. A module that nobody asked for in 24 hours is removed, which is looked to once an hour.
#[derive(Debug, Clone)]
pub struct Cache {
    disk: Disk,
}

/// A module in the cache.
#[derive(Debug, Clone)]
pub struct Cached {
    /// The file.
    pub path: PathBuf,
    /// The digest of the file's content.
    pub content: Digest,
    /// What a pin is compared with, and the reference as asked for.
    pub source: Source,
    /// Why it was pulled or not.
    pub explanation: Explanation,
}

/// The cache's folder could not be used.
#[derive(Debug, thiserror::Error)]
#[error("failed to {action} {}", path.display())]
pub struct CacheError {
    pub(super) action: &'static str,
    pub(super) path: PathBuf,
    pub(super) source: io::Error,
}

impl Cache {
    /// A cache in this folder, which is made when something is put into it.
    pub fn new(folder: &Path) -> Self {
        Self { disk: Disk::new(folder) }
    }

    /// Have the module that a resource asks for: from the cache where Istio's agent would take it from there, else
    /// pulled. Files are read where they are, and their pin is not looked at.
    pub fn fetch(&self, request: &ModuleRequest, options: &FetchOptions) -> Result<Cached, FetchError> {
        let Understood { reference, key } = request.understand()?;
        if let Reference::File(_) | Reference::Layout(_) = reference {
            return self.fetch_reference(&reference, options);
        }
        self.purge_now_and_then()?;
        let done = |path, content, checksum: Digest, action, why: &Why| Cached {
            path,
            content,
            explanation: explained(&key, Some(checksum.clone()), action, why),
            source: Source { reference: reference.clone(), digest: checksum },
        };
        let why = match self.disk.update(|state| state.look_up(&key, request.pull_policy, now()))? {
            Lookup::Hit(checksum, entry, why) => match self.taken(&key, &checksum, &entry) {
                Some(path) => return Ok(done(path, entry.content, checksum, Action::FromCache, &why)),
                None => Why::Damaged,
            },
            Lookup::Miss(why) => why,
        };
        let mut incoming = self.disk.incoming()?;
        let mut into = IntoFile::new(incoming.as_file_mut());
        let mut take = |reader: &mut dyn Read| into.take(reader);
        let fetched = match &reference {
            Reference::Image(image) => {
                let options = match &request.credentials {
                    Some(credentials) => &options.with_credentials(credentials.clone()),
                    None => options,
                };
                let manifest = resolve(image, key.pin.as_ref(), options)?;
                let checksum = manifest.digest.clone();
                // A pin that is there was found before, or is damaged.
                let there = match &key.pin {
                    Some(_) => None,
                    None => self.disk.update(|state| state.look_again(&key, &checksum, now()))?,
                };
                if let Some(entry) = there
                    && let Some(path) = self.taken(&key, &checksum, &entry)
                {
                    return Ok(done(path, entry.content, checksum, Action::Unchanged, &why));
                }
                pull_module(image, manifest, options, &mut take).map(|()| checksum)
            }
            Reference::Url(url) => from_url(url, key.pin.as_ref(), options, &mut take),
            Reference::File(_) | Reference::Layout(_) => return self.fetch_reference(&reference, options),
        };
        let (content, _) = into.finish().map_err(|error| self.disk.failed_writing(error))?;
        let checksum = fetched?;
        let path = self.keep(&key, &checksum, &content, incoming)?;
        Ok(done(path, content, checksum, Action::Pulled, &why))
    }

    /// Have the module of a reference that no resource asks for: it is always fetched, and kept only to have a file.
    pub fn fetch_reference(&self, reference: &Reference, options: &FetchOptions) -> Result<Cached, FetchError> {
        self.purge_now_and_then()?;
        let mut incoming = self.disk.incoming()?;
        let mut into = IntoFile::new(incoming.as_file_mut());
        let fetched = fetch(reference, None, options, &mut |reader| into.take(reader));
        let (content, _) = into.finish().map_err(|error| self.disk.failed_writing(error))?;
        let digest = fetched?;
        let key = Key::of_local(reference);
        let path = self.keep(&key, &content, &content, incoming)?;
        let explanation = Explanation {
            name: key.shown,
            checksum: Some(digest.clone()),
            action: Action::Read,
            reason: "no cache is asked for what is named by itself, or is a file".to_owned(),
        };
        Ok(Cached { path, content, source: Source { reference: reference.clone(), digest }, explanation })
    }

    /// What [`Cache::fetch`] would do first, without asking anybody and without remembering that it was looked up.
    pub fn explain(&self, request: &ModuleRequest) -> Result<Explanation, FetchError> {
        let Understood { reference, key } = request.understand()?;
        if let Reference::File(_) | Reference::Layout(_) = reference {
            let reason = "it is a file on the proxy, which is not checked against anything".to_owned();
            return Ok(Explanation { name: key.shown, checksum: None, action: Action::Read, reason });
        }
        Ok(match self.disk.read()?.look_up(&key, request.pull_policy, now()) {
            Lookup::Hit(checksum, entry, why) => match self.taken(&key, &checksum, &entry) {
                Some(_) => explained(&key, Some(checksum), Action::FromCache, &why),
                None => explained(&key, Some(checksum), Action::WillAsk, &Why::Damaged),
            },
            Lookup::Miss(why) => {
                let pin = key.pin.clone();
                explained(&key, pin, Action::WillAsk, &why)
            }
        })
    }

    /// Remove what nobody asked for in the 24 hours before `now`, and what a killed process left. Gives how many modules
    /// that were.
    pub fn purge(&self, now: SystemTime) -> Result<usize, FetchError> {
        let now = seconds(now);
        Ok(self.disk.purge(|state| state.purge(EXPIRY.as_secs(), now))?)
    }

    fn purge_now_and_then(&self) -> Result<(), FetchError> {
        let purged = self.disk.read()?.purged;
        if now().saturating_sub(purged) >= PURGE_INTERVAL.as_secs() {
            self.purge(SystemTime::now())?;
        }
        Ok(())
    }

    /// The file of an entry, if its content is what it has to be.
    fn taken(&self, key: &Key, checksum: &Digest, entry: &Entry) -> Option<PathBuf> {
        let path = self.disk.path(&key.module(checksum));
        let file = std::fs::File::open(&path).ok()?;
        let (content, _) = Digest::of_reader(file).ok()?;
        (content == entry.content).then_some(path)
    }

    fn keep(
        &self,
        key: &Key,
        checksum: &Digest,
        content: &Digest,
        module: NamedTempFile,
    ) -> Result<PathBuf, CacheError> {
        self.disk.put(&key.module(checksum), module, |state| state.add(key, checksum, content.clone(), now()))
    }
}

fn explained(key: &Key, checksum: Option<Digest>, action: Action, why: &Why) -> Explanation {
    Explanation { name: key.shown.clone(), checksum, action, reason: why.to_string() }
}

fn now() -> u64 {
    seconds(SystemTime::now())
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

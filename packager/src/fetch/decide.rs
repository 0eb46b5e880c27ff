//! What a cache remembers and when it asks: the decisions of Istio's `pkg/wasm/cache.go`, without any I/O.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::request::{Key, PullPolicy};
use super::why::Why;
use crate::digest::Digest;

/// Everything that is remembered. It never holds a URL as it was written, whose query may be a secret.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(super) struct State {
    /// By [`Key::module`].
    pub(super) modules: BTreeMap<String, Entry>,
    /// By [`Key::url`].
    urls: BTreeMap<String, Remembered>,
    /// When it was last purged, in seconds since 1970.
    pub(super) purged: u64,
}

/// A module in the cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// The digest of its own bytes, by which it is verified.
    pub(super) content: Digest,
    /// When it was last asked for, in seconds since 1970.
    pub(super) last: u64,
}

/// What a URL gave when it was last asked, and which version of each resource had asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Remembered {
    name: String,
    checksum: Digest,
    versions: BTreeMap<String, String>,
}

/// What the cache says before anything is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Lookup {
    /// It has the module.
    Hit(Digest, Entry, Why),
    /// The registry or the web server has to be asked.
    Miss(Why),
}

impl State {
    /// Look a module up, and remember that this version of the resource did, as Istio's `getEntry` does. It remembers
    /// that even if the pull that follows fails, so that the next lookup with `Always` takes what there is.
    pub(super) fn look_up(&mut self, key: &Key, policy: PullPolicy, now: u64) -> Lookup {
        if let Some(pin) = &key.pin {
            return match self.touch(key, pin, now) {
                Some(entry) => Lookup::Hit(pin.clone(), entry, Why::Pinned),
                None => Lookup::Miss(Why::PinNotThere),
            };
        }
        let ignores_version = key.ignores_version(policy);
        let Some(remembered) = self.urls.get_mut(&key.url) else { return Lookup::Miss(Why::NeverPulled) };
        let before = remembered.versions.insert(key.resource.clone(), key.version.clone());
        let why = match before {
            _ if ignores_version => Why::PulledBefore(policy),
            Some(before) if before == key.version => Why::VersionUnchanged(before),
            // Go's map gives the empty string for what it does not have.
            None if key.version.is_empty() => Why::VersionUnchanged(String::new()),
            before => return Lookup::Miss(Why::VersionChanged { before, now: key.version.clone() }),
        };
        let checksum = remembered.checksum.clone();
        match self.touch(key, &checksum, now) {
            Some(entry) => Lookup::Hit(checksum, entry, why),
            None => Lookup::Miss(Why::Gone),
        }
    }

    /// After asking: whether a module of this checksum is there already.
    pub(super) fn look_again(&mut self, key: &Key, checksum: &Digest, now: u64) -> Option<Entry> {
        self.touch(key, checksum, now)
    }

    /// Add a module that was pulled.
    pub(super) fn add(&mut self, key: &Key, checksum: &Digest, content: Digest, now: u64) {
        self.modules.insert(key.module(checksum), Entry { content, last: now });
        self.remember(key, checksum);
    }

    /// The modules that were not asked for in `expiry` seconds; they are forgotten.
    pub(super) fn purge(&mut self, expiry: u64, now: u64) -> Vec<String> {
        let stale = |entry: &Entry| now.saturating_sub(entry.last) > expiry;
        let expired: Vec<String> =
            self.modules.iter().filter(|(_, entry)| stale(entry)).map(|(module, _)| module.clone()).collect();
        self.modules.retain(|_, entry| !stale(entry));
        let known: BTreeSet<&String> = self.modules.keys().collect();
        self.urls.retain(|_, remembered| known.contains(&Key::module_of(&remembered.name, &remembered.checksum)));
        self.purged = now;
        expired
    }

    fn touch(&mut self, key: &Key, checksum: &Digest, now: u64) -> Option<Entry> {
        let entry = self.modules.get_mut(&key.module(checksum))?;
        // Another process's clock may be ahead.
        entry.last = entry.last.max(now);
        let entry = entry.clone();
        self.remember(key, checksum);
        Some(entry)
    }

    /// A URL with a digest in it needs no remembering.
    fn remember(&mut self, key: &Key, checksum: &Digest) {
        if !key.may_move {
            return;
        }
        let fresh = || Remembered { name: key.name.clone(), checksum: checksum.clone(), versions: BTreeMap::new() };
        let remembered = self.urls.entry(key.url.clone()).or_insert_with(fresh);
        remembered.checksum = checksum.clone();
        remembered.versions.insert(key.resource.clone(), key.version.clone());
    }
}

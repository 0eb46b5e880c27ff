//! What modules have noted of which of their code was executed, from all VMs of a process.
//!
//! A module that takes notes has them in mutable `i64` globals, which it exports as `plugwright.reached.0` and so on.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use wasmtime::{Global, Instance, Store};

use crate::state::HostState;

/// The flags of each module that had a VM, by the digest of its bytes.
#[derive(Debug, Default)]
pub struct Coverage(Mutex<BTreeMap<String, Vec<u64>>>);

impl Coverage {
    /// What was collected so far: of VMs that are gone.
    pub fn collected(&self) -> BTreeMap<String, Vec<u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn add(&self, sha256: &str, words: impl Iterator<Item = u64>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = all.entry(sha256.to_owned()).or_default();
        for (at, word) in words.enumerate() {
            match known.get_mut(at) {
                Some(known) => *known |= word,
                None => known.push(word),
            }
        }
    }
}

/// Where one VM has its notes.
pub(crate) struct Notes {
    coverage: Arc<Coverage>,
    sha256: String,
    globals: Vec<Global>,
}

impl Notes {
    pub(crate) fn of(
        coverage: &Arc<Coverage>,
        instance: &Instance,
        store: &mut Store<HostState>,
        sha256: &str,
    ) -> Self {
        let global = |word: usize| instance.get_global(&mut *store, &format!("plugwright.reached.{word}"));
        let globals = (0..).map_while(global).collect();
        Self { coverage: coverage.clone(), sha256: sha256.to_owned(), globals }
    }

    /// Adds them to what was collected. A VM that failed has its notes, too.
    pub(crate) fn collect(&self, store: &mut Store<HostState>) {
        let words = self.globals.iter().map(|global| global.get(&mut *store).i64().unwrap_or_default().cast_unsigned());
        self.coverage.add(&self.sha256, words);
    }
}

//! Bars for blobs on their way, on a terminal; elsewhere only what went wrong and is tried again.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use packager::digest::Digest;
use packager::registry::{Moved, Progress, RegistryError};

use crate::report::note;

/// What moves faster than a bar can be read gets none.
const SMALLEST: u64 = 1 << 20;
const TEMPLATE: &str = "{prefix} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}";
/// How much of a digest tells blobs apart.
const SHOWN: usize = "sha256:".len() + 12;

/// Draws on standard error, and only where that is a terminal.
pub(crate) struct Bars {
    all: MultiProgress,
    bars: Mutex<HashMap<Digest, ProgressBar>>,
}

impl Bars {
    pub(crate) fn new() -> Self {
        // Hides itself where standard error is no terminal.
        Self { all: MultiProgress::with_draw_target(ProgressDrawTarget::stderr()), bars: Mutex::default() }
    }

    fn bars(&self) -> MutexGuard<'_, HashMap<Digest, ProgressBar>> {
        self.bars.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bar(&self, digest: &Digest) -> Option<ProgressBar> {
        self.bars().get(digest).cloned()
    }
}

impl Progress for Bars {
    fn start(&self, digest: &Digest, size: u64, position: u64) {
        if size < SMALLEST || self.all.is_hidden() {
            return;
        }
        let bar = self.bar(digest).unwrap_or_else(|| {
            let bar = self.all.add(ProgressBar::new(size));
            // A template that cannot be read leaves indicatif's own.
            bar.set_style(ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_prefix(digest.as_str()[..SHOWN].to_owned());
            self.bars().insert(digest.clone(), bar.clone());
            bar
        });
        bar.set_position(position);
    }

    fn advance(&self, digest: &Digest, bytes: u64) {
        if let Some(bar) = self.bar(digest) {
            bar.inc(bytes);
        }
    }

    fn finish(&self, digest: &Digest, _: Moved) {
        if let Some(bar) = self.bars().remove(digest) {
            bar.finish_and_clear();
        }
    }

    fn retry(&self, reason: &RegistryError, after: Duration) {
        self.all.suspend(|| note(format!("{reason}; trying again in {:.1} s", after.as_secs_f32())));
    }
}

/// A bar that is left after a failure is not left on the screen.
impl Drop for Bars {
    fn drop(&mut self) {
        self.bars().drain().for_each(|(_, bar)| bar.finish_and_clear());
    }
}

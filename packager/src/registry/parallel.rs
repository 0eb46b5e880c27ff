//! Several blobs at a time, and no more than so many.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use oci_spec::image::Descriptor;

use super::RegistryError;

/// Each blob once: an image may name one several times.
pub(super) fn distinct<T>(blobs: impl Iterator<Item = T>, descriptor: impl Fn(&T) -> &Descriptor) -> Vec<T> {
    let mut seen = HashSet::new();
    blobs.filter(|blob| seen.insert(descriptor(blob).digest().to_string())).collect()
}

/// Do the work for each item, on at most `width` threads. After a failure nothing more is begun; the failure that
/// happened first is given.
pub(super) fn each<T: Sync>(
    items: &[T],
    width: usize,
    work: impl Fn(&T) -> Result<(), RegistryError> + Sync,
) -> Result<(), RegistryError> {
    let (next, stop, failure) = (AtomicUsize::new(0), AtomicBool::new(false), Mutex::new(None));
    let run = || {
        while !stop.load(Ordering::Relaxed)
            && let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed))
        {
            if let Err(error) = work(item) {
                stop.store(true, Ordering::Relaxed);
                failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            }
        }
    };
    std::thread::scope(|scope| {
        // Where no thread is to be had, those that are there do the work; this one always is.
        for _ in 1..width.min(items.len()) {
            if std::thread::Builder::new().spawn_scoped(scope, run).is_err() {
                break;
            }
        }
        run();
    });
    failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn all_items_are_done_by_as_many_threads_as_asked_for() {
        let done = Mutex::new(Vec::new());
        // Would wait forever if the three were not under way at once.
        let barrier = Barrier::new(3);
        each(&[1, 2, 3], 3, |item| {
            barrier.wait();
            done.lock().unwrap().push(*item);
            Ok(())
        })
        .unwrap();
        let mut done = done.into_inner().unwrap();
        done.sort_unstable();
        assert_eq!(done, [1, 2, 3]);
        each(&[(); 0], 4, |()| unreachable!()).unwrap();
    }

    #[test]
    fn nothing_is_begun_after_a_failure() {
        let begun = AtomicUsize::new(0);
        let error = each(&[1, 2, 3], 1, |item| {
            begun.fetch_add(1, Ordering::Relaxed);
            Err(RegistryError::TooLarge { what: String::new(), limit: *item })
        });
        assert!(matches!(error, Err(RegistryError::TooLarge { limit: 1, .. })));
        assert_eq!(begun.into_inner(), 1);
    }
}

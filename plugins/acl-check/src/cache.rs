//! Permissions that are kept for a moment, by a hash of everything that was asked.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

/// How many permissions are kept; with the longest tokens this is 8 MiB.
const MAX_ENTRIES: usize = 1000;

/// What a question is known by. The token is not kept.
pub(crate) type Question = [u8; 32];

/// Hashes what is asked; each part counts with its length, so that none runs into the next.
pub(crate) fn question(parts: [&str; 4]) -> Question {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// One VM's permissions. A refusal is never kept.
#[derive(Default)]
pub(crate) struct Cache(RefCell<BTreeMap<Question, (SystemTime, String)>>);

// Permissions are credentials.
impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("<redacted>")
    }
}

impl Cache {
    pub(crate) fn get(&self, question: &Question, now: SystemTime) -> Option<String> {
        self.0.borrow().get(question).filter(|(until, _)| *until > now).map(|(_, token)| token.clone())
    }

    pub(crate) fn put(&self, question: Question, token: &str, now: SystemTime, lifetime: Duration) {
        let Some(until) = now.checked_add(lifetime).filter(|until| *until > now) else { return };
        let mut entries = self.0.borrow_mut();
        if entries.len() >= MAX_ENTRIES {
            entries.retain(|_, (until, _)| *until > now);
        }
        if entries.len() >= MAX_ENTRIES {
            entries.clear();
        }
        entries.insert(question, (until, token.to_owned()));
    }
}

/// How long the server lets its answer be kept (RFC 9111, section 5.2.2), at most `most`.
pub(crate) fn lifetime(cache_control: Option<&str>, most: Duration) -> Duration {
    let mut lifetime = most;
    for directive in cache_control.unwrap_or_default().split(',') {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        match name.trim().to_ascii_lowercase().as_str() {
            "no-store" | "no-cache" => return Duration::ZERO,
            "max-age" => {
                let seconds = value.trim().trim_matches('"').parse().unwrap_or(0);
                lifetime = lifetime.min(Duration::from_secs(seconds));
            }
            _ => {}
        }
    }
    lifetime
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::{Cache, MAX_ENTRIES, lifetime, question};

    #[test]
    fn every_part_of_a_question_counts() {
        let asked = question(["token", "GET", "host", "/"]);
        assert_eq!(asked, question(["token", "GET", "host", "/"]));
        for other in [["token", "GET", "host/", ""], ["toke", "nGET", "host", "/"], ["token", "GET", "hos", "t/"]] {
            assert_ne!(asked, question(other));
        }
    }

    #[test]
    fn a_permission_ends() {
        let cache = Cache::default();
        let second = Duration::from_secs(1);
        cache.put([1; 32], "a", UNIX_EPOCH, second);
        cache.put([2; 32], "b", UNIX_EPOCH, Duration::ZERO);
        assert_eq!(cache.get(&[1; 32], UNIX_EPOCH + second / 2).as_deref(), Some("a"));
        assert_eq!(cache.get(&[1; 32], UNIX_EPOCH + second), None);
        assert_eq!(cache.get(&[2; 32], UNIX_EPOCH), None);
    }

    #[test]
    fn there_is_room_for_so_many_and_the_ended_go_first() {
        let cache = Cache::default();
        let key = |n: usize| question([&n.to_string(), "", "", ""]);
        let put = |n: usize, at: u64, seconds: u64| {
            cache.put(key(n), "a", UNIX_EPOCH + Duration::from_secs(at), Duration::from_secs(seconds));
        };
        put(0, 0, 100);
        (1..MAX_ENTRIES).for_each(|n| put(n, 0, 1));
        put(MAX_ENTRIES, 2, 100);
        assert_eq!(cache.0.borrow().len(), 2);
        (1..MAX_ENTRIES - 1).for_each(|n| put(n, 2, 100));
        assert_eq!(cache.0.borrow().len(), MAX_ENTRIES);
        put(MAX_ENTRIES + 1, 2, 100);
        assert_eq!(cache.0.borrow().len(), 1);
    }

    #[test]
    fn the_server_may_shorten_how_long_it_is_kept() {
        let most = Duration::from_secs(30);
        for (header, seconds) in [
            (None, 30),
            (Some(""), 30),
            (Some("private"), 30),
            (Some("private, max-age=10"), 10),
            (Some("MAX-AGE=\"10\""), 10),
            (Some("max-age=3600"), 30),
            (Some("max-age=soon"), 0),
            (Some("max-age=10, no-store"), 0),
            (Some("no-cache"), 0),
        ] {
            assert_eq!(lifetime(header, most), Duration::from_secs(seconds), "{header:?}");
        }
    }
}

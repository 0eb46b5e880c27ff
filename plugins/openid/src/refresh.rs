//! Refreshing of sessions, each refresh token once: providers that rotate them take a second use for theft.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use sha2::{Digest as _, Sha256};

use crate::background::Flight;
use crate::session::Session;
use crate::workers::TokenHash;

/// How long the outcome is kept for requests that were sent with the old cookie, in seconds.
pub(crate) const KEEP_SUCCESS: u64 = 60;
pub(crate) const KEEP_FAILURE: u64 = 5;

/// How many are kept.
const MAX_KEPT: usize = 1024;

/// Why a session was not refreshed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotRefreshed {
    /// The provider cannot be asked now.
    Later,
    /// The provider does not want to, or its answer is not to be trusted.
    Never,
}

pub(crate) type Refreshed = Result<Rc<Session>, NotRefreshed>;

/// What this worker has refreshed lately or is refreshing, by a hash of the refresh token.
#[derive(Default)]
pub(crate) struct Refreshes(RefCell<BTreeMap<TokenHash, Kept>>);

struct Kept {
    begun: u64,
    flight: Rc<Flight<Refreshed>>,
}

/// The refresh of one token.
pub(crate) enum Refresh {
    /// Somebody has begun it.
    Joined(Rc<Flight<Refreshed>>),
    /// It is the caller's to begin.
    New(Rc<Flight<Refreshed>>),
    /// Too many are under way.
    TooMany,
}

/// What a token goes by, which does not give it away.
pub(crate) fn hash(refresh_token: &str) -> TokenHash {
    Sha256::digest(refresh_token.as_bytes()).into()
}

impl Refreshes {
    pub(crate) fn join(&self, refresh_token: &str, now: u64) -> Refresh {
        let mut kept = self.0.borrow_mut();
        kept.retain(|_, entry| match entry.flight.result() {
            None => true,
            Some(Ok(_)) => now.saturating_sub(entry.begun) < KEEP_SUCCESS,
            Some(Err(_)) => now.saturating_sub(entry.begun) < KEEP_FAILURE,
        });
        let key = hash(refresh_token);
        if let Some(entry) = kept.get(&key) {
            return Refresh::Joined(Rc::clone(&entry.flight));
        }
        if kept.len() >= MAX_KEPT {
            let done = kept.iter().filter(|(_, entry)| entry.flight.result().is_some());
            let Some(oldest) = done.min_by_key(|(_, entry)| entry.begun).map(|(key, _)| *key) else {
                return Refresh::TooMany;
            };
            kept.remove(&oldest);
        }
        let flight = Rc::new(Flight::default());
        kept.insert(key, Kept { begun: now, flight: Rc::clone(&flight) });
        Refresh::New(flight)
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_KEPT, NotRefreshed, Refresh, Refreshes};

    #[test]
    fn a_token_is_refreshed_once_and_its_outcome_kept_for_a_while() {
        let refreshes = Refreshes::default();
        let Refresh::New(flight) = refreshes.join("token", 100) else { panic!("nobody has begun") };
        assert!(matches!(refreshes.join("token", 1000), Refresh::Joined(_)), "it is under way");
        assert!(matches!(refreshes.join("other", 100), Refresh::New(_)));
        flight.land(Err(NotRefreshed::Later));
        assert!(matches!(refreshes.join("token", 104), Refresh::Joined(_)));
        assert!(matches!(refreshes.join("token", 105), Refresh::New(_)));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let refreshes = Refreshes::default();
        for index in 0..MAX_KEPT {
            assert!(matches!(refreshes.join(&index.to_string(), 0), Refresh::New(_)));
        }
        assert!(matches!(refreshes.join("one more", 0), Refresh::TooMany));
        let Refresh::Joined(flight) = refreshes.join("0", 0) else { panic!("it is under way") };
        flight.land(Err(NotRefreshed::Never));
        assert!(matches!(refreshes.join("one more", 0), Refresh::New(_)));
        assert!(matches!(refreshes.join("one more than that", 0), Refresh::TooMany));
    }
}

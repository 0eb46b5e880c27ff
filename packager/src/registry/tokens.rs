//! What registries have been shown and took: kept for a client's lifetime, so that one answer serves many requests.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::credentials::Secret;

use super::RegistryError;
use super::url::Url;

/// An `Authorization` header, and until when it is of use.
#[derive(Clone)]
pub(super) struct Authorization {
    header: Secret,
    /// `None` is for as long as the client lives.
    until: Option<Instant>,
}

impl Authorization {
    pub(super) fn lasting(header: Secret) -> Self {
        Self { header, until: None }
    }

    /// A token that is good for so long. It is given up a tenth of that earlier, since a request takes time as well.
    pub(super) fn for_a_while(header: Secret, lifetime: Duration) -> Self {
        Self { header, until: Instant::now().checked_add(lifetime / 10 * 9) }
    }

    fn is_fresh(&self) -> bool {
        self.until.is_none_or(|until| Instant::now() < until)
    }
}

/// Where a token is good, and for what.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Key(String);

impl Key {
    pub(super) fn new(registry: &Url, scopes: &[&str]) -> Self {
        Self(format!("{registry} {}", scopes.join(" ")))
    }
}

type Slot = Arc<Mutex<Option<Authorization>>>;

#[derive(Default)]
pub(super) struct Tokens(Mutex<HashMap<Key, Slot>>);

impl Tokens {
    /// What to show without being asked.
    pub(super) fn get(&self, key: &Key) -> Option<Secret> {
        let slot = self.slot(key);
        let known = lock(&slot);
        known.as_ref().filter(|known| known.is_fresh()).map(|known| known.header.clone())
    }

    /// What to show after a refusal of `refused`: what another thread has got in the meantime, else what `ask` gives.
    /// The others wait meanwhile, so that a realm is asked once.
    pub(super) fn renew(
        &self,
        key: &Key,
        refused: Option<&Secret>,
        ask: impl FnOnce() -> Result<Option<Authorization>, RegistryError>,
    ) -> Result<Option<Secret>, RegistryError> {
        let slot = self.slot(key);
        let mut known = lock(&slot);
        if let Some(newer) = known.as_ref().filter(|known| known.is_fresh() && Some(&known.header) != refused) {
            return Ok(Some(newer.header.clone()));
        }
        *known = None;
        *known = ask()?;
        // A password that was refused is refused again.
        Ok(known.as_ref().map(|known| known.header.clone()).filter(|header| Some(header) != refused))
    }

    fn slot(&self, key: &Key) -> Slot {
        Arc::clone(lock(&self.0).entry(key.clone()).or_default())
    }
}

/// Nothing that holds a lock here can be left half-done by a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text)
    }

    #[test]
    fn a_token_is_asked_for_once_until_it_is_refused_or_stale() {
        let tokens = Tokens::default();
        let registry = Url::parse("https://ghcr.io/v2/").unwrap();
        let key = Key::new(&registry, &["repository:a:pull"]);
        let give = |text: &str, seconds| {
            let given = Authorization::for_a_while(secret(text), Duration::from_secs(seconds));
            move || Ok(Some(given))
        };
        assert_eq!(tokens.get(&key), None);
        assert_eq!(tokens.renew(&key, None, give("one", 60)).unwrap(), Some(secret("one")));
        assert_eq!(tokens.get(&key), Some(secret("one")));
        assert_eq!(tokens.renew(&key, None, || unreachable!()).unwrap(), Some(secret("one")), "another thread got it");
        assert_eq!(tokens.get(&Key::new(&registry, &["repository:a:pull,push"])), None, "another scope");
        assert_eq!(tokens.renew(&key, Some(&secret("one")), give("two", 0)).unwrap(), Some(secret("two")));
        assert_eq!(tokens.get(&key), None, "stale");
        let lasting = || Ok(Some(Authorization::lasting(secret("basic"))));
        assert_eq!(tokens.renew(&key, None, lasting).unwrap(), Some(secret("basic")));
        assert_eq!(
            tokens.renew(&key, Some(&secret("basic")), lasting).unwrap(),
            None,
            "refused, and nothing else known"
        );
    }
}

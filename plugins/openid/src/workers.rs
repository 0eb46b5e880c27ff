//! Refreshing once among all workers: which of them asks the provider, and what came of it, is in the proxy's shared data.

use plugwright_sdk::{Host, SharedData};

use crate::refresh::{KEEP_FAILURE, KEEP_SUCCESS, NotRefreshed};
use crate::seal::{Sealer, Use};
use crate::session::Session;

/// Shared data has no way to remove a key, so that there are as many as there will ever be. Two tokens with the same one
/// are refreshed as if there were no other worker.
const KEYS: u8 = u8::MAX;

const HASH: usize = 32;
pub(crate) type TokenHash = [u8; HASH];

/// What a worker is to do about a token.
#[derive(Debug)]
pub(crate) enum Claim {
    /// Ask the provider, and tell the others.
    Mine,
    /// Another worker asks.
    Others,
    /// Another worker has asked.
    Done(Result<Session, NotRefreshed>),
}

/// What is known of one token.
struct Entry<'a> {
    hash: TokenHash,
    /// In seconds since the Unix epoch.
    begun: u64,
    state: State<'a>,
}

enum State<'a> {
    UnderWay,
    Failed(NotRefreshed),
    /// The new session, sealed: whatever else runs in the proxy may read it.
    Refreshed(&'a str),
}

impl<'a> Entry<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let (hash, rest) = bytes.split_first_chunk()?;
        let (begun, rest) = rest.split_first_chunk()?;
        let state = match rest {
            [0] => State::UnderWay,
            [1] => State::Failed(NotRefreshed::Later),
            [2] => State::Failed(NotRefreshed::Never),
            [3, sealed @ ..] => State::Refreshed(std::str::from_utf8(sealed).ok()?),
            _ => return None,
        };
        Some(Self { hash: *hash, begun: u64::from_be_bytes(*begun), state })
    }

    fn write(&self) -> Vec<u8> {
        let (state, sealed): (u8, &str) = match self.state {
            State::UnderWay => (0, ""),
            State::Failed(NotRefreshed::Later) => (1, ""),
            State::Failed(NotRefreshed::Never) => (2, ""),
            State::Refreshed(sealed) => (3, sealed),
        };
        [&self.hash[..], &self.begun.to_be_bytes(), &[state], sealed.as_bytes()].concat()
    }

    /// Whether it still counts; who has not ended after `patience` seconds is not there any more.
    fn counts(&self, now: u64, patience: u64) -> bool {
        let keep = match self.state {
            State::UnderWay => patience,
            State::Failed(_) => KEEP_FAILURE,
            State::Refreshed(_) => KEEP_SUCCESS,
        };
        now.saturating_sub(self.begun) < keep
    }
}

fn key(number: u8) -> String {
    format!("plugwright.openid.refresh.{number}")
}

fn key_of(hash: &TokenHash) -> String {
    key(hash[0] % KEYS)
}

/// Makes the keys, before there are requests: only a value that is there can be claimed by one worker alone.
pub(crate) fn prepare(host: &mut impl Host) {
    for number in 0..KEYS {
        // A host without shared data has no other workers either.
        let _ = SharedData::new(&key(number)).update(host, |value| value.is_none().then(Vec::new));
    }
}

/// Asks for the right to refresh a token.
pub(crate) fn claim(host: &mut impl Host, cookie_keys: &Sealer, hash: &TokenHash, now: u64, patience: u64) -> Claim {
    let mut found = Claim::Mine;
    let claimed = SharedData::new(&key_of(hash)).update(host, |value| {
        found = Claim::Mine;
        let entry = value.and_then(Entry::read).filter(|entry| entry.counts(now, patience));
        match entry {
            Some(Entry { hash: other, state, .. }) if other == *hash => match state {
                State::UnderWay => found = Claim::Others,
                State::Failed(why) => found = Claim::Done(Err(why)),
                State::Refreshed(sealed) => {
                    let session = cookie_keys.open(Use::Refreshed, sealed).and_then(|plain| Session::decode(&plain));
                    match session {
                        Some(session) => found = Claim::Done(Ok(session)),
                        // Under keys that are not this configuration's: it says nothing here.
                        None => return Some(Entry { hash: *hash, begun: now, state: State::UnderWay }.write()),
                    }
                }
            },
            // Another token's: somebody waits for it.
            Some(Entry { state: State::UnderWay, .. }) => {}
            _ => return Some(Entry { hash: *hash, begun: now, state: State::UnderWay }.write()),
        }
        None
    });
    if claimed.is_err() { Claim::Mine } else { found }
}

/// Tells the other workers what came of a token that was this one's to refresh.
pub(crate) fn tell(
    host: &mut impl Host,
    cookie_keys: &Sealer,
    hash: &TokenHash,
    now: u64,
    outcome: &Result<Session, NotRefreshed>,
) {
    let sealed = match outcome {
        Ok(session) => cookie_keys.seal(Use::Refreshed, &session.encode(), host).ok(),
        Err(_) => None,
    };
    let state = || match (outcome, sealed.as_deref()) {
        (Ok(_), Some(sealed)) => State::Refreshed(sealed),
        (Ok(_), None) => State::Failed(NotRefreshed::Later),
        (Err(why), _) => State::Failed(*why),
    };
    // Whoever waits takes over in the end if this cannot be said.
    let _ = SharedData::new(&key_of(hash)).update(host, |value| {
        let entry = value.and_then(Entry::read)?;
        let is_ours = entry.hash == *hash && matches!(entry.state, State::UnderWay);
        is_ours.then(|| Entry { hash: *hash, begun: now, state: state() }.write())
    });
}

#[cfg(test)]
mod tests {
    use plugwright_sdk::testing::InMemoryHost;

    use super::*;

    const PATIENCE: u64 = 20;

    fn sealer(key: &str) -> Sealer {
        Sealer::new(&[key.repeat(43) + "="], &["issuer"]).ok().unwrap()
    }

    fn session(token: &str) -> Session {
        Session {
            created: 1,
            expires: 400,
            forwarded: token.to_owned(),
            id_token: None,
            refresh_token: Some("next-secret".to_owned()),
            subject: "alice".to_owned(),
            nonce: "n".to_owned(),
        }
    }

    /// Two workers of one proxy.
    fn workers() -> (InMemoryHost, InMemoryHost) {
        let one = InMemoryHost::default();
        let other = one.sharing();
        (one, other)
    }

    #[test]
    fn one_worker_asks_and_the_others_get_what_it_was_told() {
        let ((mut one, mut other), sealer, hash) = (workers(), sealer("A"), [7; HASH]);
        prepare(&mut one);
        assert!(matches!(claim(&mut one, &sealer, &hash, 100, PATIENCE), Claim::Mine));
        // A worker that starts later takes nothing away.
        prepare(&mut other);
        assert!(matches!(claim(&mut other, &sealer, &hash, 101, PATIENCE), Claim::Others));
        tell(&mut one, &sealer, &hash, 102, &Ok(session("new-secret")));
        let Claim::Done(Ok(got)) = claim(&mut other, &sealer, &hash, 103, PATIENCE) else { panic!("it is done") };
        assert!(got == session("new-secret"));
        let kept = other.shared_data(&key_of(&hash)).unwrap().unwrap().0;
        assert!(!String::from_utf8_lossy(&kept).contains("secret"), "everything in the proxy can read it");
        // Somebody else's keys do not open it, and later it is forgotten.
        assert!(matches!(claim(&mut other, &self::sealer("Q"), &hash, 103, PATIENCE), Claim::Mine));
        tell(&mut one, &sealer, &hash, 104, &Ok(session("newer")));
        assert!(matches!(claim(&mut other, &sealer, &hash, 104 + KEEP_SUCCESS, PATIENCE), Claim::Mine));
    }

    #[test]
    fn a_failure_is_everybodys_for_a_while() {
        for why in [NotRefreshed::Later, NotRefreshed::Never] {
            let ((mut one, mut other), sealer, hash) = (workers(), sealer("A"), [7; HASH]);
            prepare(&mut one);
            assert!(matches!(claim(&mut one, &sealer, &hash, 100, PATIENCE), Claim::Mine));
            tell(&mut one, &sealer, &hash, 100, &Err(why));
            let Claim::Done(Err(told)) = claim(&mut other, &sealer, &hash, 104, PATIENCE) else { panic!("it failed") };
            assert_eq!(told, why);
            assert!(matches!(claim(&mut other, &sealer, &hash, 105, PATIENCE), Claim::Mine));
        }
    }

    #[test]
    fn a_worker_that_is_gone_is_not_waited_for_for_ever_and_says_nothing_afterwards() {
        let ((mut one, mut other), sealer, hash) = (workers(), sealer("A"), [7; HASH]);
        prepare(&mut one);
        assert!(matches!(claim(&mut one, &sealer, &hash, 100, PATIENCE), Claim::Mine));
        assert!(matches!(claim(&mut other, &sealer, &hash, 119, PATIENCE), Claim::Others));
        assert!(matches!(claim(&mut other, &sealer, &hash, 120, PATIENCE), Claim::Mine));
        tell(&mut other, &sealer, &hash, 121, &Ok(session("new")));
        tell(&mut one, &sealer, &hash, 122, &Err(NotRefreshed::Never));
        assert!(matches!(claim(&mut one, &sealer, &hash, 123, PATIENCE), Claim::Done(Ok(_))));
    }

    #[test]
    fn tokens_that_share_a_key_do_not_stop_each_other() {
        let ((mut one, mut other), sealer) = (workers(), sealer("A"));
        let (first, mut second) = ([7; HASH], [7; HASH]);
        second[1] = 8;
        prepare(&mut one);
        assert!(matches!(claim(&mut one, &sealer, &first, 100, PATIENCE), Claim::Mine));
        assert!(matches!(claim(&mut other, &sealer, &second, 100, PATIENCE), Claim::Mine));
        tell(&mut other, &sealer, &second, 101, &Err(NotRefreshed::Never));
        assert!(matches!(claim(&mut other, &sealer, &first, 101, PATIENCE), Claim::Others));
        tell(&mut one, &sealer, &first, 102, &Ok(session("new")));
        assert!(matches!(claim(&mut other, &sealer, &second, 102, PATIENCE), Claim::Mine));
    }

    #[test]
    fn whatever_others_write_is_no_entry() {
        let ((mut one, _), sealer) = (workers(), sealer("A"));
        for value in [&b""[..], b"x", &[7; HASH], &[7; HASH + 8], &[7; HASH + 9], &[0xff; 100]] {
            one.set_shared_data(&key_of(&[7; HASH]), value, 0).unwrap();
            assert!(matches!(claim(&mut one, &sealer, &[7; HASH], 100, PATIENCE), Claim::Mine), "{value:?}");
        }
    }
}

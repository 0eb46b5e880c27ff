//! The providers' keys: inline ones, and those that are fetched and kept fresh as Istio's control plane does it.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use mesh::policy::JwtRule;
use tokio::task::LocalSet;

use super::jwks::Jwks;
use crate::abi::LogLevel;
use crate::chain::ChainError;
use crate::cluster::{Call, Clusters};
use crate::header_map::HeaderMap;
use crate::log::Sink;
use crate::request_path::without_dots;
use crate::upstream::{Address, Dialer, Tls};

/// How often Istio's control plane fetches keys again, and how soon after it could not.
const REFRESH: Duration = Duration::from_mins(20);
const RETRY: Duration = Duration::from_mins(1);
const TIMEOUT: Duration = Duration::from_secs(5);

fn patience(fresh: bool) -> Duration {
    if fresh { REFRESH } else { RETRY }
}

const DISCOVERY: &str = "/.well-known/openid-configuration";

/// Gets documents over HTTP.
pub(crate) trait Fetch: Send + Sync {
    /// The body of a response with a status of 200 to 299; the error says why there is none.
    fn fetch(&self, url: &str, timeout: Duration) -> Result<String, String>;
}

/// Over HTTP and HTTPS.
pub(crate) struct Web {
    tls: Option<Tls>,
    sink: Arc<dyn Sink>,
}

/// What a server may answer that is no error.
enum Answer {
    Body(String),
    /// The document is at another place.
    Elsewhere(String),
}

impl Fetch for Web {
    fn fetch(&self, url: &str, timeout: Duration) -> Result<String, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let fetched = async { tokio::time::timeout(timeout, self.follow(url)).await };
        let late = |_| format!("no answer within {} ms", timeout.as_millis());
        LocalSet::new().block_on(&runtime, fetched).map_err(late)?
    }
}

impl Web {
    /// For the keys of these rules. Servers are trusted by the public roots, and by the certificates in `roots`.
    pub(crate) fn new(rules: &[JwtRule], roots: &[String], sink: Arc<dyn Sink>) -> Result<Self, ChainError> {
        let is_needed = rules.iter().any(|rule| rule.jwks.is_none());
        let tls = is_needed.then(|| Tls::new(roots)).transpose().map_err(ChainError::Certificates)?;
        Ok(Self { tls, sink })
    }

    /// Follows as many redirects as Go's client does.
    async fn follow(&self, url: &str) -> Result<String, String> {
        let mut url = url.to_owned();
        for _ in 0..10 {
            match self.get(&url).await? {
                Answer::Body(body) => return Ok(body),
                Answer::Elsewhere(location) => url = location,
            }
        }
        Err("it was redirected 10 times".to_owned())
    }

    async fn get(&self, url: &str) -> Result<Answer, String> {
        let (scheme, rest) = url.split_once("://").ok_or("that is not a URL")?;
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, target) = rest.find(['/', '?']).map_or((rest, ""), |at| rest.split_at(at));
        let origin = format!("{scheme}://{authority}");
        let http = ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
        let address = Address::parse(&origin).filter(|_| http).ok_or("that is not an http or https URL")?;
        let dialer = Dialer { tls: self.tls.clone(), sink: self.sink.clone() };
        let clusters = Clusters::new(&BTreeMap::from([(String::new(), address)]), &dialer);
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        let mut headers = HeaderMap::default();
        for (name, value) in [(":method", "GET"), (":path", &target), (":authority", authority), ("accept", "*/*")] {
            headers.add(name.as_bytes(), value.as_bytes()).map_err(|_| "the URL is too long")?;
        }
        let call = Call { headers, body: Bytes::new(), trailers: None, timeout: None, forwarded_for: None };
        let answer = clusters.call("", call).map_err(|error| error.to_string())?.await;
        let answer = answer.map_err(|_| "the answer broke off or is too long")?;
        match answer.headers.text(":status").and_then(|status| status.parse().ok()).unwrap_or(0_u16) {
            200..=299 => {
                let body = String::from_utf8(answer.body.to_vec()).map_err(|_| "the answer is no text")?;
                Ok(Answer::Body(body))
            }
            301 | 302 | 303 | 307 | 308 => {
                let location = answer.headers.text("location").ok_or("it was redirected to nowhere")?;
                Ok(Answer::Elsewhere(resolved(location, (scheme, &origin, &target))))
            }
            // The client answers so for a server that it cannot reach.
            503 if answer.body.ends_with(b"TLS_error") => {
                Err("its certificate is not trusted, or it speaks no TLS".to_owned())
            }
            503 => Err("the server cannot be reached, or answered 503".to_owned()),
            status => Err(format!("the server answered {status}")),
        }
    }
}

/// What a redirect leads to (RFC 3986, section 5.2.2).
fn resolved(location: &str, (scheme, origin, target): (&str, &str, &str)) -> String {
    let has_scheme = location.split(['/', '?', '#']).next().is_some_and(|first| first.contains(':'));
    let path = target.split('?').next().unwrap_or_default();
    let target = match location.as_bytes() {
        _ if has_scheme => return location.to_owned(),
        [b'/', b'/', ..] => return format!("{scheme}:{location}"),
        [b'/', ..] => location.to_owned(),
        [b'?', ..] => format!("{path}{location}"),
        [] | [b'#', ..] => target.to_owned(),
        _ => format!("{}{location}", &path[..=path.rfind('/').unwrap_or(0)]),
    };
    let (path, query) = target.find(['?', '#']).map_or((&*target, ""), |at| target.split_at(at));
    format!("{origin}{}{query}", without_dots(path))
}

/// The keys of all providers, shared by all workers.
#[derive(Clone, Default)]
pub(crate) struct Keys(Option<Arc<Store>>);

struct Store {
    rules: Vec<JwtRule>,
    fetch: Box<dyn Fetch>,
    sink: Arc<dyn Sink>,
    current: Mutex<Vec<Arc<Jwks>>>,
    /// Changes with `current`, so that workers need not lock to see that nothing changed.
    version: AtomicU64,
    /// Ends the thread that refreshes when it is dropped.
    _refresher: Option<Sender<()>>,
}

impl Keys {
    /// Fetches what is not inline. What cannot be fetched does not fail: as in Istio such a provider gets a key that
    /// no token is signed with, until a later attempt succeeds.
    ///
    /// Inline keys of which none can be used are refused, as Envoy refuses them.
    pub(crate) fn new(rules: &[JwtRule], fetch: Box<dyn Fetch>, sink: Arc<dyn Sink>) -> Result<Self, ChainError> {
        let (ended_with_store, ended) = channel();
        let (keys, mut fresh) = Self::fetched(rules, fetch, sink, Some(ended_with_store))?;
        if let Some(store) = keys.0.as_ref().filter(|_| rules.iter().any(|rule| rule.jwks.is_none())) {
            let weak: Weak<Store> = Arc::downgrade(store);
            let spawned = std::thread::Builder::new().name("jwks".to_owned()).spawn(move || {
                // The sender goes away with the store.
                while ended.recv_timeout(patience(fresh)) == Err(RecvTimeoutError::Timeout) {
                    let Some(store) = weak.upgrade() else { return };
                    fresh = store.refresh();
                }
            });
            if spawned.is_err() {
                store.sink.log(LogLevel::Warn, "there is no thread for it, so fetched keys are never fetched again");
            }
        }
        Ok(keys)
    }

    /// The same for somebody who has the keys fetched again himself: a task in whose time nobody else is.
    pub(crate) fn kept_by_caller(
        rules: &[JwtRule],
        fetch: Box<dyn Fetch>,
        sink: Arc<dyn Sink>,
    ) -> Result<(Self, impl Future<Output = ()> + use<>), ChainError> {
        let (keys, mut fresh) = Self::fetched(rules, fetch, sink, None)?;
        let store = keys.0.clone().filter(|store| store.rules.iter().any(|rule| rule.jwks.is_none()));
        let upkeep = async move {
            let Some(store) = store else { return };
            loop {
                tokio::time::sleep(patience(fresh)).await;
                fresh = store.refresh();
            }
        };
        Ok((keys, upkeep))
    }

    fn fetched(
        rules: &[JwtRule],
        fetch: Box<dyn Fetch>,
        sink: Arc<dyn Sink>,
        refresher: Option<Sender<()>>,
    ) -> Result<(Self, bool), ChainError> {
        for rule in rules {
            let Some(inline) = &rule.jwks else { continue };
            if Jwks::is_certificates(inline) {
                let filter = format!("RequestAuthentication {}, whose `jwks` are X.509 certificates,", rule.policy);
                return Err(ChainError::NotExecuted { filter });
            }
            if Jwks::parse(inline).is_empty() {
                return Err(ChainError::Keys { policy: rule.policy.clone(), issuer: rule.issuer.clone() });
            }
        }
        if rules.is_empty() {
            return Ok((Self::default(), true));
        }
        let store = Arc::new(Store {
            rules: rules.to_vec(),
            fetch,
            sink,
            current: Mutex::default(),
            version: AtomicU64::new(0),
            _refresher: refresher,
        });
        let fresh = store.refresh();
        Ok((Self(Some(store)), fresh))
    }

    /// Fetches everything again, now.
    pub(crate) fn refresh(&self) {
        if let Some(store) = &self.0 {
            store.refresh();
        }
    }

    /// The keys by provider, when they are newer than `version`, which is then theirs.
    pub(super) fn newer(&self, version: &mut u64) -> Option<Vec<Arc<Jwks>>> {
        let store = self.0.as_ref()?;
        let now = store.version.load(Ordering::Acquire);
        if now == *version {
            return None;
        }
        *version = now;
        Some(store.current.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

impl Store {
    /// Says whether everything could be fetched.
    fn refresh(&self) -> bool {
        let mut wanted: BTreeMap<(&str, &str), Duration> = BTreeMap::new();
        for rule in self.rules.iter().filter(|rule| rule.jwks.is_none()) {
            let timeout = rule.timeout.map_or(TIMEOUT, Duration::from_millis);
            wanted.insert(source(rule), timeout);
        }
        let documents: BTreeMap<_, _> = std::thread::scope(|scope| {
            let fetched: Vec<_> = wanted
                .iter()
                .map(|(&(issuer, uri), &timeout)| {
                    (issuer, uri, scope.spawn(move || self.document(issuer, uri, timeout)))
                })
                .collect();
            let joined = |thread: std::thread::ScopedJoinHandle<'_, _>| {
                thread.join().unwrap_or_else(|_| Err("fetching it panicked".to_owned()))
            };
            fetched.into_iter().map(|(issuer, uri, thread)| ((issuer, uri), joined(thread))).collect()
        });
        for ((issuer, uri), document) in &documents {
            if let Err(reason) = document {
                let from = if uri.is_empty() { format!("{issuer}{DISCOVERY}") } else { (*uri).to_owned() };
                let line =
                    format!("the keys of issuer {issuer} cannot be fetched from {}: {reason}", without_secrets(&from));
                self.sink.log(LogLevel::Warn, &line);
            }
        }
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = Vec::new();
        for (index, rule) in self.rules.iter().enumerate() {
            next.push(match (&rule.jwks, documents.get(&source(rule))) {
                (Some(inline), _) => current.get(index).cloned().unwrap_or_else(|| Arc::new(Jwks::parse(inline))),
                (None, Some(Ok(document))) => Arc::new(Jwks::parse(document)),
                // Keys that were fetched before stay good.
                (None, _) => current.get(index).cloned().unwrap_or_else(|| Arc::new(nobodys(rule))),
            });
        }
        *current = next;
        self.version.fetch_add(1, Ordering::Release);
        documents.values().all(Result::is_ok)
    }

    fn document(&self, issuer: &str, uri: &str, timeout: Duration) -> Result<String, String> {
        if !uri.is_empty() {
            return self.fetch.fetch(uri, timeout);
        }
        let discovery = self.fetch.fetch(&format!("{issuer}{DISCOVERY}"), timeout)?;
        let discovery: serde_json::Value = serde_json::from_str(&discovery).map_err(|_| "the answer is not JSON")?;
        let uri =
            discovery.get("jwks_uri").and_then(serde_json::Value::as_str).ok_or("the answer has no `jwks_uri`")?;
        self.fetch.fetch(uri, timeout)
    }
}

/// What a document is fetched by: two rules with the same source share it.
fn source(rule: &JwtRule) -> (&str, &str) {
    (&rule.issuer, rule.jwks_uri.as_deref().unwrap_or_default())
}

/// The key that Istio puts in the place of one it cannot fetch, byte for byte: it decides which error tokens get.
fn nobodys(rule: &JwtRule) -> Jwks {
    let modulus = format!("Error-IstiodFailedToFetchJwksUri-{}", rule.jwks_uri.as_deref().unwrap_or_default());
    let modulus = URL_SAFE_NO_PAD.encode(modulus);
    Jwks::parse(&format!(r#"{{"keys":[ {{"e":"AQAB","kid":"abc","kty":"RSA","n":"{modulus}"}}]}}"#))
}

/// A URL without its user information and query.
fn without_secrets(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let host = authority.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Silent;

    #[test]
    fn a_redirect_leads_where_a_browser_would_go() {
        let base = ("https", "https://h:1", "/a/b?c=/d");
        for (location, url) in [
            ("http://other/x", "http://other/x"),
            ("//other/x", "https://other/x"),
            ("/x?y", "https://h:1/x?y"),
            ("x", "https://h:1/a/x"),
            ("../x/./y", "https://h:1/x/y"),
            ("../../../x", "https://h:1/x"),
            ("?y=../z", "https://h:1/a/b?y=../z"),
            ("x?u=http://z", "https://h:1/a/x?u=http://z"),
            ("", "https://h:1/a/b?c=/d"),
        ] {
            assert_eq!(resolved(location, base), url, "{location}");
        }
    }

    #[test]
    fn a_url_is_shown_without_its_secrets() {
        assert_eq!(without_secrets("https://me:pw@host:1/a@b?key=1#f"), "https://host:1/a@b");
    }

    /// Answers each URL with its text, as long as there is one.
    struct Documents(Arc<Mutex<BTreeMap<String, String>>>);

    impl Fetch for Documents {
        fn fetch(&self, url: &str, _: Duration) -> Result<String, String> {
            self.0.lock().unwrap().get(url).cloned().ok_or_else(|| "gone".to_owned())
        }
    }

    fn kids(keys: &Keys) -> String {
        format!("{:?}", keys.newer(&mut 0).unwrap())
    }

    #[test]
    fn keys_are_discovered_kept_and_replaced() {
        let documents = Arc::new(Mutex::new(BTreeMap::new()));
        let put = |url: &str, text: &str| _ = documents.lock().unwrap().insert(url.to_owned(), text.to_owned());
        let key = |kid: &str| format!(r#"{{"keys": [{{"kty": "oct", "k": "c2VjcmV0", "kid": "{kid}"}}]}}"#);
        put("http://i/.well-known/openid-configuration", r#"{"jwks_uri": "http://i/keys"}"#);
        put("http://i/keys", &key("one"));
        let rules = [
            JwtRule { issuer: "http://i".to_owned(), ..JwtRule::default() },
            JwtRule { jwks_uri: Some("http://j/a/name/long/enough/for/a/modulus/a".to_owned()), ..JwtRule::default() },
        ];
        let keys = Keys::new(&rules, Box::new(Documents(documents.clone())), Arc::new(Silent)).unwrap();
        assert!(kids(&keys).contains("one"), "{}", kids(&keys));
        assert!(kids(&keys).contains("abc"), "the fake key has Istio's id: {}", kids(&keys));
        assert!(!kids(&keys).contains("secret"));
        put("http://i/keys", &key("two"));
        put("http://j/a/name/long/enough/for/a/modulus/a", &key("three"));
        let mut version = 0;
        assert!(keys.newer(&mut version).is_some());
        assert!(keys.newer(&mut version).is_none());
        keys.refresh();
        assert!(keys.newer(&mut version).is_some());
        assert!(kids(&keys).contains("two") && kids(&keys).contains("three"), "{}", kids(&keys));
        documents.lock().unwrap().clear();
        keys.refresh();
        assert!(kids(&keys).contains("two"), "keys that were good stay when a refresh fails: {}", kids(&keys));
    }
}

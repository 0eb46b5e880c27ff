//! The cache's decisions against Istio's, and what becomes of it in bad times.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use packager::blob::Image;
use packager::credentials::Credentials;
use packager::digest::Digest;
use packager::fetch::{Action, Cache, Cached, FetchError, FetchOptions, ModuleRequest, PullPolicy};
use packager::image::{Metadata, Variant, assemble};
use packager::module::EnvoyVersion;
use packager::reference::Reference;
use registry_tests::{Auth, Does, Fault, Operation, Options, Registry};

use crate::support::{client, reference};

const MODULE: &str = "\0asm\u{1}\0\0\0";
const OTHER_MODULE: &str = "\0asm\u{1}\0\0\0\0\u{1}\0";

/// An image whose bytes no other name gives.
fn image(name: &str) -> Image {
    let text = r#"(module (memory (export "memory") 1)
        (func (export "proxy_abi_version_0_2_1")) (func (export "_initialize"))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) i32.const 0)
        (func (export "malloc") (param i32) (result i32) i32.const 0))"#;
    let metadata = Metadata { name: name.to_owned(), ..Metadata::default() };
    assemble(Variant::Compat, &metadata, &wat::parse_str(text).unwrap(), EnvoyVersion::NEWEST).unwrap()
}

struct World {
    registry: Registry,
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        Self { registry: Registry::start(Options::default()).unwrap(), folder: tempfile::tempdir().unwrap() }
    }

    fn cache(&self) -> Cache {
        Cache::new(self.folder.path())
    }

    fn publish(&self, name: &str, tag: &str) -> Digest {
        let image = image(name);
        client().push(&image, &reference(&self.registry.host(), &format!("acme/x:{tag}"))).unwrap();
        image.digest()
    }

    fn url(&self, rest: &str) -> String {
        format!("oci://{}/acme/x{rest}", self.registry.host())
    }

    /// What is asked of the server meanwhile.
    fn asked<T>(&self, run: impl FnOnce() -> T) -> (T, Vec<Operation>) {
        let before = self.registry.operations().len();
        let outcome = run();
        (outcome, self.registry.operations()[before..].to_vec())
    }
}

fn options() -> FetchOptions {
    FetchOptions::new(client())
}

fn request(url: &str) -> ModuleRequest {
    ModuleRequest {
        url: url.to_owned(),
        resource: "WasmPlugin ns/a".to_owned(),
        resource_version: "1".to_owned(),
        ..ModuleRequest::default()
    }
}

fn get(cache: &Cache, request: &ModuleRequest) -> Cached {
    cache.fetch(request, &options()).unwrap()
}

/// One request of a row: url, policy, the resource's version, whether it is pinned, and who asks.
#[derive(Clone, Copy)]
struct Ask {
    url: Url,
    policy: PullPolicy,
    version: &'static str,
    pinned: bool,
    resource: &'static str,
}

#[derive(Clone, Copy, PartialEq)]
enum Url {
    Tag,
    Latest,
    Untagged,
    Digest,
    Http,
}

/// What comes before the last request.
#[derive(Clone, Copy, PartialEq)]
enum Then {
    Nothing,
    /// Something else is published under the same url.
    Moved,
    /// The registry fails at this one request, which is then repeated.
    FailedOnce,
}

const fn ask(url: Url, policy: PullPolicy, version: &'static str) -> Ask {
    Ask { url, policy, version, pinned: false, resource: "WasmPlugin ns/a" }
}

const fn pinned(ask: Ask) -> Ask {
    Ask { pinned: true, ..ask }
}

const fn other(ask: Ask) -> Ask {
    Ask { resource: "WasmPlugin ns/b", ..ask }
}

struct Row {
    /// Where in istio.io/istio it is written or tested, as of August 2026.
    source: &'static str,
    first: Option<Ask>,
    then: Then,
    last: Ask,
    does: Action,
    because: &'static str,
}

/// Each row is a decision of Istio's agent; `cache_test.go` names its cases.
fn rows() -> Vec<Row> {
    use Action::{FromCache, Pulled, Unchanged};
    use PullPolicy::{Always, IfNotPresent, Unspecified};
    use Then::{FailedOnce, Moved, Nothing};
    use Url::{Http, Latest, Tag, Untagged};
    let row = |source, first, then, last, does, because| Row { source, first, then, last, does, because };
    vec![
        row(
            "cache_test.go: fetch oci without digest",
            None,
            Nothing,
            ask(Tag, Unspecified, "1"),
            Pulled,
            "not pulled before",
        ),
        row(
            "cache_test.go: fetch oci with digest",
            None,
            Nothing,
            pinned(ask(Tag, Unspecified, "1")),
            Pulled,
            "pinned and not in the cache",
        ),
        row(
            "cache_test.go: cache miss (http)",
            None,
            Nothing,
            pinned(ask(Http, Unspecified, "1")),
            Pulled,
            "pinned and not in the cache",
        ),
        row(
            "cache_test.go: cache hit (http)",
            Some(pinned(ask(Http, Unspecified, "1"))),
            Moved,
            pinned(ask(Http, Always, "2")),
            FromCache,
            "pull policy does not count",
        ),
        row(
            "cache_test.go: cache hit for tagged oci url with digest",
            Some(ask(Tag, Unspecified, "1")),
            Moved,
            pinned(ask(Tag, Unspecified, "2")),
            FromCache,
            "pull policy does not count",
        ),
        row(
            "cache_test.go: cache hit for tagged oci url without digest",
            Some(ask(Tag, Unspecified, "1")),
            Moved,
            ask(Tag, Unspecified, "2"),
            FromCache,
            "pulled before",
        ),
        row(
            "cache_test.go: cache miss for tagged oci url without digest",
            Some(ask(Latest, Unspecified, "1")),
            Nothing,
            ask(Tag, Unspecified, "1"),
            Unchanged,
            "not pulled before",
        ),
        row(
            "cache_test.go: cache hit for oci url suffixed by digest",
            Some(ask(Tag, Unspecified, "1")),
            Moved,
            ask(Url::Digest, Always, "2"),
            FromCache,
            "pull policy does not count",
        ),
        row(
            "cache_test.go: pull due to pull-always policy when cache hit",
            Some(ask(Tag, Always, "1")),
            Nothing,
            ask(Tag, Always, "2"),
            Unchanged,
            "has version `2` and had `1`",
        ),
        row(
            "cache.go: getOrFetch, Always and a tag that moved",
            Some(ask(Tag, Always, "1")),
            Moved,
            ask(Tag, Always, "2"),
            Pulled,
            "has version `2` and had `1`",
        ),
        row(
            "cache_test.go: do not pull due to resourceVersion is the same",
            Some(ask(Tag, Always, "1")),
            Moved,
            ask(Tag, Always, "1"),
            FromCache,
            "still has version `1`",
        ),
        row(
            "cache_test.go: pull due to if-not-present policy when cache hit",
            Some(ask(Tag, IfNotPresent, "1")),
            Moved,
            ask(Tag, IfNotPresent, "2"),
            FromCache,
            "IfNotPresent that is enough",
        ),
        row(
            "cache_test.go: do not pull in spite of pull-always policy due to checksum",
            Some(ask(Tag, Always, "1")),
            Moved,
            pinned(ask(Tag, Always, "2")),
            FromCache,
            "pull policy does not count",
        ),
        row(
            "cache_test.go: pull due to latest tag",
            Some(ask(Latest, Unspecified, "1")),
            Nothing,
            ask(Latest, Unspecified, "2"),
            Unchanged,
            "has version `2`",
        ),
        row(
            "cache.go: shouldIgnoreResourceVersion, latest is Always",
            Some(ask(Latest, Unspecified, "1")),
            Moved,
            ask(Latest, Unspecified, "1"),
            FromCache,
            "still has version `1`",
        ),
        row(
            "cache.go: shouldIgnoreResourceVersion, no tag is not latest",
            Some(ask(Untagged, Unspecified, "1")),
            Moved,
            ask(Untagged, Unspecified, "2"),
            FromCache,
            "pulled before",
        ),
        row(
            "cache_test.go: do not pull in spite of latest tag due to checksum",
            Some(ask(Latest, Unspecified, "1")),
            Moved,
            pinned(ask(Latest, Unspecified, "2")),
            FromCache,
            "pull policy does not count",
        ),
        row(
            "cache_test.go: do not pull in spite of latest tag due to IfNotPresent policy",
            Some(ask(Latest, IfNotPresent, "1")),
            Moved,
            ask(Latest, IfNotPresent, "2"),
            FromCache,
            "IfNotPresent that is enough",
        ),
        row(
            "cache.go: checksumEntry.resourceVersionByResource, another resource",
            Some(ask(Tag, Always, "1")),
            Nothing,
            other(ask(Tag, Always, "1")),
            Unchanged,
            "not for this resource",
        ),
        row(
            "cache.go: getEntry, IfNotPresent of another resource",
            Some(ask(Tag, Always, "1")),
            Moved,
            other(ask(Tag, IfNotPresent, "7")),
            FromCache,
            "pulled before",
        ),
        row(
            "cache.go: getEntry keeps the version though the pull fails",
            Some(ask(Tag, Always, "1")),
            FailedOnce,
            ask(Tag, Always, "2"),
            FromCache,
            "still has version `2`",
        ),
        row(
            "cache.go: shouldIgnoreResourceVersion, http without a policy",
            Some(ask(Http, Unspecified, "1")),
            Moved,
            ask(Http, Unspecified, "2"),
            FromCache,
            "pulled before",
        ),
        row(
            "cache.go: shouldIgnoreResourceVersion, http with Always",
            Some(ask(Http, Always, "1")),
            Moved,
            ask(Http, Always, "2"),
            Pulled,
            "has version `2`",
        ),
        row(
            "cache.go: shouldIgnoreResourceVersion, http with Always, same version",
            Some(ask(Http, Always, "1")),
            Moved,
            ask(Http, Always, "1"),
            FromCache,
            "still has version `1`",
        ),
        row(
            "cache.go: updateChecksum on a hit by checksum",
            Some(pinned(ask(Tag, Unspecified, "1"))),
            Moved,
            ask(Tag, Unspecified, "1"),
            FromCache,
            "pulled before",
        ),
    ]
}

#[track_caller]
fn check(row: &Row) {
    let world = World::new();
    let serve = |module: &str| {
        world.registry.set_faults([Fault::always(Operation::Unknown, Does::StatusBody(200, module.to_owned()))])
    };
    let tags = |name: &str| ["1", "latest"].map(|tag| world.publish(name, tag))[0].clone();
    let (first, cache) = (tags("first"), world.cache());
    serve(MODULE);
    let request = |ask: Ask| {
        let pin = if ask.url == Url::Http { Digest::of(MODULE.as_bytes()) } else { first.clone() };
        let url = match ask.url {
            Url::Tag => world.url(":1"),
            Url::Latest => world.url(":latest"),
            Url::Untagged => world.url(""),
            Url::Digest => world.url(&format!("@{first}")),
            Url::Http => format!("{}/x.wasm", world.registry.url()),
        };
        ModuleRequest {
            url,
            sha256: ask.pinned.then(|| pin.hex().to_owned()),
            pull_policy: ask.policy,
            resource: ask.resource.to_owned(),
            resource_version: ask.version.to_owned(),
            credentials: None,
        }
    };
    if let Some(first) = row.first {
        get(&cache, &request(first));
    }
    match row.then {
        Then::Nothing => {}
        Then::Moved => {
            tags("second");
            serve(OTHER_MODULE);
        }
        Then::FailedOnce => {
            world.registry.set_faults([Fault::always(Operation::ManifestGet, Does::Status(400))]);
            cache.fetch(&request(row.last), &options()).unwrap_err();
        }
    }
    let foreseen = cache.explain(&request(row.last)).unwrap();
    let (got, operations) = world.asked(|| get(&cache, &request(row.last)));
    let place = row.source;
    assert_eq!(got.explanation.action, row.does, "{place}: {}", got.explanation);
    assert!(got.explanation.reason.contains(row.because), "{place}: {}", got.explanation);
    let is_foreseen = if row.does == Action::FromCache { Action::FromCache } else { Action::WillAsk };
    assert_eq!((foreseen.action, &foreseen.reason), (is_foreseen, &got.explanation.reason), "{place}");
    match row.does {
        Action::FromCache => assert_eq!(operations, [], "{place}"),
        Action::Unchanged => assert_eq!(operations, [Operation::ManifestGet], "{place}"),
        _ if row.last.url == Url::Http => assert_eq!(operations, [Operation::Unknown], "{place}"),
        _ => assert!(operations.contains(&Operation::BlobGet), "{place}: {operations:?}"),
    }
    let current = if row.then == Then::Moved && row.does == Action::Pulled { "second" } else { "first" };
    let expected = match (row.last.url, current) {
        (Url::Http, "first") => Digest::of(MODULE.as_bytes()),
        (Url::Http, _) => Digest::of(OTHER_MODULE.as_bytes()),
        _ => image(current).digest(),
    };
    assert_eq!(got.source.digest, expected, "{place}");
    assert_eq!(Digest::of(&std::fs::read(&got.path).unwrap()), got.content, "{place}");
}

#[test]
fn each_decision_is_istios() {
    for row in rows() {
        check(&row);
    }
}

#[test]
fn a_module_is_where_istios_agent_puts_it() {
    let world = World::new();
    let digest = world.publish("first", "1");
    let path = get(&world.cache(), &request(&world.url(":1"))).path;
    let folder = Digest::of(world.url("").as_bytes());
    assert_eq!(path, world.folder.path().join(folder.hex()).join(format!("{}.wasm", digest.hex())));
}

#[test]
fn a_pin_to_something_else_is_refused_and_nothing_is_kept() {
    let world = World::new();
    world.publish("first", "1");
    let wrong = ModuleRequest { sha256: Some(Digest::of(b"").hex().to_owned()), ..request(&world.url(":1")) };
    let (outcome, operations) = world.asked(|| world.cache().fetch(&wrong, &options()));
    assert!(matches!(outcome, Err(FetchError::DigestMismatch { .. })), "{outcome:?}");
    assert_eq!(operations, [Operation::ManifestGet]);
    assert_eq!(modules(world.folder.path()), Vec::<PathBuf>::new());
}

fn modules(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(modules(&path));
        } else if path.extension().is_some_and(|end| end == "wasm") {
            found.push(path);
        }
    }
    found
}

#[test]
fn a_damaged_module_is_pulled_again() {
    for damage in [&b"\0asm\x01\0\0\0"[..], b""] {
        let world = World::new();
        world.publish("first", "1");
        let request = request(&world.url(":1"));
        let whole = get(&world.cache(), &request);
        std::fs::write(&whole.path, damage).unwrap();
        assert_eq!(world.cache().explain(&request).unwrap().action, Action::WillAsk);
        let again = get(&world.cache(), &request);
        assert_eq!((again.explanation.action, again.content), (Action::Pulled, whole.content));
        assert!(again.explanation.reason.contains("damaged"), "{}", again.explanation);
        assert_eq!(get(&world.cache(), &request).explanation.action, Action::FromCache);
        std::fs::remove_file(&whole.path).unwrap();
        assert_eq!(get(&world.cache(), &request).explanation.action, Action::Pulled);
    }
}

#[test]
fn an_index_that_cannot_be_read_is_an_empty_cache() {
    let world = World::new();
    world.publish("first", "1");
    let request = request(&world.url(":1"));
    get(&world.cache(), &request);
    for index in ["", "{", "[]", r#"{"modules":{"../../etc/passwd":{"content":"x","last":0}},"urls":{},"purged":0}"#] {
        std::fs::write(world.folder.path().join("index.json"), index).unwrap();
        assert_eq!(get(&world.cache(), &request).explanation.action, Action::Pulled, "{index}");
    }
}

#[test]
fn what_nobody_asks_for_in_a_day_is_purged_with_what_led_to_it() {
    let world = World::new();
    world.publish("first", "1");
    let (cache, request) = (world.cache(), request(&world.url(":1")));
    get(&cache, &request);
    let after = |hours| SystemTime::now() + Duration::from_hours(hours);
    assert_eq!(cache.purge(after(23)).unwrap(), 0);
    assert_eq!(modules(world.folder.path()).len(), 1);
    assert_eq!(cache.purge(after(25)).unwrap(), 1);
    assert_eq!(modules(world.folder.path()), Vec::<PathBuf>::new());
    world.publish("second", "1");
    let again = get(&cache, &request);
    assert_eq!(again.source.digest, image("second").digest(), "the old checksum is no pin");
    assert!(again.explanation.reason.contains("not pulled before"), "{}", again.explanation);
}

#[test]
fn what_a_killed_process_left_is_purged_and_never_taken() {
    let world = World::new();
    let digest = world.publish("first", "1");
    let request = request(&world.url(":1"));
    let folder = world.folder.path().join(Digest::of(world.url("").as_bytes()).hex());
    std::fs::create_dir_all(&folder).unwrap();
    // It had its name already, and was not remembered yet.
    std::fs::write(folder.join(format!("{}.wasm", digest.hex())), MODULE).unwrap();
    let got = get(&world.cache(), &request);
    assert_eq!(got.explanation.action, Action::Pulled);
    assert_ne!(std::fs::read(&got.path).unwrap(), MODULE.as_bytes());
    let unknown = folder.join(format!("{}.wasm", "0".repeat(64)));
    std::fs::write(&unknown, MODULE).unwrap();
    std::fs::write(world.folder.path().join("mine.txt"), "").unwrap();
    world.cache().purge(SystemTime::now()).unwrap();
    assert!(!unknown.exists() && got.path.exists() && world.folder.path().join("mine.txt").exists());
}

#[test]
fn many_at_once_get_the_same_module() {
    let world = World::new();
    world.publish("first", "1");
    let request = request(&world.url(":1"));
    let contents: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..16).map(|_| scope.spawn(|| get(&world.cache(), &request).content)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(contents.iter().all(|content| *content == contents[0]));
    assert_eq!(modules(world.folder.path()).len(), 1);
    assert_eq!(get(&world.cache(), &request).explanation.action, Action::FromCache);
}

#[test]
fn a_pull_secret_takes_the_place_of_all_other_credentials() {
    let auth = Auth::Basic { username: "robot".to_owned(), password: "hunter2".to_owned() };
    let registry = Registry::start(Options { auth, ..Options::default() }).unwrap();
    let host = registry.host();
    let mut full = crate::support::options();
    full.credentials = crate::support::basic(&host, "robot", "hunter2");
    let full = packager::registry::Client::new(full).unwrap();
    full.push(&image("first"), &reference(&host, "acme/x:1")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::new(folder.path());
    let secret = |password: &str| {
        let text = format!(r#"{{"auths": {{"{host}": {{"username": "robot", "password": "{password}"}}}}}}"#);
        let credentials = Credentials::from_docker_config("Secret ns/s", text.as_bytes()).unwrap();
        ModuleRequest { credentials: Some(credentials), ..request(&format!("oci://{host}/acme/x:1")) }
    };
    let error = cache.fetch(&secret("wrong-one"), &FetchOptions::new(full)).unwrap_err();
    assert!(!error.is_bad_content(), "{error:?}");
    assert!(!format!("{error} {error:?}").contains("wrong-one"), "{error:?}");
    assert_eq!(cache.fetch(&secret("hunter2"), &options()).unwrap().explanation.action, Action::Pulled);
    let index = std::fs::read_to_string(folder.path().join("index.json")).unwrap();
    assert!(!index.contains("hunter2"));
}

#[test]
fn a_token_in_a_url_is_on_no_disk_and_in_no_message() {
    let world = World::new();
    world.registry.set_faults([Fault::everywhere(Does::StatusBody(200, MODULE.to_owned()))]);
    let got = get(&world.cache(), &request(&format!("{}/x.wasm?token=very-secret", world.registry.url())));
    assert!(!format!("{} {} {:?}", got.explanation, got.source, got.explanation).contains("very-secret"));
    let index = std::fs::read_to_string(world.folder.path().join("index.json")).unwrap();
    assert!(!index.contains("very-secret"));
}

#[test]
fn a_url_is_tried_again_as_often_and_for_the_same_reasons_as_istio_does() {
    let world = World::new();
    let url = Reference::parse(&format!("{}/x.wasm", world.registry.url())).unwrap();
    let attempts = |does: Does| {
        world.registry.set_faults([
            Fault::times(4, Operation::Unknown, does),
            Fault::always(Operation::Unknown, Does::StatusBody(200, MODULE.to_owned())),
        ]);
        world.asked(|| packager::fetch::fetch_module(&url, None, &options()).is_ok())
    };
    for (does, fine, count) in [
        (Does::Status(500), true, 5),
        (Does::Status(503), true, 5),
        (Does::Hangup, true, 5),
        (Does::Status(501), false, 1),
        (Does::Status(505), false, 1),
        (Does::Status(511), false, 1),
        (Does::Status(429), false, 1),
        (Does::Status(404), false, 1),
        (Does::Status(204), false, 1),
    ] {
        let shown = format!("{does:?}");
        let (outcome, operations) = attempts(does);
        assert_eq!((outcome, operations.len()), (fine, count), "{shown}");
    }
    world.registry.set_faults([Fault::always(Operation::Unknown, Does::Status(503))]);
    let (outcome, operations) = world.asked(|| packager::fetch::fetch_module(&url, None, &options()).is_ok());
    assert_eq!((outcome, operations.len()), (false, 5));
}

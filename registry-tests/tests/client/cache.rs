//! The cache on disk: where things are, damage, killed and concurrent processes, expiry, secrets.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use packager::blob::Image;
use packager::credentials::Credentials;
use packager::digest::Digest;
use packager::fetch::{Action, Cache, Cached, FetchError, FetchOptions, ModuleRequest};
use packager::image::{Metadata, Variant, assemble};
use packager::module::EnvoyVersion;
use packager::reference::Reference;
use registry_tests::{Auth, Does, Fault, Operation, Options, Registry};

use crate::support::{client, reference};

pub(crate) const MODULE: &str = "\0asm\u{1}\0\0\0";

/// An image whose bytes no other name gives.
pub(crate) fn image(name: &str) -> Image {
    let text = r#"(module (memory (export "memory") 1)
        (func (export "proxy_abi_version_0_2_1")) (func (export "_initialize"))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) i32.const 0)
        (func (export "malloc") (param i32) (result i32) i32.const 0))"#;
    let metadata = Metadata { name: name.to_owned(), ..Metadata::default() };
    assemble(Variant::Compat, &metadata, &wat::parse_str(text).unwrap(), EnvoyVersion::NEWEST).unwrap()
}

pub(crate) struct World {
    pub(crate) registry: Registry,
    folder: tempfile::TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        Self { registry: Registry::start(Options::default()).unwrap(), folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn cache(&self) -> Cache {
        Cache::new(self.folder.path())
    }

    pub(crate) fn publish(&self, name: &str, tag: &str) -> Digest {
        let image = image(name);
        client().push(&image, &reference(&self.registry.host(), &format!("acme/x:{tag}"))).unwrap();
        image.digest()
    }

    pub(crate) fn url(&self, rest: &str) -> String {
        format!("oci://{}/acme/x{rest}", self.registry.host())
    }

    /// What is asked of the server meanwhile.
    pub(crate) fn asked<T>(&self, run: impl FnOnce() -> T) -> (T, Vec<Operation>) {
        let before = self.registry.operations().len();
        let outcome = run();
        (outcome, self.registry.operations()[before..].to_vec())
    }
}

pub(crate) fn options() -> FetchOptions {
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

pub(crate) fn get(cache: &Cache, request: &ModuleRequest) -> Cached {
    cache.fetch(request, &options()).unwrap()
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

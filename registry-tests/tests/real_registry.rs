//! Our client, our registry, Debian's docker-registry, distribution 3, crane's registry and skopeo: each moves images that
//! the others read unchanged.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "what suites share is not itself a test")]

#[expect(dead_code, reason = "each suite uses a part of it")]
#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/real.rs"]
mod real;
mod support;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use packager::credentials::Credentials;
use packager::image::{Form, Metadata, Variant, assemble, recognise};
use packager::module::EnvoyVersion;
use packager::reference::ImageReference;
use packager::registry::{Artifact, Client, Moved, Options, PlainHttp, Progress, RegistryError};
use registry_tests::Registry;
use tempfile::TempDir;

use proxy::{CONNECTED, Proxy};
use real::{PASSWORD, Program, RealRegistry};
use support::{basic, client, image, options, reference, same};

#[track_caller]
fn skopeo(arguments: &[&str]) -> String {
    let output =
        Command::new("skopeo").args(arguments).output().expect("skopeo is not installed: apt-get install skopeo");
    assert!(output.status.success(), "skopeo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

fn pull(client: &Client, reference: &ImageReference) -> (packager::blob::Image, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    (client.pull(reference, directory.path()).unwrap(), directory)
}

#[test]
fn a_real_registry_gives_back_what_it_got() {
    for program in Program::ALL {
        let registry = RealRegistry::open(program);
        let tagged = registry.reference("acme/plugins/auth:v1");
        for (seed, size) in [(1, 0), (2, 1000), (3, 20_000_000)] {
            let image = image(seed, size);
            assert_eq!(client().push(&image, &tagged).unwrap(), image.digest());
            same(&pull(&client(), &tagged).0, &image);
            same(&pull(&client(), &tagged.with_digest(image.digest())).0, &image);
        }
        let more = registry.reference("acme/plugins/auth:latest");
        let image = image(3, 20_000_000);
        client().put_manifest(&more, &image.media_type, &image.manifest).unwrap();
        assert_eq!(client().resolve(&more).unwrap(), image.digest());
    }
}

#[test]
fn a_real_registry_takes_every_variant() {
    let text = r#"(module (memory (export "memory") 1)
        (func (export "proxy_abi_version_0_2_1")) (func (export "_initialize"))
        (func (export "malloc") (param i32) (result i32) i32.const 0))"#;
    let module = wat::parse_str(text).unwrap();
    for program in Program::ALL {
        let registry = RealRegistry::open(program);
        for variant in Variant::ALL {
            let image = assemble(variant, &Metadata::default(), &module, EnvoyVersion::NEWEST).unwrap();
            let tagged = registry.reference(&format!("acme/plugins/auth:{variant}"));
            assert_eq!(client().push(&image, &tagged).unwrap(), image.digest());
            let (pulled, _folder) = pull(&client(), &tagged);
            same(&pulled, &image);
            assert_eq!(recognise(&pulled).unwrap(), Form::Plugin(variant));
        }
    }
}

#[test]
fn a_real_registry_says_what_it_does_not_have() {
    for program in Program::ALL {
        let registry = RealRegistry::open(program);
        let error = client().resolve(&registry.reference("x:t")).unwrap_err();
        let RegistryError::NotFound { code, .. } = &error else { panic!("{error:?}") };
        let expected = if let Program::Crane = program { "NAME_UNKNOWN" } else { "MANIFEST_UNKNOWN" };
        assert_eq!(code.as_deref(), Some(expected));
        // This one takes manifests whose blobs it does not have.
        if let Program::Crane = program {
            continue;
        }
        let image = image(1, 10);
        let missing =
            client().put_manifest(&registry.reference("x:t"), &image.media_type, &image.manifest).unwrap_err();
        let RegistryError::Status { status: 400 | 404, code, .. } = &missing else { panic!("{missing:?}") };
        assert!(code.as_deref().is_some_and(|code| code.starts_with("MANIFEST_")), "{missing}");
    }
}

#[test]
fn a_real_registry_lets_in_who_knows_the_password() {
    for program in Program::GUARDED {
        let registry = RealRegistry::with_password(program);
        let tagged = registry.reference("acme/auth:v1");
        let with = |credentials| Client::new(Options { credentials, ..options() }).unwrap();
        let known = with(basic(&registry.host, "ann", PASSWORD));
        let image = image(1, 1000);
        known.push(&image, &tagged).unwrap();
        same(&pull(&known, &tagged).0, &image);

        let error = client().resolve(&tagged).unwrap_err();
        assert!(matches!(error, RegistryError::Unauthorized { credentials: false, .. }), "{error:?}");
        let error = with(basic(&registry.host, "ann", "wrong-very-secret")).push(&image, &tagged).unwrap_err();
        assert!(matches!(error, RegistryError::Unauthorized { credentials: true, .. }), "{error:?}");
        assert!(!format!("{error} {error:?}").contains("very-secret"));
    }
}

#[test]
fn what_skopeo_login_wrote_lets_us_in() {
    for program in Program::GUARDED {
        let registry = RealRegistry::with_password(program);
        let file = registry.folder.path().join("auth.json");
        let flags = ["--tls-verify=false", "--username=ann", "--authfile", file.to_str().unwrap()];
        skopeo(&[&["login"], &flags[..], &[&format!("--password={PASSWORD}"), &registry.host]].concat());
        let credentials = Credentials::load(&[file], "").unwrap();
        let client = Client::new(Options { credentials, ..options() }).unwrap();
        client.push(&image(1, 10), &registry.reference("x:t")).unwrap();
    }
}

fn trusting(ca: &Path) -> Client {
    let ca_certificates = vec![std::fs::read(ca).unwrap()];
    Client::new(Options { ca_certificates, plain_http: PlainHttp::Never, ..options() }).unwrap()
}

#[test]
fn a_registry_with_a_ca_of_its_own_is_met_when_that_ca_is_named() {
    for program in Program::GUARDED {
        let registry = RealRegistry::with_tls(program);
        let trusting = trusting(&registry.folder.path().join("ca.pem"));
        let image = image(1, 100_000);
        for host in [registry.host.clone(), registry.host.replace("127.0.0.1", "localhost")] {
            let tagged = reference(&host, "acme/auth:v1");
            trusting.push(&image, &tagged).unwrap();
            same(&pull(&trusting, &tagged).0, &image);
        }
        let strict = Client::new(Options { plain_http: PlainHttp::Never, ..options() }).unwrap();
        let error = strict.resolve(&registry.reference("acme/auth:v1")).unwrap_err();
        assert!(matches!(error, RegistryError::Unreachable { .. }), "{error:?}");
        assert!(error.hint().is_some_and(|hint| hint.contains("--ca-file")), "{error:?}");
        // Plain HTTP to a TLS port is an error, and no reason to try anything else.
        let error = client().resolve(&registry.reference("acme/auth:v1")).unwrap_err();
        assert!(matches!(error, RegistryError::Status { status: 400, .. }), "{error:?}");
        assert!(error.hint().is_some_and(|hint| hint.contains("TLS")), "{error:?}");
    }
}

#[test]
fn a_ca_file_without_a_certificate_is_an_error() {
    for pem in ["", "hello", "-----BEGIN CERTIFICATE-----\nAAAA\n"] {
        let ca_certificates = vec![pem.as_bytes().to_vec()];
        let error = Client::new(Options { ca_certificates, ..options() }).unwrap_err();
        assert!(matches!(error, RegistryError::Certificates { .. }), "{error:?}");
    }
}

#[test]
fn skopeo_carries_images_between_our_registry_and_debians() {
    for program in Program::ALL {
        let debian = RealRegistry::open(program);
        let ours = Registry::start(registry_tests::Options::default()).unwrap();
        let image = image(1, 3_000_000);
        let digest = image.digest().to_string();
        client().push(&image, &reference(&ours.host(), "acme/auth:v1")).unwrap();

        let here = format!("docker://{}/acme/auth:v1", ours.host());
        let there = format!("docker://{}/by-skopeo/auth:v1", debian.host);
        let back = format!("docker://{}/by-skopeo/auth:v1", ours.host());
        let plain = ["--src-tls-verify=false", "--dest-tls-verify=false", "--preserve-digests"];
        for (from, to) in [(&here, &there), (&there, &back)] {
            skopeo(&[&["copy"], &plain[..], &[from, to]].concat());
            let flags = ["inspect", "--raw", "--tls-verify=false"];
            let raw = skopeo(&[&flags[..], &[to]].concat());
            assert_eq!(packager::digest::Digest::of(raw.as_bytes()).to_string(), digest);
        }
        same(&pull(&client(), &debian.reference("by-skopeo/auth:v1")).0, &image);
        same(&pull(&client(), &reference(&ours.host(), "by-skopeo/auth:v1")).0, &image);
        let tags = skopeo(&["list-tags", "--tls-verify=false", &format!("docker://{}/by-skopeo/auth", ours.host())]);
        assert!(tags.contains("\"v1\""), "{tags}");
    }
}

#[derive(Default)]
struct Outcomes(Mutex<Vec<Moved>>);

impl Progress for Outcomes {
    fn finish(&self, _: &packager::digest::Digest, outcome: Moved) {
        self.0.lock().unwrap().push(outcome);
    }
}

#[test]
fn docker_registry_takes_blobs_over_from_another_repository() {
    let registry = RealRegistry::open(Program::Debian);
    let image = image(1, 1_000_000);
    client().push(&image, &registry.reference("acme/from:t")).unwrap();
    let outcomes = Arc::new(Outcomes::default());
    let client = Client::new(Options { progress: Arc::clone(&outcomes) as Arc<dyn Progress>, ..options() }).unwrap();
    client.push_mounting(&image, &registry.reference("acme/to:t"), Some("acme/from")).unwrap();
    assert_eq!(*outcomes.0.lock().unwrap(), [Moved::Mounted, Moved::Mounted]);
    same(&pull(&client, &registry.reference("acme/to:t")).0, &image);
    client.push_mounting(&image, &registry.reference("acme/third:t"), Some("not/there")).unwrap();
    same(&pull(&client, &registry.reference("acme/third:t")).0, &image);
}

/// A relay to a server that cuts the first so many connections once so many bytes have gone up.
fn cutting(target: &str, connections: usize, bytes: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (target, left) = (target.to_owned(), Arc::new(AtomicUsize::new(connections)));
    // They end with the test's process.
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let (server, left) = (TcpStream::connect(&target).unwrap(), Arc::clone(&left));
            std::thread::spawn(move || {
                let (mut down, mut up) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                let back = std::thread::spawn(move || std::io::copy(&mut down, &mut up));
                let (mut from, mut to, mut gone) = (&client, &server, 0);
                let mut buffer = vec![0; 64 * 1024];
                while let Ok(read @ 1..) = from.read(&mut buffer) {
                    gone += read;
                    let once = |left: usize| left.checked_sub(1);
                    if to.write_all(&buffer[..read]).is_err()
                        || (gone > bytes && left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, once).is_ok())
                    {
                        break;
                    }
                }
                let _ = client.shutdown(std::net::Shutdown::Both);
                let _ = server.shutdown(std::net::Shutdown::Both);
                let _ = back.join();
            });
        }
    });
    address
}

#[test]
fn docker_registry_gets_a_blob_whose_upload_broke_off() {
    let registry = RealRegistry::open(Program::Debian);
    let image = image(1, 20_000_000);
    for connections in [1, 2, 3] {
        let relay = cutting(&registry.host, connections, 7_000_000);
        let client = Client::new(Options { chunk: 3_000_000, ..options() }).unwrap();
        let place = format!("acme/cut-{connections}:t");
        client.push(&image, &reference(&relay, &place)).unwrap();
        same(&pull(&client, &registry.reference(&place)).0, &image);
    }
}

fn sbom(content: &str) -> Artifact {
    Artifact {
        artifact_type: "application/spdx+json".to_owned(),
        layers: vec![support::blob("application/spdx+json", content.as_bytes())],
        annotations: std::collections::BTreeMap::new(),
    }
}

fn sboms(reference: &ImageReference) -> Vec<String> {
    let found = client().referrers(reference, Some("application/spdx+json")).unwrap();
    found.iter().map(|one| one.digest().to_string()).collect()
}

#[test]
fn docker_registry_keeps_what_is_attached_under_the_fallback_tag() {
    let registry = RealRegistry::open(Program::Debian);
    let tagged = registry.reference("acme/x:t");
    let digest = client().push(&image(1, 1000), &tagged).unwrap();
    assert_eq!(client().referrers(&tagged, None).unwrap(), []);
    let attached: Vec<_> = ["one", "two"].map(|content| client().attach(&tagged, &sbom(content)).unwrap()).into();
    assert_eq!(sboms(&tagged), [attached[0].to_string(), attached[1].to_string()]);
    // This registry refuses an index with an entry that is gone, and would do so for ever.
    let url = format!("http://{}/v2/acme/x/manifests/{}", registry.host, attached[0]);
    assert_eq!(ureq::delete(url).call().unwrap().status(), 202);
    let third = client().attach(&tagged, &sbom("three")).unwrap();
    assert_eq!(sboms(&tagged.with_digest(digest)), [attached[1].to_string(), third.to_string()]);
}

#[test]
fn a_registry_with_the_referrers_api_is_asked_for_what_is_attached() {
    let registry = RealRegistry::open(Program::Crane);
    let tagged = registry.reference("acme/x:t");
    let digest = client().push(&image(1, 1000), &tagged).unwrap();
    assert_eq!(client().referrers(&tagged, None).unwrap(), []);
    let mut attached = ["one", "two"].map(|content| client().attach(&tagged, &sbom(content)).unwrap().to_string());
    let mut found = sboms(&tagged.with_digest(digest));
    // The specification asks for no order.
    attached.sort();
    found.sort();
    assert_eq!(found, attached);
}

#[test]
fn tls_goes_through_a_proxy_which_sees_nothing_of_it() {
    let registry = RealRegistry::with_tls(Program::Debian);
    let ca = std::fs::read(registry.folder.path().join("ca.pem")).unwrap();
    let (image, place) = (image(7, 300_000), reference("registry.nowhere.invalid:5000", "acme/x:t"));
    for proxy in [Proxy::start(registry.host.clone(), CONNECTED), Proxy::socks(registry.host.clone())] {
        let through = proxy.proxies("", "");
        let trusting =
            Client::new(Options { proxies: through.clone(), ca_certificates: vec![ca.clone()], ..options() });
        let trusting = trusting.unwrap();
        trusting.push(&image, &place).unwrap();
        same(&pull(&trusting, &place).0, &image);
        assert!(proxy.seen().iter().all(|head| head.contains("registry.nowhere.invalid:5000")));
        // Whoever does not know the authority gets nowhere, proxy or not.
        let stranger = Client::new(Options { proxies: through, ..options() }).unwrap();
        assert!(matches!(stranger.resolve(&place), Err(RegistryError::Unreachable { .. })));
    }
}

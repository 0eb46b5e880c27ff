//! Our client, our registry, Debian's docker-registry, distribution 3 and skopeo: each moves images that the others read unchanged.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "what suites share is not itself a test")]

#[path = "support/real.rs"]
mod real;
mod support;

use std::path::Path;
use std::process::Command;

use packager::credentials::Credentials;
use packager::reference::ImageReference;
use packager::registry::{Client, Options, PlainHttp, RegistryError};
use registry_tests::Registry;
use tempfile::TempDir;

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
fn a_real_registry_says_what_it_does_not_have() {
    for program in Program::ALL {
        let registry = RealRegistry::open(program);
        let error = client().resolve(&registry.reference("x:t")).unwrap_err();
        let RegistryError::NotFound { code, .. } = &error else { panic!("{error:?}") };
        assert_eq!(code.as_deref(), Some("MANIFEST_UNKNOWN"));
        let image = image(1, 10);
        let missing =
            client().put_manifest(&registry.reference("x:t"), &image.media_type, &image.manifest).unwrap_err();
        let RegistryError::Status { status: 400 | 404, code, .. } = &missing else { panic!("{missing:?}") };
        assert!(code.as_deref().is_some_and(|code| code.starts_with("MANIFEST_")), "{missing}");
    }
}

#[test]
fn a_real_registry_lets_in_who_knows_the_password() {
    for program in Program::ALL {
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
    for program in Program::ALL {
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
    for program in Program::ALL {
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

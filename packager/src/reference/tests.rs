//! References by what they are taken for, and how bad ones are refused.

use super::*;

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[track_caller]
fn image(text: &str) -> ImageReference {
    match Reference::parse(text) {
        Ok(Reference::Image(image)) => image,
        other => panic!("{text}: {other:?}"),
    }
}

#[track_caller]
fn check(text: &str, registry: &str, repository: &str, identifier: &str) {
    let image = image(text);
    assert_eq!((image.registry(), image.repository(), image.identifier()), (registry, repository, identifier));
    assert_eq!(image.to_string().parse(), Ok(image), "{text} does not survive being printed");
}

#[test]
fn images_follow_dockers_conventions() {
    check("alpine", "docker.io", "library/alpine", "latest");
    check("acme/auth:v1", "docker.io", "acme/auth", "v1");
    check("index.docker.io/alpine", "docker.io", "library/alpine", "latest");
    check("ghcr.io/acme/plugins/auth:1.0", "ghcr.io", "acme/plugins/auth", "1.0");
    check("oci://ghcr.io/acme/auth", "ghcr.io", "acme/auth", "latest");
    check("localhost/x", "localhost", "x", "latest");
    check("localhost:5000/x", "localhost:5000", "x", "latest");
    check("127.0.0.1:5000/a/b:t", "127.0.0.1:5000", "a/b", "t");
    check("[::1]:5000/x:t", "[::1]:5000", "x", "t");
    check(&format!("ghcr.io/a/b:t@{DIGEST}"), "ghcr.io", "a/b", DIGEST);
    check(&format!("ghcr.io/a/b@{DIGEST}"), "ghcr.io", "a/b", DIGEST);
    check("a__b/c--d.e_f", "docker.io", "a__b/c--d.e_f", "latest");
    assert_eq!(image("alpine").api_host(), "registry-1.docker.io");
}

#[test]
fn an_unwritten_tag_stays_unwritten() {
    assert_eq!(image("ghcr.io/a/b").tag(), None);
    assert_eq!(image("ghcr.io/a/b").to_string(), "ghcr.io/a/b");
}

#[test]
fn layouts_files_and_urls_are_told_apart() {
    for (text, printed) in [
        ("oci:dist:basic-auth", "oci:dist:basic-auth"),
        ("oci:/abs/dist:a:b", "oci:/abs/dist:a:b"),
        ("file:x.wasm", "file:x.wasm"),
        ("file:///abs/x.wasm", "file:/abs/x.wasm"),
        ("file://localhost/abs/x.wasm", "file:/abs/x.wasm"),
        ("target/plugins/x.wasm", "file:target/plugins/x.wasm"),
        ("./x.wasm", "file:./x.wasm"),
        ("https://example.com/x.wasm?token=1", "https://example.com/x.wasm?token=1"),
        ("ghcr.io/acme/x:v1.wasm", "ghcr.io/acme/x:v1.wasm"),
    ] {
        let reference = Reference::parse(text).unwrap();
        assert_eq!(reference.to_string(), printed);
        assert_eq!(Reference::parse(printed), Ok(reference));
    }
}

#[track_caller]
fn refused(text: &str, reason: &str) {
    let error = Reference::parse(text).expect_err(text).to_string();
    assert!(error.contains(reason), "{text}: {error}");
}

#[test]
fn bad_references_say_which_part_is_bad() {
    refused("", "empty");
    refused("oci:", "oci:DIR:NAME");
    refused("oci:dist", "oci:DIR:NAME");
    refused("oci://", "empty");
    refused("ghcr.io/Acme/auth", "upper-case");
    refused("ghcr.io/acme//auth", "not a repository");
    refused("ghcr.io/acme/auth/", "not a repository");
    refused("ghcr.io/", "not a repository");
    refused("ghcr.io/a/-b", "not a repository");
    refused("ghcr.io/a/b___c", "not a repository");
    refused("ghcr.io/a/../b", "not a repository");
    refused("ghcr.io/a/b:", "not a tag");
    refused("ghcr.io/a/b:.x", "not a tag");
    refused(&format!("ghcr.io/a/b:{}", "t".repeat(129)), "not a tag");
    refused("ghcr.io/a/b@sha256:00", "not a digest");
    refused(&format!("ghcr.io/a/b@{}", DIGEST.to_uppercase()), "not a digest");
    refused("host:99999/x", "not a registry");
    refused("host:0/x", "not a registry");
    refused("host:+1/x", "not a registry");
    refused("[::1/x", "not a registry");
    refused("-a.b/x", "not a registry");
    refused(&format!("ghcr.io/{}", "a/".repeat(150) + "a"), "at most 255");
    refused("https:///x", "no host");
    refused("file://elsewhere/x.wasm", "not a local file");
    assert_eq!(Reference::parse("ghcr.io/Acme/auth").unwrap_err().hint().as_deref(), Some("write `acme/auth`"));
}

#[test]
fn a_password_in_a_reference_is_refused_and_not_repeated() {
    for text in ["https://user:hunter2@example.com/x.wasm", "user:hunter2@example.com/x"] {
        let error = Reference::parse(text).expect_err(text);
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    }
}

#[test]
fn istio_takes_a_registry_with_a_port_for_a_scheme() {
    let error = Reference::parse_istio("registry:5000/x").unwrap_err();
    assert_eq!(error.hint().as_deref(), Some("write `oci://registry:5000/x`"));
    assert!(Reference::parse_istio("127.0.0.1:5000/x").is_err());
    assert!(Reference::parse_istio("alpine:3").is_err());
    assert!(Reference::parse_istio("ftp://x/y").is_err());
    assert!(Reference::parse_istio("oci://registry:5000/x").is_ok());
    assert!(Reference::parse_istio("ghcr.io/acme/auth:v1").is_ok());
}

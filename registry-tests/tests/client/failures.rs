//! A registry that fails or lies: each way has its own error, nothing unchecked is kept, and nothing goes on for ever.

use std::time::Duration;

use packager::digest::Digest;
use packager::registry::{Client, Options, RegistryError, Retry};
use registry_tests::{Does, Fault, Operation, Registry};

use crate::support::{client, image, options, reference};

/// The error of a pull of a good image from a registry with these faults, and what is left in the folder.
#[track_caller]
fn pull(faults: impl IntoIterator<Item = Fault>) -> (Result<(), RegistryError>, Vec<String>, Registry) {
    let registry = Registry::start(registry_tests::Options::default()).unwrap();
    let reference = reference(&registry.host(), "acme/x:t");
    client().push(&image(1, 100_000), &reference).unwrap();
    registry.set_faults(faults);
    let directory = tempfile::tempdir().unwrap();
    // One after the other, so that faults strike the same blob each time.
    let client = Client::new(Options { parallel: 1, ..options() }).unwrap();
    let outcome = client.pull(&reference, directory.path()).map(|_| ());
    let left = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    (outcome, left, registry)
}

fn pull_error(fault: Fault) -> RegistryError {
    let (outcome, left, _registry) = pull([fault]);
    let layer = image(1, 100_000).layers[0].descriptor.digest().to_string();
    assert!(!left.iter().any(|name| layer.contains(name.as_str()) || name.starts_with('.')), "{left:?}");
    outcome.unwrap_err()
}

#[test]
fn nobody_there() {
    let registry = Registry::start(registry_tests::Options::default()).unwrap();
    let gone = reference(&registry.host(), "x:t");
    drop(registry);
    let error = client().resolve(&gone).unwrap_err();
    assert!(matches!(error, RegistryError::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().contains(&format!("GET http://{}/v2/x/manifests/t", gone.registry())), "{error}");
}

#[test]
fn an_unknown_tag_repository_or_blob_is_not_found() {
    let (outcome, _, registry) = pull([]);
    outcome.unwrap();
    for name in ["acme/x:other", "other:t"] {
        let error = client().resolve(&reference(&registry.host(), name)).unwrap_err();
        let RegistryError::NotFound { code, .. } = &error else { panic!("{error:?}") };
        assert_eq!(code.as_deref(), Some("MANIFEST_UNKNOWN"));
        assert!(error.is_bad_content());
    }
    let error = pull_error(Fault::always(Operation::BlobGet, Does::Status(404)));
    assert!(matches!(error, RegistryError::NotFound { .. }), "{error:?}");
}

#[test]
fn a_failing_registry_is_tried_again_and_then_given_up() {
    let (outcome, _, registry) = pull([Fault::times(3, Operation::ManifestGet, Does::Status(500))]);
    outcome.unwrap();
    let gets = |registry: &Registry| {
        registry.operations().into_iter().filter(|operation| *operation == Operation::ManifestGet).count()
    };
    assert_eq!(gets(&registry), 4);
    let (outcome, _, registry) = pull([Fault::always(Operation::ManifestGet, Does::Status(503))]);
    let error = outcome.unwrap_err();
    assert!(matches!(error, RegistryError::Status { status: 503, .. }), "{error:?}");
    assert_eq!(gets(&registry), 4);
}

#[test]
fn what_will_not_pass_is_not_tried_again() {
    for status in [400, 403, 501] {
        let (outcome, _, registry) = pull([Fault::always(Operation::ManifestGet, Does::Status(status))]);
        let error = outcome.unwrap_err();
        assert!(matches!(error, RegistryError::Status { status: found, .. } if found == status), "{error:?}");
        let gets = registry.operations().into_iter().filter(|operation| *operation == Operation::ManifestGet).count();
        assert_eq!(gets, 1);
    }
}

#[test]
fn a_busy_registry_says_when_to_come_again() {
    let busy = || Does::StatusWith(429, "retry-after", "7".to_owned());
    pull([Fault::times(1, Operation::BlobGet, busy())]).0.unwrap();
    let error = pull_error(Fault::always(Operation::BlobGet, busy()));
    let RegistryError::Status { status: 429, code, retry_after: Some(7), .. } = &error else { panic!("{error:?}") };
    assert_eq!(code.as_deref(), Some("TOOMANYREQUESTS"));
}

#[test]
fn a_busy_registry_may_say_it_with_a_date() {
    let date = |date: &str| Does::StatusWith(429, "retry-after", date.to_owned());
    pull([Fault::times(2, Operation::BlobGet, date("Sun, 06 Nov 1994 08:49:37 GMT"))]).0.unwrap();
    for (text, expected) in [("Sun, 06 Nov 1994 08:49:37 GMT", Some(0)), ("whenever", None)] {
        let error = pull_error(Fault::always(Operation::BlobGet, date(text)));
        let RegistryError::Status { status: 429, retry_after, .. } = &error else { panic!("{error:?}") };
        assert_eq!(*retry_after, expected, "{text}");
    }
    let error = pull_error(Fault::always(Operation::ManifestGet, date("Fri, 31 Dec 9999 23:59:59 GMT")));
    assert!(matches!(error, RegistryError::Status { retry_after: Some(100_000_000..), .. }), "{error:?}");
}

#[test]
fn a_body_that_drips_is_given_up_however_steady_it_is() {
    let (_, _, registry) = pull([]);
    registry.set_faults([Fault::always(Operation::ManifestGet, Does::Drip(20))]);
    let retry = Retry { attempts: 1, ..Retry::at_once() };
    let client = Client::new(Options { read_timeout: Duration::from_millis(100), retry, ..options() }).unwrap();
    let error = client.resolve(&reference(&registry.host(), "acme/x:t")).unwrap_err();
    assert!(matches!(error, RegistryError::Interrupted { .. }), "{error:?}");
}

#[test]
fn a_failed_upload_is_begun_again() {
    let faults = [
        Fault::times(1, Operation::UploadFinish, Does::Status(500)),
        Fault::times(1, Operation::UploadStart, Does::Hangup),
        Fault::times(2, Operation::ManifestPut, Does::Status(502)),
    ];
    let registry = Registry::start(registry_tests::Options::faulty(faults)).unwrap();
    let reference = reference(&registry.host(), "x:t");
    let digest = client().push(&image(1, 500_000), &reference).unwrap();
    assert_eq!(client().resolve(&reference).unwrap(), digest);
}

#[test]
fn a_blob_with_wrong_content_is_a_mismatch_with_both_digests() {
    let error = pull_error(Fault::always(Operation::BlobGet, Does::WrongContent));
    let RegistryError::DigestMismatch { expected, actual, .. } = &error else { panic!("{error:?}") };
    assert_ne!(expected, actual);
    let text = error.to_string();
    assert!(text.contains(expected.as_str()) && text.contains(actual.as_str()), "{text}");
    assert!(error.is_bad_content());
}

#[test]
fn a_manifest_with_wrong_content_is_a_mismatch_when_pinned() {
    let (_, _, registry) = pull([]);
    let tagged = reference(&registry.host(), "acme/x:t");
    let pinned = tagged.with_digest(client().resolve(&tagged).unwrap());
    registry.set_faults([Fault::always(Operation::ManifestGet, Does::WrongContent)]);
    let error = client().resolve(&pinned).unwrap_err();
    assert!(matches!(error, RegistryError::DigestMismatch { .. }), "{error:?}");
    let error = client().resolve(&tagged).unwrap_err();
    assert!(matches!(error, RegistryError::LyingDigestHeader { .. }), "{error:?}");
}

#[test]
fn a_truncated_blob_is_continued_where_it_broke_off() {
    let (outcome, _, registry) =
        pull([Fault { on: Some(Operation::BlobGet), after: 1, times: Some(1), does: Does::Truncate(40_000) }]);
    outcome.unwrap();
    let ranges: Vec<_> = registry.seen().into_iter().filter_map(|seen| seen.range).collect();
    assert_eq!(ranges, ["bytes=40000-"]);
}

#[test]
fn a_blob_that_never_comes_whole_is_an_interruption() {
    let error = pull_error(Fault::always(Operation::BlobGet, Does::Truncate(10)));
    assert!(matches!(error, RegistryError::Interrupted { .. }), "{error:?}");
    assert!(!error.is_bad_content());
}

#[test]
fn a_blob_of_another_size_is_a_mismatch() {
    let error = pull_error(Fault::always(Operation::BlobGet, Does::Short(10)));
    assert!(matches!(error, RegistryError::SizeMismatch { actual: 10, .. }), "{error:?}");
    let error = pull_error(Fault::always(Operation::BlobGet, Does::Oversize(10_000_000)));
    let RegistryError::SizeMismatch { expected, actual, .. } = error else { panic!("{error:?}") };
    assert!(actual > expected && actual < expected + 1_000_000, "reading stops soon after the end");
}

#[test]
fn a_lying_digest_header_is_an_error_on_either_way() {
    let error = pull_error(Fault::always(Operation::ManifestGet, Does::LyingDigest));
    assert!(matches!(error, RegistryError::LyingDigestHeader { .. }), "{error:?}");
    let fault = Fault::always(Operation::ManifestPut, Does::LyingDigest);
    let registry = Registry::start(registry_tests::Options::faulty([fault])).unwrap();
    let error = client().push(&image(1, 10), &reference(&registry.host(), "x:t")).unwrap_err();
    let RegistryError::LyingDigestHeader { header, content, .. } = &error else { panic!("{error:?}") };
    assert_eq!(*header, Digest::of(b"a lie").to_string());
    assert_eq!(*content, image(1, 10).digest());
}

#[test]
fn an_oversized_manifest_is_not_read_to_its_end() {
    let error = pull_error(Fault::always(Operation::ManifestGet, Does::Oversize(8 * 1024 * 1024)));
    assert!(matches!(error, RegistryError::TooLarge { limit: 4_194_304, .. }), "{error:?}");
}

#[test]
fn an_image_larger_than_the_limit_is_not_begun() {
    let (_, _, registry) = pull([]);
    let small = Client::new(Options { image_limit: 1000, ..options() }).unwrap();
    let before = registry.seen().len();
    let error = small.pull(&reference(&registry.host(), "acme/x:t"), tempfile::tempdir().unwrap().path()).unwrap_err();
    assert!(matches!(error, RegistryError::TooLarge { limit: 1000, .. }), "{error:?}");
    assert_eq!(registry.seen().len(), before + 1, "only the manifest was asked for");
}

#[test]
fn a_manifest_that_is_none_is_unusable() {
    for body in ["", "null", "<html>", "{}", r#"{"schemaVersion":2}"#, &format!("[{}", "[".repeat(100_000))] {
        let error = pull_error(Fault::always(Operation::ManifestGet, Does::StatusBody(200, body.to_owned())));
        assert!(matches!(error, RegistryError::Manifest { .. }), "{error:?}");
    }
}

#[test]
fn a_registry_that_never_answers_is_given_up() {
    let (_, _, registry) = pull([]);
    registry.set_faults([Fault::everywhere(Does::Stall)]);
    let read_timeout = Duration::from_millis(50);
    let client = Client::new(Options { read_timeout, ..options() }).unwrap();
    let error = client.resolve(&reference(&registry.host(), "acme/x:t")).unwrap_err();
    assert!(matches!(error, RegistryError::Unreachable { .. }), "{error:?}");
}

#[test]
fn a_blob_that_stalls_is_given_up() {
    let (_, _, registry) = pull([]);
    registry.set_faults([Fault::always(Operation::BlobGet, Does::StallAfter(10))]);
    let retry = Retry { attempts: 1, ..Retry::at_once() };
    let client = Client::new(Options { read_timeout: Duration::from_secs(1), retry, ..options() }).unwrap();
    let place = reference(&registry.host(), "acme/x:t");
    let error = client.pull(&place, tempfile::tempdir().unwrap().path()).unwrap_err();
    assert!(matches!(error, RegistryError::Interrupted { received: 10, .. }), "{error:?}");
}

#[test]
fn what_a_registry_says_is_kept_short_and_harmless() {
    let message = format!("\u{1b}]0;owned\u{7} {}", "long ".repeat(10_000));
    let body = serde_json::json!({"errors": [{"code": "DENIED", "message": message}]}).to_string();
    let error = pull_error(Fault::always(Operation::ManifestGet, Does::StatusBody(403, body))).to_string();
    assert!(error.contains("status 403 (DENIED: \\u{1b}]0;owned\\u{7} long"), "{error}");
    assert!(error.len() < 600, "{error}");
}

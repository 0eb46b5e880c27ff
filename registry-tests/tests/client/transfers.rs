//! How blobs get there: taken over, several at a time, in one piece or in several that can be gone on with.

use std::collections::HashSet;

use packager::blob::Content;
use packager::registry::{Client, Options, RegistryError};
use registry_tests::{Auth, Does, Fault, Operation, Registry};

use crate::support::{LAYER, basic, blob, client, image, image_of, options, reference, same};

const CHUNK: u64 = 100_000;

/// A client that sends what does not get through at once in small pieces, one blob after the other.
fn in_pieces() -> Client {
    Client::new(Options { chunk: CHUNK, parallel: 1, ..options() }).unwrap()
}

/// Push an image of 350 kB to a registry with these options; it must arrive whole. Gives what the registry has seen.
#[track_caller]
fn pushed(options: registry_tests::Options) -> Vec<registry_tests::Seen> {
    let registry = Registry::start(options).unwrap();
    let (image, reference) = (image(1, 350_000), reference(&registry.host(), "acme/x:t"));
    in_pieces().push(&image, &reference).unwrap();
    let seen = registry.seen();
    registry.set_faults([]);
    same(&client().pull(&reference, tempfile::tempdir().unwrap().path()).unwrap(), &image);
    seen
}

/// The second blob's, which is the layer's.
fn layer(on: Operation, after: usize, does: Does) -> Fault {
    Fault { on: Some(on), after, times: Some(1), does }
}

fn ranges(seen: &[registry_tests::Seen]) -> Vec<String> {
    seen.iter().filter_map(|seen| seen.content_range.clone()).collect()
}

fn count(seen: &[registry_tests::Seen], operation: Operation) -> usize {
    seen.iter().filter(|seen| seen.operation == operation).count()
}

#[test]
fn one_piece_is_enough_where_nothing_goes_wrong() {
    let seen = pushed(registry_tests::Options::default());
    assert_eq!((count(&seen, Operation::UploadPatch), count(&seen, Operation::UploadFinish)), (0, 2));
}

#[test]
fn an_upload_that_broke_off_goes_on_where_the_registry_says() {
    let fault = layer(Operation::UploadFinish, 1, Does::BreakUpload(120_000));
    let seen = pushed(registry_tests::Options::faulty([fault]));
    assert_eq!(count(&seen, Operation::UploadStatus), 1);
    assert_eq!(ranges(&seen), ["120000-219999", "220000-319999", "320000-349999"]);
    assert_eq!(count(&seen, Operation::UploadStart), 2, "config and layer: the session is the same");
}

#[test]
fn a_piece_that_broke_off_is_gone_on_with() {
    let faults =
        [layer(Operation::UploadFinish, 1, Does::Status(503)), layer(Operation::UploadPatch, 1, Does::BreakUpload(7))];
    let seen = pushed(registry_tests::Options::faulty(faults));
    assert_eq!(ranges(&seen), ["0-99999", "100000-199999", "100007-200006", "200007-300006", "300007-349999"]);
}

#[test]
fn a_session_that_vanishes_is_begun_again() {
    for (on, after) in [(Operation::UploadFinish, 1), (Operation::UploadPatch, 1), (Operation::UploadStatus, 0)] {
        // The first makes the client send pieces, where it has not lost the session itself.
        let first = layer(Operation::UploadFinish, 1, Does::Hangup);
        let vanish = Fault { times: Some(1), ..layer(on, after, Does::ForgetUpload) };
        let faults = if on == Operation::UploadFinish { vec![vanish] } else { vec![first, vanish] };
        let registry = Registry::start(registry_tests::Options::faulty(faults)).unwrap();
        let (image, place) = (image(1, 350_000), reference(&registry.host(), "acme/x:t"));
        let outcome = in_pieces().push(&image, &place);
        assert!(outcome.is_ok(), "{on:?}: {outcome:?}\n{:?}", registry.operations());
        same(&client().pull(&place, tempfile::tempdir().unwrap().path()).unwrap(), &image);
    }
}

#[test]
fn a_registry_that_puts_us_back_is_believed() {
    let faults = [
        layer(Operation::UploadFinish, 1, Does::Hangup),
        // As if half of the first piece had got lost.
        layer(Operation::UploadPatch, 0, Does::StatusWith(416, "range", "0-0".to_owned())),
    ];
    let seen = pushed(registry_tests::Options::faulty(faults));
    assert_eq!(ranges(&seen)[..2], ["0-99999", "0-99999"]);
}

#[test]
fn a_registry_that_puts_us_back_for_ever_is_given_up() {
    let faults = [
        Fault { on: Some(Operation::UploadFinish), after: 1, times: None, does: Does::Hangup },
        Fault::always(Operation::UploadPatch, Does::StatusWith(416, "range", "0-0".to_owned())),
    ];
    let registry = Registry::start(registry_tests::Options::faulty(faults)).unwrap();
    let error = in_pieces().push(&image(1, 350_000), &reference(&registry.host(), "x:t")).unwrap_err();
    assert!(matches!(error, RegistryError::Protocol { .. }), "{error:?}");
    assert!(count(&registry.seen(), Operation::UploadPatch) < 20);
}

#[test]
fn what_is_too_much_at_a_time_is_sent_in_pieces() {
    let seen = pushed(registry_tests::Options { body_limit: Some(CHUNK), ..registry_tests::Options::default() });
    assert_eq!(ranges(&seen).len(), 4);
    let limit = registry_tests::Options { body_limit: Some(CHUNK / 2), ..registry_tests::Options::default() };
    let registry = Registry::start(limit).unwrap();
    let error = in_pieces().push(&image(1, 350_000), &reference(&registry.host(), "x:t")).unwrap_err();
    assert!(matches!(error, RegistryError::Status { status: 413, .. }), "{error:?}");
}

#[test]
fn a_local_blob_that_is_not_its_digest_is_not_completed_in_pieces_either() {
    let fault = layer(Operation::UploadFinish, 1, Does::Hangup);
    let registry = Registry::start(registry_tests::Options::faulty([fault])).unwrap();
    let mut image = image(1, 350_000);
    let mut bytes = vec![0; 350_000];
    bytes[0] = 1;
    image.layers[0].content = Content::Bytes(bytes.into());
    // The fault strikes before the end of the blob is reached, so that the pieces are what finds it.
    registry.set_faults([layer(Operation::UploadFinish, 1, Does::BreakUpload(1000))]);
    let error = in_pieces().push(&image, &reference(&registry.host(), "x:t")).unwrap_err();
    assert!(matches!(error, RegistryError::DigestMismatch { .. }), "{error:?}");
    assert!(!registry.operations().contains(&Operation::ManifestPut));
}

#[test]
fn all_blobs_of_a_large_image_arrive_and_none_after_a_failure() {
    let registry = Registry::start(registry_tests::Options::default()).unwrap();
    let layers = || (0_u8..40).map(|seed| blob(LAYER, &[seed; 1000])).collect();
    let (image, place) = (image_of(layers()), reference(&registry.host(), "acme/x:t"));
    client().push(&image, &place).unwrap();
    same(&client().pull(&place, tempfile::tempdir().unwrap().path()).unwrap(), &image);

    registry.set_faults([Fault::always(Operation::UploadStart, Does::Status(403))]);
    let before = registry.seen().len();
    client().push(&image, &reference(&registry.host(), "acme/y:t")).unwrap_err();
    let mounts = registry.seen().len() - before;
    assert!(mounts < 20, "nothing new is begun after a failure: {mounts}");
}

fn mounting(client: &Client, registry: &Registry) -> (usize, usize) {
    let image = image(2, 50_000);
    client.push(&image, &reference(&registry.host(), "acme/from:t")).unwrap();
    let before = registry.seen().len();
    let to = reference(&registry.host(), "acme/to:t");
    client.push(&image, &to).unwrap();
    same(&client.pull(&to, tempfile::tempdir().unwrap().path()).unwrap(), &image);
    let seen = registry.seen().split_off(before);
    let mounts: HashSet<_> = seen.iter().map(|seen| &seen.query).filter(|query| query.contains("mount=")).collect();
    (mounts.len(), count(&seen, Operation::UploadFinish))
}

#[test]
fn what_another_repository_has_is_mounted_from_there() {
    let registry = Registry::start(registry_tests::Options::default()).unwrap();
    assert_eq!(mounting(&client(), &registry), (2, 0));
    // By name, for a client that has not seen it.
    let (image, to) = (image(2, 50_000), reference(&registry.host(), "acme/third:t"));
    client().push_mounting(&image, &to, Some("acme/from")).unwrap();
    let uploads = count(&registry.seen(), Operation::UploadFinish);
    assert_eq!(uploads, 2, "only the first push sent anything");
}

#[test]
fn what_cannot_be_mounted_is_uploaded() {
    let none = registry_tests::Options { mounts: false, ..registry_tests::Options::default() };
    assert_eq!(mounting(&client(), &Registry::start(none).unwrap()), (2, 2));
    let registry = Registry::start(registry_tests::Options::default()).unwrap();
    let (image, to) = (image(3, 10), reference(&registry.host(), "x:t"));
    client().push_mounting(&image, &to, Some("nobody/knows")).unwrap();
    same(&client().pull(&to, tempfile::tempdir().unwrap().path()).unwrap(), &image);
}

#[test]
fn mounting_asks_for_both_scopes_and_for_no_more() {
    let auth = Auth::Bearer {
        username: "ann".to_owned(),
        password: "pw".to_owned(),
        identity_token: None,
        anonymous_pull: false,
        realm: None,
    };
    let registry = Registry::start(registry_tests::Options { auth, ..registry_tests::Options::default() }).unwrap();
    let credentials = basic(&registry.host(), "ann", "pw");
    let client = Client::new(Options { credentials, ..options() }).unwrap();
    assert_eq!(mounting(&client, &registry), (2, 0));
    let tokens: Vec<_> = registry.seen().into_iter().filter(|seen| seen.operation == Operation::Token).collect();
    let scopes = |seen: &registry_tests::Seen| {
        let scopes = seen.query.split('&').filter_map(|pair| pair.strip_prefix("scope="));
        scopes.map(|scope| scope.replace("%3A", ":").replace("%2F", "/").replace("%2C", ",")).collect::<Vec<_>>()
    };
    let push = |name: &str| format!("repository:acme/{name}:pull,push");
    let pull = |name: &str| format!("repository:acme/{name}:pull");
    assert_eq!(
        tokens.iter().map(scopes).collect::<Vec<_>>(),
        [vec![push("from")], vec![push("to")], vec![push("to"), pull("from")], vec![pull("to")]],
        "each once, whatever the number of blobs"
    );
}

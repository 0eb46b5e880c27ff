//! Where the client lets itself be sent, and what it takes along.

use packager::registry::RegistryError;
use registry_tests::{Auth, Does, Fault, Operation, Registry};

use crate::support::{basic, client, image, options, reference, same};
use packager::registry::{Client, Options};

fn open() -> Registry {
    Registry::start(registry_tests::Options::default()).unwrap()
}

#[test]
fn blobs_may_come_from_elsewhere_and_credentials_stay_at_home() {
    let auth = Auth::Basic { username: "ann".to_owned(), password: "pw".to_owned() };
    let registry = Registry::start(registry_tests::Options { auth, ..registry_tests::Options::default() }).unwrap();
    let store = open();
    let image = image(1, 1000);
    let credentials = basic(&registry.host(), "ann", "pw");
    let client = Client::new(Options { credentials, parallel: 1, ..options() }).unwrap();
    let here = reference(&registry.host(), "x:t");
    client.push(&image, &here).unwrap();
    client.push(&image, &reference(&store.host(), "x:t")).unwrap();
    let before = store.seen().len();
    let layer = image.layers[0].descriptor.digest();
    let elsewhere = format!("{}/v2/x/blobs/{layer}?X-Signature=very-secret", store.url());
    let redirect = Fault { on: Some(Operation::BlobGet), after: 1, times: None, does: Does::Redirect(elsewhere) };
    registry.set_faults([redirect]);
    let pulled = client.pull(&here, tempfile::tempdir().unwrap().path()).unwrap();
    assert_eq!(pulled.manifest, image.manifest);
    let seen = store.seen().split_off(before);
    assert!(!seen.is_empty() && seen.iter().all(|seen| seen.authorization.is_none()), "{seen:?}");
}

#[track_caller]
fn redirected(location: &str) -> RegistryError {
    let fault = Fault::always(Operation::ManifestGet, Does::Redirect(location.to_owned()));
    let registry = Registry::start(registry_tests::Options::faulty([fault])).unwrap();
    let location = location.replace("SELF", &registry.url());
    registry.set_faults([Fault::always(Operation::ManifestGet, Does::Redirect(location))]);
    client().resolve(&reference(&registry.host(), "x:t")).unwrap_err()
}

#[test]
fn metadata_addresses_are_never_asked() {
    for location in [
        "https://169.254.169.254/latest/meta-data/?very-secret",
        "https://[fe80::1]/",
        "https://[::ffff:169.254.169.254]/",
        "https://100.100.100.200/",
    ] {
        let error = redirected(location);
        assert!(matches!(error, RegistryError::Forbidden { .. }), "{location}: {error:?}");
        assert!(!format!("{error:?}").contains("very-secret"));
    }
}

#[test]
fn bad_and_endless_redirects_are_refused() {
    for location in [
        "",
        "http://example.com/plain",
        "ftp://example.com/x",
        "http://user:very-secret@example.com/",
        "SELF/v2/x/manifests/t",
    ] {
        let error = redirected(location);
        assert!(
            matches!(error, RegistryError::Redirect { .. } | RegistryError::Manifest { .. }),
            "{location}: {error:?}"
        );
        assert!(!format!("{error} {error:?}").contains("very-secret"), "{error}");
    }
}

#[test]
fn a_redirected_upload_is_refused() {
    let fault = Fault::always(Operation::UploadStart, Does::Redirect("http://127.0.0.1:1/".to_owned()));
    let registry = Registry::start(registry_tests::Options::faulty([fault])).unwrap();
    let error = client().push(&image(1, 10), &reference(&registry.host(), "x:t")).unwrap_err();
    assert!(matches!(error, RegistryError::Redirect { .. }), "{error:?}");
}

#[test]
fn a_realm_on_a_private_address_is_not_asked_by_a_registry_elsewhere() {
    // The name of this machine's registry is not a loopback name, so that its realm is a stranger's choice.
    let realm = |realm: &str| {
        let challenge = format!("Bearer realm=\"{realm}\",service=\"s\"");
        let fault = Fault::everywhere(Does::StatusWith(401, "www-authenticate", challenge));
        let registry = Registry::start(registry_tests::Options::faulty([fault])).unwrap();
        let port = registry.host().rsplit_once(':').unwrap().1.to_owned();
        let host = format!("0.0.0.0:{port}");
        let client = Client::new(Options {
            plain_http: packager::registry::PlainHttp::Always,
            credentials: basic(&host, "ann", "pw"),
            ..options()
        })
        .unwrap();
        let error = client.resolve(&reference(&host, "x:t")).unwrap_err();
        assert!(registry.seen().iter().all(|seen| seen.authorization.is_none()));
        error
    };
    for address in ["http://127.0.0.1:1/token", "http://10.0.0.1/token", "http://169.254.169.254/", "http://[::1]:1/"] {
        let error = realm(address);
        assert!(matches!(error, RegistryError::Forbidden { .. }), "{address}: {error:?}");
    }
    for address in ["ftp://x/", "/token", "https://user:very-secret@example.com/"] {
        let error = realm(address);
        assert!(matches!(error, RegistryError::Realm { .. }), "{address}: {error:?}");
        assert!(!format!("{error} {error:?}").contains("very-secret"), "{error}");
    }
}

#[test]
fn credentials_do_not_go_to_a_plain_realm_elsewhere() {
    let challenge = "Bearer realm=\"http://example.com/token\",service=\"s\"".to_owned();
    let fault = Fault::everywhere(Does::StatusWith(401, "www-authenticate", challenge));
    let registry = Registry::start(registry_tests::Options::faulty([fault])).unwrap();
    let error = client().resolve(&reference(&registry.host(), "x:t")).unwrap_err();
    assert!(matches!(error, RegistryError::Realm { .. }), "{error:?}");
}

#[test]
fn a_plain_registry_is_not_met_with_tls_nor_the_other_way_round() {
    let registry = open();
    let never = Options { plain_http: packager::registry::PlainHttp::Never, ..options() };
    let error = Client::new(never).unwrap().resolve(&reference(&registry.host(), "x:t")).unwrap_err();
    assert!(matches!(error, RegistryError::Unreachable { .. }), "{error:?}");
    assert!(error.hint().is_some_and(|hint| hint.contains("--plain-http")), "{error:?}");
    assert!(registry.seen().is_empty());
}

#[test]
fn a_redirect_on_the_same_host_is_followed() {
    let registry = open();
    let image = image(1, 1000);
    let to = reference(&registry.host(), "x:t");
    client().push(&image, &to).unwrap();
    let other = reference(&registry.host(), "y:t");
    registry.set_faults([Fault::times(1, Operation::ManifestGet, Does::Redirect("/v2/x/manifests/t".to_owned()))]);
    assert_eq!(client().resolve(&other).unwrap(), image.digest());
    same(&client().pull(&to, tempfile::tempdir().unwrap().path()).unwrap(), &image);
}

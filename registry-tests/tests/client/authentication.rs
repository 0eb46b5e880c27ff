//! Credentials go where they belong, are enough, and never show.

use packager::credentials::{Credential, Credentials, Secret};
use packager::registry::{Client, Options, RegistryError};
use registry_tests::{Auth, Does, Fault, Operation, Registry};

use crate::support::{basic, client, image, options, reference};

const PASSWORD: &str = "hunter2-very-secret";

fn start(auth: Auth) -> Registry {
    Registry::start(registry_tests::Options { auth, ..registry_tests::Options::default() }).unwrap()
}

fn bearer() -> Auth {
    Auth::Bearer {
        username: "ann".to_owned(),
        password: PASSWORD.to_owned(),
        identity_token: Some("identity-very-secret".to_owned()),
        anonymous_pull: false,
        realm: None,
    }
}

fn with(credentials: Credentials) -> Client {
    Client::new(Options { credentials, ..options() }).unwrap()
}

/// Neither the text nor the structure of an error, or of what caused it, shows what was secret.
#[track_caller]
fn shows_nothing(error: &RegistryError) {
    let mut text = format!("{error} {error:?} {error:#?}");
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text} {error} {error:?}");
        cause = error.source();
    }
    for secret in [PASSWORD, "very-secret", "YW5uOmh1bnRlcjItdmVyeS1zZWNyZXQ", "token-0-"] {
        assert!(!text.contains(secret), "{text}");
    }
}

#[test]
fn a_password_is_enough_for_basic_and_for_a_token() {
    for auth in [Auth::Basic { username: "ann".to_owned(), password: PASSWORD.to_owned() }, bearer()] {
        let registry = start(auth);
        let client = with(basic(&registry.host(), "ann", PASSWORD));
        let (image, reference) = (image(1, 1000), reference(&registry.host(), "acme/x:t"));
        client.push(&image, &reference).unwrap();
        assert_eq!(client.resolve(&reference).unwrap(), image.digest());
        let refused = registry.seen().iter().filter(|seen| seen.authorization.is_none()).count();
        assert!(refused <= 3, "what was shown once is shown again without being asked: {refused}");
    }
}

fn tokens(registry: &Registry) -> usize {
    registry.operations().into_iter().filter(|operation| *operation == Operation::Token).count()
}

#[test]
fn a_token_serves_until_it_expires() {
    for (token_lifetime, expected) in [(300, 2), (0, 6)] {
        let registry = registry_tests::Options { auth: bearer(), token_lifetime, ..registry_tests::Options::default() };
        let registry = Registry::start(registry).unwrap();
        let client = with(basic(&registry.host(), "ann", PASSWORD));
        let (image, place) = (image(1, 1000), reference(&registry.host(), "acme/x:t"));
        client.push(&image, &place).unwrap();
        client.push(&image, &place.with_tag("u").unwrap()).unwrap();
        for _ in 0..3 {
            client.resolve(&place).unwrap();
        }
        if token_lifetime == 0 {
            assert!(tokens(&registry) > expected, "{}", tokens(&registry));
        } else {
            assert_eq!(tokens(&registry), expected, "one to push, one to pull");
        }
    }
}

#[test]
fn an_identity_token_is_exchanged() {
    let registry = start(bearer());
    let token = Credential::IdentityToken(Secret::new("identity-very-secret"));
    let client = with(Credentials::none().with(&registry.host(), token));
    client.push(&image(1, 10), &reference(&registry.host(), "acme/x:t")).unwrap();
    let asked: Vec<_> = registry.seen().into_iter().filter(|seen| seen.operation == Operation::Token).collect();
    assert!(asked.iter().all(|seen| seen.method == "POST" && seen.authorization.is_none()), "{asked:?}");

    let wrong = Credential::IdentityToken(Secret::new("wrong-very-secret"));
    let client = with(Credentials::none().with(&registry.host(), wrong));
    let error = client.resolve(&reference(&registry.host(), "acme/x:t")).unwrap_err();
    assert!(matches!(error, RegistryError::Unauthorized { credentials: true, .. }), "{error:?}");
    shows_nothing(&error);
}

#[test]
fn anonymous_pulls_take_a_token_too() {
    let Auth::Bearer { username, password, identity_token, realm, .. } = bearer() else { unreachable!() };
    let registry = start(Auth::Bearer { username, password, identity_token, anonymous_pull: true, realm });
    let image = image(1, 10);
    let reference = reference(&registry.host(), "acme/x:t");
    let error = client().push(&image, &reference).unwrap_err();
    assert!(matches!(error, RegistryError::Unauthorized { credentials: false, .. }), "{error:?}");
    assert!(error.hint().unwrap().contains("docker login"));
    with(basic(&registry.host(), "ann", PASSWORD)).push(&image, &reference).unwrap();
    assert_eq!(client().resolve(&reference).unwrap(), image.digest());
}

#[test]
fn wrong_credentials_are_an_error_and_not_left_out() {
    let Auth::Bearer { username, password, identity_token, realm, .. } = bearer() else { unreachable!() };
    let open = Auth::Bearer { username, password, identity_token, anonymous_pull: true, realm };
    for auth in [Auth::Basic { username: "ann".to_owned(), password: PASSWORD.to_owned() }, open] {
        let registry = start(auth);
        let client = with(basic(&registry.host(), "ann", "wrong-very-secret"));
        let error = client.resolve(&reference(&registry.host(), "acme/x:t")).unwrap_err();
        assert!(matches!(error, RegistryError::Unauthorized { credentials: true, .. }), "{error:?}");
        shows_nothing(&error);
    }
}

#[test]
fn an_endless_401_ends() {
    for operation in [Operation::ManifestGet, Operation::Token] {
        let registry = start(bearer());
        registry.set_faults([Fault::always(operation, Does::Status(401))]);
        let client = with(basic(&registry.host(), "ann", PASSWORD));
        let error = client.resolve(&reference(&registry.host(), "acme/x:t")).unwrap_err();
        let expected = matches!(error, RegistryError::Unauthorized { .. } | RegistryError::Challenge { .. });
        assert!(expected, "{error:?}");
        assert!(registry.seen().len() <= 3, "{:?}", registry.operations());
        shows_nothing(&error);
    }
    let challenge = || Does::StatusWith(401, "www-authenticate", "Basic realm=\"x\"".to_owned());
    let registry = start(Auth::Open);
    registry.set_faults([Fault::everywhere(challenge())]);
    let client = with(basic(&registry.host(), "ann", PASSWORD));
    let error = client.resolve(&reference(&registry.host(), "acme/x:t")).unwrap_err();
    assert!(matches!(error, RegistryError::Unauthorized { credentials: true, .. }), "{error:?}");
    assert_eq!(registry.seen().len(), 2);
}

#[test]
fn a_registry_that_repeats_what_it_was_shown_does_not_get_it_into_an_error() {
    for auth in [Auth::Basic { username: "ann".to_owned(), password: PASSWORD.to_owned() }, bearer()] {
        let registry = start(auth);
        let client = with(basic(&registry.host(), "ann", PASSWORD));
        let reference = reference(&registry.host(), "acme/x:t");
        client.push(&image(1, 10), &reference).unwrap();
        registry.set_faults([Fault { on: Some(Operation::ManifestGet), after: 1, times: None, does: Does::Echo }]);
        let error = client.resolve(&reference).unwrap_err();
        assert!(error.to_string().contains("you showed B"), "{error}");
        shows_nothing(&error);
        registry.set_faults([Fault::always(Operation::Token, Does::Echo)]);
        if let Err(error) = client.resolve(&reference) {
            shows_nothing(&error);
        }
    }
}

#[test]
fn a_token_that_is_none_is_a_clear_error() {
    for body in ["", "[]", "{}", r#"{"token":""}"#, r#"{"token":"a\nb"}"#] {
        let registry = start(bearer());
        registry.set_faults([Fault::always(Operation::Token, Does::StatusBody(200, body.to_owned()))]);
        let client = with(basic(&registry.host(), "ann", PASSWORD));
        let error = client.resolve(&reference(&registry.host(), "acme/x:t")).unwrap_err();
        assert!(matches!(error, RegistryError::Protocol { .. }), "{error:?}");
    }
}

#[test]
fn nothing_is_shown_to_a_registry_that_does_not_ask() {
    let registry = start(Auth::Open);
    with(basic(&registry.host(), "ann", PASSWORD)).push(&image(1, 10), &reference(&registry.host(), "x:t")).unwrap();
    assert!(registry.seen().iter().all(|seen| seen.authorization.is_none()));
}

//! Credentials out of files and helpers, by what comes out of them.

use super::*;

fn load(json: &str) -> Result<Credentials, CredentialsError> {
    let directory = tempfile::tempdir().unwrap();
    let path = config_file(directory.path());
    std::fs::write(&path, json).unwrap();
    Credentials::load(&[path], "")
}

fn basic(username: &str, password: &str) -> Credential {
    Credential::Basic { username: username.to_owned(), password: Secret::new(password) }
}

#[track_caller]
fn check(json: &str, image: &str, expected: impl Into<Option<Credential>>) {
    let found = load(json).unwrap().lookup(&image.parse().unwrap()).unwrap();
    assert!(found == expected.into(), "{image}");
}

#[test]
fn every_form_of_entry_is_read() {
    check(r#"{"auths":{"r.io":{"auth":"YW5uOnB3OjE="}}}"#, "r.io/x", basic("ann", "pw:1"));
    check(r#"{"auths":{"r.io":{"username":"ann","password":"pw"}}}"#, "r.io/x", basic("ann", "pw"));
    let token = Secret::new("t");
    check(
        r#"{"auths":{"r.io":{"auth":"YTpi","identitytoken":"t"}}}"#,
        "r.io/x",
        Credential::IdentityToken(token.clone()),
    );
    check(r#"{"auths":{"r.io":{"registrytoken":"t"}}}"#, "r.io/x", Credential::RegistryToken(token));
    check(r#"{"auths":{"r.io":{}}}"#, "r.io/x", None);
    check(r#"{"auths":null}"#, "r.io/x", None);
    check("{}", "r.io/x", None);
}

#[test]
fn the_most_specific_key_wins() {
    let json = r#"{"auths":{
        "ghcr.io":{"username":"host","password":"p"},
        "ghcr.io/org":{"username":"org","password":"p"},
        "ghcr.io/org/repo":{"username":"repo","password":"p"}}}"#;
    check(json, "ghcr.io/org/repo:v1", basic("repo", "p"));
    check(json, "ghcr.io/org/other", basic("org", "p"));
    check(json, "ghcr.io/organisation/x", basic("host", "p"));
    check(json, "ghcr.io:8443/org/x", None);
}

#[test]
fn keys_may_carry_scheme_and_api_path() {
    for key in ["https://r.io", "https://r.io/v2/", "http://r.io/v1", "r.io/"] {
        check(&format!(r#"{{"auths":{{"{key}":{{"username":"u","password":"p"}}}}}}"#), "r.io/x", basic("u", "p"));
    }
    for key in ["https://index.docker.io/v1/", "docker.io", "index.docker.io"] {
        check(&format!(r#"{{"auths":{{"{key}":{{"username":"u","password":"p"}}}}}}"#), "alpine", basic("u", "p"));
    }
}

#[test]
fn a_malformed_file_is_an_error_with_its_place_and_without_its_secrets() {
    let error = load("{\"auths\":\n {\"r.io\": {\"auth\": 12345678}}}").unwrap_err().to_string();
    assert!(error.contains("config.json:2:"), "{error}");
    assert!(!error.contains("12345678"), "{error}");
    let error = load("{\"auths\"").unwrap_err().to_string();
    assert!(error.contains("config.json:1:"), "{error}");
}

#[test]
fn an_entry_that_cannot_be_decoded_is_not_taken_for_none() {
    for entry in [r#"{"auth":"%%"}"#, r#"{"auth":"YQ=="}"#, r#"{"username":"u"}"#, r#"{"password":"hunter2"}"#] {
        let store = load(&format!(r#"{{"auths":{{"r.io":{entry}}}}}"#)).unwrap();
        let error = store.lookup(&"r.io/x".parse().unwrap()).unwrap_err().to_string();
        assert!(error.contains("r.io") && !error.contains("hunter2"), "{error}");
    }
}

#[test]
fn debug_shows_no_secret() {
    let store = load(r#"{"auths":{"r.io":{"username":"u","password":"hunter2"}}}"#).unwrap();
    let found = store.lookup(&"r.io/x".parse().unwrap()).unwrap();
    assert!(!format!("{store:?} {found:?}").contains("hunter2"));
    assert!(format!("{found:?}").contains("<redacted>"));
}

/// A helper, and a config file that uses it for `r.io` and as the default store.
fn with_helper(script: &str, image: &str) -> Result<Option<Credential>, CredentialsError> {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("docker-credential-test");
    // Written by a child: a descriptor open for writing here could be inherited by another test's helper, and a
    // program that anyone has open for writing cannot be run.
    let write = r#"printf '#!/bin/sh\n%s\n' "$1" > "$0"; chmod +x "$0""#;
    let written = std::process::Command::new("sh").args(["-c", write]).arg(&program).arg(script).status().unwrap();
    assert!(written.success());
    let path = config_file(directory.path());
    std::fs::write(&path, r#"{"credHelpers":{"r.io":"test"},"credsStore":"test"}"#).unwrap();
    Credentials::load(&[path], directory.path())?.lookup(&image.parse().unwrap())
}

const ECHO: &str = r#"read -r server || true; printf '{"ServerURL":"x","Username":"%s","Secret":"s"}' "$server""#;

#[test]
fn helpers_are_asked_for_the_registry() {
    assert_eq!(with_helper(ECHO, "r.io/x").unwrap(), Some(basic("r.io", "s")));
    assert_eq!(with_helper(ECHO, "other.io:5000/x").unwrap(), Some(basic("other.io:5000", "s")));
    assert_eq!(with_helper(ECHO, "alpine").unwrap(), Some(basic("https://index.docker.io/v1/", "s")));
}

#[test]
fn a_helpers_token_user_means_an_identity_token() {
    let found = with_helper(r#"echo '{"Username":"<token>","Secret":"t"}'"#, "r.io/x").unwrap();
    assert_eq!(found, Some(Credential::IdentityToken(Secret::new("t"))));
}

#[test]
fn a_helper_without_credentials_means_none() {
    let script = "echo 'credentials not found in native keychain'; exit 1";
    assert_eq!(with_helper(script, "r.io/x").unwrap(), None);
}

#[test]
fn a_failing_helper_is_an_error_with_bounded_and_harmless_text() {
    let script = r"printf 'locked \033[31m' >&2; head -c 100000 /dev/zero | tr '\0' x >&2; exit 3";
    let error = with_helper(script, "r.io/x").unwrap_err().to_string();
    assert!(error.contains("locked") && error.contains("exit status: 3"), "{error}");
    assert!(error.len() < 600 && !error.contains('\u{1b}'), "{error}");
}

#[test]
fn a_helpers_nonsense_is_not_quoted() {
    let error = with_helper("echo hunter2", "r.io/x").unwrap_err().to_string();
    assert!(error.contains("docker-credential-test") && !error.contains("hunter2"), "{error}");
}

#[test]
fn a_missing_or_misnamed_helper_is_an_error() {
    for helper in ["absent", "../../bin/sh", ""] {
        let store = load(&format!(r#"{{"credHelpers":{{"r.io":"{helper}"}}}}"#)).unwrap();
        assert!(store.lookup(&"r.io/x".parse().unwrap()).is_err(), "{helper}");
    }
}

#[test]
fn a_helper_that_hangs_is_killed() {
    let child = std::process::Command::new("sleep")
        .arg("1000")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    assert!(helper::converse(child, "r.io", Duration::from_millis(1)).unwrap().is_none());
}

#[test]
fn a_secret_gives_credentials_and_runs_no_helper() {
    let text = br#"{"auths": {"ghcr.io": {"username": "u", "password": "hunter2"}}}"#;
    let credentials = Credentials::from_docker_config("Secret a/b", text).unwrap();
    let found = credentials.lookup(&"ghcr.io/example/x:1".parse().unwrap()).unwrap();
    assert!(matches!(found, Some(Credential::Basic { username, .. }) if username == "u"));
    assert_eq!(credentials.lookup(&"example.com/x".parse().unwrap()).unwrap(), None);
    for text in [r#"{"credsStore": "sh"}"#, r#"{"credHelpers": {"ghcr.io": "sh"}}"#] {
        let error = Credentials::from_docker_config("Secret a/b", text.as_bytes()).unwrap_err();
        assert!(matches!(error, CredentialsError::HelperInSecret { .. }), "{error:?}");
    }
    let error = Credentials::from_docker_config("Secret a/b", br#"{"auths": {"x": "hunter2"}}"#).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
}

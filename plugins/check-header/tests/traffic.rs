//! Requests through the plugin, on the SDK's in-memory proxy.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::time::Duration;

use check_header::CheckHeader;
use jose::Signer;
use plugwright_sdk::LogLevel;
use plugwright_sdk::testing::{Exchange, InMemoryHost, Proxy, get};

/// The configuration of Istio's documentation.
const SEED: &str = include_str!("config.example.json");
const SECRET: &str = "a89gAzxvls0JKAKIJSBnnvvvkIO";
const NOW: u64 = 1_700_000_000;

const PUBLIC: &str = include_str!("../../../jose/tests/keys/rfc7515-a3.pem");
const PRIVATE: &str = include_str!("../../../jose/tests/keys/rfc7515-a3-private.pem");
const RSA: &str = include_str!("../../../jose/tests/keys/rfc7515-a2.pem");

fn host() -> InMemoryHost {
    InMemoryHost::default().with_time(Duration::from_secs(NOW))
}

fn proxy(config: &str) -> Proxy<CheckHeader> {
    plugwright_sdk::proxy!(CheckHeader).on(host()).configure(config).unwrap()
}

/// A configuration for `read_data`, with this key and more fields.
fn config(key: &str, more: &str) -> String {
    let key = key.trim().replace('\n', "\\n");
    format!(r#"{{"read_header":"authz_complete","verification_key":"{key}","function":"read_data"{more}}}"#)
}

fn sign(claims: &str) -> String {
    Signer::shared(SECRET.as_bytes()).unwrap().sign(claims)
}

/// A token that permits `read_data` for a minute.
fn good() -> String {
    sign(&format!(r#"{{"sub":"alice","exp":{},"function":"read_data"}}"#, NOW + 60))
}

fn send(config: &str, token: &str) -> Exchange {
    proxy(config).send(get("/").header("authz_complete", token))
}

#[track_caller]
fn passes(exchange: &Exchange) {
    assert_eq!((exchange.status(), exchange.details()), (200, ""));
}

#[track_caller]
fn denied(exchange: &Exchange, details: &str) {
    assert_eq!((exchange.status(), exchange.details()), (403, details));
    assert_eq!(exchange.forwarded(), None);
    assert_eq!(exchange.response().unwrap().bytes(), b"");
}

#[test]
fn a_token_that_permits_the_function_passes_and_goes_on() {
    let exchange = send(SEED, &good());
    passes(&exchange);
    assert_eq!(exchange.forwarded().unwrap().values("authz_complete"), [good()]);
}

#[test]
fn no_token_is_denied() {
    denied(&proxy(SEED).send(get("/")), "check_header_missing");
    denied(&proxy(SEED).send(get("/").header("authz-complete", good())), "check_header_missing");
    denied(&send(SEED, ""), "check_header_malformed_token");
}

#[test]
fn several_tokens_are_denied_even_when_all_are_good() {
    let twice = get("/").header("authz_complete", good()).header("AUTHZ_COMPLETE", good());
    denied(&proxy(SEED).send(twice), "check_header_several");
    denied(&send(SEED, &format!("{},{}", good(), good())), "check_header_malformed_token");
    denied(&send(SEED, &format!("Bearer {}", good())), "check_header_malformed_token");
}

#[test]
fn another_function_is_denied() {
    let token = |function: &str| sign(&format!(r#"{{"exp":{},"function":{function}}}"#, NOW + 60));
    passes(&send(SEED, &token(r#"["list","read_data"]"#)));
    for function in [
        r#""write_data""#,
        r#""READ_DATA""#,
        r#""read_data ""#,
        r#""read_data,write_data""#,
        r#""*""#,
        "[]",
        r#"["read"]"#,
        r#"["read_data",1]"#,
        r#"{"read_data":true}"#,
        "null",
        "true",
    ] {
        denied(&send(SEED, &token(function)), "check_header_not_permitted");
    }
    denied(&send(SEED, &sign(&format!(r#"{{"exp":{}}}"#, NOW + 60))), "check_header_not_permitted");
}

#[test]
fn a_token_counts_from_nbf_to_exp_give_or_take_the_skew() {
    let token = |times: &str| sign(&format!(r#"{{{times},"function":"read_data"}}"#));
    passes(&send(SEED, &token(&format!(r#""exp":{}"#, NOW - 29))));
    denied(&send(SEED, &token(&format!(r#""exp":{}"#, NOW - 30))), "check_header_expired");
    denied(&send(&config(SECRET, r#","clock_skew_seconds":0"#), &token(&format!(r#""exp":{NOW}"#))), {
        "check_header_expired"
    });
    let exp = NOW + 900;
    passes(&send(SEED, &token(&format!(r#""exp":{exp},"nbf":{}"#, NOW + 30))));
    denied(&send(SEED, &token(&format!(r#""exp":{exp},"nbf":{}"#, NOW + 31))), "check_header_not_yet_valid");
    denied(&send(SEED, &token(&format!(r#""exp":{exp},"iat":{}"#, NOW + 31))), "check_header_not_yet_valid");
    denied(&send(SEED, &token(r#""nbf":1"#)), "check_header_malformed_token");
    denied(&send(SEED, &token(r#""exp":"soon""#)), "check_header_malformed_token");
    denied(&send(SEED, &token(r#""exp":1e12"#)), "check_header_malformed_token");
}

#[test]
fn a_token_of_another_signer_is_denied() {
    let claims = format!(r#"{{"exp":{},"function":"read_data"}}"#, NOW + 60);
    let other = Signer::shared(b"somebody else's shared key").unwrap();
    denied(&send(SEED, &other.sign(&claims)), "check_header_wrong_signature");
    let (signed, _) = good().rsplit_once('.').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    denied(&send(SEED, &format!("{signed}.")), "check_header_wrong_signature");
}

#[test]
fn the_key_and_not_the_token_decides_the_algorithm() {
    let claims = format!(r#"{{"exp":{},"function":"read_data"}}"#, NOW + 60);
    let es256 = Signer::from_pem(PRIVATE).unwrap();
    passes(&send(&config(PUBLIC, ""), &es256.sign(&claims)));
    denied(&send(&config(RSA, ""), &es256.sign(&claims)), "check_header_wrong_algorithm");
    denied(&send(SEED, &es256.sign(&claims)), "check_header_wrong_algorithm");
    for public in [PUBLIC, PUBLIC.trim(), RSA, RSA.trim()] {
        let forged = Signer::shared(public.as_bytes()).unwrap().sign(&claims);
        denied(&send(&config(public, ""), &forged), "check_header_wrong_algorithm");
    }
    for header in [r#"{"alg":"none"}"#, r#"{"alg":"HS512"}"#, r#"{"alg":"RS256"}"#] {
        let forged = Signer::shared(SECRET.as_bytes()).unwrap().sign_with_header(header, &claims);
        denied(&send(SEED, &forged), "check_header_wrong_algorithm");
    }
}

#[test]
fn issuer_and_audience_narrow_down_when_they_are_configured() {
    let token = |more: &str| sign(&format!(r#"{{"exp":{},"function":"read_data"{more}}}"#, NOW + 60));
    let issuer = config(SECRET, r#","issuer":"https://policy.example""#);
    passes(&send(&issuer, &token(r#","iss":"https://policy.example""#)));
    denied(&send(&issuer, &token("")), "check_header_wrong_issuer");
    denied(&send(&issuer, &token(r#","iss":"https://policy.example/""#)), "check_header_wrong_issuer");
    denied(&send(&issuer, &token(r#","iss":["https://policy.example"]"#)), "check_header_wrong_issuer");
    let audience = config(SECRET, r#","audience":"data""#);
    passes(&send(&audience, &token(r#","aud":"data""#)));
    passes(&send(&audience, &token(r#","aud":["files","data"]"#)));
    denied(&send(&audience, &token("")), "check_header_wrong_audience");
    denied(&send(&audience, &token(r#","aud":"database""#)), "check_header_wrong_audience");
}

#[test]
fn the_claim_may_be_another() {
    let config = config(SECRET, r#","claim":"scope""#);
    let token = |more: &str| sign(&format!(r#"{{"exp":{}{more}}}"#, NOW + 60));
    passes(&send(&config, &token(r#","scope":["read_data"]"#)));
    denied(&send(&config, &token(r#","function":"read_data""#)), "check_header_not_permitted");
}

#[test]
fn the_key_may_come_from_the_environment() {
    let config = r#"{"read_header":"authz_complete","verification_key_env":"POLICY_KEY","function":"read_data"}"#;
    let mut proxy =
        plugwright_sdk::proxy!(CheckHeader).on(host().with_env("POLICY_KEY", SECRET)).configure(config).unwrap();
    passes(&proxy.send(get("/").header("authz_complete", good())));
    for host in [host(), host().with_env("POLICY_KEY", "")] {
        let error = plugwright_sdk::proxy!(CheckHeader).on(host).configure(config).unwrap_err().to_string();
        let reason = "names a variable that is not in the VM's environment; set it in vmConfig.env";
        assert_eq!(error, format!("verification_key_env: {reason}"));
    }
    let error = plugwright_sdk::proxy!(CheckHeader)
        .on(host().with_env("POLICY_KEY", "short"))
        .configure(config)
        .unwrap_err()
        .to_string();
    assert_eq!(error, "verification_key_env: has fewer than 16 bytes");
}

#[test]
fn a_weak_shared_key_is_warned_of() {
    let text = "verification_key: the shared key has 27 bytes; HS256 asks for 32 or more".to_owned();
    assert_eq!(proxy(SEED).logs(), [(LogLevel::Warn, text)]);
    assert_eq!(proxy(&config("0123456789abcdef0123456789abcdef", "")).logs(), []);
    assert_eq!(proxy(&config(PUBLIC, "")).logs(), []);
}

#[test]
fn a_configuration_that_is_no_good_is_refused_by_its_field() {
    let bare: String = PUBLIC.lines().filter(|line| !line.starts_with('-')).collect();
    for (text, error) in [
        (String::new(), "read_header: is missing"),
        ("{}".to_owned(), "read_header: is missing"),
        (config(SECRET, "").replace("authz_complete", "authz complete"), "read_header: is not a header's name"),
        (config(SECRET, "").replace("authz_complete", ":path"), "read_header: is not a header's name"),
        (config(SECRET, "").replace("verification_key", "key"), {
            "key: is not a field here; known are read_header, verification_key, verification_key_env, function, claim, \
             issuer, audience, clock_skew_seconds"
        }),
        (r#"{"read_header":"x","function":"f"}"#.to_owned(), "verification_key: is missing"),
        (config(SECRET, r#","verification_key_env":"K""#), "verification_key_env: is given beside verification_key"),
        (config(SECRET, "").replace("read_data", ""), "function: is empty"),
        (config(SECRET, r#","issuer":"""#), "issuer: is empty"),
        (config(SECRET, r#","clock_skew_seconds":601"#), "clock_skew_seconds: is more than 600"),
        (config(SECRET, r#","clock_skew_seconds":-1"#), "clock_skew_seconds: expected u64"),
        (config("fifteen bytes..", ""), "verification_key: has fewer than 16 bytes"),
        (config(PRIVATE, ""), "verification_key: is a private key; give the public one"),
        (config(&PUBLIC.replace("PUBLIC", "SECRET"), ""), {
            "verification_key: is neither an RSA nor a P-256 public key"
        }),
        (config(&bare, ""), {
            "verification_key: looks like a key without its PEM lines; as a shared key it would be no secret"
        }),
    ] {
        assert_eq!(
            plugwright_sdk::proxy!(CheckHeader).on(host()).configure(&text).unwrap_err().to_string(),
            error,
            "{text}"
        );
    }
}

#[test]
fn the_key_is_in_no_log_and_no_debug_text() {
    let mut proxy = proxy(SEED);
    denied(&proxy.send(get("/").header("authz_complete", "x.y.z")), "check_header_malformed_token");
    assert!(!format!("{:?} {proxy:?}", proxy.logs()).contains("a89g"));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn no_value_that_the_signer_has_not_made_passes(value in "\\PC{0,120}", secret in "[ -~]{16,30}", part in 0_usize..3) {
        let claims = format!(r#"{{"exp":{},"function":"read_data"}}"#, NOW + 60);
        let forged = Signer::shared(secret.as_bytes()).unwrap().sign(&claims);
        let good = good();
        let mut parts: Vec<&str> = good.split('.').collect();
        parts[part] = &value;
        for value in [value.as_str(), forged.as_str(), parts.join(".").as_str()] {
            proptest::prop_assert_eq!(send(SEED, value).status(), 403);
        }
    }
}

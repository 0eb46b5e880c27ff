//! Tokens and key sets that somebody made to do harm.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use jose::json::JsonError;
use jose::{Key, Keys, MAX_KEYS, MAX_SET, MAX_TOKEN, Signer, Token, TokenError};
use proptest::prelude::*;

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
const RSA: &str = include_str!("keys/rfc7515-a2.pem");
const EC: &str = include_str!("keys/rfc7515-a3.pem");
const EC_PRIVATE: &str = include_str!("keys/rfc7515-a3-private.pem");
const X: &str = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
const Y: &str = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0";

fn signer() -> Signer {
    Signer::shared(SECRET).unwrap()
}

fn keys() -> Keys {
    Keys::from(Key::shared(SECRET).unwrap())
}

fn verify(text: &str, keys: &Keys) -> Result<(), TokenError> {
    Token::parse(text)?.verify(keys).map(|_| ())
}

#[track_caller]
fn refused(text: &str, error: TokenError) {
    assert_eq!(verify(text, &keys()), Err(error), "{}", text.get(..80).unwrap_or(text));
}

#[test]
fn what_is_not_three_parts_of_base64url_is_refused() {
    let good = signer().sign("{}");
    let (signed, signature) = good.rsplit_once('.').unwrap();
    for text in [
        "",
        ".",
        "..",
        "...",
        "a.b",
        signed,
        &format!("{good}."),
        &format!("{good}.x"),
        &format!(".{good}"),
        &format!("{good}="),
        &format!("{good} "),
        &format!(" {good}"),
        &format!("{signed}.{signature}\n"),
        &good.replacen('.', "..", 1),
        &good.replace('_', "/").replace('-', "+").replacen('e', "/", 1),
        "é.é.é",
    ] {
        refused(text, TokenError::Format);
    }
}

#[test]
fn a_signature_has_one_spelling() {
    // 32 bytes in base64url leave two bits of the last character unused; they must be zero.
    let good = signer().sign("{}");
    let (head, last) = good.split_at(good.len() - 1);
    let spellings = ('A'..='Z').chain('a'..='z').chain('0'..='9').chain(['-', '_']);
    let taken: Vec<char> = spellings.filter(|c| verify(&format!("{head}{c}"), &keys()).is_ok()).collect();
    assert_eq!(taken.iter().collect::<String>(), last);
}

#[test]
fn a_token_is_bounded_before_it_is_read() {
    let padding = |length: usize| format!(r#"{{"p":"{}"}}"#, "x".repeat(length));
    assert_eq!(verify(&signer().sign(&padding(12_000)), &keys()), Ok(()));
    refused(&signer().sign(&padding(13_000)), TokenError::TooLong);
    refused(&"x".repeat(MAX_TOKEN + 1), TokenError::TooLong);
}

#[test]
fn headers_that_are_no_good_are_refused() {
    let header = |header: &str| signer().sign_with_header(header, "{}");
    refused(&header("[]"), TokenError::Header(JsonError::NotAnObject));
    refused(&header("{"), TokenError::Header(JsonError::Syntax));
    refused(&header(r#"{"alg":"HS256","alg":"none"}"#), TokenError::Header(JsonError::Duplicate));
    refused(&header(&format!(r#"{{"alg":"HS256","x":{}{}}}"#, "[".repeat(99), "]".repeat(99))), {
        TokenError::Header(JsonError::Depth)
    });
    refused(&header("{}"), TokenError::HeaderField);
    refused(&header(r#"{"alg":256}"#), TokenError::HeaderField);
    refused(&header(r#"{"alg":["HS256"]}"#), TokenError::HeaderField);
    refused(&header(r#"{"alg":"HS256","kid":1}"#), TokenError::HeaderField);
    refused(&header(r#"{"alg":"HS256","typ":null}"#), TokenError::HeaderField);
}

#[test]
fn extensions_that_must_be_understood_are_refused() {
    for header in [
        r#"{"alg":"HS256","crit":["b64"],"b64":false}"#,
        r#"{"alg":"HS256","crit":["exp"],"exp":1}"#,
        r#"{"alg":"HS256","crit":[]}"#,
    ] {
        refused(&signer().sign_with_header(header, "{}"), TokenError::Critical);
    }
}

#[test]
fn keys_that_a_token_brings_along_are_not_looked_at() {
    let jwk = format!(r#"{{"kty":"EC","crv":"P-256","x":"{X}","y":"{Y}"}}"#);
    let header =
        format!(r#"{{"alg":"ES256","jwk":{jwk},"jku":"https://evil.example/jwks","x5u":"https://evil.example"}}"#);
    let text = Signer::from_pem(EC_PRIVATE).unwrap().sign_with_header(&header, "{}");
    assert_eq!(verify(&text, &Keys::from(Key::from_pem(EC).unwrap())), Ok(()));
    assert_eq!(verify(&text, &Keys::from(Key::from_pem(RSA).unwrap())), Err(TokenError::Algorithm));
    assert_eq!(verify(&text, &Keys::default()), Err(TokenError::Algorithm));
}

#[test]
fn claims_are_read_after_the_signature() {
    for claims in ["", "[]", "{", r#"{"exp":1,"exp":2}"#] {
        let text = signer().sign(claims);
        let (signed, _) = text.rsplit_once('.').unwrap();
        if claims.is_empty() {
            refused(&text, TokenError::Format);
            continue;
        }
        refused(&format!("{signed}.AAAA"), TokenError::Signature);
        assert!(matches!(verify(&text, &keys()), Err(TokenError::Claims(_))), "{claims}");
    }
}

#[test]
fn a_key_with_the_tokens_id_is_the_only_one_tried() {
    let other = Key::shared(b"another-secret-of-some-length").unwrap();
    let right = Key::shared(SECRET).unwrap();
    let set = |keys: &[Key]| keys.iter().cloned().collect::<Keys>();
    let named = signer().with_id("a").sign("{}");
    let unnamed = signer().sign("{}");

    assert_eq!(verify(&named, &set(&[other.clone().with_id("b"), right.clone().with_id("a")])), Ok(()));
    assert_eq!(
        verify(&named, &set(&[other.clone().with_id("a"), right.clone().with_id("b"), right.clone()])),
        Err(TokenError::Signature)
    );
    assert_eq!(verify(&named, &set(&[right.clone().with_id("b")])), Err(TokenError::UnknownKey));
    assert_eq!(verify(&named, &set(&[other.clone().with_id("b"), right.clone()])), Ok(()));
    assert_eq!(verify(&unnamed, &set(&[other.with_id("b"), right.with_id("a")])), Ok(()));
}

#[test]
fn how_many_keys_one_token_costs_is_bounded() {
    let wrong = |n: usize| Key::shared(format!("another-secret-of-some-length {n}").as_bytes()).unwrap();
    let right = Key::shared(SECRET).unwrap();
    let text = signer().sign("{}");
    let set = |wrongs: usize| (0..wrongs).map(wrong).chain([right.clone()]).collect::<Keys>();
    assert_eq!(verify(&text, &set(7)), Ok(()));
    assert_eq!(verify(&text, &set(8)), Err(TokenError::Signature));
}

#[track_caller]
fn set(keys: &str, usable: usize, left_out: usize) {
    let (set, skipped) = Keys::from_set(format!(r#"{{"keys":[{keys}]}}"#).as_bytes()).unwrap();
    assert_eq!((set.len(), skipped), (usable, left_out), "{keys}");
}

#[test]
fn a_set_keeps_what_it_can_use_and_counts_the_rest() {
    let ec = |more: &str| format!(r#"{{"kty":"EC","crv":"P-256","x":"{X}","y":"{Y}"{more}}}"#);
    set("", 0, 0);
    set(&ec(""), 1, 0);
    set(&ec(r#","use":"sig","alg":"ES256","key_ops":["verify"],"kid":"1""#), 1, 0);
    for other in [
        "1",
        "{}",
        r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#,
        r#"{"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ"}"#,
        r#"{"kty":"RSA","n":"","e":""}"#,
        r#"{"kty":"RSA","n":"AQAB","e":"AQAB"}"#,
        &format!(r#"{{"kty":"RSA","n":"{}","e":"AQAB"}}"#, "_".repeat(20_000)),
        &format!(r#"{{"kty":"RSA","n":"{}A","e":"AQAB"}}"#, "_".repeat(341)),
        &format!(r#"{{"kty":"RSA","n":"{}","e":"AA"}}"#, "_".repeat(342)),
        &format!(r#"{{"kty":"RSA","n":"{}","e":"AQ"}}"#, "_".repeat(342)),
        &ec(r#","use":"enc""#),
        &ec(r#","use":1"#),
        &ec(r#","alg":"ES384""#),
        &ec(r#","alg":"HS256""#),
        &ec(r#","key_ops":["sign"]"#),
        &ec(r#","kid":1"#),
        &ec(r#","d":"jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI""#),
        &ec("").replace("P-256", "P-521"),
        &ec("").replace(X, Y),
        &ec("").replace(X, &X[1..]),
        &ec("").replace(X, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
    ] {
        set(&format!("{other},{}", ec("")), 1, 1);
    }
}

#[test]
fn a_set_is_bounded() {
    let error = |text: &str| Keys::from_set(text.as_bytes()).unwrap_err().to_string();
    let too_large = "the key set has more than 262144 bytes or 64 keys";
    assert_eq!(error(&" ".repeat(MAX_SET + 1)), too_large);
    assert_eq!(error(&format!(r#"{{"keys":[{}]}}"#, vec!["{}"; MAX_KEYS + 1].join(","))), too_large);
    assert_eq!(error("{}"), "the key set has no list `keys`");
    assert_eq!(error(r#"{"keys":{}}"#), "the key set has no list `keys`");
    assert_eq!(error(r#"{"keys":[],"keys":[]}"#), "a name occurs twice in an object");
    assert_eq!(error("<html>"), "not valid JSON");
    assert_eq!(error(&format!(r#"{{"keys":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000))), "nested too deeply");
}

fn all_keys() -> Vec<Keys> {
    let keys = [Key::shared(SECRET), Key::from_pem(RSA), Key::from_pem(EC)].map(Result::unwrap);
    keys.into_iter().map(Keys::from).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_is_taken_for_a_token(text in "\\PC{0,200}") {
        for keys in all_keys() {
            prop_assert!(verify(&text, &keys).is_err());
        }
    }

    #[test]
    fn no_header_makes_a_foreign_signature_right(
        alg in "none|HS256|RS256|ES256|[A-Z0-9]{0,6}", kid in "[a-c]?", claims in "[ -~]{0,40}", secret in "[ -~]{16,40}"
    ) {
        let header = format!(r#"{{"alg":"{alg}","kid":"{kid}"}}"#);
        let text = Signer::shared(secret.as_bytes()).unwrap().sign_with_header(&header, &claims);
        for keys in all_keys() {
            prop_assert!(verify(&text, &keys).is_err());
        }
    }

    #[test]
    fn one_changed_character_makes_it_wrong(at in 0_usize..200, to in "[A-Za-z0-9_.-]") {
        let good = Signer::from_pem(EC_PRIVATE).unwrap().sign(r#"{"sub":"alice","function":"read_data"}"#);
        let at = at % good.len();
        let mut changed = good.clone();
        changed.replace_range(at..=at, &to);
        let taken = verify(&changed, &Keys::from(Key::from_pem(EC).unwrap())).is_ok();
        prop_assert_eq!(taken, changed == good);
    }

    #[test]
    fn no_bytes_make_a_key_panic(n in proptest::collection::vec(any::<u8>(), 0..600), e in proptest::collection::vec(any::<u8>(), 0..8)) {
        use base64ct::{Base64UrlUnpadded, Encoding};
        let (n, e) = (Base64UrlUnpadded::encode_string(&n), Base64UrlUnpadded::encode_string(&e));
        let _ = Key::from_jwk(format!(r#"{{"kty":"RSA","n":"{n}","e":"{e}"}}"#).as_bytes());
        let _ = Key::from_jwk(format!(r#"{{"kty":"EC","crv":"P-256","x":"{n}","y":"{e}"}}"#).as_bytes());
        let _ = Key::from_text(&format!("-----BEGIN PUBLIC KEY-----\n{n}\n-----END PUBLIC KEY-----\n"));
        let _ = Key::from_text(&n);
    }

    #[test]
    fn a_secret_that_does_not_begin_as_der_is_no_bare_key(secret in "[A-LN-Za-z0-9+/_][A-Za-z0-9+/_]{15,88}") {
        prop_assert!(Key::from_text(&secret).is_ok());
    }
}

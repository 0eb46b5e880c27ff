//! What stands around the plugins: an OpenID provider and a policy server that answer at once, and a browser.

use std::cell::RefCell;
use std::rc::Rc;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use harness::offline::{Message, Outcome};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};

/// The time of all cases, in seconds.
pub(crate) const NOW: u64 = 1_700_000_000;

const KEY: &str = include_str!("../../../plugins/openid/tests/site/keys/one.pem");
const JWK: &str = include_str!("../../../plugins/openid/tests/site/keys/one.jwk");

/// Answers what the plugins ask.
#[derive(Clone, Default)]
pub(crate) struct Provider {
    /// Of the sign-in under way.
    nonce: Rc<RefCell<String>>,
}

impl Provider {
    pub(crate) const CONFIGURATION: &str = r#"{"issuer":"https://login.example","client_id":"shop"}"#;
    pub(crate) const ENV: [(&str, &str); 2] = [
        ("OPENID_CLIENT_SECRET", "secret-of-the-shop"),
        ("OPENID_COOKIE_KEYS", "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="),
    ];

    pub(crate) fn answer(&self, request: &Message) -> Message {
        let path = value(request, ":path").unwrap_or_default();
        let body = if path.ends_with("/.well-known/openid-configuration") {
            r#"{"issuer":"https://login.example","authorization_endpoint":"https://login.example/auth",
                "token_endpoint":"https://login.example/token","jwks_uri":"https://login.example/jwks",
                "code_challenge_methods_supported":["S256"]}"#
                .to_owned()
        } else if path.ends_with("/jwks") {
            format!(r#"{{"keys":[{JWK}]}}"#)
        } else if path.ends_with("/token") {
            let id_token = self.id_token();
            format!(r#"{{"token_type":"Bearer","access_token":"a","expires_in":300,"id_token":"{id_token}"}}"#)
        } else {
            return message(&[(":status", "200"), ("content-type", "application/jwt")], &permission());
        };
        message(&[(":status", "200"), ("content-type", "application/json")], &body)
    }

    fn id_token(&self) -> String {
        let claims = format!(
            r#"{{"iss":"https://login.example","aud":"shop","sub":"alice","nonce":"{}","iat":{NOW},"exp":{}}}"#,
            self.nonce.borrow(),
            NOW + 300
        );
        let encode = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
        let signed = format!("{}.{}", encode(r#"{"alg":"ES256","kid":"one"}"#), encode(&claims));
        let pem: String = KEY.lines().filter(|line| !line.starts_with('-')).collect();
        let der = BASE64_STANDARD.decode(pem).expect("PEM");
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der, &random).expect("a key");
        let signature = key.sign(&random, signed.as_bytes()).expect("a signature");
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }

    /// Signs the user in to whom a sign-in was answered: the browser's way back.
    pub(crate) fn signed_in(&self, login: &Outcome) -> Message {
        let location = login.response.as_ref().and_then(|response| value(response, "location")).expect("a location");
        let parameter = |name: &str| {
            let (_, rest) = location.split_once(&format!("{name}=")).expect("a parameter");
            rest.split('&').next().unwrap_or_default().to_owned()
        };
        *self.nonce.borrow_mut() = parameter("nonce");
        let callback = parameter("redirect_uri").replace("%3A", ":").replace("%2F", "/");
        let path = callback.strip_prefix("https://shop.example").expect("this origin");
        let mut request = get(&format!("{path}?code=c&state={}", parameter("state")));
        add(&mut request, "cookie", &cookies(login));
        request
    }
}

pub(crate) fn message(headers: &[(&str, &str)], body: &str) -> Message {
    let mut message = Message { body: body.as_bytes().to_vec(), ..Message::default() };
    for (name, value) in headers {
        add(&mut message, name, value);
    }
    message
}

pub(crate) fn add(message: &mut Message, name: &str, value: &str) {
    message.headers.push((name.as_bytes().to_vec(), value.as_bytes().to_vec()));
}

/// What a browser asks for.
pub(crate) fn get(path: &str) -> Message {
    let headers = [
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", "shop.example"),
        (":path", path),
        ("user-agent", "Mozilla/5.0 (X11; Linux x86_64)"),
        ("accept", "text/html,application/xhtml+xml"),
        ("sec-fetch-mode", "navigate"),
    ];
    message(&headers, "")
}

fn values<'a>(message: &'a Message, name: &'a str) -> impl Iterator<Item = String> + 'a {
    let of_name = message.headers.iter().filter(move |(key, _)| key == name.as_bytes());
    of_name.map(|(_, value)| String::from_utf8_lossy(value).into_owned())
}

pub(crate) fn value(message: &Message, name: &str) -> Option<String> {
    values(message, name).next()
}

/// What a browser sends back of the cookies that it was given.
pub(crate) fn cookies(outcome: &Outcome) -> String {
    let set = outcome.response.iter().flat_map(|response| values(response, "set-cookie"));
    let kept = set.filter(|cookie| !cookie.contains("Max-Age=0"));
    kept.filter_map(|cookie| Some(cookie.split_once(';')?.0.to_owned())).collect::<Vec<_>>().join("; ")
}

/// A token that lets its bearer `read_data`, signed with the shared key of the documentation's example.
pub(crate) fn permission() -> String {
    let claims = format!(r#"{{"sub":"alice","exp":{},"function":"read_data"}}"#, NOW + 300);
    let encode = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
    let signed = format!("{}.{}", encode(r#"{"alg":"HS256"}"#), encode(&claims));
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"a89gAzxvls0JKAKIJSBnnvvvkIO");
    format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(ring::hmac::sign(&key, signed.as_bytes())))
}

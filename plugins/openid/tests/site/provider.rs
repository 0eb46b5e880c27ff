//! An OpenID provider that a test holds in its hands: it checks what it is asked as a real one does, and misbehaves to order.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use base64ct::{Base64, Base64UrlUnpadded, Encoding as _};
use jose::Signer;
use plugwright_sdk::testing::{Clock, Message, Reply, response};
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

pub(crate) const ISSUER: &str = "https://login.example";
pub(crate) const CLIENT: &str = "shop";
pub(crate) const SECRET: &str = "s3cret+/= of the shop";

const ONE: &str = include_str!("keys/one.pem");
const TWO: &str = include_str!("keys/two.pem");
const RSA: &str = include_str!("keys/rsa.pem");
const KEYS: [(&str, &str); 3] = [
    ("one", include_str!("keys/one.jwk")),
    ("two", include_str!("keys/two.jwk")),
    ("rsa", include_str!("keys/rsa.jwk")),
];

/// What the provider is and does; tests change it as they go.
pub(crate) struct Behaviour {
    pub(crate) issuer: String,
    pub(crate) client: String,
    /// Changes the metadata.
    pub(crate) metadata: Value,
    /// Which keys are published, by id, and what else is in the set.
    pub(crate) published: Vec<&'static str>,
    pub(crate) strange_keys: Vec<Value>,
    /// The key that signs.
    pub(crate) signs_with: &'static str,
    /// Members that replace those of the ID token; null takes away.
    pub(crate) claims: Value,
    /// Stands in for the whole ID token.
    pub(crate) id_token: Option<String>,
    /// Members that replace those of the token endpoint's answer.
    pub(crate) answer: Value,
    pub(crate) lifetime: u64,
    pub(crate) rotates: bool,
    /// What every call gets instead of an answer.
    pub(crate) down: Option<Reply>,
    pub(crate) delay: Duration,
    /// What was called, by path.
    pub(crate) calls: BTreeMap<String, u32>,
    codes: BTreeMap<String, BTreeMap<String, String>>,
    refresh_tokens: BTreeMap<String, String>,
    issued: u32,
}

#[derive(Clone)]
pub(crate) struct Provider {
    pub(crate) clock: Clock,
    behaviour: Rc<RefCell<Behaviour>>,
}

impl Provider {
    pub(crate) fn new(clock: &Clock) -> Self {
        let behaviour = Behaviour {
            issuer: ISSUER.to_owned(),
            client: CLIENT.to_owned(),
            metadata: json!({}),
            published: vec!["one", "rsa"],
            strange_keys: Vec::new(),
            signs_with: "one",
            claims: json!({}),
            id_token: None,
            answer: json!({}),
            lifetime: 300,
            rotates: true,
            down: None,
            delay: Duration::ZERO,
            calls: BTreeMap::new(),
            codes: BTreeMap::new(),
            refresh_tokens: BTreeMap::new(),
            issued: 0,
        };
        Self { clock: clock.clone(), behaviour: Rc::new(RefCell::new(behaviour)) }
    }

    /// Changes what it does.
    pub(crate) fn set(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.behaviour.borrow_mut());
    }

    pub(crate) fn calls(&self, path: &str) -> u32 {
        self.behaviour.borrow().calls.get(path).copied().unwrap_or(0)
    }

    /// Signs a user in, as its pages do: where the browser is sent next.
    pub(crate) fn authorize(&self, location: &str) -> String {
        let mut behaviour = self.behaviour.borrow_mut();
        let (endpoint, query) = location.split_once('?').unwrap();
        assert_eq!(endpoint, format!("{}/auth", behaviour.issuer));
        let parameters = parameters(query);
        let parameter = |name: &str| parameters[name].as_str();
        assert_eq!((parameter("response_type"), parameter("client_id")), ("code", behaviour.client.as_str()));
        assert_eq!(parameter("code_challenge_method"), "S256");
        assert!(parameter("scope").split(' ').any(|scope| scope == "openid"));
        assert!(parameter("state").len() >= 43 && parameter("nonce").len() >= 43);
        behaviour.issued += 1;
        let code = format!("code-{}", behaviour.issued);
        let back = format!("{}?code={code}&state={}", parameter("redirect_uri"), parameter("state"));
        behaviour.codes.insert(code, parameters);
        back
    }

    /// Answers a call of the proxy.
    pub(crate) fn answer(&self, call: &Message) -> Reply {
        let mut behaviour = self.behaviour.borrow_mut();
        let path = call.values(":path")[0].to_owned();
        *behaviour.calls.entry(path.clone()).or_default() += 1;
        if let Some(down) = &behaviour.down {
            return down.clone();
        }
        let now = self.clock.since_epoch().as_secs();
        let answer = if path.ends_with("/.well-known/openid-configuration") {
            json_response(200, &behaviour.metadata())
        } else if path.ends_with("/jwks") {
            json_response(200, &behaviour.jwks())
        } else if path.ends_with("/token") {
            behaviour.token(call, now)
        } else {
            response(404)
        };
        Reply::after(behaviour.delay, answer)
    }
}

fn parameters(query: &str) -> BTreeMap<String, String> {
    let pairs: Vec<_> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let map: BTreeMap<_, _> = pairs.iter().cloned().collect();
    assert_eq!(map.len(), pairs.len(), "a parameter is given twice: {query}");
    map
}

fn json_response(status: u16, body: &Value) -> Message {
    response(status).header("content-type", "application/json").body(body.to_string())
}

/// Replaces members; null takes away.
fn merge(into: &mut Value, members: &Value) {
    let object = into.as_object_mut().unwrap();
    for (name, value) in members.as_object().unwrap() {
        if value.is_null() {
            object.remove(name);
        } else {
            object.insert(name.clone(), value.clone());
        }
    }
}

impl Behaviour {
    fn metadata(&self) -> Value {
        let issuer = &self.issuer;
        let mut metadata = json!({
            "issuer": issuer,
            "authorization_endpoint": format!("{issuer}/auth"),
            "token_endpoint": format!("{issuer}/token"),
            "jwks_uri": format!("{issuer}/jwks"),
            "end_session_endpoint": format!("{issuer}/end"),
            "code_challenge_methods_supported": ["S256"],
        });
        merge(&mut metadata, &self.metadata);
        metadata
    }

    fn jwks(&self) -> Value {
        let key = |id: &&str| serde_json::from_str(KEYS.iter().find(|(known, _)| known == id).unwrap().1).unwrap();
        let mut keys: Vec<Value> = self.strange_keys.clone();
        keys.extend(self.published.iter().map(key));
        json!({"keys": keys})
    }

    fn token(&mut self, call: &Message, now: u64) -> Message {
        let form = parameters(std::str::from_utf8(call.bytes()).unwrap());
        let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let pair = Base64::encode_string(format!("{}:{}", encode(&self.client), encode(SECRET)).as_bytes());
        let basic = call.values("authorization") == [format!("Basic {pair}")];
        let post = form.get("client_secret").is_some_and(|secret| secret == SECRET) && form["client_id"] == self.client;
        let refuse = |error: &str| json_response(400, &json!({"error": error, "error_description": "<b>secret</b>"}));
        if basic == post {
            return json_response(401, &json!({"error": "invalid_client"}));
        }
        let nonce = match form["grant_type"].as_str() {
            "authorization_code" => {
                let Some(asked) = self.codes.remove(&form["code"]) else { return refuse("invalid_grant") };
                let challenge = Base64UrlUnpadded::encode_string(&Sha256::digest(form["code_verifier"].as_bytes()));
                if asked["redirect_uri"] != form["redirect_uri"] || asked["code_challenge"] != challenge {
                    return refuse("invalid_grant");
                }
                asked["nonce"].clone()
            }
            "refresh_token" => {
                let token = &form["refresh_token"];
                let known = if self.rotates {
                    self.refresh_tokens.remove(token)
                } else {
                    self.refresh_tokens.get(token).cloned()
                };
                let Some(nonce) = known else { return refuse("invalid_grant") };
                nonce
            }
            _ => return refuse("unsupported_grant_type"),
        };
        self.issued += 1;
        let refresh_token = format!("refresh-{}", self.issued);
        self.refresh_tokens.insert(refresh_token.clone(), nonce.clone());
        let mut claims = json!({
            "iss": self.issuer, "aud": self.client, "sub": "alice", "nonce": nonce,
            "iat": now, "exp": now + self.lifetime, "jti": self.issued,
        });
        merge(&mut claims, &self.claims);
        let id_token = self.id_token.clone().unwrap_or_else(|| sign(self.signs_with, &claims));
        let mut answer = json!({
            "token_type": "Bearer", "access_token": format!("opaque-{}", self.issued), "expires_in": self.lifetime,
            "id_token": id_token, "refresh_token": refresh_token,
        });
        merge(&mut answer, &self.answer);
        json_response(200, &answer)
    }
}

/// Signs claims with one of the test's keys.
pub(crate) fn sign(key: &str, claims: &Value) -> String {
    if key == "rsa" {
        return sign_rs256(&json!({"alg": "RS256", "kid": "rsa"}), claims);
    }
    signer(key).with_id(key).sign(&claims.to_string())
}

pub(crate) fn signer(key: &str) -> Signer {
    Signer::from_pem(if key == "two" { TWO } else { ONE }).unwrap()
}

fn sign_rs256(header: &Value, claims: &Value) -> String {
    let encode = |value: &Value| Base64UrlUnpadded::encode_string(value.to_string().as_bytes());
    let signed = format!("{}.{}", encode(header), encode(claims));
    let base64: String = RSA.lines().filter(|line| !line.starts_with('-')).collect();
    let key = RsaKeyPair::from_pkcs8(&Base64::decode_vec(&base64).unwrap()).unwrap();
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature).unwrap();
    format!("{signed}.{}", Base64UrlUnpadded::encode_string(&signature))
}

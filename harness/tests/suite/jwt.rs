//! `RequestAuthentication`: which tokens pass, what becomes of them, and what the others are told.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use harness::chain::Given;
use serde_json::{Value, json};

use crate::support::{Harness, Recorder, Reply, load_chain, load_chain_with, resolved};
use crate::tls::terminator;
use crate::tokens::{KEY, Signer, encode, now, token};

/// A `RequestAuthentication` with these rules, in which `KEY` stands for the key set of the tests' own key.
fn authentication(rules: &str) -> String {
    let rules = rules.replace("KEY", &format!("'{}'", KEY.jwks()));
    format!(
        "---\n{{apiVersion: security.istio.io/v1, kind: RequestAuthentication, metadata: {{name: jwt}}, \
         spec: {{jwtRules: [{rules}]}}}}\n"
    )
}

fn harness(rules: &str) -> Harness {
    Harness::of_manifests(&authentication(rules), |_| {})
}

fn bearer(harness: &Harness, token: &str) -> Reply {
    harness.send("GET", "/a?b=1", &[("authorization", &format!("Bearer {token}"))], "")
}

#[track_caller]
fn refused(reply: &Reply, status: u16, body: &str) {
    assert_eq!((reply.status, reply.body.as_str()), (status, body));
}

#[test]
fn every_algorithm_is_verified_and_a_changed_token_is_not() {
    for alg in
        ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "HS256", "HS384", "HS512", "EdDSA"]
    {
        let signer = Signer::new(alg);
        let rules = format!("{{issuer: i, jwks: '{}'}}", signer.jwks());
        let harness = harness(&rules);
        let good = signer.token(&json!({"alg": alg}), &json!({"iss": "i"}));
        assert_eq!(bearer(&harness, &good).status, 200, "{alg}");
        let (head, signature) = good.rsplit_once('.').unwrap();
        let (header, _) = head.split_once('.').unwrap();
        let changed = format!("{header}.{}.{signature}", encode(r#"{"iss":"i","admin":true}"#));
        refused(&bearer(&harness, &changed), 401, "Jwt verification fails");
    }
}

#[test]
fn a_key_of_another_kind_verifies_nothing() {
    // The public key as an HMAC secret, and the algorithm changed to fit: the classical confusion.
    let rsa = Signer::new("RS256");
    let harness = harness(&format!("{{issuer: i, jwks: '{}'}}", rsa.jwks()));
    let modulus = rsa.jwk(&json!({}))["n"].as_str().unwrap().to_owned();
    let forged = Signer::Hmac(modulus.into_bytes()).token(&json!({"alg": "HS256"}), &json!({"iss": "i"}));
    refused(&bearer(&harness, &forged), 401, "Jwt verification fails");
    let unsigned = format!("{}.{}.", encode(r#"{"alg":"none"}"#), encode(r#"{"iss":"i"}"#));
    let form = "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections";
    refused(&bearer(&harness, &unsigned), 401, form);
    refused(&bearer(&harness, &format!("{unsigned}x")), 401, "Jwt header [alg] is not supported");
    let p521 = Signer::new("ES256").token(&json!({"alg": "ES512"}), &json!({"iss": "i"}));
    refused(&bearer(&harness, &p521), 401, "Jwt verification fails");
}

#[test]
fn outcomes_are_envoys() {
    let harness = harness("{issuer: i, audiences: [https://api.example/], jwks: KEY}");
    let aud = "api.example";
    let cases = [
        (json!({"iss": "i", "aud": aud}), 200, ""),
        (json!({"iss": "i", "aud": ["x", "http://api.example"]}), 200, ""),
        (json!({"iss": "i", "aud": aud, "exp": now() - 30}), 200, ""),
        (json!({"iss": "i", "aud": aud, "nbf": now() + 30}), 200, ""),
        (json!({"iss": "i", "aud": aud, "exp": now() - 90}), 401, "Jwt is expired"),
        (json!({"iss": "i", "aud": aud, "nbf": now() + 90}), 401, "Jwt not yet valid"),
        (json!({"iss": "other", "aud": aud}), 401, "Jwt issuer is not configured"),
        (json!({"aud": aud}), 401, "Jwt issuer is not configured"),
        (json!({"iss": "i"}), 403, "Audiences in Jwt are not allowed"),
        (json!({"iss": "i", "aud": ["x"]}), 403, "Audiences in Jwt are not allowed"),
        (json!({"iss": 1, "aud": aud}), 401, "Jwt payload [iss] field is not a string"),
        // Time comes before audiences, and both before the signature.
        (json!({"iss": "i", "exp": 1}), 401, "Jwt is expired"),
    ];
    for (claims, status, body) in cases {
        let reply = bearer(&harness, &token(&claims));
        assert_eq!(reply.status, status, "{claims}: {}", reply.body);
        if status != 200 {
            assert_eq!(reply.body, body, "{claims}");
        }
    }
}

#[test]
fn a_denial_has_envoys_headers_and_details() {
    let harness = harness("{issuer: i, jwks: KEY}");
    let reply = bearer(&harness, "x");
    assert_eq!(reply.status, 401);
    assert_eq!(
        reply.header("www-authenticate"),
        Some("Bearer realm=\"http://example.com/a?b=1\", error=\"invalid_token\"")
    );
    assert_eq!(reply.header("content-type"), Some("text/plain"));
    harness.log.wait_for(
        "by Some(\"envoy.filters.http.jwt_authn\") jwt_authn_access_denied{Jwt_is_not_in_the_form_of_\
         Header.Payload.Signature_with_two_dots_and_3_sections}",
    );
    let long = "x".repeat(300);
    let reply = harness.send("GET", &format!("/{long}"), &[("authorization", "Bearer x")], "");
    let realm = format!("Bearer realm=\"http://example.com/{}\", error=\"invalid_token\"", &long[..255]);
    assert_eq!(reply.header("www-authenticate"), Some(realm.as_str()));
}

#[test]
fn a_request_without_a_token_passes_and_its_token_does_not() {
    let harness = harness("{issuer: i, jwks: KEY}");
    assert_eq!(harness.get("/").status, 200);
    assert_eq!(harness.send("GET", "/", &[("authorization", "Basic eDp5")], "").status, 200);
    let reply = bearer(&harness, &token(&json!({"iss": "i"})));
    assert_eq!((reply.status, reply.echoed("authorization")), (200, vec![]));
    let preflight = [("origin", "x"), ("access-control-request-method", "GET"), ("authorization", "Bearer bad")];
    assert_eq!(harness.send("OPTIONS", "/", &preflight, "").status, 200);
    assert_eq!(harness.send("OPTIONS", "/", &preflight[1..], "").status, 401);
}

#[test]
fn tokens_are_taken_from_where_the_rule_says() {
    let harness = harness(
        "{issuer: i, jwks: KEY, fromHeaders: [{name: X-Token, prefix: 'T '}, {name: x-raw}], fromParams: [tok],
          fromCookies: [session]}",
    );
    let good = token(&json!({"iss": "i"}));
    let get = |path: &str, header: &str, value: &str| {
        let headers = [(header, value)];
        harness.send("GET", path, if header.is_empty() { &[] } else { &headers }, "")
    };
    let reply = get("/", "x-token", &format!("T {good}"));
    assert_eq!((reply.status, reply.echoed("x-token")), (200, vec![]));
    assert_eq!(get("/", "x-raw", &good).status, 200);
    let reply = get(&format!("/p?a=%20&tok={good}&z"), "", "");
    assert_eq!((reply.status, reply.echo()["path"].as_str()), (200, Some("/p?a=%20&z")));
    let reply = get("/", "cookie", &format!("a=b; session={good}"));
    assert_eq!((reply.status, reply.echoed("cookie").len()), (200, 1));
    for (path, header, value) in
        [("/", "x-token", "T bad"), ("/", "x-raw", "bad"), ("/?tok=bad", "", ""), ("/", "cookie", "session=\"bad\"")]
    {
        assert_eq!(get(path, header, value).status, 401, "{path} {header}");
    }
    // Named places replace the usual ones, and a prefix that is not there means no token.
    assert_eq!(get("/?access_token=bad", "authorization", "Bearer bad").status, 200);
    assert_eq!(get("/", "x-token", "bad").status, 200);
}

#[test]
fn the_usual_places_are_the_header_and_the_access_token() {
    let harness = harness("{issuer: i, jwks: KEY}");
    let good = token(&json!({"iss": "i"}));
    let reply = harness.get(&format!("/?access_token={good}"));
    assert_eq!((reply.status, reply.echo()["path"].as_str()), (200, Some("/")));
    refused(
        &harness.get("/?access_token=bad"),
        401,
        "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections",
    );
}

#[test]
fn claims_go_where_the_rule_says_and_nobody_else_can_say_them() {
    let harness = harness(
        "{issuer: i, jwks: KEY, forwardOriginalToken: true, outputPayloadToHeader: x-payload,
          outputClaimToHeaders: [{header: X-Sub, claim: sub}, {header: x-city, claim: address.city},
          {header: x-n, claim: num}, {header: x-list, claim: list}]}",
    );
    let good = token(&json!({"iss": "i", "sub": "me", "address": {"city": "Bern"}, "num": 3, "list": ["a"]}));
    let forged = [("x-sub", "root"), ("x-payload", "root"), ("x-list", "root")];
    let authorization = format!("Bearer {good}");
    let mut headers = forged.to_vec();
    headers.push(("authorization", &authorization));
    let reply = harness.send("GET", "/", &headers, "");
    assert_eq!(reply.echoed("x-sub"), ["me"]);
    assert_eq!(reply.echoed("x-city"), ["Bern"]);
    assert_eq!(reply.echoed("x-n"), ["3"]);
    assert_eq!(reply.echoed("x-list"), ["WyJhIl0="]);
    assert_eq!(reply.echoed("x-payload"), [good.split('.').nth(1).unwrap()]);
    assert_eq!(reply.echoed("authorization"), [authorization.as_str()]);
    let without = harness.send("GET", "/", &forged, "");
    assert_eq!(without.status, 200);
    assert!(["x-sub", "x-payload", "x-list"].iter().all(|name| without.echoed(name).is_empty()));
}

#[test]
fn several_rules_share_a_place_and_each_token_needs_one() {
    let other = Signer::new("ES256");
    let rules = format!("{{issuer: a, jwks: KEY}}, {{issuer: b, jwks: '{}'}}", other.jwks());
    let harness = harness(&rules);
    let of_b = |signer: &Signer, exp| signer.token(&json!({"alg": "ES256"}), &json!({"iss": "b", "exp": exp}));
    assert_eq!(bearer(&harness, &token(&json!({"iss": "a"}))).status, 200);
    assert_eq!(bearer(&harness, &of_b(&other, now() + 60)).status, 200);
    assert_eq!(harness.get("/").status, 200);
    // A's key does not make B's tokens. What is said of a token is said by the rule for its issuer.
    refused(&bearer(&harness, &of_b(&KEY, now() + 60)), 401, "Jwt verification fails");
    refused(&bearer(&harness, &token(&json!({"iss": "a", "exp": 1}))), 401, "Jwt is expired");
    refused(&bearer(&harness, &of_b(&other, 1)), 401, "Jwt is expired");
    refused(&bearer(&harness, &token(&json!({"iss": "c"}))), 401, "Jwt issuer is not configured");
    let both = format!("/?access_token={}", of_b(&other, now() + 60));
    let good_and_bad = harness.send("GET", &both, &[("authorization", "Bearer bad")], "");
    assert_eq!(good_and_bad.status, 401, "a bad token beside a good one");
    let bad_and_good = harness.send(
        "GET",
        "/?access_token=bad",
        &[("authorization", &format!("Bearer {}", token(&json!({"iss": "a"}))))],
        "",
    );
    assert_eq!(bad_and_good.status, 401, "a bad token beside a good one");
}

#[test]
fn kids_choose_keys() {
    let other = Signer::new("ES256");
    let keys = json!({"keys": [KEY.jwk(&json!({"kid": "one"})), other.jwk(&json!({"kid": "two", "alg": "ES256"})),
        {"kty": "unknown"}, 7]});
    let harness = harness(&format!("{{issuer: i, jwks: '{keys}'}}"));
    let of = |signer: &Signer, header: &Value| signer.token(header, &json!({"iss": "i"}));
    assert_eq!(bearer(&harness, &of(&KEY, &json!({"alg": "ES256", "kid": "one"}))).status, 200);
    assert_eq!(bearer(&harness, &of(&other, &json!({"alg": "ES256"}))).status, 200);
    refused(&bearer(&harness, &of(&KEY, &json!({"alg": "ES256", "kid": "two"}))), 401, "Jwt verification fails");
    let unknown = "Jwks doesn't have key to match kid or alg from Jwt";
    refused(&bearer(&harness, &of(&KEY, &json!({"alg": "ES256", "kid": "three"}))), 401, unknown);
}

#[test]
fn inline_keys_of_which_none_can_be_used_are_refused() {
    for keys in ["{}", r#"{"keys": []}"#, r#"{"keys": 1}"#, r#"{"keys": [{"kty": "RSA", "n": "AQ", "e": "AQAB"}]}"#] {
        let manifest = authentication(&format!("{{issuer: i, jwks: '{keys}'}}"));
        let Err(error) = load_chain(&resolved(&manifest), &[], Arc::default()) else { panic!("{keys}") };
        assert_eq!(
            error.to_string(),
            "RequestAuthentication default/jwt: none of the keys in `jwks` of issuer i can be used"
        );
    }
}

#[test]
fn certificates_as_keys_are_refused_by_name() {
    let manifest = authentication(r#"{issuer: i, jwks: '{"kid": "-----BEGIN CERTIFICATE-----\n"}'}"#);
    let Err(error) = load_chain(&resolved(&manifest), &[], Arc::default()) else { panic!("it loaded") };
    assert_eq!(
        error.to_string(),
        "RequestAuthentication default/jwt, whose `jwks` are X.509 certificates, is not yet executed by the harness"
    );
}

/// A server whose answer can be changed, and what was asked of it.
struct KeyServer {
    address: SocketAddr,
    answer: Arc<Mutex<String>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl KeyServer {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (answer, asked) = (Arc::new(Mutex::new(String::new())), Arc::new(Mutex::new(Vec::new())));
        let (answers, ask) = (answer.clone(), asked.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut request = Vec::new();
                let mut byte = [0];
                while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
                    request.push(byte[0]);
                }
                let line = String::from_utf8_lossy(&request).lines().next().unwrap_or_default().to_owned();
                let body = if line.contains("/.well-known/") {
                    json!({"jwks_uri": format!("http://{address}/found")}).to_string()
                } else {
                    answers.lock().unwrap().clone()
                };
                let target = line.split(' ').nth(1).unwrap_or_default();
                let (status, more) = match target.split_once('?') {
                    // Where to is in the query.
                    Some(("/elsewhere", to)) => ("302 Found", format!("location: {to}\r\n")),
                    _ if body.is_empty() => ("500 Internal Server Error", String::new()),
                    _ => ("200 OK", String::new()),
                };
                ask.lock().unwrap().push(line);
                let length = body.len();
                let head = format!("HTTP/1.1 {status}\r\n{more}content-length: {length}\r\nconnection: close\r\n\r\n");
                let _ = stream.write_all((head + &body).as_bytes());
            }
        });
        Self { address, answer, asked }
    }

    fn answer(&self, body: String) {
        *self.answer.lock().unwrap() = body;
    }
}

#[test]
fn keys_are_fetched_followed_and_kept() {
    let server = KeyServer::start();
    let (old, new) = (Signer::new("ES256"), Signer::new("EdDSA"));
    let log = Arc::new(Recorder::default());
    let rules = format!("{{issuer: i, jwksUri: 'http://{}/keys?secret=1'}}", server.address);
    let chain = load_chain(&resolved(&authentication(&rules)), &[], log.clone()).unwrap();
    let refresh = chain.refresh_keys();
    let harness = Harness::serve(chain, log, |_| {});
    let of_old = old.token(&json!({"alg": "ES256"}), &json!({"iss": "i"}));
    let of_new = new.token(&json!({"alg": "EdDSA"}), &json!({"iss": "i"}));
    let warning = harness.log.lines().concat();
    assert!(warning.contains("the keys of issuer i cannot be fetched from http://127.0.0.1:"), "{warning}");
    assert!(warning.contains("/keys: the server answered 500") && !warning.contains("secret"), "{warning}");
    // Nothing is enforced less for lack of keys: Istio's stand-in key has signed nothing.
    assert_eq!(bearer(&harness, &of_old).status, 401);
    assert_eq!(harness.get("/").status, 200);
    server.answer(old.jwks());
    refresh();
    assert_eq!([&of_old, &of_new].map(|token| bearer(&harness, token).status), [200, 401]);
    server.answer(new.jwks());
    refresh();
    assert_eq!([&of_old, &of_new].map(|token| bearer(&harness, token).status), [401, 200]);
    server.answer(String::new());
    refresh();
    assert_eq!(bearer(&harness, &of_new).status, 200, "keys that were good stay when the server fails");
    assert!(server.asked.lock().unwrap().iter().all(|line| line == "GET /keys?secret=1 HTTP/1.1"));
}

/// A chain that gets its keys from there, and what a token of the key gets.
fn of_keys_at(url: &str, more: &str, ca_certificates: Vec<String>) -> (Harness, Reply) {
    let log = Arc::new(Recorder::default());
    let chain = resolved(&authentication(&format!("{{issuer: i, jwksUri: '{url}'{more}}}")));
    let given = Given { ca_certificates, ..Given::default() };
    let harness = Harness::serve(load_chain_with(&chain, &[], log.clone(), given).unwrap(), log, |_| {});
    let reply = bearer(&harness, &token(&json!({"iss": "i"})));
    (harness, reply)
}

#[track_caller]
fn not_had(harness: &Harness, reply: &Reply, reason: &str) {
    assert_eq!(reply.status, 401, "no key has signed it: {reply:?}");
    assert_eq!(harness.get("/").status, 200, "who brings no token is not concerned");
    let said = harness.log.lines().concat();
    assert!(said.contains("the keys of issuer i cannot be fetched from ") && said.contains(reason), "{said}");
}

#[test]
fn keys_are_fetched_over_https_from_whom_the_certificate_names_and_nobody_else() {
    let server = KeyServer::start();
    server.answer(KEY.jwks());
    let (address, pem, negotiated) = terminator("localhost", &[], server.address);
    let url = format!("https://localhost:{}/keys", address.port());
    let (_, reply) = of_keys_at(&url, "", vec![pem.clone()]);
    assert_eq!(reply.status, 200);
    assert_eq!(negotiated.lock().unwrap()[0].0.as_deref(), Some("localhost"));
    let (harness, reply) = of_keys_at(&url, "", Vec::new());
    not_had(&harness, &reply, "/keys: its certificate is not trusted, or it speaks no TLS");
    assert!(harness.log.lines().concat().contains("UnknownIssuer"));
    // It is trusted for its own name only.
    let (harness, reply) = of_keys_at(&format!("https://{address}/keys"), "", vec![pem]);
    not_had(&harness, &reply, "its certificate is not trusted");
}

#[test]
fn certificates_to_trust_that_are_none_are_refused_where_keys_are_fetched() {
    let given = || Given { ca_certificates: vec!["text".to_owned()], ..Given::default() };
    let load = |rule: &str| load_chain_with(&resolved(&authentication(rule)), &[], Arc::default(), given());
    let Err(error) = load("{issuer: i, jwksUri: 'https://127.0.0.1:1/keys'}") else { panic!("it loaded") };
    assert_eq!(error.to_string(), "read the certificates to trust: there is no PEM certificate in the text");
    assert!(load("{issuer: i, jwks: KEY}").is_ok());
}

#[test]
fn a_redirect_is_followed_from_one_scheme_to_the_other_and_not_for_ever() {
    let server = KeyServer::start();
    server.answer(KEY.jwks());
    let (address, pem, _) = terminator("localhost", &[], server.address);
    let (plain, secure) = (format!("http://{}", server.address), format!("https://localhost:{}", address.port()));
    for url in [
        format!("{plain}/elsewhere?{secure}/keys"),
        format!("{secure}/elsewhere?{plain}/keys"),
        format!("{plain}/elsewhere?/keys"),
        format!("{plain}/elsewhere?keys"),
        format!("{secure}/elsewhere?//localhost:{}/keys", address.port()),
        format!("{plain}/elsewhere?/elsewhere?/keys"),
    ] {
        assert_eq!(of_keys_at(&url, "", vec![pem.clone()]).1.status, 200, "{url}");
    }
    let (harness, reply) = of_keys_at(&format!("{plain}/elsewhere?"), "", Vec::new());
    not_had(&harness, &reply, "/elsewhere: it was redirected 10 times");
    let (harness, reply) = of_keys_at(&format!("{plain}/elsewhere?ftp://h/keys"), "", Vec::new());
    not_had(&harness, &reply, "that is not an http or https URL");
}

#[test]
fn a_server_that_does_not_answer_in_time_or_without_end_has_no_keys() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/keys", silent.local_addr().unwrap());
    let (harness, reply) = of_keys_at(&url, ", timeout: 1s", Vec::new());
    not_had(&harness, &reply, "/keys: no answer within 1000 ms");
    let server = KeyServer::start();
    server.answer(" ".repeat(33 << 20) + &KEY.jwks());
    let (harness, reply) = of_keys_at(&format!("http://{}/keys", server.address), ", timeout: 60s", Vec::new());
    not_had(&harness, &reply, "/keys: the answer broke off or is too long");
    server.answer("no keys".to_owned());
    let (_, reply) = of_keys_at(&format!("http://{}/keys", server.address), "", Vec::new());
    refused(&reply, 401, "Jwks doesn't have any valid public key");
}

#[test]
fn keys_are_discovered_from_the_issuer() {
    let server = KeyServer::start();
    server.answer(KEY.jwks());
    let issuer = format!("http://{}", server.address);
    let harness = harness(&format!("{{issuer: '{issuer}'}}"));
    assert_eq!(bearer(&harness, &token(&json!({"iss": issuer}))).status, 200);
    let asked = server.asked.lock().unwrap().clone();
    assert_eq!(asked, ["GET /.well-known/openid-configuration HTTP/1.1", "GET /found HTTP/1.1"]);
}

#[test]
fn the_stand_in_key_is_istios() {
    // An odd last byte makes it a modulus that BoringSSL accepts, an even one does not.
    let unreachable = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (end, with_kid, without) in [
        ("long/enough/for/512/bits/a", "Jwks doesn't have key to match kid or alg from Jwt", "Jwt verification fails"),
        ("b", "Jwks doesn't have any valid public key", "Jwks doesn't have any valid public key"),
    ] {
        let harness = harness(&format!("{{issuer: i, timeout: 2s, jwksUri: 'http://{unreachable}/{end}'}}"));
        let of = |header: Value| KEY.token(&header, &json!({"iss": "i"}));
        refused(&bearer(&harness, &of(json!({"alg": "ES256", "kid": "x"}))), 401, with_kid);
        refused(&bearer(&harness, &of(json!({"alg": "ES256"}))), 401, without);
    }
}

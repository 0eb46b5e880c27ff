//! Each threat of the README's table, by its name.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod site;

use plugwright_sdk::testing::response;
use serde_json::{Value, json};
use site::provider::{CLIENT, ISSUER, sign, signer};
use site::{BEGIN, KEY, ORIGIN, Site, configuration, forwarded_token, navigation, request};

#[test]
fn header_smuggling() {
    let smuggled = |request: plugwright_sdk::testing::Message| {
        request.header("authorization", "Bearer forged").header("Authorization", "Basic b2s6dGVzdA==")
    };
    let mut site = Site::new();
    assert_eq!(site.send(smuggled(request("/"))).status(), 401);
    assert_eq!(site.send(smuggled(navigation("/"))).status(), 302);
    let mut site = site.signed_in();
    let exchange = site.send(smuggled(request("/")));
    assert_eq!(forwarded_token(&exchange).split('.').count(), 3);
    // A session in one cookie header of several is the same session, and a second one of its name does not count.
    let cookie = site.jar.remove("__Host-openid").unwrap();
    let several = request("/")
        .header("cookie", "a=1")
        .header("cookie", format!("__Host-openid={cookie}; __Host-openid=1.forged"))
        .header("cookie", "b=2");
    let exchange = site.send(several);
    assert_eq!(exchange.forwarded().unwrap().values("cookie"), ["a=1; b=2"]);
    let forged_first = request("/").header("cookie", format!("__Host-openid=1.forged; __Host-openid={cookie}"));
    assert_eq!(site.send(forged_first).status(), 401);
}

#[test]
fn path_normalisation_bypass() {
    let mut site = Site::new();
    for path in [
        "/_openid/callback/../../secret",
        "/_openid/callback/",
        "/_openid/./callback",
        "//_openid/callback",
        "/_openid/logged-out/..%2f..%2fsecret",
        "/_openid/logged-out;x=y",
        "/%5fopenid/logged-out",
        "/_OPENID/logged-out",
        "/_openid/logged-out%3f",
        "/_openid/logged-out#x",
        "/\\_openid/logged-out",
        "*",
        "",
        "secret",
        "/.well-known/x",
    ] {
        let exchange = site.send(request(path));
        assert_eq!((exchange.status(), exchange.details()), (401, "openid_no_session"), "{path}");
        assert!(exchange.forwarded().is_none(), "{path}");
    }
    // The plugin's own paths never lead to the upstream, whatever comes with them.
    for path in ["/_openid/callback", "/_openid/callback?x", "/_openid/logout?a", "/_openid/logged-out?/../secret"] {
        for method in ["GET", "HEAD", "POST", "OPTIONS"] {
            let exchange = site.send(request(path).without(":method").header(":method", method));
            assert!(exchange.forwarded().is_none(), "{method} {path}");
        }
    }
}

#[test]
fn open_redirect() {
    for path in
        ["//evil.example/x", "/\\evil.example", "///evil.example", "/%2f%2fevil.example", "/?next=//evil.example"]
    {
        let mut site = Site::new();
        let location = site.sign_in(path).values("location")[0].to_owned();
        assert_eq!(location, format!("{ORIGIN}{path}"), "it is an absolute URL of the same origin");
    }
    for path in ["http://evil.example/", "evil.example", "*", "/a b", "/é"] {
        let mut site = Site::new();
        assert_eq!(site.sign_in(path).values("location"), [format!("{ORIGIN}/")], "{path}");
    }
    let long = format!("/{}", "a".repeat(3000));
    assert_eq!(Site::new().sign_in(&long).values("location"), [format!("{ORIGIN}/")]);
    // A host that is none makes no origin.
    for host in ["evil.example/x", "shop.example@evil.example", "a b", "", "shop.example:x", "shop.example\r\nx: y"] {
        let exchange = Site::new().send(navigation("/").header("host", host));
        assert_eq!((exchange.status(), exchange.details()), (400, "openid_bad_host"), "{host}");
    }
    // What was begun on one host does not end on another.
    let mut site = Site::new();
    let back = site.go_to_provider("/");
    let exchange = site.send(navigation(&back).header("host", "evil.example"));
    assert_eq!(exchange.details(), "openid_state_mismatch");
}

#[test]
fn login_csrf_on_callback() {
    // The attacker's code and state, in the victim's browser.
    let mut attacker = Site::new();
    let back = attacker.go_to_provider("/");
    let mut victim = Site::new();
    let refused = |exchange: &plugwright_sdk::testing::Exchange| {
        assert_eq!((exchange.status(), exchange.details()), (400, "openid_state_mismatch"));
        assert!(exchange.values("set-cookie").is_empty());
    };
    refused(&victim.browse(&back));
    // Beside a sign-in of the victim's own.
    let own = victim.go_to_provider("/");
    refused(&victim.browse(&back));
    let state = own.split_once("&state=").unwrap().1.to_owned();
    for query in [
        "",
        "code=x",
        &format!("state={state}"),
        &format!("code=&state={state}"),
        &format!("code=x&error=y&state={state}"),
        &format!("code=x&code=y&state={state}"),
        &format!("code=x&state={state}&state={state}"),
        &format!("code=x&state={}A", &state[..state.len() - 1]),
        &format!("code=x&state={}", &state[..8]),
        &format!("code=x&state={state}%00"),
    ] {
        refused(&victim.browse(&format!("/_openid/callback?{query}")));
    }
    assert_eq!(victim.provider.calls("/token"), 0);
    let exchange = victim.browse(&format!("/_openid/callback?code=x&state={state}&iss=https%3A%2F%2Fevil.example"));
    assert_eq!(exchange.details(), "openid_state_mismatch");
    assert_eq!(victim.provider.calls("/token"), 0);
}

#[test]
fn a_sign_in_takes_no_longer_than_ten_minutes() {
    let mut site = Site::new();
    let back = site.go_to_provider("/");
    site.pass(601);
    assert_eq!(site.browse(&back).details(), "openid_state_mismatch");
}

#[test]
fn session_fixation() {
    // A session that the attacker planted is replaced by the user's own when he signs in.
    let planted = Site::new().signed_in().jar;
    let mut site = Site::new();
    let back = site.go_to_provider("/");
    site.jar.extend(planted.clone());
    assert_eq!(site.browse(&back).details(), "openid_logged_in");
    assert_ne!(site.jar["__Host-openid"], planted["__Host-openid"]);
    // Other hosts and subdomains cannot plant one: the prefix forbids it.
    assert!(site.jar.keys().all(|name| name.starts_with("__Host-")));
    // What the attacker keeps of a sign-in of his own opens as no session.
    let mut attacker = Site::new();
    attacker.go_to_provider("/");
    let login = attacker.jar.values().next().unwrap().clone();
    attacker.jar = [("__Host-openid".to_owned(), format!("1.{login}"))].into();
    assert_eq!(attacker.browse("/").details(), "openid_login");
}

#[test]
fn replayed_code() {
    let mut site = Site::new();
    let back = site.go_to_provider("/");
    let before = site.jar.clone();
    assert_eq!(site.browse(&back).details(), "openid_logged_in");
    assert_eq!(site.browse(&back).details(), "openid_state_mismatch");
    // Even with the cookie of that time the provider refuses the code.
    site.jar = before;
    let exchange = site.browse(&back);
    assert_eq!((exchange.status(), exchange.details()), (400, "openid_code_refused"));
    assert!(site.jar.is_empty());
}

#[test]
fn cookie_truncation() {
    let site = Site::new();
    site.provider.set(|provider| provider.claims = json!({"groups": vec!["a group"; 600]}));
    let mut site = site.signed_in();
    let whole = site.jar.clone();
    assert!(whole.len() > 2);
    for name in whole.keys() {
        site.jar.clone_from(&whole);
        site.jar.remove(name);
        assert_eq!(site.send(request("/")).status(), 401, "without {name}");
        site.jar.clone_from(&whole);
        site.jar.get_mut(name).unwrap().pop();
        assert_eq!(site.send(request("/")).status(), 401, "{name} is shorter");
    }
    site.jar.clone_from(&whole);
    assert_eq!(site.send(request("/")).status(), 200);
}

#[test]
fn tampered_cookie() {
    let mut site = Site::new().signed_in();
    let good = site.jar["__Host-openid"].clone();
    for index in (0..good.len()).step_by(7) {
        let mut bytes = good.clone().into_bytes();
        bytes[index] = if bytes[index] == b'A' { b'B' } else { b'A' };
        site.jar.insert("__Host-openid".to_owned(), String::from_utf8(bytes).unwrap());
        assert_eq!(site.send(request("/")).status(), 401, "byte {index}");
    }
}

/// The plugin's decisions on secrets are those of constant-time comparisons; what can be seen here is that neither the
/// length of a common prefix nor that of the whole changes an answer in any way.
#[test]
fn timing() {
    let mut site = Site::new();
    let back = site.go_to_provider("/");
    let state = back.split_once("&state=").unwrap().1.to_owned();
    let mut answers = Vec::new();
    for length in 8..state.len() {
        let wrong = format!("{}{}", &state[..length], "!".repeat(state.len() - length));
        answers.push(site.browse(&format!("/_openid/callback?code=x&state={wrong}")));
    }
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(answers[0].details(), "openid_state_mismatch");
}

/// What becomes of a sign-in whose ID token is this one.
fn with_token(token: impl FnOnce(&Value) -> String) -> (String, Vec<String>) {
    let mut site = Site::new();
    let back = site.go_to_provider("/");
    let claims =
        json!({"iss": ISSUER, "aud": CLIENT, "sub": "alice", "iat": BEGIN, "exp": BEGIN + 300, "nonce": "wrong"});
    let token = token(&claims);
    site.provider.set(|provider| provider.id_token = Some(token));
    let exchange = site.browse(&back);
    assert!(exchange.values("set-cookie").iter().all(|cookie| cookie.contains("Max-Age=0")));
    (exchange.details().to_owned(), site.warnings())
}

#[track_caller]
fn token_is_refused(log: &str, token: impl FnOnce(&Value) -> String) {
    let (details, warnings) = with_token(token);
    assert_eq!(details, "openid_token_refused", "{warnings:?}");
    assert!(warnings.last().unwrap().contains(log), "{warnings:?}");
}

fn base64(text: &str) -> String {
    use base64ct::Encoding as _;
    base64ct::Base64UrlUnpadded::encode_string(text.as_bytes())
}

#[test]
fn algorithm_confusion() {
    let unsigned = |header: &str, claims: &Value| format!("{}.{}.", base64(header), base64(&claims.to_string()));
    for none in ["none", "None", "NONE", ""] {
        let header = json!({"alg": none}).to_string();
        token_is_refused("no key is for the token's algorithm", |claims| unsigned(&header, claims));
    }
    // The public key as a shared one.
    let public = include_str!("site/keys/one.jwk");
    let hmac = jose::Signer::shared(public.trim().as_bytes()).unwrap();
    token_is_refused("no key is for the token's algorithm", |claims| hmac.with_id("one").sign(&claims.to_string()));
    // A signature of one algorithm under the name of another.
    for header in [r#"{"alg":"RS256","kid":"rsa"}"#, r#"{"alg":"RS256"}"#, r#"{"alg":"ES256","kid":"rsa"}"#] {
        let (details, _) = with_token(|claims| signer("one").sign_with_header(header, &claims.to_string()));
        assert_eq!(details, "openid_token_refused", "{header}");
    }
    token_is_refused("crit", |claims| {
        signer("one").sign_with_header(r#"{"alg":"ES256","kid":"one","crit":["b64"]}"#, &claims.to_string())
    });
    token_is_refused("typ", |claims| {
        signer("one").sign_with_header(r#"{"alg":"ES256","kid":"one","typ":"at+jwt"}"#, &claims.to_string())
    });
}

#[test]
fn key_confusion() {
    // Signed by a key that is not the provider's, under the name of one that is.
    token_is_refused("signature is wrong", |claims| signer("two").with_id("one").sign(&claims.to_string()));
    token_is_refused("no key has the id", |claims| signer("two").with_id("two").sign(&claims.to_string()));
    // Keys in the token itself count for nothing.
    let jwk: Value = serde_json::from_str(include_str!("site/keys/two.jwk")).unwrap();
    let header = json!({"alg": "ES256", "jwk": jwk, "jku": "https://evil.example", "kid": "two"}).to_string();
    token_is_refused("no key has the id", |claims| signer("two").sign_with_header(&header, &claims.to_string()));
    // A shared key, one for encryption and one of another kind among the published ones are passed over.
    let mut site = Site::new();
    let mut encrypts: Value = serde_json::from_str(include_str!("site/keys/two.jwk")).unwrap();
    encrypts["use"] = "enc".into();
    site.provider.set(|provider| {
        provider.strange_keys =
            vec![json!({"kty": "oct", "k": "c2VjcmV0", "kid": "two"}), encrypts, json!(7), json!({})];
        provider.signs_with = "two";
    });
    assert_eq!(site.sign_in("/").details(), "openid_token_refused");
    site.provider.set(|provider| provider.signs_with = "one");
    assert_eq!(site.sign_in("/").details(), "openid_logged_in");
}

#[test]
fn every_claim_of_an_id_token_is_checked() {
    let check = |claims: Value, log: &str| {
        let mut site = Site::new();
        site.provider.set(|provider| provider.claims = claims.clone());
        let exchange = site.sign_in("/");
        let warnings = site.warnings();
        if log.is_empty() {
            assert_eq!(exchange.details(), "openid_logged_in", "{claims}: {warnings:?}");
        } else {
            assert_eq!((exchange.status(), exchange.details()), (502, "openid_token_refused"), "{claims}");
            assert!(warnings[0].contains(log), "{claims}: {warnings:?}");
        }
    };
    check(json!({"iss": "https://evil.example"}), "iss");
    check(json!({"iss": format!("{ISSUER}/")}), "iss");
    check(json!({"iss": null}), "iss");
    check(json!({"aud": "other"}), "aud");
    check(json!({"aud": ["other"]}), "aud");
    check(json!({"aud": [CLIENT]}), "");
    check(json!({"aud": null}), "aud");
    check(json!({"aud": [CLIENT, "other"]}), "azp");
    check(json!({"aud": [CLIENT, "other"], "azp": CLIENT}), "");
    check(json!({"aud": [CLIENT, "other"], "azp": "other"}), "azp");
    check(json!({"azp": "other"}), "azp");
    check(json!({"azp": 7}), "azp");
    check(json!({"nonce": null}), "nonce");
    check(json!({"nonce": "another"}), "nonce");
    check(json!({"sub": null}), "sub");
    check(json!({"sub": ""}), "sub");
    check(json!({"sub": "x".repeat(256)}), "sub");
    check(json!({"iat": null}), "iat");
    check(json!({"exp": null}), "no exp");
    check(json!({"exp": "soon"}), "exp");
    // Within the skew of 30 s, and beyond.
    check(json!({"exp": BEGIN - 29}), "");
    check(json!({"exp": BEGIN - 30}), "expired");
    check(json!({"iat": BEGIN + 30}), "");
    check(json!({"iat": BEGIN + 31}), "future");
    check(json!({"nbf": BEGIN + 31}), "not valid yet");
}

#[test]
fn oversized_tokens() {
    let check = |claims: Value, details: &str| {
        let mut site = Site::new();
        site.provider.set(|provider| provider.claims = claims);
        assert_eq!(site.sign_in("/").details(), details, "{:?}", site.warnings());
        assert!(site.jar.len() <= 8);
    };
    check(json!({"x": "x".repeat(11_000)}), "openid_logged_in");
    check(json!({"x": "x".repeat(13_000)}), "openid_token_refused");
    check(json!({"x": "x".repeat(100_000)}), "openid_token_refused");
    let mut site = Site::with(&json!({"forward": "access_token"}));
    let access_token = sign("one", &json!({"x": "x".repeat(11_000)}));
    site.provider.set(|provider| {
        provider.claims = json!({"x": "x".repeat(11_000)});
        provider.answer = json!({"refresh_token": "r".repeat(8192), "access_token": access_token});
    });
    assert_eq!(site.sign_in("/").details(), "openid_session_too_large");
    site.provider.set(|provider| provider.answer = json!({"refresh_token": "r".repeat(8193)}));
    assert_eq!(site.sign_in("/").details(), "openid_token_refused");
}

#[test]
fn oversized_cookies() {
    let mut site = Site::new();
    for value in ["8.".to_owned() + &"A".repeat(60_000), "1.".to_owned() + &"A".repeat(200_000), "9.A".to_owned()] {
        site.jar = [("__Host-openid".to_owned(), value)].into();
        assert_eq!(site.send(request("/")).status(), 401);
    }
    site.jar = (0..5000).map(|n| (format!("__Host-openid-login-{n}"), "A".to_owned())).collect();
    let exchange = site.send(navigation("/"));
    assert_eq!(exchange.details(), "openid_login");
    assert_eq!(site.jar.len(), 1 + 5000 - (exchange.values("set-cookie").len() - 1));
}

#[test]
fn json_depth() {
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    // In the claims, in the metadata, in the keys, in the token endpoint's answer.
    let claims = format!(r#"{{"iss":"{ISSUER}","x":{}}}"#, deep(3000));
    token_is_refused("nested too deeply", |_| signer("one").with_id("one").sign(&claims));
    for body in [deep(60_000), format!(r#"{{"issuer":"{ISSUER}","x":{}}}"#, deep(60_000))] {
        let mut site = Site::with(&json!({"hold_seconds": 1}));
        site.provider.set(|provider| provider.down = Some(response(200).body(body).into()));
        assert_eq!(site.browse("/").details(), "openid_not_ready");
        assert!(site.warnings()[0].contains("nested too deeply"), "{:?}", site.warnings());
    }
    let mut site = Site::new();
    let back = site.go_to_provider("/");
    site.provider.set(|provider| provider.down = Some(response(200).body(deep(30_000)).into()));
    assert_eq!(site.browse(&back).details(), "openid_token_refused");
}

#[test]
fn unbounded_jwks() {
    let mut site = Site::with(&json!({"hold_seconds": 1}));
    site.provider.set(|provider| provider.strange_keys = vec![json!({"kty": "EC"}); 100]);
    assert_eq!(site.browse("/").details(), "openid_not_ready");
    assert!(site.warnings()[0].contains("or 64 keys"), "{:?}", site.warnings());

    let mut site = Site::with(&json!({"hold_seconds": 1}));
    site.provider.set(|provider| provider.strange_keys = vec![json!({"x": "x".repeat(300_000)})]);
    assert_eq!(site.browse("/").details(), "openid_not_ready");

    let mut site = Site::with(&json!({"hold_seconds": 1}));
    site.provider.set(|provider| provider.published.clear());
    assert_eq!(site.browse("/").details(), "openid_not_ready");
    assert!(site.warnings()[0].contains("none of the provider's keys"), "{:?}", site.warnings());
    // A bad set leaves the keys that are there.
    let mut site = Site::with(&json!({"metadata_seconds": 60}));
    let back = site.go_to_provider("/");
    site.provider.set(|provider| provider.strange_keys = vec![json!({"kty": "EC"}); 100]);
    site.pass(61);
    assert_eq!(site.browse(&back).details(), "openid_logged_in");
}

#[test]
fn oversized_answers() {
    let mut site = Site::with(&json!({"hold_seconds": 1}));
    site.provider.set(|provider| provider.metadata = json!({"x": "x".repeat(300_000)}));
    assert_eq!(site.browse("/").details(), "openid_not_ready");
    assert!(site.warnings()[0].contains("more than 262144 bytes"), "{:?}", site.warnings());
    let mut site = Site::new();
    site.provider.set(|provider| provider.answer = json!({"x": "x".repeat(70_000)}));
    assert_eq!(site.sign_in("/").details(), "openid_token_refused");
}

#[test]
fn metadata_cannot_lead_elsewhere() {
    for metadata in [
        json!({"issuer": "https://evil.example"}),
        json!({"authorization_endpoint": "http://login.example/auth"}),
        json!({"authorization_endpoint": "javascript:alert(1)"}),
        json!({"authorization_endpoint": null}),
        json!({"token_endpoint": "http://login.example/token"}),
        json!({"token_endpoint": "/token"}),
        json!({"jwks_uri": 7}),
        json!({"end_session_endpoint": "https://login.example/\r\nx"}),
    ] {
        let mut site = Site::with(&json!({"hold_seconds": 1}));
        site.provider.set(|provider| provider.metadata = metadata.clone());
        assert_eq!(site.browse("/").details(), "openid_not_ready", "{metadata}");
        assert!(site.warnings()[0].contains("the provider's metadata"), "{:?}", site.warnings());
    }
    // A host that no cluster leads to is not called.
    let mut site = Site::new();
    site.provider.set(|provider| provider.metadata = json!({"token_endpoint": "https://evil.example/token"}));
    assert_eq!(site.sign_in("/").details(), "openid_provider_unavailable");
    assert!(site.warnings()[0].contains("did not make the call"), "{:?}", site.warnings());
}

#[test]
fn secrets_are_in_no_log_page_or_debug_output() {
    let mut site = Site::new().signed_in();
    let token = forwarded_token(&site.browse("/"));
    site.provider.set(|provider| provider.claims = json!({"aud": "other"}));
    site.pass(301);
    site.browse("/");
    site.jar.clear();
    site.sign_in("/");
    let logs = format!("{:?}", site.proxy.logs());
    for secret in [site::provider::SECRET, KEY, &token, "opaque-", "refresh-", "code-"] {
        assert!(!logs.contains(secret), "{secret}: {logs}");
    }
    let config: openid::Config =
        serde_json::from_str(&configuration(&json!({"client_secret": "hunter2", "cookie_keys": [KEY]}))).unwrap();
    let text = format!("{config:?}");
    assert!(!text.contains("hunter2") && !text.contains(KEY), "{text}");
}

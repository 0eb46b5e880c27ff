//! The flow as a browser meets it.

mod site;

use std::time::Duration;

use plugwright_sdk::testing::{Reply, post, response};
use serde_json::json;
use site::provider::sign;
use site::{BEGIN, CLUSTER, KEY, ORIGIN, Site, forwarded_token, host, navigation, request};

const SESSION: &str = "__Host-openid";

#[test]
fn a_browser_signs_in_and_comes_back_to_where_it_wanted_to_go() {
    let mut site = Site::new();
    let exchange = site.sign_in("/basket?item=7&x=%2F");
    assert_eq!((exchange.status(), exchange.details()), (302, "openid_logged_in"));
    assert_eq!(exchange.values("location"), [format!("{ORIGIN}/basket?item=7&x=%2F")]);
    assert_eq!(exchange.values("cache-control"), ["no-store"]);
    assert_eq!(site.jar.keys().collect::<Vec<_>>(), [SESSION]);

    let page = site.browse("/basket?item=7&x=%2F");
    assert_eq!((page.status(), page.response().unwrap().bytes()), (200, &b"page"[..]));
    assert_eq!(page.values("set-cookie"), ["site=1"]);
    assert_eq!(forwarded_token(&page).split('.').count(), 3);
    assert!(site.warnings().is_empty(), "{:?}", site.warnings());
}

#[test]
fn the_authorization_request_has_what_the_code_flow_needs() {
    let parameters = json!({"scopes": ["email", "openid"], "authorization_parameters": {"prompt": "consent"}});
    let mut site = Site::with(&parameters);
    site.provider
        .set(|provider| provider.metadata = json!({"authorization_endpoint": "https://login.example/auth?p=1"}));
    let exchange = site.browse("/");
    let location = exchange.values("location")[0].to_owned();
    for part in [
        "https://login.example/auth?p=1&response_type=code&client_id=shop",
        "&redirect_uri=https%3A%2F%2Fshop.example%2F_openid%2Fcallback&scope=openid+email&state=",
        "&nonce=",
        "&code_challenge=",
        "&code_challenge_method=S256&prompt=consent",
    ] {
        assert!(location.contains(part), "{location}");
    }
    assert!(exchange.forwarded().is_none());
}

#[test]
fn the_client_may_show_its_secret_in_the_body() {
    Site::with(&json!({"client_authentication": "client_secret_post"})).signed_in();
}

#[test]
fn tokens_signed_with_rsa_are_taken() {
    let site = Site::new();
    site.provider.set(|provider| provider.signs_with = "rsa");
    let token = forwarded_token(&site.signed_in().browse("/"));
    assert!(token.starts_with("eyJhbGciOiJSUzI1NiI"), "{token}");
}

#[test]
fn the_short_form_finds_the_realm_and_its_issuer() {
    let members = json!({"issuer": null, "client_id": null, "openid_server": "authn", "openid_realm": "ingress"});
    let mut site = Site::on(host, &members, "outbound|80||authn");
    site.provider.set(|provider| {
        provider.issuer = "https://sso.example/realms/ingress".to_owned();
        provider.client = "ingress".to_owned();
    });
    assert_eq!(site.sign_in("/").details(), "openid_logged_in", "{:?}", site.warnings());
    assert_eq!(site.provider.calls("/realms/ingress/.well-known/openid-configuration"), 1);

    let mut site = Site::on(host, &members, "outbound|80||authn");
    site.provider.set(|provider| provider.issuer = "https://sso.example/realms/other".to_owned());
    assert_eq!(site.browse("/").details(), "openid_not_ready");
    assert!(site.warnings()[0].contains("another issuer"), "{:?}", site.warnings());
}

#[test]
fn endpoints_on_other_hosts_have_clusters_of_their_own() {
    let check = |members| {
        let mut site = Site::with(&members);
        let (keys, name) = (site.provider.clone(), members["clusters"]["keys.example"].as_str());
        let name = name.unwrap_or("outbound|443||keys.example").to_owned();
        site.provider.set(|provider| provider.metadata = json!({"jwks_uri": "https://keys.example/jwks"}));
        site.proxy = site.proxy.cluster(&name, move |call| {
            assert_eq!(call.values(":authority"), ["keys.example"]);
            keys.answer(call)
        });
        site.signed_in();
    };
    check(json!({}));
    check(json!({"clusters": {"keys.example": "keys"}}));
}

#[test]
fn requests_that_are_no_navigation_get_401() {
    let mut site = Site::new();
    for request in [
        request("/api").header("accept", "application/json"),
        request("/api").header("sec-fetch-mode", "cors").header("accept", "text/html"),
        request("/api").header("accept", "text/html").header("x-requested-with", "XMLHttpRequest"),
        navigation("/form").without(":method").header(":method", "POST"),
    ] {
        let exchange = site.send(request);
        assert_eq!((exchange.status(), exchange.details()), (401, "openid_no_session"));
        assert_eq!(exchange.values("www-authenticate"), ["Bearer"]);
        assert!(exchange.forwarded().is_none());
    }
    assert_eq!(site.send(request("/").header("accept", "text/html,*/*")).status(), 302);

    let mut always = Site::with(&json!({"redirect": "always"}));
    assert_eq!(always.send(request("/api")).status(), 302);
    assert_eq!(always.send(post("/api")).status(), 401);
    assert_eq!(Site::with(&json!({"redirect": "never"})).browse("/").status(), 401);
}

#[test]
fn requests_before_discovery_are_held_and_then_handled() {
    let mut site = Site::new();
    site.provider.set(|provider| provider.delay = Duration::from_secs(3));
    assert_eq!(site.browse("/").details(), "openid_login");
    // Metadata and keys, one after the other.
    assert_eq!(site.provider.clock.since_epoch().as_secs(), BEGIN + 6);
}

#[test]
fn a_provider_that_is_down_makes_requests_wait_for_a_while_and_never_lets_them_pass() {
    let mut site = Site::with(&json!({"hold_seconds": 7}));
    site.provider.set(|provider| provider.down = Some(Reply::unreachable()));
    let exchange = site.browse("/");
    assert_eq!((exchange.status(), exchange.details()), (503, "openid_not_ready"));
    assert!(exchange.forwarded().is_none());
    assert_eq!(exchange.values("retry-after"), ["5"]);
    assert_eq!(site.provider.clock.since_epoch().as_secs(), BEGIN + 7);
    let page = String::from_utf8(exchange.response().unwrap().bytes().to_vec()).unwrap();
    assert!(page.contains("Please try again in a moment"), "{page}");
    site.provider.set(|provider| provider.down = None);
    assert_eq!(site.browse("/").details(), "openid_login");
}

#[test]
fn a_provider_that_is_slow_is_not_waited_for_longer_than_configured() {
    let mut site = Site::with(&json!({"timeout_seconds": 2, "hold_seconds": 30}));
    let back = site.go_to_provider("/");
    site.provider.set(|provider| provider.down = Some(Reply::never()));
    let before = site.provider.clock.since_epoch().as_secs();
    let exchange = site.browse(&back);
    assert_eq!((exchange.status(), exchange.details()), (503, "openid_provider_unavailable"));
    assert_eq!(site.provider.clock.since_epoch().as_secs() - before, 2);
    // The browser may try again as it is.
    site.provider.set(|provider| provider.down = None);
    assert_eq!(site.browse(&back).details(), "openid_logged_in");
}

#[test]
fn only_so_many_requests_are_held() {
    let mut site = Site::with(&json!({"held_requests": 0}));
    let exchange = site.browse("/");
    assert_eq!((exchange.status(), exchange.details()), (503, "openid_too_many_held"));
}

#[test]
fn a_session_needs_no_provider() {
    let mut site = Site::new().signed_in();
    let mut other = Site::new();
    other.provider.set(|provider| provider.down = Some(Reply::unreachable()));
    other.jar.append(&mut site.jar);
    assert_eq!(other.browse("/").status(), 200);
}

#[test]
fn metadata_and_keys_are_fetched_again_as_time_passes() {
    let mut site = Site::with(&json!({"metadata_seconds": 60})).signed_in();
    assert_eq!(site.provider.calls("/jwks"), 1);
    site.pass(61);
    assert_eq!(site.provider.calls("/jwks"), 2);
    // What was known stays while the provider is away, and is renewed when it is back.
    site.provider.set(|provider| provider.down = Some(Reply::unreachable()));
    site.pass(61);
    site.jar.clear();
    assert_eq!(site.browse("/").details(), "openid_login");
    site.provider.set(|provider| provider.down = None);
    let before = site.provider.calls("/jwks");
    site.pass(31);
    assert_eq!(site.provider.calls("/jwks"), before + 1);
}

#[test]
fn rotated_keys_are_fetched_once_when_a_token_names_an_unknown_one() {
    let mut site = Site::new();
    let back = site.go_to_provider("/");
    site.provider.set(|provider| {
        provider.published = vec!["two"];
        provider.signs_with = "two";
    });
    assert_eq!(site.browse(&back).details(), "openid_logged_in");
    assert_eq!(site.provider.calls("/jwks"), 2);
    // Keys that stay unknown do not make the plugin ask again and again.
    site.provider.set(|provider| provider.signs_with = "one");
    for _ in 0..3 {
        site.jar.clear();
        assert_eq!(site.sign_in("/").details(), "openid_token_refused");
    }
    assert_eq!(site.provider.calls("/jwks"), 2);
    site.pass(31);
    site.provider.set(|provider| provider.published.push("one"));
    assert_eq!(site.sign_in("/").details(), "openid_logged_in");
    assert_eq!(site.provider.calls("/jwks"), 3);
}

#[test]
fn a_session_is_refreshed_before_its_token_expires() {
    let mut site = Site::new().signed_in();
    let first = forwarded_token(&site.browse("/"));
    site.pass(269);
    assert_eq!(forwarded_token(&site.browse("/")), first);
    site.pass(2);
    let exchange = site.browse("/");
    let second = forwarded_token(&exchange);
    assert_ne!(first, second);
    // Beside the upstream's own cookies.
    assert_eq!(exchange.values("set-cookie")[0], "site=1");
    assert_eq!(exchange.values("set-cookie").len(), 2);
    assert_eq!(forwarded_token(&site.browse("/")), second);
    assert_eq!(site.provider.calls("/token"), 2);
}

#[test]
fn requests_with_the_old_cookie_share_one_refresh() {
    let mut site = Site::new().signed_in();
    let old = site.jar.clone();
    site.pass(301);
    let new = forwarded_token(&site.browse("/"));
    for _ in 0..3 {
        site.jar.clone_from(&old);
        assert_eq!(forwarded_token(&site.send(request("/api"))), new);
    }
    assert_eq!(site.provider.calls("/token"), 2);
    // Later the rotated token is refused, and the user signs in again.
    site.pass(61);
    site.jar.clone_from(&old);
    assert_eq!(site.browse("/").details(), "openid_login");
    assert_eq!(site.provider.calls("/token"), 3);
}

#[test]
fn a_provider_that_keeps_its_refresh_token_may_leave_it_out() {
    let mut site = Site::new().signed_in();
    site.provider.set(|provider| {
        provider.rotates = false;
        provider.answer = json!({"refresh_token": null});
    });
    for _ in 0..3 {
        site.pass(301);
        assert_eq!(site.browse("/").status(), 200);
    }
    assert_eq!(site.provider.calls("/token"), 4);
}

#[test]
fn a_refresh_that_has_to_wait_is_no_reason_to_fail_while_the_token_is_good() {
    let mut site = Site::new().signed_in();
    site.provider.set(|provider| provider.down = Some(Reply::unreachable()));
    site.pass(280);
    assert_eq!(site.browse("/").status(), 200);
    site.pass(30);
    let exchange = site.browse("/");
    assert_eq!((exchange.status(), exchange.details()), (503, "openid_provider_unavailable"));
    assert!(exchange.forwarded().is_none());
    site.provider.set(|provider| provider.down = None);
    site.pass(6);
    assert_eq!(site.browse("/").status(), 200);
}

#[test]
fn an_expired_token_without_a_refresh_token_ends_the_session() {
    let site = Site::new();
    site.provider.set(|provider| provider.answer = json!({"refresh_token": null}));
    let mut site = site.signed_in();
    site.pass(299);
    assert_eq!(site.browse("/").status(), 200);
    site.pass(1);
    assert_eq!(site.browse("/").details(), "openid_login");
    assert_eq!(site.send(request("/api")).status(), 401);
}

#[test]
fn refreshed_tokens_must_be_the_same_users() {
    for claims in
        [json!({"sub": "mallory"}), json!({"nonce": "another"}), json!({"aud": "other"}), json!({"exp": BEGIN})]
    {
        let mut site = Site::new().signed_in();
        site.provider.set(|provider| provider.claims = claims.clone());
        site.pass(301);
        let exchange = site.browse("/");
        assert_eq!(exchange.details(), "openid_login", "{claims}");
        assert!(exchange.forwarded().is_none());
    }
    let mut site = Site::new().signed_in();
    site.provider.set(|provider| provider.claims = json!({"nonce": null}));
    site.pass(301);
    assert_eq!(site.browse("/").status(), 200);
}

#[test]
fn a_session_ends_however_often_it_is_refreshed() {
    let mut site = Site::with(&json!({"session_seconds": 900})).signed_in();
    for _ in 0..2 {
        site.pass(300);
        assert_eq!(site.browse("/").status(), 200);
    }
    site.pass(300);
    assert_eq!(site.browse("/").details(), "openid_login");
}

#[test]
fn the_access_token_is_forwarded_when_it_is_asked_for_and_a_jwt() {
    let mut site = Site::with(&json!({"forward": "access_token"}));
    assert_eq!(site.sign_in("/").details(), "openid_token_refused");
    assert!(site.warnings()[0].contains("not a JWT"), "{:?}", site.warnings());

    let access_token = sign("one", &json!({"aud": "upstream"}));
    let token = access_token.clone();
    site.provider.set(|provider| provider.answer = json!({"access_token": token, "expires_in": 100}));
    assert_eq!(site.sign_in("/").details(), "openid_logged_in");
    assert_eq!(forwarded_token(&site.browse("/")), access_token);
    // Its own time counts, and no ID token is needed to go on.
    let token = access_token.clone();
    site.provider.set(|provider| provider.answer = json!({"access_token": token, "expires_in": 100, "id_token": null}));
    site.pass(101);
    assert_eq!(forwarded_token(&site.browse("/")), access_token);
    assert_eq!(site.provider.calls("/token"), 3);
    // A hash of another one in the ID token is noticed.
    site.provider.set(|provider| {
        provider.claims = json!({"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"});
        provider.answer = json!({"access_token": access_token});
    });
    site.jar.clear();
    assert_eq!(site.sign_in("/").details(), "openid_token_refused");
}

#[test]
fn logging_out_ends_the_session_here_and_at_the_provider() {
    let mut site = Site::new().signed_in();
    let token = forwarded_token(&site.browse("/"));
    let exchange = site.browse("/_openid/logout");
    assert_eq!((exchange.status(), exchange.details()), (302, "openid_logged_out"));
    let expected = format!(
        "https://login.example/end?id_token_hint={token}&client_id=shop\
         &post_logout_redirect_uri=https%3A%2F%2Fshop.example%2F_openid%2Flogged-out"
    );
    assert_eq!(exchange.values("location"), [expected]);
    assert!(site.jar.is_empty());
    let page = site.browse("/_openid/logged-out");
    assert_eq!((page.status(), page.details()), (200, "openid_logged_out"));
    assert!(page.forwarded().is_none());
    assert_eq!(site.browse("/").details(), "openid_login");
}

#[test]
fn logging_out_works_without_a_session_and_without_the_provider() {
    let here = [format!("{ORIGIN}/_openid/logged-out")];
    assert_eq!(Site::new().browse("/_openid/logout").values("location"), here);
    let site = Site::new();
    site.provider.set(|provider| provider.metadata = json!({"end_session_endpoint": null}));
    let mut site = site.signed_in();
    assert_eq!(site.browse("/_openid/logout").values("location"), here);
    assert!(site.jar.is_empty());
    let exchange = site.send(request("/_openid/logout").without(":method").header(":method", "DELETE"));
    assert_eq!((exchange.status(), exchange.values("allow")), (405, vec!["GET, POST"]));
}

#[test]
fn own_cookies_are_not_forwarded_unless_that_is_asked_for() {
    let mut site = Site::new().signed_in();
    assert!(site.browse("/").forwarded().unwrap().values("cookie").is_empty());
    site.jar.insert("theme".to_owned(), "dark".to_owned());
    assert_eq!(site.browse("/").forwarded().unwrap().values("cookie"), ["theme=dark"]);

    let mut site = Site::with(&json!({"forward_cookies": true})).signed_in();
    assert!(site.browse("/").forwarded().unwrap().values("cookie")[0].starts_with("__Host-openid="));
}

#[test]
fn a_large_token_is_spread_over_several_cookies() {
    let site = Site::new();
    site.provider.set(|provider| provider.claims = json!({"groups": vec!["a group with a name"; 300]}));
    let mut site = site.signed_in();
    let names: Vec<_> = site.jar.keys().map(String::as_str).collect();
    assert_eq!(names, ["__Host-openid", "__Host-openid-1", "__Host-openid-2", "__Host-openid-3"]);
    assert!(forwarded_token(&site.browse("/")).len() > 8_000);
    // A session that has become smaller leaves nothing of the larger one.
    site.provider.set(|provider| provider.claims = json!({}));
    site.pass(301);
    assert_eq!(site.browse("/").status(), 200);
    assert_eq!(site.jar.keys().collect::<Vec<_>>(), [SESSION]);
}

#[test]
fn the_first_key_seals_and_all_open() {
    const NEW: &str = "YWJjZGVmZ2hpamFiY2RlZmdoaWphYmNkZWZnaGlqYWI=";
    let keys = |keys: &'static str| move |clock: &_| host(clock).with_env("OPENID_COOKIE_KEYS", keys);
    let mut old = Site::new().signed_in();
    let both = format!("{NEW}, {KEY}");
    let mut site = Site::on(keys(both.leak()), &json!({}), CLUSTER);
    site.jar = old.jar.clone();
    assert_eq!(site.browse("/").status(), 200);
    let signed_in = Site::on(keys(NEW), &json!({}), CLUSTER).signed_in();
    site.jar = signed_in.jar.clone();
    assert_eq!(site.browse("/").status(), 200);
    old.jar = signed_in.jar;
    assert_eq!(old.browse("/").details(), "openid_login");
}

#[test]
fn a_site_behind_others_says_what_its_origin_is() {
    let mut site = Site::with(&json!({"public_origin": "https://www.example"}));
    let location = site.send(navigation("/a").header("host", "10.0.0.1:8080")).values("location")[0].to_owned();
    assert!(location.contains("redirect_uri=https%3A%2F%2Fwww.example%2F_openid%2Fcallback"), "{location}");
}

#[test]
fn tabs_do_not_get_in_each_others_way() {
    let mut site = Site::new();
    let (one, other) = (site.go_to_provider("/one"), site.go_to_provider("/other"));
    assert_eq!(site.browse(&other).values("location"), [format!("{ORIGIN}/other")]);
    assert_eq!(site.browse(&one).values("location"), [format!("{ORIGIN}/one")]);
    // The oldest goes when there are too many.
    site.jar.clear();
    let backs: Vec<_> = (0..7)
        .map(|n| {
            site.pass(1);
            site.go_to_provider(&format!("/{n}"))
        })
        .collect();
    assert_eq!(site.jar.len(), 5);
    assert_eq!(site.browse(&backs[1]).details(), "openid_state_mismatch");
    assert_eq!(site.browse(&backs[2]).details(), "openid_logged_in");
}

#[test]
fn errors_of_the_provider_make_clear_pages_with_nothing_of_it_in_them() {
    let check = |error: &str, status: u16, details: &str| {
        let mut site = Site::new();
        let back = site.go_to_provider("/");
        let (path, query) = back.split_once('?').unwrap();
        let state = query.split_once("state=").unwrap().1;
        let exchange =
            site.browse(&format!("{path}?error={error}&error_description=%3Cscript%3E{error}&state={state}"));
        assert_eq!((exchange.status(), exchange.details()), (status, details));
        let page = String::from_utf8(exchange.response().unwrap().bytes().to_vec()).unwrap();
        assert!(!page.contains("script") && !page.contains(error), "{page}");
        assert!(exchange.values("content-security-policy")[0].starts_with("default-src 'none'"));
        assert!(site.warnings().iter().all(|line| !line.contains(error)), "{:?}", site.warnings());
    };
    check("access_denied", 403, "openid_access_denied");
    check("server_error", 502, "openid_provider_error");
    check("temporarily_unavailable", 503, "openid_provider_unavailable");
    check("anything-else", 502, "openid_provider_error");
}

#[test]
fn what_the_token_endpoint_answers_decides() {
    let check = |answer: plugwright_sdk::testing::Message, status: u16, details: &str, log: &str| {
        let mut site = Site::new();
        let back = site.go_to_provider("/");
        site.provider.set(|provider| provider.down = Some(answer.into()));
        let exchange = site.browse(&back);
        assert_eq!((exchange.status(), exchange.details()), (status, details));
        let warnings = site.warnings();
        assert!(warnings.len() == 1 && warnings[0].contains(log), "{warnings:?}");
        assert!(
            !warnings[0].contains("hunter2") && exchange.values("set-cookie").iter().all(|c| c.contains("Max-Age=0"))
        );
    };
    let refuse = |status: u16, error: &str| response(status).body(json!({"error": error, "x": "hunter2"}).to_string());
    check(refuse(400, "invalid_grant"), 400, "openid_code_refused", "invalid_grant");
    check(refuse(401, "invalid_client"), 502, "openid_client_refused", "invalid_client");
    check(refuse(400, "hunter2"), 502, "openid_client_refused", "an error without a known name");
    check(response(500).body("hunter2"), 503, "openid_provider_unavailable", "answered 500");
    check(response(302), 503, "openid_provider_unavailable", "answered 302");
    check(response(200).body("hunter2"), 502, "openid_token_refused", "not valid JSON");
    check(response(200).body("{}"), 502, "openid_token_refused", "token_type");
    check(response(200).body(r#"{"token_type":"mac"}"#), 502, "openid_token_refused", "token_type");
    check(response(200).body(r#"{"token_type":"bearer"}"#), 502, "openid_token_refused", "id_token");
    check(response(200).body(r#"{"token_type":"bearer","id_token":7}"#), 502, "openid_token_refused", "id_token");
}

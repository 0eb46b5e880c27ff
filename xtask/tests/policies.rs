//! `RequestAuthentication`, `AuthorizationPolicy` and a `WasmPlugin` in one `cargo xtask run`.

mod support;

use std::fs;
use std::path::Path;

use support::{Server, command, dist, plugwright, repository, request};

/// Tokens of issuer `tests` that never expire, made for this test with the key below.
const ADA: &str = "eyJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJ0ZXN0cyIsInN1YiI6ImFkYSIsImdyb3VwcyI6WyJzdGFmZiJdfQ.z640xqWx-y1mEn6VmqW\
                   k5SvSWdEG5OLm012s7InIyRE";
const BOB: &str = "eyJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJ0ZXN0cyIsInN1YiI6ImJvYiIsImdyb3VwcyI6WyJndWVzdHMiXX0.5riUKSQc0wFZWWGal7W\
                   Duj4oGa_wS4eGFnmVHNcxjec";
const KEY: &str = r#"{"keys": [{"kty": "oct", "k": "cGx1Z3dyaWdodC10ZXN0LWtleS1ub3QtYS1zZWNyZXQ"}]}"#;

fn manifests(folder: &Path, extra: &str) -> String {
    let text = format!(
        r"
apiVersion: extensions.istio.io/v1alpha1
kind: WasmPlugin
metadata: {{name: append, namespace: shop}}
spec:
  selector: {{matchLabels: {{app: web}}}}
  url: oci://example.com/header-append:1
  phase: STATS
  pluginConfig: {{x-plugin: was-here}}
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: tokens, namespace: shop}}
spec:
  jwtRules:
  - issuer: tests
    jwks: '{KEY}'
    outputClaimToHeaders: [{{header: x-user, claim: sub}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: users, namespace: shop}}
spec:
  rules:
  - to: [{{operation: {{paths: [/public*]}}}}]
  - from: [{{source: {{requestPrincipals: ['tests/*']}}}}]
    when: [{{key: 'request.auth.claims[groups]', values: [staff]}}]
{extra}"
    );
    let file = folder.join("manifests.yaml");
    fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

fn run(file: &str) -> std::process::Command {
    let image = format!("oci://example.com/header-append:1=oci:{}:header-append", dist().display());
    command(repository(), &["run", "--listen", "127.0.0.1:0", "--image", &image, "-f", file])
}

#[test]
fn tokens_rules_and_a_plugin_take_their_places_in_one_chain() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&mut run(&manifests(folder.path(), "")));
    let get = |path: &str, token: &str| {
        let authorization = format!("Bearer {token}");
        let headers = [("authorization", authorization.as_str())];
        request(server.address(), "GET", path, if token.is_empty() { &[] } else { &headers })
    };
    let plugin = ("x-plugin".to_owned(), "was-here".to_owned());
    let public = get("/public/1", "");
    assert_eq!((public.status, public.headers.contains(&plugin)), (200, true));
    let ada = get("/private", ADA);
    assert_eq!((ada.status, ada.headers.contains(&plugin)), (200, true));
    let echo = String::from_utf8(ada.body).unwrap();
    assert!(echo.contains("\"x-user\"") && echo.contains("\"ada\"") && !echo.contains(ADA), "{echo}");
    // Both filters answer before the plugin's phase.
    for (token, status, body) in [
        ("", 403, "RBAC: access denied"),
        (BOB, 403, "RBAC: access denied"),
        (&BOB.replace("eyJpc3M", "eyJpc3N"), 401, "Jwt payload is an invalid JSON"),
        (&ADA.replace(".z6", ".Z6"), 401, "Jwt verification fails"),
    ] {
        let denied = get("/private", token);
        assert_eq!((denied.status, String::from_utf8(denied.body).unwrap().as_str()), (status, body), "{token}");
        assert!(!denied.headers.contains(&plugin), "{token}");
    }
    let ended = server.stop("TERM");
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(ended.stderr.contains("rbac_access_denied_matched_policy[none]"), "{}", ended.stderr);
    assert!(ended.stderr.contains("jwt_authn_access_denied{Jwt_verification_fails}"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("eyJ"), "a token was logged: {}", ended.stderr);
}

#[test]
fn a_policy_that_cannot_be_understood_stops_the_run_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = manifests(folder.path(), "  - to: [{operation: {path: [/x]}}]\n");
    plugwright(repository(), &["run", "-f", &file]).refused(
        1,
        &["manifests.yaml:28:", "`spec.rules[2].to[0].operation.path`: unknown field, did you mean `paths`?"],
    );
    let file = manifests(folder.path(), "  action: CUSTOM\n  provider: {name: opa}\n");
    plugwright(repository(), &["run", "-f", &file]).refused(1, &["spec.rules[1].from[0].source", "action: CUSTOM"]);
}

//! The ambient guide's manifests and curl lines, through `cargo xtask run`.

mod support;

use support::{Server, command, dist, plugwright, repository, request};

const GUIDE_IMAGE: &str = "oci://ghcr.io/istio-ecosystem/wasm-extensions/basic_auth:1.12.0";
const ADMIN3: (&str, &str) = ("authorization", "Basic YWRtaW4zOmFkbWluMw==");
const SERVICE: (&str, &str) = ("authorization", "Basic MXQtaW4zOmFkbWluMw==");

fn serve(manifests: &[&str], more: &[&str]) -> Server {
    let image = format!("{GUIDE_IMAGE}=oci:{}:basic-auth", dist().display());
    let mut arguments = vec!["run", "--listen", "127.0.0.1:0", "--image", &image];
    for manifest in manifests {
        arguments.extend(["-f", manifest]);
    }
    arguments.extend(more);
    Server::start(&mut command(repository(), &arguments))
}

#[track_caller]
fn check(server: &Server, path: &str, headers: &[(&str, &str)], status: u16) {
    assert_eq!(request(server.address(), "GET", path, headers).status, status, "{path} with {headers:?}");
}

#[test]
fn the_gateway_asks_for_credentials_and_takes_them() {
    let server = serve(&["examples/ambient/gateway.yaml"], &[]);
    check(&server, "/productpage", &[], 401);
    check(&server, "/productpage", &[ADMIN3], 200);
    check(&server, "/productpage", &[("authorization", "Basic b2s6dGVzdA==")], 200);
    check(&server, "/productpage", &[("authorization", "Basic b2s6d3Jvbmc=")], 401);
    check(&server, "/elsewhere", &[], 200);
    let ended = server.stop("TERM");
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(ended.stderr.contains("bookinfo-gateway"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("YWRtaW4zOmFkbWluMw"), "a credential was logged: {}", ended.stderr);
}

#[test]
fn a_denial_says_what_it_wants_and_nothing_else() {
    let server = serve(&["examples/ambient/gateway.yaml"], &[]);
    let denied = request(server.address(), "GET", "/productpage", &[]);
    assert_eq!(denied.body, b"");
    assert!(denied.headers.contains(&("www-authenticate".into(), "Basic realm=\"istio\"".into())), "{denied:?}");
    assert_eq!(server.stop("INT").code, 0);
}

#[test]
fn the_waypoint_asks_for_credentials_and_takes_them() {
    let server = serve(&["examples/ambient/waypoint.yaml"], &[]);
    check(&server, "/productpage", &[], 401);
    check(&server, "/productpage", &[ADMIN3], 200);
}

#[test]
fn the_services_own_waypoint_guards_reviews() {
    let server = serve(&["examples/ambient/service.yaml"], &[]);
    check(&server, "/productpage", &[ADMIN3], 200);
    check(&server, "/reviews/1", &[SERVICE], 200);
    check(&server, "/reviews/1", &[], 401);
}

#[test]
fn with_all_three_given_a_workload_is_chosen() {
    let all = ["examples/ambient/gateway.yaml", "examples/ambient/waypoint.yaml", "examples/ambient/service.yaml"];
    let mut arguments = vec!["run", "--listen", "127.0.0.1:0"];
    for manifest in &all {
        arguments.extend(["-f", manifest]);
    }
    plugwright(repository(), &arguments)
        .refused(2, &["--workload", "default/bookinfo-gateway", "default/waypoint", "default/reviews-svc-waypoint"]);

    let server = serve(&all, &["--workload", "default/reviews-svc-waypoint"]);
    check(&server, "/reviews/1", &[], 401);
    check(&server, "/productpage", &[], 200);
}

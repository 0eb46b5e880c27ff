//! The ambient guide's manifests and requests, through `cargo xtask run`.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

mod support;

use std::collections::BTreeMap;

use support::{Server, command, dist, plugwright, repository, request};

const GUIDE_IMAGE: &str = "oci://ghcr.io/istio-ecosystem/wasm-extensions/basic_auth:1.12.0";
const ADMIN3: (&str, &str) = ("authorization", "Basic YWRtaW4zOmFkbWluMw==");

fn serve(manifests: &[&str], more: &[&str]) -> Server {
    let image = format!("{GUIDE_IMAGE}=oci:{}:basic-auth", dist().display());
    let mut arguments = vec!["run", "--listen", "127.0.0.1:0"];
    for manifest in manifests {
        arguments.extend(["-f", manifest]);
    }
    // Without a plugin there is no image to put anything in the place of.
    if manifests != ["examples/ambient/cluster.yaml"] {
        arguments.extend(["--image", &image]);
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

/// The rows of the guide's table, each with as many cells as its head.
fn table(markdown: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| {
        let cells = line.trim_matches('|').split(" | ");
        cells.map(|cell| cell.trim().trim_matches('`').to_owned()).collect::<Vec<_>>()
    };
    let mut lines = markdown.lines().skip_while(|line| !line.starts_with("| part |"));
    let head = cells(lines.next().unwrap());
    assert_eq!(head, ["part", "resources", "proxy", "request", "credentials", "status"]);
    lines.skip(1).take_while(|line| line.starts_with('|')).map(cells).collect()
}

#[test]
fn every_request_of_the_guide_is_answered_as_its_table_says() {
    let rows = table(&std::fs::read_to_string(repository().join("examples/ambient/README.md")).unwrap());
    let mut servers = BTreeMap::new();
    let mut statuses = Vec::new();
    for row in &rows {
        let [_, resources, proxy, path, credentials, status] = &row[..] else { panic!("{row:?}") };
        let server = servers
            .entry((resources, proxy))
            .or_insert_with(|| serve(&[resources.as_str()], &["--workload", proxy.as_str()]));
        let headers = if credentials == "none" { vec![] } else { vec![("authorization", credentials.as_str())] };
        let status = status.parse().unwrap();
        check(server, path, &headers, status);
        statuses.push(status);
    }
    assert_eq!(statuses, [401, 200, 200, 401, 200, 200, 200, 401], "the guide has these, in this order");
    assert_eq!(servers.len(), 4);
}

#[test]
fn each_proxy_runs_its_own_plugin_and_no_other() {
    let server = serve(&["examples/ambient"], &["--workload", "default/reviews-svc-waypoint"]);
    check(&server, "/reviews/1", &[ADMIN3], 401);
    check(&server, "/productpage", &[], 200);
    let server = serve(&["examples/ambient"], &["--workload", "default/waypoint"]);
    check(&server, "/reviews/1", &[], 200);
    check(&server, "/productpage", &[("authorization", "Basic MXQtaW4zOmFkbWluMw==")], 401);
}

#[test]
fn a_pod_in_ambient_mode_is_no_proxy_to_be_run() {
    let pod = "default/productpage-v1-7c7b5c6c7f-4t8vd";
    for command in ["run", "explain", "envoy"] {
        plugwright(repository(), &[command, "-f", "examples/ambient", "--workload", pod])
            .refused(2, &["has no proxy of its own", "hint: `--workload default/waypoint`"]);
    }
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

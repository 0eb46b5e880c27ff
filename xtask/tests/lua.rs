//! A Lua extension, from the resource to the response: resolved, planned, served.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

mod support;

use std::fs;

use support::{Response, Server, command, plugwright, request};

const RESOURCE: &str = "\
apiVersion: extensions.istio.io/v1alpha1
kind: TrafficExtension
metadata:
  name: script
  namespace: default
spec:
  targetRefs:
  - {group: gateway.networking.k8s.io, kind: Gateway, name: waypoint}
  lua:
    inlineCode: |
";

fn write(folder: &std::path::Path, code: &str) {
    let code = code.lines().fold(String::new(), |all, line| all + "      " + line + "\n");
    fs::write(folder.join("x.yaml"), format!("{RESOURCE}{code}")).unwrap();
}

fn header(response: &Response) -> Option<&str> {
    response.headers.iter().find(|(name, _)| name == "x-lua").map(|(_, value)| value.as_str())
}

#[test]
fn a_script_is_served_and_says_what_it_logs() {
    let folder = tempfile::tempdir().unwrap();
    let code = "function envoy_on_request(h)
  h:logInfo(\"for \" .. h:headers():get(\":path\"))
  if not h:headers():get(\"authorization\") then h:respond({[\":status\"] = \"401\"}, \"who are you?\") end
  error(\"boom\")
end
function envoy_on_response(h) h:headers():add(\"x-lua\", \"yes\") end";
    write(folder.path(), code);
    let arguments = ["run", "-f", "x.yaml", "--listen", "127.0.0.1:0", "--workers", "1"];
    let server = Server::start(&mut command(folder.path(), &arguments));
    let denied = request(server.address(), "GET", "/a", &[]);
    assert_eq!((denied.status, denied.body.as_slice()), (401, &b"who are you?"[..]));
    assert_eq!(header(&denied), Some("yes"));
    let passed = request(server.address(), "GET", "/b", &[("authorization", "Bearer x")]);
    assert_eq!((passed.status, header(&passed)), (200, Some("yes")));
    let said = server.stop("TERM").stderr;
    for line in [
        "[info][lua] script log: for /a",
        "GET /a → 401 by default.script (lua_response)",
        "[error][lua] script log: [string \"function envoy_on_request(h)...\"]:4: boom",
        "GET /b → 200 (via_upstream)",
    ] {
        assert!(said.contains(line), "no {line:?} in:\n{said}");
    }
}

#[test]
fn a_script_that_does_not_load_is_refused_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "function envoy_on_request(h)\n  return return\nend");
    let arguments = ["run", "-f", "x.yaml", "--listen", "127.0.0.1:0"];
    let line = "[string \"function envoy_on_request(h)...\"]:2: unexpected symbol near 'return'";
    plugwright(folder.path(), &arguments).refused(1, &["TrafficExtension default/script", "script load error", line]);
}

//! Lua scripts in front of real HTTP: the stream handle as Envoy has it, and what a script may not do. Expected lines
//! are Envoy 1.40's for the same script, where it has the function.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh::model::{ExtensionFilter, Filter};

use crate::h2::send_with_trailer;
use crate::support::{Guest, Harness, Recorder, Reply, add_header, exchange, extension, load, local_response, wasm};

fn lua(name: &str, code: &str) -> Filter {
    extension(name, ExtensionFilter::Lua { inline_code: code.to_owned() })
}

fn script(code: &str) -> Harness {
    Harness::new(vec![lua("l", code)], &[])
}

fn on_request(body: &str) -> String {
    format!("function envoy_on_request(h)\n{body}\nend")
}

fn on_response(body: &str) -> String {
    format!("function envoy_on_response(h)\n{body}\nend")
}

/// What the scripts logged, with where they were left out.
fn said(harness: &Harness) -> Vec<String> {
    let lines = harness.log.lines().into_iter();
    lines
        .filter_map(|line| {
            let (level, text) = line.split_once(": script log: ")?;
            let text = text.replace("[string \"function envoy_on_request(h)...\"]:2: ", "@");
            let text = text.replace("[string \"function envoy_on_response(h)...\"]:2: ", "@");
            Some(if level == "info" { text } else { format!("{level}: {text}") })
        })
        .collect()
}

/// One line of a request script, and what it logs for a POST with the body `hello`.
#[track_caller]
fn check(line: &str, expected: &[&str]) -> Reply {
    let harness = script(&on_request(line));
    let reply = harness.send("POST", "/path", &[], "hello");
    assert_eq!(said(&harness), expected, "{line}");
    reply
}

/// As [`check`], for a request without a body.
#[track_caller]
fn check_get(line: &str, expected: &[&str]) -> Reply {
    let harness = script(&on_request(line));
    let reply = harness.get("/path");
    assert_eq!(said(&harness), expected, "{line}");
    reply
}

/// A request whose body comes in chunks, and what the script logs.
#[track_caller]
fn check_chunked(line: &str, expected: &[&str]) -> Reply {
    let harness = script(&on_request(line));
    let head = "POST /path HTTP/1.1\r\nhost: example.com\r\nconnection: close\r\ntransfer-encoding: chunked\r\n";
    let request = format!("{head}\r\n2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n");
    let reply = exchange(harness.server.address(), request.as_bytes()).unwrap();
    assert_eq!(said(&harness), expected, "{line}");
    reply
}

/// The same over HTTP/2, with a trailer at the end; what the upstream got.
#[track_caller]
fn check_with_trailer(line: &str, expected: &[&str]) -> serde_json::Value {
    let harness = script(&on_request(line));
    let answer = send_with_trailer(harness.server.address(), &["ab", "cde"], ("x-t", "1"));
    assert_eq!(said(&harness), expected, "{line}");
    answer.echo()
}

#[test]
fn headers_are_read_and_edited() {
    let reply = check(
        "local hd = h:headers()
         hd:add('X-L', 'a') hd:add('x-l', 'b') hd:add('x-e', '') hd:add('x-n', 5) hd:add('x-nul', 'a\\0b')
         h:logInfo(hd:get('x-L') .. ' ' .. hd:getAtIndex('x-l', 1) .. ' ' .. hd:getNumValues('x-l') .. hd:getNumValues('no'))
         h:logInfo(select('#', hd:get('no')) .. select('#', hd:getAtIndex('x-l', 2)) .. select('#', hd:getAtIndex('x-l', -1)))
         h:logInfo('[' .. hd:getAtIndex('x-e', 0) .. ']' .. hd:get(':path') .. tostring(hd == h:headers()))
         hd:replace('x-l', 'c') hd:remove('x-e') hd:remove('x-none')",
        &["a,b b 20", "000", "[]/pathtrue"],
    );
    assert_eq!(reply.echoed("x-l"), ["c"]);
    assert_eq!(
        (reply.echoed("x-e").len(), reply.echoed("x-n"), reply.echoed("x-nul")),
        (0, vec!["5".into()], vec!["a".into()])
    );
}

#[test]
fn headers_are_iterated_in_their_order() {
    check_get(
        "local s = '' for k, v in pairs(h:headers()) do if k ~= 'x-request-id' then s = s .. k .. '=' .. v .. ';' end end
         h:logInfo(s) h:headers():add('x-after', '1')",
        &[":authority=example.com;:path=/path;:method=GET;:scheme=http;x-forwarded-proto=http;"],
    );
    check_get(
        "for k in pairs(h:headers()) do h:headers():add('a', 'b') end",
        &["error: @header map cannot be modified while iterating"],
    );
    check_get(
        "for k in pairs(h:headers()) do break end h:headers():remove('a')",
        &["error: @header map cannot be modified while iterating"],
    );
    let twice = "for k in pairs(h:headers()) do for l in pairs(h:headers()) do end end";
    check_get(twice, &["error: @cannot create a second iterator before completing the first"]);
}

#[test]
fn wrong_arguments_are_errors_in_the_scripts_own_line() {
    for (line, error) in [
        ("h:headers():add('x')", "bad argument #2 to 'add' (string expected, got no value)"),
        ("h:headers():add('x', nil)", "bad argument #2 to 'add' (string expected, got nil)"),
        ("h:headers():add('x', {})", "bad argument #2 to 'add' (string expected, got table)"),
        ("h:nope()", "attempt to call method 'nope' (a nil value)"),
        ("h.headers()", "calling a method of handle on bad self (handle expected, got nil)"),
        ("h:logInfo(nil)", "bad argument #1 to 'logInfo' (string expected, got nil)"),
        ("h:respond(nil)", "bad argument #1 to 'respond' (table expected, got nil)"),
        ("h:base64Escape()", "bad argument #1 to 'base64Escape' (string expected, got no value)"),
        ("tostring(h:headers():get('no'))", "bad argument #1 to 'tostring' (value expected)"),
    ] {
        check_get(line, &[&format!("error: @{error}")]);
    }
    check_get(
        "local ok, e = pcall(function() h:headers():add('x') end) h:logInfo(type(e) .. ' ' .. e)",
        &["string @bad argument #2 to 'add' (string expected, got no value)"],
    );
}

#[test]
fn the_response_is_edited_with_its_status_and_reason_phrase() {
    let code = on_response(
        "h:headers():add('x-r', '1') h:headers():replace(':status', '201') h:headers():setHttp1ReasonPhrase('Very Nice')",
    );
    let reply = script(&code).get("/");
    assert_eq!((reply.status, reply.reason.as_str(), reply.header("x-r")), (201, "Very Nice", Some("1")));
    let reply = script(&on_response("h:headers():remove(':status')")).get("/");
    assert_eq!((reply.status, reply.body.as_str()), (502, "missing required header: :status"));
    let code = "function envoy_on_request(h) h:headers():add('x-saw', '1') h:requestHeaders():add('x-q', '2') end
        function envoy_on_response(h) h:logInfo(h:requestHeaders():get('x-saw')) end";
    let harness = script(code);
    assert_eq!(harness.get("/").echoed("x-q"), ["2"]);
    assert_eq!(said(&harness), ["1"]);
}

#[test]
fn a_body_is_read_and_replaced_with_its_length() {
    let reply = check(
        "local b = h:body() h:logInfo(b:length() .. b:getBytes(0, 5) .. b:getBytes(1, 2) .. tostring(b == h:body()))
         h:logInfo(b:setBytes('hello world') .. h:headers():get('content-length')) h:headers():add('x-late', '1')",
        &["5helloeltrue", "1111"],
    );
    assert_eq!(
        (reply.echo()["body"].as_str(), reply.echoed("content-length")),
        (Some("hello world"), vec!["11".into()])
    );
    assert_eq!(reply.echoed("x-late"), ["1"]);
    let range = "error: @index/length must be >= 0 and (index + length) must be <= buffer size";
    assert_eq!(check("h:body():getBytes(2, 9)", &[range]).status, 200);
    check("h:body():getBytes(-1, 1)", &[range]);
    check("h:body():getBytes('a', 1)", &["error: @bad argument #1 to 'getBytes' (number expected, got string)"]);
    let reply = script(&on_response("h:body():setBytes('new body')")).get("/");
    assert_eq!((reply.body.as_str(), reply.header("content-length")), ("new body", Some("8")));
}

#[test]
fn without_a_body_there_is_none_unless_it_is_wanted() {
    check_get("h:logInfo(select('#', h:body()) .. select('#', h:body(false)))", &["00"]);
    let reply = check_get("local b = h:body(true) h:logInfo(b:length()) b:setBytes('made')", &["0"]);
    assert_eq!((reply.echo()["body"].as_str(), reply.echoed("content-length")), (Some("made"), vec!["4".into()]));
    let harness = script(&on_response("h:logInfo(select('#', h:body()))"));
    assert_eq!((harness.send("HEAD", "/", &[], "").body.as_str(), said(&harness)), ("", vec!["0".to_owned()]));
}

#[test]
fn a_body_over_the_limit_is_413_on_the_way_up_and_500_on_the_way_down() {
    let large = "x".repeat((1 << 20) + 1);
    let harness = script(&on_request("h:body() h:logInfo('never')"));
    let reply = harness.send("POST", "/", &[], &large);
    assert_eq!((reply.status, reply.body.as_str(), said(&harness).len()), (413, "Payload Too Large", 0));
    let upstream = script(&on_response("h:body():setBytes(('x'):rep(1100000))"));
    let url = format!("http://{}", upstream.server.address());
    let harness = Harness::with(vec![lua("l", &on_response("h:body()"))], &[], |options| options.upstream = Some(url));
    let reply = harness.get("/");
    assert_eq!((reply.status, reply.body.as_str()), (500, "Internal Server Error"));
}

#[test]
fn chunks_are_seen_and_changed_as_they_pass() {
    check_chunked(
        "local s = '' for c in h:bodyChunks() do s = s .. c:getBytes(0, c:length()) end h:logInfo(s)",
        &["abcde"],
    );
    let reply =
        check_chunked("for c in h:bodyChunks() do c:setBytes((c:getBytes(0, c:length()):gsub('.', '<%0>'))) end", &[]);
    assert_eq!(reply.echo()["body"], "<a><b><c><d><e>");
    check_get(
        "for c in h:bodyChunks() do h:logInfo('chunk') end h:logInfo('none') h:headers():add('x-c', '1')",
        &["none"],
    );
    for (line, error) in [
        ("for c in h:bodyChunks() do h:headers():add('a', 'b') end", "header map can no longer be modified"),
        (
            "for c in h:bodyChunks() do h:respond({[':status'] = '403'}) end",
            "respond() cannot be called if headers have been continued",
        ),
        ("for c in h:bodyChunks() do h:body() end", "cannot call body() after body streaming has started"),
        ("for c in h:bodyChunks() do end h:body()", "cannot call body() after body has been streamed"),
        ("h:body() h:bodyChunks()", "cannot call bodyChunks after body processing has begun"),
        (
            "local k for c in h:bodyChunks() do if k then k:length() end k = c end",
            "object used outside of proper scope",
        ),
    ] {
        let reply = check_chunked(line, &[&format!("error: @{error}")]);
        assert_eq!((reply.status, reply.echo()["body"].as_str()), (200, Some("abcde")), "{line}");
    }
}

#[test]
fn trailers_are_waited_for() {
    let echo = check_with_trailer("local t = h:trailers() h:logInfo(t:get('x-t')) t:add('x-u', '2')", &["1"]);
    assert_eq!(echo["trailers"], serde_json::json!([["x-t", "1"], ["x-u", "2"]]));
    check(
        "h:logInfo(select('#', h:trailers())) h:headers():add('x', '1')",
        &["0", "error: @header map can no longer be modified"],
    );
    check_get("h:logInfo(select('#', h:trailers())) h:headers():add('x', '1')", &["0"]);
    check_with_trailer("h:logInfo(h:body():length() .. h:trailers():get('x-t'))", &["51"]);
}

#[test]
fn an_object_does_not_outlive_what_it_was_made_for() {
    let error = "error: @object used outside of proper scope";
    check("local hd = h:headers() h:body() hd:add('x', '1')", &[error]);
    check("h:body() h:headers():add('x', '1')", &[]);
    let harness = script(&on_request("if G then G:headers() end G = h"));
    harness.get("/");
    harness.get("/");
    assert_eq!(said(&harness), [error]);
}

#[test]
fn respond_answers_and_ends_the_script() {
    let code = "function envoy_on_request(h) h:headers():remove('x')
          h:respond({[':status'] = 403, ['x-a'] = {'1', '2'}, ['x-bad'] = 'a\\r\\nb: c'}, 'no') h:logInfo('never') end
        function envoy_on_response(h) h:headers():add('x-resp', 'yes') end";
    let harness = script(code);
    let reply = harness.get("/p");
    assert_eq!((reply.status, reply.body.as_str(), reply.header("x-resp")), (403, "no", Some("yes")));
    assert_eq!((reply.header("content-type"), reply.header("b")), (Some("text/plain"), None));
    assert_eq!(reply.headers.iter().filter(|(name, _)| name == "x-a").count(), 2);
    assert_eq!(said(&harness).len(), 0);
    harness.log.wait_for("GET /p Some(403) by Some(\"default.l\") lua_response");
    let reply = check("h:body() pcall(h.respond, h, {[':status'] = '401'}, 'after body') h:logInfo('never')", &[]);
    assert_eq!((reply.status, reply.body.as_str()), (401, "after body"));
    for table in ["{[':status'] = '99'}", "{[':status'] = '600'}", "{[':status'] = 'x'}", "{}"] {
        let reply = check_get(&format!("h:respond({table}, 'x')"), &["error: @:status must be between 200-599"]);
        assert_eq!(reply.status, 200);
    }
    check_get(
        "h:respond({[':status'] = '401', [true] = 'x'}, 'x')",
        &["error: @bad argument #4 to 'respond' (string expected, got boolean)"],
    );
    check_get(
        "h:respond({[':status'] = '401', a = true}, 'x')",
        &["error: @bad argument #5 to 'respond' (string expected, got boolean)"],
    );
    let harness = script(&on_response("h:respond({[':status'] = '401'}, 'x')"));
    assert_eq!(harness.get("/").status, 200);
    assert_eq!(said(&harness), ["error: @respond not currently supported in the response path"]);
}

/// A script with a cluster `backend` that echoes, `slow` that never answers and `dead` that nobody listens on.
#[track_caller]
fn check_call(method: &str, code: &str, expected: &[&str]) -> Reply {
    let backend =
        Harness::new(vec![lua("b", &on_response("h:headers():add('key', 'a') h:headers():add('key', 'b')"))], &[]);
    let slow = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = |address: SocketAddr| format!("http://{address}");
    let clusters = BTreeMap::from([
        ("backend".to_owned(), url(backend.server.address())),
        ("slow".to_owned(), url(slow.local_addr().unwrap())),
        ("dead".to_owned(), "http://127.77.77.77:1".to_owned()),
    ]);
    let harness = Harness::with(vec![lua("l", code)], &[], |options| options.clusters = clusters);
    let reply = harness.send(method, "/path", &[], if method == "POST" { "hello" } else { "" });
    assert_eq!(said(&harness), expected, "{code}");
    reply
}

const TO: &str = "{[':method'] = 'GET', [':path'] = '/in', [':authority'] = 'b'}";

#[test]
fn http_call_waits_for_the_response() {
    let code = on_request(
        "local hd, b = h:httpCall('backend', {[':method'] = 'POST', [':path'] = '/in', [':authority'] = 'bk', ['x-m'] = {'1', '2'}}, 'content', 5000)
         h:logInfo(hd[':status'] .. hd['key'] .. type(b)) h:logInfo(b:match('\"path\": \"(.-)\"') .. b:match('\"body\": \"(.-)\"') .. b:match('\"authority\": \"(.-)\"'))
         local function sent(name) return (b:match('\"' .. name:gsub('%-', '%%-') .. '\",%s*\"(.-)\"') or 'none') end
         h:logInfo(sent('x-m') .. ' ' .. sent('content-length') .. ' ' .. sent('x-envoy-internal') .. ' ' .. sent('x-forwarded-for') .. ' ' .. sent('x-envoy-expected-rq-timeout-ms', 1))
         h:headers():add('x-after', hd[':status'])",
    );
    // Behind the call is a proxy, which takes `x-envoy-internal` and `x-envoy-expected-rq-timeout-ms` away.
    let reply = check_call("GET", &code, &["200bstring", "/incontentbk", "1 7 none 127.0.0.1 none"]);
    assert_eq!(reply.echoed("x-after"), ["200"]);
    let respond =
        on_request(&format!("h:httpCall('backend', {TO}, nil, 1000) h:respond({{[':status'] = '401'}}, 'by call')"));
    assert_eq!(check_call("POST", &respond, &[]).body, "by call");
    let response = on_response(&format!(
        "local hd = h:httpCall('backend', {TO}, nil, 1000) h:headers():add('x-called', hd[':status'])"
    ));
    let reply = check_call("GET", &response, &[]);
    assert_eq!((reply.header("x-called"), reply.echo()["path"].as_str()), (Some("200"), Some("/path")));
    let error =
        on_request(&format!("h:httpCall('backend', {TO}, nil, 1000) h:headers():add('x-b', '1') error('after call')"));
    assert_eq!(check_call("POST", &error, &["error: @after call"]).echoed("x-b"), ["1"]);
    let protected = on_request(&format!(
        "local ok, hd = pcall(h.httpCall, h, 'backend', {TO}, nil, 1000) h:logInfo(tostring(ok) .. type(hd))"
    ));
    check_call("GET", &protected, &["truetable"]);
}

#[test]
fn http_call_takes_options() {
    let call =
        |rest: &str| on_request(&format!("local hd, b = h:httpCall('backend', {TO}, nil, {rest}) h:logInfo(type(hd))"));
    check_call("GET", &call("1000, true"), &["nil"]);
    check_call("GET", &call("{asynchronous = true}"), &["nil"]);
    check_call("GET", &call("0"), &["table"]);
    let code = on_request(&format!(
        "local hd, b = h:httpCall('backend', {TO}, nil, {{timeout_ms = 1000, return_duplicate_headers = true, send_xff = false, trace_sampled = false}})
         h:logInfo(table.concat(hd.key, '+') .. hd[':status'] .. tostring(b:find('x-forwarded-for', 1, true)))"
    ));
    check_call("GET", &code, &["a+b200nil"]);
    let error = |text: &str| format!("error: @{text}");
    check_call("GET", &call("{timeout = 1}"), &[&error("\"timeout\" is not valid key for httpCall() options")]);
    check_call(
        "GET",
        &call("{timeout_ms = 'x'}"),
        &[&error("bad argument #7 to 'httpCall' (number expected, got string)")],
    );
    check_call("GET", &call("1, 1"), &[&error("http call asynchronous flag must be 'true', 'false', or empty")]);
    check_call("GET", &call("-1"), &[&error("http call timeout must be >= 0")]);
    let missing = on_request(&format!("h:httpCall('backend', {TO})"));
    check_call("GET", &missing, &[&error("bad argument #4 to 'httpCall' (number expected, got no value)")]);
}

#[test]
fn a_call_that_cannot_be_made_or_fails_is_said() {
    let unknown = on_request(&format!("h:httpCall('zzz', {TO}, nil, 1000)"));
    let reply = check_call("GET", &unknown, &["error: @http call cluster invalid. Must be configured"]);
    assert_eq!(reply.status, 200);
    let bare = on_request("h:httpCall('backend', {[':method'] = 'GET'}, nil, 1000)");
    check_call("GET", &bare, &["error: @http call headers must include ':path', ':method', and ':authority'"]);
    let slow = on_request(&format!("local hd, b = h:httpCall('slow', {TO}, nil, 50) h:logInfo(hd[':status'] .. b)"));
    check_call("GET", &slow, &["504upstream request timeout"]);
    let dead = on_request(&format!(
        "local hd, b = h:httpCall('dead', {TO}, nil, 1000) h:logInfo(hd[':status'] .. b:sub(1, 22))"
    ));
    check_call("GET", &dead, &["503upstream connect error"]);
}

#[test]
fn a_body_is_held_while_a_call_is_made() {
    let code = on_request(&format!(
        "h:logInfo(h:body():length()) h:httpCall('backend', {TO}, nil, 1000) h:logInfo(h:body():length())"
    ));
    assert_eq!(check_call("POST", &code, &["5", "5"]).echo()["body"], "hello");
    let code =
        on_request(&format!("for c in h:bodyChunks() do h:httpCall('backend', {TO}, nil, 1000) end h:logInfo('end')"));
    assert_eq!(check_call("POST", &code, &["end"]).echo()["body"], "hello");
}

#[test]
fn dynamic_metadata_is_shared_by_filters_and_directions() {
    let set = "function envoy_on_request(h) local d = h:streamInfo():dynamicMetadata()
          d:set('f', 'k', 'v') d:set('f', 'n', 1.5) d:set('f', 'b', true) d:set('f', 'l', {1, 'a', {x = 1}}) d:set('f', 'nil', nil)
          d:set('g', 's', {[1] = 'a', [3] = 'c'}) end
        function envoy_on_response(h) h:logInfo(h:streamInfo():dynamicMetadata():get('f').k) end";
    let get = on_request(
        "local d = h:streamInfo():dynamicMetadata() local f = d:get('f')
         h:logInfo(f.k .. f.n .. tostring(f.b) .. f.l[2] .. f.l[3].x .. tostring(f['nil']) .. #d:get('g').s)
         local names = {} for k, v in pairs(d) do names[#names + 1] = k .. type(v) end table.sort(names) h:logInfo(table.concat(names, ','))
         h:logInfo(select('#', d:get('none')))",
    );
    let harness = Harness::new(vec![lua("a", set), lua("b", &get)], &[]);
    harness.get("/");
    assert_eq!(said(&harness), ["v1.5truea1nil3", "ftable,gtable", "0", "v"]);
    let d = "h:streamInfo():dynamicMetadata()";
    for (line, error) in [
        (format!("{d}:set('f', 'k', function() end)"), "unexpected type 'function' in dynamicMetadata"),
        (
            format!("{d}:set('f', 'k', {{[true] = 1}})"),
            "unexpected type boolean in table key (only string keys are supported)",
        ),
        (format!("{d}:set('f')"), "bad argument #2 to 'set' (string expected, got no value)"),
        (
            format!("local t = {{}} t.t = t {d}:set('f', 'k', t)"),
            "a value in dynamicMetadata is nested more than 32 deep",
        ),
        (format!("{d}:set('f', 'k', {{[1000000000] = 1}})"), "a list in dynamicMetadata has an index above 65536"),
        (format!("{d}:set('f', 'k', ('x'):rep(2000000))"), "a request's dynamic metadata may take 1024 KiB"),
        (
            format!("{d}:set('f', 'k', 1) for k in pairs({d}) do {d}:set('f', 'x', 1) end"),
            "dynamic metadata map cannot be modified while iterating",
        ),
    ] {
        check_get(&line, &[&format!("error: @{error}")]);
    }
}

#[test]
fn stream_and_connection_are_described() {
    let harness = script(&on_request(
        "local s = h:streamInfo()
         h:logInfo(s:protocol() .. s:routeName() .. '[' .. s:requestedServerName() .. s:virtualClusterName() .. ']')
         h:logInfo(s:downstreamLocalAddress() .. s:downstreamDirectLocalAddress())
         h:logInfo(tostring(s:downstreamRemoteAddress() == s:downstreamDirectRemoteAddress()) .. #s:downstreamRemoteAddress():match('^127.0.0.1:%d+$'))
         h:logInfo(tostring(s:downstreamSslConnection()) .. tostring(h:connection():ssl()) .. tostring(s:dynamicTypedMetadata('x')))
         h:logInfo(select('#', h:metadata():get('x')) .. select('#', h:route():metadata():get('x')) .. select('#', h:virtualHost():metadata():get('x')) .. select('#', h:filterContext():get('x')) .. select('#', h:connectionStreamInfo():dynamicMetadata():get('x')))
         for k in pairs(h:metadata()) do h:logInfo(k) end
         h:clearRouteCache()",
    ));
    let local = harness.server.address().to_string();
    harness.get("/");
    let lines = said(&harness);
    assert_eq!(lines[..2], ["HTTP/1.1default[]".to_owned(), format!("{local}{local}")]);
    assert!(lines[2].starts_with("true1"), "{lines:?}");
    assert_eq!(lines[3..], ["nilnilnil", "00000"]);
    let harness = script(&on_request("h:streamInfo():drainConnectionUponCompletion()"));
    let request = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    assert_eq!(exchange(harness.server.address(), request).unwrap().header("connection"), Some("close"));
    check_get(
        "h:setUpstreamOverrideHost('127.0.0.1:1')",
        &["error: @setUpstreamOverrideHost() is not available: this proxy has one upstream host"],
    );
    check_get(
        "h:streamInfo():filterState():set('a', 'b', 'c')",
        &["error: @filterState():set() is not available: this proxy has no factories of filter state objects"],
    );
}

#[test]
fn a_plugins_filter_state_is_read_with_envoys_prefix() {
    let guest = Guest::default().on("request_headers", |g| {
        let (key, value) = (g.text("my.key"), g.text("set by wasm"));
        format!("(drop (call $proxy_set_property {key} {value})) (i32.const 0)")
    });
    let code = on_request(
        "local f = h:streamInfo():filterState() h:logInfo(f:get('wasm.my.key') .. select('#', f:get('my.key')))",
    );
    let harness = Harness::new(vec![wasm("a", |_| {}), lua("l", &code)], &[("a", guest.build())]);
    harness.get("/");
    assert_eq!(said(&harness), ["set by wasm0"]);
}

#[test]
fn lines_have_their_level_and_what_is_below_is_left_out() {
    check_get(
        "h:logTrace('t') h:logDebug('d') h:logInfo(5) h:logWarn('w') h:logErr('e') h:logCritical('c') h:headers():logInfo('on headers') print('a', 1)",
        &["5", "warning: w", "error: e", "critical: c", "on headers", "a\t1"],
    );
}

#[test]
fn encodings_and_times() {
    check_get(
        "h:logInfo(h:base64Escape('\\0\\255hello')) h:logInfo(tostring(h:base64Decode('AP9oZWxsbw==') == '\\0\\255hello') .. tostring(h:base64Decode('!!')))",
        &["AP9oZWxsbw==", "truenil"],
    );
    check_get(
        "local t = h:timestamp() h:logInfo(tostring(t > 1.7e12 and t < 1e13 and t % 1 == 0))
         h:logInfo(#h:timestampString() .. ' ' .. #h:timestampString(EnvoyTimestampResolution.MICROSECOND))",
        &["true", "13 16"],
    );
    check_get("h:timestamp(1)", &["error: @timestamp format must be MILLISECOND."]);
    check_get("h:timestampString(2)", &["error: @timestamp format must be MILLISECOND or MICROSECOND."]);
}

/// An RSA and a P-256 key (`SubjectPublicKeyInfo`), and signatures of `data` under SHA-256.
const KEYS: &str = include_str!("lua_keys.lua");

#[test]
fn signatures_are_verified() {
    let verify = |line: &str, expected: &[&str]| {
        let harness = script(&format!("{KEYS}\nfunction envoy_on_request(h)\n{line}\nend"));
        harness.get("/");
        // The keys come before the function, so that it is in another line than elsewhere.
        let after = |line: &String| line.rsplit_once("]:").map_or(line.as_str(), |(_, rest)| &rest[4..]).to_owned();
        let lines: Vec<_> = said(&harness).iter().map(after).collect();
        assert_eq!(lines, expected, "{line}");
    };
    let show = "h:logInfo(tostring(ok) .. '[' .. tostring(e) .. ']')";
    for kind in ["RSA", "EC"] {
        let import = format!("local k = h:importPublicKey({kind}, #{kind}) local s = {kind}_SIGNATURE");
        verify(
            &format!("{import} local ok, e = h:verifySignature('SHA256', k:get(), s, #s, 'data+', 4) {show}"),
            &["true[nil]"],
        );
        verify(
            &format!("{import} local ok, e = h:verifySignature('sha256', k:get(), s, #s, 'datb', 4) {show}"),
            &["false[Failed to verify digest. Error code: 0]"],
        );
        verify(
            &format!("{import} local ok, e = h:verifySignature('md5', k:get(), s, #s, 'data', 4) {show}"),
            &["false[md5 is not supported.]"],
        );
    }
    let import = "local k = h:importPublicKey(RSA, #RSA) local s = RSA_SIGNATURE";
    let sha224 = "verifySignature() with sha224 and an RSA key is not available here";
    verify(&format!("{import} h:verifySignature('sha224', k:get(), s, #s, 'data', 4)"), &[sha224]);
    verify(&format!("{import} h:verifySignature('sha256', 'other', s, #s, 'data', 4)"), &["invalid public key"]);
    verify(
        "h:logInfo(tostring(h:importPublicKey('xx', 2):get())) h:logInfo(tostring(h:importPublicKey(RSA, #RSA):get()))",
        &["nil", "nil"],
    );
}

#[test]
fn metrics_are_kept() {
    let code = on_request(
        "local s = h:stats() local c, g = s:counter('hits'), s:gauge('g') c:inc() c:inc() g:set(5) g:inc() g:dec() g:add(3) g:sub(1)
         s:histogram('t', 'ms'):recordValue(3) h:logInfo(c:value() .. ' ' .. g:value())",
    );
    let harness = script(&code);
    harness.get("/");
    harness.get("/");
    assert_eq!(said(&harness), ["2 7", "4 7"]);
    check_get("h:stats():gauge('g'):set(-1)", &["error: @gauge set value must be non-negative"]);
}

#[track_caller]
fn refused(code: &str) -> String {
    load(vec![lua("l", code)], &[], Arc::default()).err().expect("a refusal").to_string()
}

#[test]
fn a_script_with_errors_is_refused_and_one_without_functions_does_nothing() {
    let begin = "load the script of WasmPlugin default/l: script load error: ";
    assert_eq!(refused("function ("), format!("{begin}[string \"function (\"]:1: '<name>' expected near '('"));
    assert_eq!(refused("x = 1\nerror('boom')"), format!("{begin}[string \"x = 1...\"]:2: boom"));
    let log = Arc::new(Recorder::default());
    assert!(load(vec![lua("l", "x = 1")], &[], log.clone()).is_ok());
    assert_eq!(
        log.lines(),
        ["requests", "responses"].map(|what| {
            let function = what.trim_end_matches('s');
            format!("info: envoy_on_{function}() function not found. Lua filter will not hook {what}.")
        })
    );
    assert_eq!(script("x = 1").get("/").status, 200);
}

#[test]
fn an_error_is_logged_and_the_request_goes_on_with_what_was_changed() {
    let code = "function envoy_on_request(h) h:headers():add('x-before', '1')
        local x = nil; return x.y end
        function envoy_on_response(h) h:headers():add('x-resp', 'yes') end";
    let harness = script(code);
    let reply = harness.send("POST", "/", &[], "hello");
    assert_eq!((reply.status, reply.echoed("x-before"), reply.header("x-resp")), (200, vec!["1".into()], Some("yes")));
    let line = "error: [string \"function envoy_on_request(h) h:headers():add(...\"]:2: attempt to index local 'x' (a nil value)";
    assert_eq!(said(&harness), [line]);
    check_get("error('plain', 0)", &["error: plain"]);
    check_get("error(42)", &["error: @42"]);
    check_get("error({})", &["error: unspecified lua error"]);
    check_get("error()", &["error: unspecified lua error"]);
    check_get("coroutine.yield() h:logInfo('never')", &["error: script performed an unexpected yield"]);
    check(
        "coroutine.wrap(function() h:body() end)()",
        &["error: @body() waits, which a coroutine made by the script cannot"],
    );
}

#[test]
fn a_script_cannot_stall_the_proxy() {
    let stopped = "error: @the script of default.l ran longer than 500ms and was stopped";
    for line in [
        "while true do end",
        "while true do pcall(function() while true do end end) end",
        "local f f = function() while true do pcall(f) end end f()",
        "coroutine.wrap(function() while true do end end)()",
        "xpcall(function() while true do end end, function() while true do end end)",
        "table.sort((function() local t = {} for i = 1, 100 do t[i] = i end return t end)(), function() while true do end end)",
    ] {
        let harness = script(&on_request(&format!(
            "if h:headers():get(':path') == '/loop' then {line} end h:headers():add('x-on', '1')"
        )));
        let before = Instant::now();
        assert_eq!(harness.get("/loop").status, 200, "{line}");
        assert!(before.elapsed() < Duration::from_secs(15), "{line}");
        assert!(said(&harness)[0].ends_with(stopped.split_once('@').unwrap().1), "{line}: {:?}", said(&harness));
        assert_eq!(harness.get("/").echoed("x-on"), ["1"], "{line}");
        assert_eq!(said(&harness).len(), 1);
    }
    check_get(
        "local s = ('a'):rep(20000) s:find(('.-'):rep(12) .. 'b')",
        &["error: @the script of default.l ran longer than 500ms and was stopped"],
    );
    check_get(
        "local s = ('a'):rep(20000) s:gsub(('.-'):rep(12) .. 'b', 'x')",
        &["error: @the script of default.l ran longer than 500ms and was stopped"],
    );
    assert!(
        check_get("local s = ('a'):rep(1e6) h:logInfo(tostring(s:find(('a'):rep(5e5) .. 'b', 1, true)))", &["nil"])
            .status
            == 200
    );
}

#[test]
fn a_script_that_loads_for_ever_is_refused() {
    let limits = harness::engine::Limits { startup: Duration::from_millis(200), ..crate::support::limits() };
    let engine = harness::engine::Engine::new(limits).unwrap();
    let chain = crate::support::chain(vec![lua("l", "while true do end")]);
    let modules: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let level = harness::abi::LogLevel::Info;
    let loaded =
        harness::chain::Chain::load(&engine, &chain, &modules, &BTreeMap::new(), Arc::new(Recorder::default()), level);
    let error = loaded.err().unwrap().to_string();
    assert!(error.ends_with("the script of default.l ran longer than 200ms and was stopped"), "{error}");
}

#[test]
fn a_script_cannot_take_the_proxys_memory_or_stack() {
    let code = on_request(
        "if h:headers():get(':path') == '/hoard' then local t = {} while true do t[#t + 1] = ('x'):rep(1e5) .. #t end end h:headers():add('x-on', '1')",
    );
    let harness = script(&code);
    assert_eq!(harness.get("/hoard").status, 200);
    assert_eq!(said(&harness), ["error: not enough memory: a script may take 64 MiB"]);
    assert_eq!(harness.get("/").echoed("x-on"), ["1"]);
    for line in [
        "local function f() return f() + 1 end f()",
        "local m = {} m.__tostring = function(x) return tostring(setmetatable({}, m)) end tostring(setmetatable({}, m))",
        "local m = {} m.__index = function(t, k) return t[k .. 'x'] end local x = setmetatable({}, m).a",
        "local function f() coroutine.wrap(f)() end f()",
        "local function f() coroutine.resume(coroutine.create(f)) end f()",
        "local m = {} m.__tostring = function(x) return string.format('%s', setmetatable({}, m)) .. '' end tostring(setmetatable({}, m))",
        "local m = {} m.__tostring = function(x) return tostring(setmetatable({}, m)) .. '' end tostring(setmetatable({}, m))",
        "local m = {} m.__pairs = function(t) for k in pairs(setmetatable({}, m)) do end return next, t end pairs(setmetatable({}, m))",
        "local m = {} m.__lt = function(a, b) return (setmetatable({}, m) < b) == true end local x = setmetatable({}, m) < setmetatable({}, m)",
        "local function f() for k in coroutine.wrap(f) do end end f()",
        "local function f() return (('x'):gsub('x', f)) end f()",
        "local function f() table.sort({2, 1}, f) end f()",
        "local function f() load(f) end f()",
        "local function f() xpcall(error, f) end f()",
        "loadstring('return ' .. ('('):rep(1e5))()",
    ] {
        let harness = script(&on_request(line));
        assert_eq!(harness.get("/").status, 200, "{line}");
        assert_eq!(harness.get("/").status, 200, "{line}");
    }
}

#[test]
fn a_script_has_no_access_to_the_machine() {
    let host = "a script here has no access to the machine it runs on";
    for (call, sentence) in [
        ("os.execute('true')", format!("os.execute is not available: {host}")),
        ("os.exit(1)", format!("os.exit is not available: {host}")),
        ("os.getenv('HOME')", format!("os.getenv is not available: {host}")),
        ("os.remove('x')", format!("os.remove is not available: {host}")),
        ("io.open('/etc/passwd')", format!("io.open is not available: {host}")),
        ("io.popen('true')", format!("io.popen is not available: {host}")),
        ("dofile('x')", format!("dofile is not available: {host}")),
        ("loadfile('x')", format!("loadfile is not available: {host}")),
        ("package.loadlib('x', 'y')", format!("package.loadlib is not available: {host}")),
        ("debug.sethook()", "debug.sethook is not available: a script must not look into what runs it".to_owned()),
        (
            "jit.on()",
            "jit.on is not available: the compiler is off, since it does not look at the time limit".to_owned(),
        ),
        ("newproxy(true)", "newproxy is not available: a finalizer runs outside of the time limit".to_owned()),
        (
            "require('ffi')",
            "require 'ffi' is not available: a script here cannot load files or foreign code".to_owned(),
        ),
        (
            "string.dump(print)",
            "string.dump is not available: bytecode is not loaded, so that nothing is gained by writing it".to_owned(),
        ),
    ] {
        check_get(call, &[&format!("error: @{sentence}")]);
    }
    check_get(
        "for _, f in ipairs({'\\27LJ', function() return '\\27LJ' end}) do h:logInfo(tostring(select(2, load(f)))) end
         h:logInfo(tostring(select(2, loadstring('\\27LJ')))) h:logInfo(loadstring('return 1 + 1')() .. require('bit').bor(1, 2) .. type(os.time()))
         local n = 0 h:logInfo(load(function() n = n + 1 return ({'return ', '7'})[n] end)())",
        &[
            "load of bytecode is not available: only source is loaded",
            "load of bytecode is not available: only source is loaded",
            "load of bytecode is not available: only source is loaded",
            "23number",
            "7",
        ],
    );
}

#[test]
fn strings_and_tables_work_as_in_lua() {
    check_get(
        "h:logInfo(('a=1, b=2'):gsub('(%w)=(%w)', '%2:%1') .. ('abc'):gsub('', '-') .. ('abc'):gsub('%w', {a = 'x', b = true == false}) .. ('hi'):gsub('.', function(c) return c:upper() end))
         local t = {} for k, v in ('a=1,b=2'):gmatch('(%w)=(%w)') do t[#t + 1] = k .. v end h:logInfo(table.concat(t, ';'))
         t = {} for w in ('one two'):gmatch('%a+') do t[#t + 1] = w end h:logInfo(table.concat(t, ';'))
         h:logInfo(tostring(('a.b'):find('.', 1, true)) .. ('hello'):find('l') .. tostring(('hello'):find('x')) .. ('hello'):match('h(.)') .. select(2, ('aaa'):gsub('a', 'b', 2)) .. ('x'):find('', 2))
         t = {3, 1, 2, 10, 7} table.sort(t) h:logInfo(table.concat(t, ',')) table.sort(t, function(a, b) return a > b end) h:logInfo(table.concat(t, ','))",
        &["1:a, 2:b-a-b-c-xbcHI", "a1;b2", "one;two", "23nile22", "1,2,3,7,10", "10,7,3,2,1"],
    );
    check_get("('a'):gsub('(', 'x')", &["error: @unfinished capture"]);
    check_get("('a'):gsub('a', '%2')", &["error: @invalid capture index"]);
}

#[test]
fn wasm_and_lua_take_their_places_in_both_orders() {
    let guest = || {
        Guest::default()
            .on("request_headers", |g| {
                format!("{} {} (i32.const 0)", g.say("wasm request"), add_header(g, 0, "x-order", "wasm"))
            })
            .on("response_headers", |g| {
                format!("{} {} (i32.const 0)", g.say("wasm response"), add_header(g, 2, "x-order", "wasm"))
            })
    };
    let code = "function envoy_on_request(h) h:headers():add('x-order', 'lua') end
        function envoy_on_response(h) h:headers():add('x-order', 'lua') end";
    let (w, l) = (|| wasm("a", |_| {}), || lua("l", code));
    for (filters, request, response) in
        [(vec![w(), l()], ["wasm", "lua"], "lua"), (vec![l(), w()], ["lua", "wasm"], "wasm")]
    {
        let reply = Harness::new(filters, &[("a", guest().build())]).get("/");
        assert_eq!(
            (reply.echoed("x-order"), reply.header("x-order")),
            (request.map(str::to_owned).to_vec(), Some(response))
        );
    }
}

#[test]
fn a_plugins_answer_passes_the_scripts_and_a_scripts_the_plugins() {
    let code = on_response("h:headers():add('x-lua', h:headers():get(':status')) h:body():setBytes('changed')");
    for order in [[0, 1], [1, 0]] {
        let both = [wasm("a", |_| {}), lua("l", &code)];
        let filters = order.map(|index: usize| both[index].clone()).to_vec();
        let guest = Guest::default()
            .on("request_headers", |g| format!("{} (i32.const 1)", local_response(g, 401, "no", "denied")));
        let reply = Harness::new(filters, &[("a", guest.build())]).get("/");
        assert_eq!((reply.status, reply.header("x-lua"), reply.body.as_str()), (401, Some("401"), "changed"));
    }
    let guest =
        Guest::default().on("response_headers", |g| format!("{} (i32.const 0)", add_header(g, 2, "x-wasm", "1")));
    let answers = on_request("h:respond({[':status'] = '403'}, 'lua')");
    let harness = Harness::new(vec![wasm("a", |_| {}), lua("l", &answers)], &[("a", guest.build())]);
    let reply = harness.get("/");
    assert_eq!((reply.status, reply.header("x-wasm"), reply.body.as_str()), (403, Some("1"), "lua"));
}

#[test]
fn a_client_that_leaves_ends_the_script_and_its_call() {
    let slow = TcpListener::bind("127.0.0.1:0").unwrap();
    let clusters = BTreeMap::from([("slow".to_owned(), format!("http://{}", slow.local_addr().unwrap()))]);
    let code = on_request(&format!(
        "if h:headers():get(':path') == '/leave' then h:httpCall('slow', {TO}, nil, 0) h:logInfo('never') end"
    ));
    let harness = Harness::with(vec![lua("l", &code)], &[], |options| options.clusters = clusters);
    let mut client = std::net::TcpStream::connect(harness.server.address()).unwrap();
    std::io::Write::write_all(&mut client, b"GET /leave HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    let (mut call, _) = slow.accept().unwrap();
    call.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut sent = [0; 7];
    std::io::Read::read_exact(&mut call, &mut sent).unwrap();
    assert_eq!(&sent, b"GET /in");
    drop(client);
    harness.log.wait_for("downstream_remote_disconnect");
    // The call is cancelled with its stream: its connection ends.
    std::io::copy(&mut call, &mut std::io::sink()).unwrap();
    assert_eq!((harness.get("/").status, said(&harness).len()), (200, 0));
}

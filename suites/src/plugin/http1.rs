//! The head of an HTTP/1 message as the headers of HTTP/2 that a plugin sees.

use std::borrow::Cow;

use super::Bytes;

/// The headers of a message, in order; what follows the first empty line is not looked at. The error says what is wrong.
pub fn headers(content: &[u8], is_request: bool) -> Result<Vec<(String, Bytes)>, String> {
    let mut lines = unfolded(content).into_iter();
    let first = lines.next().filter(|line| !line.is_empty()).ok_or("it has no first line")?;
    let first = std::str::from_utf8(&first).map_err(|_| "its first line is not text in UTF-8")?;
    let mut fields = Vec::new();
    for line in lines {
        let shown = || String::from_utf8_lossy(&line).escape_debug().to_string();
        let colon =
            line.iter().position(|byte| *byte == b':').ok_or_else(|| format!("no `:` in its line `{}`", shown()))?;
        let (name, value) = line.split_at(colon);
        let name = std::str::from_utf8(name).ok().map(str::trim_ascii_end).filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| format!("no header name in its line `{}`", shown()))?;
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        fields.push((name.to_ascii_lowercase(), Bytes(value.to_vec())));
    }
    let mut headers = if is_request { request(first, &mut fields)? } else { response(first)? };
    headers.extend(fields);
    Ok(headers)
}

/// The lines up to an empty one; a line that begins with white space belongs to the one before.
fn unfolded(content: &[u8]) -> Vec<Vec<u8>> {
    let mut lines: Vec<Vec<u8>> = Vec::new();
    for line in content.split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match lines.last_mut() {
            _ if line.is_empty() => break,
            Some(last) if lines_are_folded(line) => {
                last.push(b' ');
                last.extend_from_slice(line.trim_ascii());
            }
            _ => lines.push(line.to_vec()),
        }
    }
    lines
}

fn lines_are_folded(line: &[u8]) -> bool {
    line.starts_with(b" ") || line.starts_with(b"\t")
}

fn response(first: &str) -> Result<Vec<(String, Bytes)>, String> {
    let mut words = first.splitn(3, ' ');
    let version = words.next().unwrap_or_default();
    let status = words.next().unwrap_or_default();
    if !version.starts_with("HTTP/") || status.len() != 3 || !status.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!(
            "`{}` is not the first line of a response, such as `HTTP/1.1 200 OK`",
            first.escape_debug()
        ));
    }
    Ok(vec![(":status".to_owned(), Bytes::from(status))])
}

fn request(first: &str, fields: &mut Vec<(String, Bytes)>) -> Result<Vec<(String, Bytes)>, String> {
    let words: Vec<&str> = first.split(' ').collect();
    let [method, target, version] = words[..] else { return Err(not_a_request(first)) };
    if method.is_empty() || !version.starts_with("HTTP/") {
        return Err(not_a_request(first));
    }
    let mut headers = vec![(":method".to_owned(), Bytes::from(method))];
    let mut add = |name: &str, value: &str| headers.push((name.to_owned(), Bytes::from(value)));
    if let Some((scheme, rest)) = target.split_once("://").filter(|(scheme, _)| is_scheme(scheme)) {
        let scheme = scheme.to_ascii_lowercase();
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let path = path.split('#').next().unwrap_or_default();
        let path = if path.starts_with('/') { Cow::Borrowed(path) } else { Cow::Owned(format!("/{path}")) };
        let authority = authority.rsplit('@').next().unwrap_or_default().to_ascii_lowercase();
        let default_port = match &*scheme {
            "http" => ":80",
            "https" => ":443",
            _ => "",
        };
        let authority = authority.strip_suffix(default_port).unwrap_or(&authority);
        if authority.is_empty() || !is_path(&path) {
            return Err(format!("`{}` is no URI", target.escape_debug()));
        }
        add(":scheme", &scheme);
        add(":path", &path);
        add(":authority", authority);
        fields.retain(|(name, _)| name != "host");
    } else {
        if !target.starts_with('/') || !is_path(target) || has_dots(target) {
            return Err(format!("`{}` is no URI: give a path as it is sent, or a whole URI", target.escape_debug()));
        }
        add(":path", target);
        let host = fields.iter().find(|(name, value)| name == "host" && !value.0.is_empty());
        if let Some(host) = host.map(|(_, value)| value.lossy().into_owned()) {
            add(":authority", &host);
            fields.retain(|(name, _)| name != "host");
        }
    }
    Ok(headers)
}

fn not_a_request(first: &str) -> String {
    format!("`{}` is not the first line of a request, such as `GET /path HTTP/1.1`", first.escape_debug())
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
}

/// Whether a browser would send it as it is.
fn is_path(target: &str) -> bool {
    let escaped = |byte| !matches!(byte, 0x21..=0x7e) || matches!(byte, b'"' | b'<' | b'>' | b'#' | b'\\');
    let in_path_only = |byte| matches!(byte, b'`' | b'{' | b'}');
    let path = target.split('?').next().unwrap_or_default();
    !target.bytes().any(escaped) && !path.bytes().any(in_path_only)
}

fn has_dots(target: &str) -> bool {
    let path = target.split('?').next().unwrap_or_default();
    path.split('/').any(|segment| matches!(segment, "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(content: &str, is_request: bool, expected: &[&str]) {
        let headers = headers(content.as_bytes(), is_request).unwrap();
        let lines: Vec<String> = headers.iter().map(|(name, value)| format!("{name}: {}", value.lossy())).collect();
        assert_eq!(lines, expected);
    }

    #[track_caller]
    fn refused(content: &str, is_request: bool, expected: &str) {
        assert_eq!(headers(content.as_bytes(), is_request).unwrap_err(), expected);
    }

    #[test]
    fn a_path_leaves_the_scheme_open_and_takes_the_host() {
        let request = "GET /my/path?foo=bar HTTP/1.1\nHost: myhost.com\r\nMyHeader: one\nMyHeader:  two \n\nbody: no\n";
        check(
            request,
            true,
            &[":method: GET", ":path: /my/path?foo=bar", ":authority: myhost.com", "myheader: one", "myheader: two"],
        );
        check("GET / HTTP/1.1", true, &[":method: GET", ":path: /"]);
    }

    #[test]
    fn a_whole_uri_counts_more_than_the_host() {
        check(
            "GET HTTPS://Example.com:8443/a?b#c HTTP/1.1\r\nHost: other\r\n\r\n",
            true,
            &[":method: GET", ":scheme: https", ":path: /a?b", ":authority: example.com:8443"],
        );
        check("GET http://h:80 HTTP/1.1", true, &[":method: GET", ":scheme: http", ":path: /", ":authority: h"]);
    }

    #[test]
    fn a_response_has_its_status() {
        check("HTTP/1.1 403 Not Here\r\nA: b\r\n c\r\n", false, &[":status: 403", "a: b c"]);
        check("HTTP/1.1 200", false, &[":status: 200"]);
    }

    #[test]
    fn what_is_no_head_is_said() {
        refused("", true, "it has no first line");
        refused("GET /", true, "`GET /` is not the first line of a request, such as `GET /path HTTP/1.1`");
        refused("200 OK", false, "`200 OK` is not the first line of a response, such as `HTTP/1.1 200 OK`");
        refused("GET / HTTP/1.1\nnone", true, "no `:` in its line `none`");
        refused("GET / HTTP/1.1\n: none", true, "no header name in its line `: none`");
        for target in ["a", "/a/../b", "/a\"b", "/a{b", "/é", "*"] {
            let expected =
                format!("`{target}` is no URI: give a path as it is sent, or a whole URI").replace('"', "\\\"");
            refused(&format!("GET {target} HTTP/1.1"), true, &expected);
        }
    }
}

//! A browser as far as signing in needs one: cookies by host and path, redirects, forms.

use std::fmt::Write as _;

use super::{Response, exchange};

/// A cookie as it is kept. Ports do not keep them apart, as in browsers.
#[derive(Clone, Debug)]
struct Cookie {
    host: String,
    path: String,
    name: String,
    value: String,
}

/// What a browser keeps, and nothing else: a clone is another browser that has the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Browser {
    cookies: Vec<Cookie>,
}

/// What a request came to.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) url: String,
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Page {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Where it redirects to.
    pub(crate) fn location(&self) -> Option<String> {
        let location = self.header("location").filter(|_| (300..400).contains(&self.status))?;
        if !location.starts_with('/') {
            return Some(location.to_owned());
        }
        Some(format!("http://{}{location}", split(&self.url).0))
    }

    /// Its first form: where it goes, and the fields that it brings.
    pub(crate) fn form(&self) -> Option<(String, Vec<(String, String)>)> {
        let start = self.body.find("<form")?;
        let form = &self.body[start..start + self.body[start..].find("</form>")?];
        let action = attribute(form, "action")?;
        let inputs = form.split("<input").skip(1).map(|input| &input[..input.find('>').unwrap_or(input.len())]);
        let fields =
            inputs.filter_map(|input| Some((attribute(input, "name")?, attribute(input, "value").unwrap_or_default())));
        Some((action, fields.collect()))
    }
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let start = tag.find(&format!("{name}=\""))? + name.len() + 2;
    let value = &tag[start..start + tag[start..].find('"')?];
    Some(value.replace("&amp;", "&").replace("&quot;", "\""))
}

/// Authority and path of a URL.
fn split(url: &str) -> (&str, &str) {
    let rest = url.strip_prefix("http://").unwrap_or_else(|| panic!("not a URL of a test: {url}"));
    let path = rest.find('/').unwrap_or(rest.len());
    (&rest[..path], if path == rest.len() { "/" } else { &rest[path..] })
}

impl Browser {
    /// Goes to an address as when somebody follows a link.
    pub(crate) fn get(&mut self, url: &str) -> Page {
        self.send("GET", url, &[("sec-fetch-mode", "navigate"), ("accept", "text/html")], "")
    }

    /// Sends a form.
    pub(crate) fn post(&mut self, url: &str, fields: &[(String, String)]) -> Page {
        let pairs: Vec<String> =
            fields.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
        let headers = [("sec-fetch-mode", "navigate"), ("content-type", "application/x-www-form-urlencoded")];
        self.send("POST", url, &headers, &pairs.join("&"))
    }

    /// What a script on the page asks for.
    pub(crate) fn fetch(&mut self, url: &str, headers: &[(&str, &str)]) -> Page {
        self.send("GET", url, &[&[("sec-fetch-mode", "cors")], headers].concat(), "")
    }

    /// Changes the value of a cookie.
    pub(crate) fn tamper(&mut self, name: &str, change: impl Fn(&mut String)) {
        let cookie = self.cookies.iter_mut().find(|cookie| cookie.name == name);
        change(&mut cookie.expect("the cookie is there").value);
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.cookies.iter().any(|cookie| cookie.name == name)
    }

    fn send(&mut self, method: &str, url: &str, headers: &[(&str, &str)], body: &str) -> Page {
        let (authority, path) = split(url);
        let host = authority.split(':').next().unwrap();
        let mut text = format!("{method} {path} HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n");
        for (name, value) in headers {
            let _ = write!(text, "{name}: {value}\r\n");
        }
        let fits = |cookie: &&Cookie| cookie.host == host && path.starts_with(&cookie.path);
        let cookies: Vec<String> =
            self.cookies.iter().filter(fits).map(|cookie| format!("{}={}", cookie.name, cookie.value)).collect();
        if !cookies.is_empty() {
            let _ = write!(text, "cookie: {}\r\n", cookies.join("; "));
        }
        if method != "GET" {
            let _ = write!(text, "content-length: {}\r\n", body.len());
        }
        let response = exchange(authority, &format!("{text}\r\n{body}"));
        for (_, header) in response.headers.iter().filter(|(name, _)| name == "set-cookie") {
            self.keep(host, path, header);
        }
        let body = String::from_utf8(unchunked(&response)).unwrap();
        Page { url: url.to_owned(), status: response.status, headers: response.headers, body }
    }

    fn keep(&mut self, host: &str, path: &str, header: &str) {
        let mut parts = header.split(';').map(str::trim);
        let (name, value) = parts.next().unwrap().split_once('=').unwrap();
        let directory = &path[..path.split('?').next().unwrap().rfind('/').unwrap_or(0)];
        let mut cookie = Cookie {
            host: host.to_owned(),
            path: if directory.is_empty() { "/".to_owned() } else { directory.to_owned() },
            name: name.to_owned(),
            value: value.to_owned(),
        };
        let mut gone = false;
        for part in parts {
            match part.split_once('=') {
                Some((key, value)) if key.eq_ignore_ascii_case("path") => value.clone_into(&mut cookie.path),
                Some((key, value)) if key.eq_ignore_ascii_case("max-age") => gone = value == "0",
                Some((key, value)) if key.eq_ignore_ascii_case("expires") => gone |= value.contains(" 1970 "),
                _ => {}
            }
        }
        let same =
            |other: &Cookie| (&other.host, &other.path, &other.name) == (&cookie.host, &cookie.path, &cookie.name);
        self.cookies.retain(|other| !same(other));
        if !gone {
            self.cookies.push(cookie);
        }
    }
}

/// The body of a response that may have come in chunks.
fn unchunked(response: &Response) -> Vec<u8> {
    if !response.headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked") {
        return response.body.clone();
    }
    let mut body = Vec::new();
    let mut rest = response.body.as_slice();
    loop {
        let end = rest.windows(2).position(|pair| pair == b"\r\n").expect("a chunk's length");
        let length = std::str::from_utf8(&rest[..end]).unwrap().split(';').next().unwrap();
        let length = usize::from_str_radix(length, 16).unwrap();
        if length == 0 {
            return body;
        }
        body.extend(&rest[end + 2..end + 2 + length]);
        rest = &rest[end + 4 + length..];
    }
}

fn encode(text: &str) -> String {
    text.bytes()
        .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

//! Which parts of a text are secrets, and what stands in their place.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use regex::{Captures, Regex};

use super::{Callback, Content, Event, Trace, What};

/// What stands in the place of a secret.
pub const REDACTED: &str = "<redacted>";

/// Shorter values occur in other texts by chance.
const SHORTEST: usize = 6;

/// JSON Web Tokens and their parts: base64url of what begins with `{"`.
static JWT: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)*=*").ok());
/// A scheme of authentication and its credentials.
static SCHEME: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"(?i)\b(bearer|basic|negotiate|digest)(\s+)([A-Za-z0-9._~+/-]{4,}=*)").ok());
/// A header on a line of its own.
static LINE: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"(?m)^([A-Za-z0-9_-]+)(:[ \t]*)([^\r\n]+)").ok());
/// Cookies within a line, several of them behind one name.
static COOKIES: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let pair = r#"[^\s;="',]+=(?:"[^"\r\n]*"|[^\s;"',]*)"#;
    Regex::new(&format!(r#"(?i)\b((?:set-)?cookie)("?\s*[=:]\s*"?)({pair}(?:;\s*(?:{pair}|secure\b|httponly\b))*)"#))
        .ok()
});
/// What stands before the host of a URL.
static USER: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r#"([A-Za-z][A-Za-z0-9+.-]*://)[^/\s@"'<>?#]+@(sha256:)?"#).ok());
/// A parameter of a URL.
static PARAMETER: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r#"([?&])([A-Za-z0-9_.-]+)=([^&#\s"'<>]+)"#).ok());
/// `name=value`, `name: value`, `"name": "value"`.
static PAIR: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r#"([A-Za-z0-9_.-]+)("?\s*[=:]\s*)("(?:[^"\\]|\\.)*"?|[^\s"'&;,}<>\])]+)"#).ok());

/// The secrets that are known by their values, beside those that look like ones.
#[derive(Debug, Clone, Default)]
pub struct Mask {
    /// The longest first.
    known: Vec<Secret>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Secret(String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(REDACTED)
    }
}

/// Whether what has this name is a credential: a header, a parameter, a field.
pub fn is_secret_name(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let squashed: String = lower.chars().filter(char::is_ascii_alphanumeric).collect();
    let within = ["authorization", "token", "secret", "passw", "apikey", "credential", "cookie", "jwt", "session"];
    let last = lower.rsplit(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
    within.iter().any(|word| squashed.contains(word)) || ["key", "auth", "pwd", "signature", "sig"].contains(&last)
}

/// Whether a value of this name within a text is one. `key=user:4` has nothing to do with keys.
fn is_secret_field(name: &str) -> bool {
    is_secret_name(name) && !["key", "auth", "sig"].contains(&name.to_ascii_lowercase().as_str())
}

/// Whether a query parameter of this name is one.
fn is_secret_parameter(name: &str) -> bool {
    is_secret_name(name) || ["code", "assertion", "samlresponse", "pass"].contains(&name.to_ascii_lowercase().as_str())
}

impl Mask {
    /// A mask that knows these values.
    pub fn new(secrets: &[String]) -> Self {
        let mut mask = Self::default();
        mask.know(secrets.iter().cloned());
        mask
    }

    /// Knows these values, too.
    pub fn know(&mut self, values: impl IntoIterator<Item = String>) {
        let long = |value: &String| value.trim().len() >= SHORTEST && value != REDACTED;
        let new = values.into_iter().filter(long).map(|value| Secret(value.trim().to_owned()));
        let all: BTreeSet<Secret> = std::mem::take(&mut self.known).into_iter().chain(new).collect();
        self.known = all.into_iter().collect();
        self.known.sort_by_key(|Secret(value)| std::cmp::Reverse(value.len()));
    }

    /// A text without secrets.
    pub fn text(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for Secret(secret) in &self.known {
            if text.contains(secret.as_str()) {
                text = text.replace(secret.as_str(), REDACTED);
            }
        }
        let text = replaced(&JWT, &text, |_| Some(REDACTED.to_owned()));
        let text = replaced(&SCHEME, &text, |found| {
            let (scheme, space, credentials) = (&found[1], &found[2], &found[3]);
            is_credentials(scheme, credentials).then(|| format!("{scheme}{space}{REDACTED}"))
        });
        let text = replaced(&LINE, &text, |found| {
            let secret = is_secret_name(&found[1]) && found[1].contains(['-', '_']) || is_credential_header(&found[1]);
            secret.then(|| format!("{}{}{}", &found[1], &found[2], credentials(&found[1], &found[3])))
        });
        let text = replaced(&COOKIES, &text, |found| {
            Some(format!("{}{}{}", &found[1], &found[2], credentials(&found[1], &found[3])))
        });
        // A digest is no host.
        let text = replaced(&USER, &text, |found| found.get(2).is_none().then(|| format!("{}{REDACTED}@", &found[1])));
        let text = replaced(&PARAMETER, &text, |found| {
            is_secret_parameter(&found[2]).then(|| format!("{}{}={REDACTED}", &found[1], &found[2]))
        });
        replaced(&PAIR, &text, |found| {
            let (name, between, value) = (&found[1], &found[2], &found[3]);
            let quoted = value.starts_with('"');
            // `token: missing` is a sentence.
            let is_value = between.contains('=') || quoted || value.chars().any(|c| c.is_ascii_digit());
            let is_cookies = ["cookie", "set-cookie"].contains(&lower(name).as_str()) && value.contains('=');
            if !is_secret_field(name)
                || !is_value
                || is_cookies
                || value.starts_with(REDACTED)
                || SCHEMES.contains(&lower(value).as_str())
            {
                return None;
            }
            let quote = if quoted { "\"" } else { "" };
            Some(format!("{name}{between}{quote}{REDACTED}{quote}"))
        })
    }

    /// A header's value without secrets.
    pub fn header(&self, name: &str, value: &str) -> String {
        if is_secret_name(name) {
            return credentials(name, value);
        }
        match name {
            ":path" | "location" | "referer" | "x-original-url" | "x-envoy-original-path" => self.url(value),
            _ => self.text(value),
        }
    }

    /// A path or URL without the secrets of its query.
    pub fn url(&self, url: &str) -> String {
        let Some((path, query)) = url.split_once(['?', '#']) else { return self.text(url) };
        let separator = url.as_bytes().get(path.len()).copied().map_or('?', char::from);
        let parameters: Vec<String> = query
            .split('&')
            .map(|parameter| match parameter.split_once('=') {
                Some((name, _)) if is_secret_parameter(name) => format!("{name}={REDACTED}"),
                _ => self.text(parameter),
            })
            .collect();
        format!("{}{separator}{}", self.text(path), parameters.join("&"))
    }

    /// Masks a whole trace, by what it shows itself to be secret.
    pub(super) fn apply(&mut self, trace: &mut Trace) {
        let mut found = of_url(&trace.path);
        find(&trace.events, &mut found);
        self.know(found);
        trace.path = self.url(&trace.path);
        trace.authority = self.text(&trace.authority);
        trace.method = self.text(&trace.method);
        trace.details = self.text(&trace.details);
        self.events(&mut trace.events);
    }

    fn events(&self, events: &mut [Event]) {
        for event in events {
            match &mut event.what {
                What::Message { headers, .. } => {
                    for (name, value) in headers {
                        *value = self.header(name, value);
                    }
                }
                What::Callback(callback) => self.callback(callback),
                What::Log { message, .. } => *message = self.text(message),
                What::Callout(callout) => {
                    callout.path = self.url(&callout.path);
                    callout.method = self.text(&callout.method);
                }
                What::LocalReply { details, body, .. } => {
                    *details = self.text(details);
                    self.content(body);
                }
                What::Hazard { explanation, .. } => *explanation = self.text(explanation),
                What::Reset { details } => *details = self.text(details),
            }
        }
    }

    fn callback(&self, callback: &mut Callback) {
        for change in &mut callback.headers {
            for value in [&mut change.from, &mut change.to].into_iter().flatten() {
                *value = self.header(&change.name, value);
            }
        }
        for change in &mut callback.bodies {
            self.content(&mut change.from);
            self.content(&mut change.to);
        }
        self.events(&mut callback.events);
    }

    fn content(&self, content: &mut Content) {
        if let Some(excerpt) = &mut content.excerpt {
            *excerpt = self.text(excerpt);
        }
    }
}

const SCHEMES: [&str; 4] = ["bearer", "basic", "negotiate", "digest"];

fn lower(text: &str) -> String {
    text.to_ascii_lowercase()
}

fn is_credential_header(name: &str) -> bool {
    ["authorization", "cookie"].contains(&lower(name).as_str())
}

/// A pattern that is not one hides everything.
fn replaced(pattern: &LazyLock<Option<Regex>>, text: &str, f: impl Fn(&Captures<'_>) -> Option<String>) -> String {
    let Some(pattern) = &**pattern else { return REDACTED.to_owned() };
    pattern.replace_all(text, |found: &Captures<'_>| f(found).unwrap_or_else(|| found[0].to_owned())).into_owned()
}

/// `Basic authentication` has none, `Basic b2s6dGVzdA==` has.
fn is_credentials(scheme: &str, text: &str) -> bool {
    if scheme.eq_ignore_ascii_case("basic") {
        return decoded(text).is_some();
    }
    text.len() >= 16 && text.chars().any(|c| c.is_ascii_digit())
}

/// User and password of Basic credentials.
fn decoded(credentials: &str) -> Option<String> {
    let bytes = STANDARD.decode(credentials).or_else(|_| STANDARD_NO_PAD.decode(credentials)).ok()?;
    String::from_utf8(bytes).ok().filter(|text| text.contains(':'))
}

/// What is shown of a header that carries credentials: its scheme, its cookies' names.
fn credentials(name: &str, value: &str) -> String {
    match lower(name).as_str() {
        "cookie" => {
            let shown = value.split(';').map(|pair| match pair.split_once('=') {
                Some((name, _)) => format!("{}={REDACTED}", name.trim()),
                None => REDACTED.to_owned(),
            });
            shown.collect::<Vec<_>>().join("; ")
        }
        "set-cookie" => {
            let (pair, attributes) = value.split_once(';').map_or((value, ""), |(pair, rest)| (pair, rest));
            let name = pair.split_once('=').map_or("", |(name, _)| name);
            let attributes = if attributes.is_empty() { String::new() } else { format!(";{attributes}") };
            format!("{name}={REDACTED}{attributes}")
        }
        _ => match value.split_once(' ') {
            Some((scheme, _)) if SCHEMES.contains(&lower(scheme).as_str()) => format!("{scheme} {REDACTED}"),
            _ => REDACTED.to_owned(),
        },
    }
}

/// The secret values that events show to be ones.
fn find(events: &[Event], found: &mut Vec<String>) {
    let mut header = |name: &str, value: &str| {
        if [":path", "location", "referer"].contains(&name) {
            found.extend(of_url(value));
        } else if is_secret_name(name) {
            found.extend(of_header(name, value));
        }
    };
    for event in events {
        match &event.what {
            What::Message { headers, .. } => headers.iter().for_each(|(name, value)| header(name, value)),
            What::Callback(callback) => {
                for change in &callback.headers {
                    change.from.iter().chain(&change.to).for_each(|value| header(&change.name, value));
                }
            }
            _ => {}
        }
    }
    for event in events {
        if let What::Callback(callback) = &event.what {
            find(&callback.events, found);
        }
    }
}

fn of_header(name: &str, value: &str) -> Vec<String> {
    let values = |pairs: &mut dyn Iterator<Item = &str>| -> Vec<String> {
        pairs.filter_map(|pair| Some(pair.split_once('=')?.1.trim().to_owned())).collect()
    };
    match name {
        "cookie" => values(&mut value.split(';')),
        "set-cookie" => values(&mut value.split(';').take(1)),
        _ => {
            let credentials = value.split_once(' ').map_or(value, |(_, credentials)| credentials).trim();
            let mut found = vec![credentials.to_owned()];
            if let Some(pair) = decoded(credentials) {
                found.extend(pair.split_once(':').map(|(_, password)| password.to_owned()));
                found.push(pair);
            }
            found
        }
    }
}

fn of_url(url: &str) -> Vec<String> {
    let query = url.split_once(['?', '#']).map_or("", |(_, query)| query);
    let pairs = query.split('&').filter_map(|parameter| parameter.split_once('='));
    pairs.filter(|(name, _)| is_secret_parameter(name)).map(|(_, value)| value.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl_-x";

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(Mask::default().text(text), expected);
    }

    #[test]
    fn texts_lose_what_looks_like_a_credential() {
        check(&format!("token {TOKEN}, seen"), "token <redacted>, seen");
        check("sent Basic b2s6dGVzdA== to it", "sent Basic <redacted> to it");
        check("Authorization: Bearer 0123456789abcdef", "Authorization: Bearer <redacted>");
        check("access_token=abc&x=1", "access_token=<redacted>&x=1");
        check("at https://h/cb?code=abc&key=k", "at https://h/cb?code=<redacted>&key=<redacted>");
        check("cookie=a=1; b=\"2 3\"; c=4 seen", "cookie=a=<redacted>; b=<redacted>; c=<redacted> seen");
        check("{\"cookie\": \"a=1; b=2\", \"n\": 1}", "{\"cookie\": \"a=<redacted>; b=<redacted>\", \"n\": 1}");
        check("got set-cookie: id=1; Path=/; Secure", "got set-cookie: id=<redacted>; Path=/; Secure");
        check("from https://ann:pw@h/x to ftp://bob@h", "from https://<redacted>@h/x to ftp://<redacted>@h");
        check("{\"client_secret\": \"a b\", \"n\": 1}", "{\"client_secret\": \"<redacted>\", \"n\": 1}");
        check(
            "GET / HTTP/1.1\r\nCookie: a=b; c=d\r\nX-Api-Key: k\r\n",
            "GET / HTTP/1.1\r\nCookie: a=<redacted>; c=<redacted>\r\nX-Api-Key: <redacted>\r\n",
        );
    }

    #[test]
    fn sentences_stay() {
        for text in [
            "status code=403",
            "key=user:4",
            "Basic authentication failed",
            "token: missing",
            "the key differs",
            "Bearer realm=\"x\"",
            "a=1, b: 2",
            "no cookie: sent away",
            "the cookie; a=1",
            "oci://alpine@sha256:ab",
            "https://h/a@b",
        ] {
            check(text, text);
        }
    }

    #[test]
    fn headers_keep_their_scheme_and_their_cookies_names() {
        let mask = Mask::default();
        for (name, value, expected) in [
            ("authorization", "Bearer abc", "Bearer <redacted>"),
            ("authorization", "abc", "<redacted>"),
            ("proxy-authorization", "Basic abc", "Basic <redacted>"),
            ("cookie", "a=1; b=2", "a=<redacted>; b=<redacted>"),
            ("set-cookie", "id=1; Path=/; HttpOnly", "id=<redacted>; Path=/; HttpOnly"),
            ("x-auth-token", "abc", "<redacted>"),
            ("x-api-key", "abc", "<redacted>"),
            ("x-client-secret", "abc", "<redacted>"),
            ("x-user", "abc", "abc"),
            ("x-note", TOKEN, "<redacted>"),
            (":path", "/a?q=1&access_token=abc&code=x", "/a?q=1&access_token=<redacted>&code=<redacted>"),
            ("location", "https://ann:pw@h/cb?n=1", "https://<redacted>@h/cb?n=1"),
            ("location", "https://h/cb#id_token=abc", "https://h/cb#id_token=<redacted>"),
        ] {
            assert_eq!(mask.header(name, value), expected, "{name}");
        }
    }

    #[test]
    fn known_values_are_found_wherever_they_are() {
        let mask = Mask::new(&["hunter2-hunter2".to_owned(), "ab".to_owned()]);
        assert_eq!(mask.text("with hunter2-hunter2, ab"), "with <redacted>, ab");
        assert!(!format!("{mask:?}").contains("hunter2"));
        let found = of_header("authorization", "Basic b2s6dGVzdHRlc3Q=");
        assert_eq!(found, ["b2s6dGVzdHRlc3Q=", "testtest", "ok:testtest"]);
    }
}

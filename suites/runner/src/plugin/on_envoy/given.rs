//! A test's messages as HTTP/2 sends them, or why it does not.

use std::collections::BTreeMap;

use harness::callbacks::{Direction, Headers};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use suites::plugin::{Invocation, Test};

use super::super::{Suite, cut};
use super::Stop;

/// The most that HTTP/2 sends in one frame, and the most that it sends without having been asked for more.
const FRAME: usize = 16_384;
const WINDOW: usize = 65_535;

/// What HTTP/2 has no such header for.
const NOT_IN_HTTP2: &[&str] = &["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "te"];

pub(super) struct Given {
    pub(super) request: Request<()>,
    pub(super) request_chunks: Vec<Vec<u8>>,
    /// None: the client leaves before there is any.
    pub(super) response: Option<Response<()>>,
    pub(super) response_chunks: Vec<Vec<u8>>,
    /// Pseudo-headers that the test does not have.
    pub(super) added: Vec<&'static str>,
    pub(super) has_host: bool,
}

fn not_run<T>(why: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::NotRun(why.into()))
}

impl Given {
    pub(super) fn new(suite: &Suite, test: &Test, number: usize) -> Result<Self, Stop> {
        if !test.properties.is_empty() {
            return not_run("it sets `properties`, and a stream's properties are Envoy's own");
        }
        for (what, bodies) in [("request_body", &test.request_body), ("response_body", &test.response_body)] {
            if bodies.len() > 1 {
                let count = bodies.len();
                return not_run(format!("`{what}` ends the stream {count} times, and a stream ends once"));
            }
        }
        let path = format!("test[{number}]");
        let headers = |invocation: Option<&Invocation>, direction: Direction, name: &str| match invocation {
            None => Ok(Headers::new()),
            Some(invocation) => suite
                .headers(&invocation.input, direction)
                .map_err(|why| Stop::Broken(format!("{path}.{name}.input: {why}"))),
        };
        let chunks = |invocation: Option<&Invocation>, name: &str| {
            let Some(invocation) = invocation else { return Ok(Vec::new()) };
            let at = |why: String| Stop::Broken(format!("{path}.{name}[0].input: {why}"));
            let body = suite.body(&invocation.input).map_err(at)?;
            let chunks = cut(test.chunking, &body).map_err(at)?;
            if let Some(chunk) = chunks.iter().find(|chunk| chunk.len() > FRAME) {
                return not_run(format!(
                    "`{name}` has a chunk of {} bytes, and HTTP/2 sends {FRAME} at a time",
                    chunk.len()
                ));
            }
            if body.len() > WINDOW {
                return not_run(format!("`{name}` has {} bytes, and HTTP/2 sends {WINDOW} at once", body.len()));
            }
            Ok(chunks.into_iter().map(<[u8]>::to_vec).collect())
        };
        let request = headers(test.request_headers.as_ref(), Direction::Request, "request_headers")?;
        let response = headers(test.response_headers.as_ref(), Direction::Response, "response_headers")?;
        let request_chunks = chunks(test.request_body.first(), "request_body")?;
        let response_chunks = chunks(test.response_body.first(), "response_body")?;
        let (pseudo, fields) = parted(request, &["method", "scheme", "authority", "path"], "request_headers")?;
        let has_response = test.response_headers.is_some() || !response_chunks.is_empty();
        let mut given = Self {
            request: Request::new(()),
            request_chunks,
            response: None,
            response_chunks,
            added: Vec::new(),
            has_host: fields.iter().any(|(name, _)| name == "host"),
        };
        fits(&fields, &given.request_chunks, "request")?;
        given.request(&pseudo, fields)?;
        if has_response {
            let (pseudo, fields) = parted(response, &["status"], "response_headers")?;
            fits(&fields, &given.response_chunks, "response")?;
            let status = pseudo.get("status").map_or("200", String::as_str);
            let status = StatusCode::from_bytes(status.as_bytes()).ok().filter(|status| !status.is_informational());
            let Some(status) = status else { return not_run("its `:status` is none that ends a response") };
            let mut response = Response::new(());
            *response.status_mut() = status;
            response.headers_mut().extend(fields);
            given.response = Some(response);
        }
        Ok(given)
    }

    fn request(&mut self, pseudo: &BTreeMap<String, String>, mut fields: Fields) -> Result<(), Stop> {
        let host = fields.iter().find(|(name, _)| name == "host").map(|(_, value)| value.clone());
        let host = host.and_then(|host| host.to_str().ok().map(str::to_owned));
        fields.retain(|(name, _)| name != "host");
        if let (Some(host), Some(authority)) = (&host, pseudo.get("authority"))
            && host != authority
        {
            return not_run("`host` and `:authority` are two values, and one header in Envoy");
        }
        let mut take = |name: &str, added: &'static str, default: &str| {
            pseudo.get(name).cloned().unwrap_or_else(|| {
                self.added.push(added);
                default.to_owned()
            })
        };
        let method = take("method", ":method", "GET");
        let scheme = take("scheme", ":scheme", "http");
        let path = take("path", ":path", "/");
        let authority = match (pseudo.get("authority"), host) {
            (Some(authority), _) => authority.clone(),
            (None, Some(host)) => {
                self.added.push(":authority");
                host
            }
            (None, None) => take("authority", ":authority", "example.com"),
        };
        let method = Method::from_bytes(method.as_bytes()).ok().filter(|method| *method != Method::CONNECT);
        let uri = Uri::builder().scheme(scheme.as_str()).authority(authority.as_str()).path_and_query(path.as_str());
        let (Some(method), Ok(uri)) = (method, uri.build()) else {
            return not_run(
                "its `:method`, `:scheme`, `:authority` and `:path` are none of a request that can be sent",
            );
        };
        *self.request.method_mut() = method;
        *self.request.uri_mut() = uri;
        *self.request.version_mut() = http::Version::HTTP_2;
        self.request.headers_mut().extend(fields);
        Ok(())
    }
}

type Fields = Vec<(HeaderName, HeaderValue)>;

/// Pseudo-headers, by name, and the others.
fn parted(headers: Headers, known: &[&str], of: &str) -> Result<(BTreeMap<String, String>, Fields), Stop> {
    let (mut pseudo, mut fields) = (BTreeMap::new(), Fields::new());
    for (name, value) in headers {
        let shown = String::from_utf8_lossy(&name).to_ascii_lowercase();
        if let Some(name) = shown.strip_prefix(':') {
            let value = String::from_utf8_lossy(&value).into_owned();
            if !known.contains(&name) || pseudo.insert(name.to_owned(), value).is_some() {
                return not_run(format!(
                    "`:{}` in `{of}` is not, or not twice, in what Envoy takes",
                    name.escape_debug()
                ));
            }
            continue;
        }
        let field = HeaderName::from_bytes(&name).ok().zip(HeaderValue::from_bytes(&value).ok());
        match field.filter(|(name, _)| !NOT_IN_HTTP2.contains(&name.as_str())) {
            Some(field) => fields.push(field),
            None => return not_run(format!("HTTP/2 does not carry the header `{}` of `{of}`", shown.escape_debug())),
        }
    }
    Ok((pseudo, fields))
}

/// A length that is promised has to be sent, or Envoy waits for it, or refuses the message.
fn fits(fields: &Fields, chunks: &[Vec<u8>], of: &str) -> Result<(), Stop> {
    let sent: usize = chunks.iter().map(Vec::len).sum();
    let promised = fields.iter().find(|(name, _)| name == "content-length");
    match promised.filter(|(_, value)| value.as_bytes() != sent.to_string().as_bytes()) {
        Some((_, value)) => {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            not_run(format!("the {of}'s `content-length` promises {value} bytes, and the test sends {sent}"))
        }
        None => Ok(()),
    }
}

//! The server: its own thread and runtime, so that tests without an executor can use it.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::oneshot;

use crate::auth::{self, Tokens};
use crate::body::Incomplete;
use crate::fault::{Does, Fault};
use crate::reply::{BrokenOff, Content, Reply, code_for, error, reply};
use crate::route::{self, Operation, Route};
use crate::store::{Store, lock};
use crate::uploads::Uploads;
use crate::{Options, blobs, manifests, uploads};

/// A request that arrived, kept for a test to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// What it asked for.
    pub operation: Operation,
    /// HTTP method.
    pub method: String,
    /// Path without query.
    pub path: String,
    /// The `Authorization` header.
    pub authorization: Option<String>,
    /// The `Range` header.
    pub range: Option<String>,
    /// The `Content-Range` header.
    pub content_range: Option<String>,
    /// The query, percent-encoded as it came.
    pub query: String,
}

pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) address: SocketAddr,
    pub(crate) store: Store,
    pub(crate) uploads: Uploads,
    tokens: Tokens,
    faults: Mutex<Vec<Fault>>,
    seen: Mutex<Vec<Seen>>,
}

/// A running registry. Dropping it stops it.
pub struct Registry {
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Registry {
    /// Start one. It accepts connections when this returns.
    pub fn start(options: Options) -> io::Result<Self> {
        let store = match &options.directory {
            Some(directory) => Store::folder(directory)?,
            None => Store::memory(),
        };
        let listener = std::net::TcpListener::bind(options.listen)?;
        listener.set_nonblocking(true)?;
        let shared = Arc::new(Shared {
            address: listener.local_addr()?,
            store,
            uploads: Uploads::default(),
            tokens: Tokens::default(),
            faults: Mutex::new(options.faults.clone()),
            seen: Mutex::default(),
            options,
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let serving = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("registry".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, serving) => {}
                    _ = stopped => {}
                }
            });
        })?;
        Ok(Self { shared, stop: Some(stop), thread: Some(thread) })
    }

    /// `127.0.0.1:PORT`, as it stands in a reference.
    pub fn host(&self) -> String {
        self.shared.address.to_string()
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.shared.address)
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.shared.seen).clone()
    }

    /// Operations of all requests so far.
    pub fn operations(&self) -> Vec<Operation> {
        lock(&self.shared.seen).iter().map(|seen| seen.operation).collect()
    }

    /// From now on, these go wrong and nothing else.
    pub fn set_faults(&self, faults: impl IntoIterator<Item = Fault>) {
        *lock(&self.shared.faults) = faults.into_iter().collect();
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(listener: std::net::TcpListener, shared: Arc<Shared>) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
        return;
    };
    loop {
        // A connection that failed before it was accepted concerns nobody.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let service = service_fn(|request| answer(Arc::clone(&shared), request));
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service);
            let _ = connection.await;
        });
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Reply, BrokenOff> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let route = route::parse(&parts.method, &path);
    let header = |name| parts.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).map(str::to_owned);
    let authorization = header(AUTHORIZATION);
    lock(&shared.seen).push(Seen {
        operation: route.operation,
        method: parts.method.to_string(),
        path: path.clone(),
        authorization: authorization.clone(),
        range: header(hyper::header::RANGE),
        content_range: header(hyper::header::CONTENT_RANGE),
        query: parts.uri.query().unwrap_or_default().to_owned(),
    });
    let fault =
        lock(&shared.faults).iter_mut().find_map(|fault| fault.strikes(route.operation).then(|| fault.does.clone()));
    let fault = match fault {
        Some(fault) => match instead(fault, authorization.as_deref()).await? {
            Ok(reply) => return Ok(reply),
            Err(fault) => Some(fault),
        },
        None => None,
    };
    let parameters = parts.uri.query().unwrap_or_default().to_owned();
    // The name by which the client knows us.
    let own = header(hyper::header::HOST).unwrap_or_else(|| shared.address.to_string());
    let wanted = auth::scopes(&route, &parameters);
    if matches!(fault, Some(Does::ForgetUpload)) {
        uploads::cancel(&shared, &route);
    }
    let body = match fault {
        Some(Does::BreakUpload(at)) => Incomplete::breaking(body, at),
        _ => Incomplete::whole(body),
    };
    let reply = match shared.options.auth.check(&shared.tokens, &route, &wanted, authorization.as_deref(), &own) {
        Some(refusal) => refusal,
        None => dispatch(&shared, &route, &parts, &parameters, body).await.unwrap_or_else(|failure| {
            error(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", &format!("storage: {failure}"))
        }),
    };
    if matches!(fault, Some(Does::BreakUpload(_))) {
        return Err(BrokenOff);
    }
    let mut reply = match fault {
        Some(fault) => spoilt(reply, &fault),
        None => reply,
    };
    if parts.method == Method::HEAD {
        let length = reply.body().bytes.len();
        reply.headers_mut().insert("content-length", HeaderValue::from(length));
        *reply.body_mut() = Content::default();
    }
    Ok(reply)
}

async fn dispatch(
    shared: &Shared,
    route: &Route<'_>,
    parts: &hyper::http::request::Parts,
    parameters: &str,
    body: Incomplete,
) -> io::Result<Reply> {
    if !route.name.is_empty() && !route::is_name(route.name) {
        return Ok(error(StatusCode::BAD_REQUEST, "NAME_INVALID", "invalid repository name"));
    }
    let headers = &parts.headers;
    match route.operation {
        Operation::Ping => Ok(reply(StatusCode::OK, &[("content-type", "application/json")], "{}")),
        Operation::Token => {
            let form = if parts.method == Method::POST {
                let bytes = Limited::new(body, 64 * 1024).collect().await.map(http_body_util::Collected::to_bytes);
                Some(String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned())
            } else {
                None
            };
            let shown = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
            Ok(shared.options.auth.token(
                &shared.tokens,
                shared.options.token_lifetime,
                parameters,
                form.as_deref(),
                shown,
            ))
        }
        Operation::BlobHead | Operation::BlobGet => blobs::get(shared, route, headers),
        Operation::BlobDelete => blobs::delete(shared, route),
        Operation::UploadStart => uploads::start(shared, route, parameters, body).await,
        Operation::UploadPatch => uploads::patch(shared, route, headers, body).await,
        Operation::UploadFinish => uploads::finish(shared, route, headers, parameters, body).await,
        Operation::UploadStatus => Ok(uploads::status(shared, route)),
        Operation::UploadCancel => Ok(uploads::cancel(shared, route)),
        Operation::ManifestHead | Operation::ManifestGet => manifests::get(shared, route),
        Operation::ManifestPut => manifests::put(shared, route, headers, body).await,
        Operation::ManifestDelete => manifests::delete(shared, route),
        Operation::Tags => manifests::tags(shared, route, parameters),
        Operation::Referrers => manifests::referrers(shared, route, parameters),
        Operation::Unknown => Ok(error(StatusCode::NOT_FOUND, "UNSUPPORTED", "no such endpoint")),
    }
}

/// The answer that a fault gives in place of the right one; or the fault, if it needs that one.
async fn instead(fault: Does, authorization: Option<&str>) -> Result<Result<Reply, Does>, BrokenOff> {
    let status = |status| StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    Ok(Ok(match fault {
        Does::Status(code) => error(status(code), code_for(code), "as told"),
        Does::StatusWith(code, name, value) => {
            let mut reply = error(status(code), code_for(code), "as told");
            if let Ok(value) = value.parse() {
                reply.headers_mut().insert(name, value);
            }
            reply
        }
        Does::StatusBody(code, body) => reply(status(code), &[("content-type", "application/json")], body),
        Does::Redirect(location) => reply(StatusCode::TEMPORARY_REDIRECT, &[("location", &location)], Bytes::new()),
        Does::Echo => {
            let message = format!("you showed {}", authorization.unwrap_or("nothing"));
            error(StatusCode::BAD_REQUEST, "UNKNOWN", &message)
        }
        Does::Stall => std::future::pending::<Reply>().await,
        Does::Hangup => return Err(BrokenOff),
        other => return Ok(Err(other)),
    }))
}

fn spoilt(reply: Reply, fault: &Does) -> Reply {
    let (mut parts, content) = reply.into_parts();
    let mut bytes = content.bytes;
    let length = bytes.len();
    let mut promised = None;
    match fault {
        Does::WrongContent => {
            let mut copy = bytes.to_vec();
            if let Some(last) = copy.last_mut() {
                *last ^= 1;
            }
            bytes = copy.into();
        }
        Does::Truncate(at) | Does::StallAfter(at) if *at < length => {
            promised = Some(length as u64);
            bytes.truncate(*at);
        }
        Does::Short(at) => bytes.truncate(*at),
        Does::Oversize(more) => {
            let mut copy = bytes.to_vec();
            copy.resize(length + more, b' ');
            bytes = copy.into();
        }
        Does::LyingDigest => {
            let lie = crate::digest::of(b"a lie");
            if let Ok(value) = lie.parse() {
                parts.headers.insert("docker-content-digest", value);
            }
        }
        Does::Header(name, value) => {
            if let Ok(value) = value.parse() {
                parts.headers.insert(*name, value);
            }
        }
        Does::ContentType(media_type) => {
            parts.headers.insert("content-type", HeaderValue::from_static(media_type));
        }
        _ => {}
    }
    let mut content = Content::new(bytes);
    content.promised = promised;
    content.stalls = matches!(fault, Does::StallAfter(_));
    if let Does::Drip(milliseconds) = fault {
        content.drips = Some(std::time::Duration::from_millis(*milliseconds));
    }
    Response::from_parts(parts, content)
}

/// A query parameter, percent-decoded.
pub(crate) fn query(parameters: &str, name: &str) -> Option<String> {
    queries(parameters, name).next()
}

/// Each value of a query parameter that may be repeated.
pub(crate) fn queries(parameters: &str, name: &str) -> impl Iterator<Item = String> {
    parameters.split('&').filter_map(move |pair| {
        let (key, value) = pair.split_once('=')?;
        (key == name).then(|| decoded(value))
    })
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        match (first, after) {
            (b'%', [high, low, after @ ..]) => {
                let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                match (digit(*high), digit(*low)) {
                    (Some(high), Some(low)) => {
                        bytes.push(high << 4 | low);
                        rest = after;
                    }
                    _ => bytes.push(b'%'),
                }
            }
            (b'+', _) => bytes.push(b' '),
            (byte, _) => bytes.push(*byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A number that a client cannot guess.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_decoded() {
        assert_eq!(query("a=1&digest=sha256%3Aab+c%", "digest").as_deref(), Some("sha256:ab c%"));
        assert_eq!(query("a=%zz%4", "a").as_deref(), Some("%zz%4"));
        assert_eq!(query("digest", "digest"), None);
    }
}

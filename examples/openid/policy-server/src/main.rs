//! A policy server for the acl-check plugin: a JWT comes in, a signed token that says what its subject may do goes out.

mod issuer;
mod policy;
mod verifier;

use std::convert::Infallible;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Parser;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, WWW_AUTHENTICATE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

use crate::issuer::Issuer;
use crate::policy::Policy;
use crate::verifier::Verifier;

/// How long a client may take to send its request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// Answers acl-check: 200 with a signed token, 401 for a JWT that is not good, 403 for a subject without permissions.
///
/// Prints `listening on http://ADDRESS` once it serves.
#[derive(Parser)]
#[command(name = "policy-server")]
struct Arguments {
    /// Address to listen on; port 0 picks a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9000")]
    listen: SocketAddr,
    /// Who may do what: JSON, `{"SUBJECT": ["FUNCTION", …], …}`. It is read again for every question
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// The keys that JWTs are signed with: a key set's `http://` or `https://` URL, or a file with one or with a public key
    #[arg(long, value_name = "URL|FILE")]
    jwt_keys: String,
    /// What the JWT's `iss` must be
    #[arg(long, value_name = "ISSUER")]
    jwt_issuer: Option<String>,
    /// What the JWT's `aud` must be or have
    #[arg(long, value_name = "AUDIENCE")]
    jwt_audience: Option<String>,
    /// The file with the key to sign with: a P-256 private key in PEM for ES256, else a shared key for HS256
    #[arg(long, value_name = "FILE", required_unless_present = "key_env", conflicts_with = "key_env")]
    key_file: Option<PathBuf>,
    /// The environment variable with the key to sign with
    #[arg(long, value_name = "NAME")]
    key_env: Option<String>,
    /// The `iss` of the tokens that are signed
    #[arg(long, value_name = "ISSUER", default_value = "policy-server")]
    issuer: String,
    /// How many seconds they are valid
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    lifetime: u64,
}

/// Everything that a question is answered from.
struct Server {
    policy: Policy,
    verifier: Verifier,
    issuer: Issuer,
}

type Reply = Response<Full<Bytes>>;

impl Server {
    fn new(arguments: Arguments) -> Result<Self, Box<dyn std::error::Error>> {
        let policy = Policy::new(arguments.policy);
        policy.read()?;
        let key = match (arguments.key_file, arguments.key_env) {
            (Some(file), _) => {
                std::fs::read_to_string(&file).map_err(|error| format!("failed to read {}: {error}", file.display()))?
            }
            (None, name) => {
                let name = name.unwrap_or_default();
                std::env::var(&name).map_err(|_| format!("the environment variable `{name}` is not set to a key"))?
            }
        };
        let issuer = Issuer::new(&key, arguments.issuer, arguments.lifetime)?;
        let verifier = Verifier::new(arguments.jwt_keys, arguments.jwt_issuer, arguments.jwt_audience)?;
        Ok(Self { policy, verifier, issuer })
    }

    fn answer(&self, headers: &HeaderMap, now: Duration) -> Reply {
        let Some(token) = bearer(headers) else { return unauthorized("Bearer") };
        let subject = match self.verifier.subject(token, now) {
            Ok(subject) => subject,
            Err(verifier::Rejected::Token(reason)) => {
                say(&format!("401: {reason}"));
                return unauthorized(r#"Bearer error="invalid_token""#);
            }
            Err(verifier::Rejected::Keys(reason)) => {
                say(&format!("500: {reason}"));
                return status(StatusCode::INTERNAL_SERVER_ERROR);
            }
        };
        let policy = match self.policy.read() {
            Ok(policy) => policy,
            Err(error) => {
                say(&format!("500: {error}"));
                return status(StatusCode::INTERNAL_SERVER_ERROR);
            }
        };
        match policy.get(&subject).filter(|functions| !functions.is_empty()) {
            None => status(StatusCode::FORBIDDEN),
            Some(functions) => {
                let mut reply = Response::new(Full::from(self.issuer.permit(&subject, functions, now)));
                let headers = reply.headers_mut();
                headers.insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/jwt"));
                headers.insert(CACHE_CONTROL, self.issuer.cache_control());
                reply
            }
        }
    }
}

/// The one bearer token of the request.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next()?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    (values.next().is_none() && scheme.eq_ignore_ascii_case("bearer")).then_some(token.trim())
}

fn status(status: StatusCode) -> Reply {
    let mut reply = Response::new(Full::default());
    *reply.status_mut() = status;
    reply
}

fn unauthorized(challenge: &'static str) -> Reply {
    let mut reply = status(StatusCode::UNAUTHORIZED);
    reply.headers_mut().insert(WWW_AUTHENTICATE, hyper::header::HeaderValue::from_static(challenge));
    reply
}

fn say(line: &str) {
    // Nobody is left to be told that standard error is gone.
    let _ = writeln!(std::io::stderr(), "{line}");
}

async fn respond(server: Arc<Server>, request: Request<Incoming>) -> Result<Reply, Infallible> {
    if request.method() != Method::GET {
        return Ok(status(StatusCode::METHOD_NOT_ALLOWED));
    }
    let headers = request.headers().clone();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let answered = tokio::task::spawn_blocking(move || server.answer(&headers, now)).await;
    Ok(answered.unwrap_or_else(|_| status(StatusCode::INTERNAL_SERVER_ERROR)))
}

async fn serve(arguments: Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let address = arguments.listen;
    let server = Arc::new(Server::new(arguments)?);
    let listener =
        TcpListener::bind(address).await.map_err(|error| format!("failed to listen on {address}: {error}"))?;
    writeln!(std::io::stdout(), "listening on http://{}", listener.local_addr()?)?;
    loop {
        // A connection that could not be accepted is the client's loss.
        let Ok((stream, _)) = listener.accept().await else { continue };
        let server = Arc::clone(&server);
        tokio::spawn(async move {
            let service = service_fn(move |request| respond(Arc::clone(&server), request));
            let mut http = hyper::server::conn::http1::Builder::new();
            let connection = http
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            let _ = connection.await;
        });
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            say(&format!("error: failed to start: {error}"));
            return ExitCode::from(3);
        }
    };
    match runtime.block_on(serve(arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}

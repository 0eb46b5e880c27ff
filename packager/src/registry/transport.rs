//! One HTTP request and its redirects, by our own rules: plain HTTP, addresses and credentials are decided here.

use std::cell::RefCell;
use std::fs::File;
use std::io::{Read, Write as _};
use std::time::Duration;

use ureq::http::header::{AUTHORIZATION, CONTENT_LENGTH, LOCATION};
use ureq::http::{self, HeaderMap, HeaderValue, Method};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, SendBody};

use crate::blob::Blob;
use crate::credentials::Secret;

use super::address::{ForbiddenAddress, GuardedResolver, NameError, Reach};
use super::error::Place;
use super::proxy::{Proxies, Proxy};
use super::url::Url;
use super::verified::{Unsent, Upload};
use super::{Options, PlainHttp, Progress, RegistryError};

const SAVED_AT_A_TIME: usize = 64 * 1024;
const REDIRECT_LIMIT: usize = 10;
/// Slower than this for a whole body counts as dead, however steadily it drips.
const SLOWEST_BYTES_PER_SECOND: u64 = 16 * 1024;

/// What is sent.
#[derive(Clone, Copy)]
pub(super) enum Body<'a> {
    None,
    Bytes(&'a [u8]),
    Blob(&'a Blob, &'a dyn Progress),
    /// So many bytes of a blob, from this position.
    Part(&'a RefCell<Upload<'a>>, u64, u64),
}

impl Body<'_> {
    fn size(&self) -> u64 {
        match self {
            Self::None => 0,
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Blob(blob, _) => blob.descriptor.size(),
            Self::Part(_, _, size) => *size,
        }
    }
}

#[derive(Clone)]
pub(super) struct Request<'a> {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) authorization: Option<Secret>,
    pub(super) body: Body<'a>,
    pub(super) reach: Reach,
    /// Whether a redirect is followed.
    pub(super) follow: bool,
    /// Whether plain HTTP may lead to plain HTTP anywhere.
    pub(super) plain: bool,
    /// How much body is expected to come, which decides how long it may take.
    pub(super) expected: u64,
}

impl<'a> Request<'a> {
    pub(super) fn new(method: Method, url: Url) -> Self {
        let follow = matches!(method, Method::GET | Method::HEAD);
        let (headers, body) = (Vec::new(), Body::None);
        Self { method, url, headers, authorization: None, body, reach: Reach::Any, follow, plain: false, expected: 0 }
    }

    pub(super) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(super) fn body(mut self, body: Body<'a>) -> Self {
        self.body = body;
        self
    }

    pub(super) fn expect(mut self, bytes: u64) -> Self {
        self.expected = bytes;
        self
    }

    pub(super) fn place(&self) -> Place {
        Place::new(name(&self.method), &self.url)
    }
}

fn name(method: &Method) -> &'static str {
    match *method {
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        _ => "GET",
    }
}

/// An answer of any status, its body not yet read.
pub(super) struct Answer {
    pub(super) place: Place,
    /// Where it came from in the end.
    pub(super) url: Url,
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: ureq::Body,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The whole body, if it is not larger than `limit`.
    pub(super) fn read(&mut self, what: &str, limit: u64) -> Result<Vec<u8>, RegistryError> {
        let declared = self.body.content_length().unwrap_or(0);
        let mut bytes = Vec::new();
        if declared <= limit {
            let read = self.body.as_reader().take(limit + 1).read_to_end(&mut bytes);
            if let Err(source) = read {
                let Place { method, url } = self.place.clone();
                return Err(RegistryError::Interrupted { method, url, received: bytes.len() as u64, source });
            }
        }
        if declared > limit || bytes.len() as u64 > limit {
            return Err(RegistryError::TooLarge { what: what.to_owned(), limit });
        }
        Ok(bytes)
    }
}

impl Answer {
    /// The same into a file. What has come of an answer that breaks off stays in it.
    pub(super) fn save(&mut self, what: &str, limit: u64, into: &mut File) -> Result<(), RegistryError> {
        let too_large = || RegistryError::TooLarge { what: what.to_owned(), limit };
        if self.body.content_length().is_some_and(|declared| declared > limit) {
            return Err(too_large());
        }
        let (mut buffer, mut received) = (vec![0; SAVED_AT_A_TIME], 0_u64);
        let mut reader = self.body.as_reader();
        loop {
            let read = match reader.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(source) => {
                    let Place { method, url } = self.place.clone();
                    return Err(RegistryError::Interrupted { method, url, received, source });
                }
            };
            received += read as u64;
            if received > limit {
                return Err(too_large());
            }
            let action = || format!("write {what}");
            into.write_all(&buffer[..read]).map_err(|source| RegistryError::Local { action: action(), source })?;
        }
    }
}

/// The same way of connecting, to anywhere and to public addresses only.
struct Agents {
    any: Agent,
    public: Agent,
}

pub(super) struct Transport {
    direct: Agents,
    https: Option<Agents>,
    http: Option<Agents>,
    proxies: Proxies,
    plain_http: PlainHttp,
    patience: Duration,
}

impl Transport {
    pub(super) fn new(options: &Options) -> Result<Self, RegistryError> {
        let tls = TlsConfig::builder().root_certs(roots(&options.ca_certificates)?).build();
        let agent = |reach, proxy: Option<&Proxy>| {
            let config = Agent::config_builder()
                .http_status_as_error(false)
                .max_redirects(0)
                .max_redirects_will_error(false)
                .proxy(proxy.map(|proxy| proxy.0.clone()))
                .tls_config(tls.clone())
                .user_agent(options.user_agent.as_str())
                .max_idle_connections_per_host(options.parallel.max(1))
                .timeout_resolve(Some(options.connect_timeout))
                .timeout_connect(Some(options.connect_timeout))
                .timeout_per_read(Some(options.read_timeout))
                .timeout_per_write(Some(options.read_timeout))
                .timeout_send_request(Some(options.read_timeout))
                .timeout_recv_response(Some(options.read_timeout))
                .build();
            let place = proxy.map(|proxy| format!("{}:{}", proxy.0.host(), proxy.0.port()));
            Agent::with_parts(config, DefaultConnector::default(), GuardedResolver::new(reach, place))
        };
        let agents =
            |proxy: Option<&Proxy>| Agents { any: agent(Reach::Any, proxy), public: agent(Reach::Public, proxy) };
        let through = |proxy: &Option<Proxy>| proxy.as_ref().map(|proxy| agents(Some(proxy)));
        Ok(Self {
            direct: agents(None),
            https: through(&options.proxies.https),
            http: through(&options.proxies.http),
            proxies: options.proxies.clone(),
            plain_http: options.plain_http.clone(),
            patience: options.read_timeout,
        })
    }

    fn agent(&self, url: &Url, reach: Reach, proxy: Option<&Proxy>) -> &Agent {
        let through = if url.is_tls() { &self.https } else { &self.http };
        let agents = through.as_ref().filter(|_| proxy.is_some()).unwrap_or(&self.direct);
        match reach {
            Reach::Any => &agents.any,
            Reach::Public => &agents.public,
        }
    }

    /// Whether a server may send us from one URL to another: never from TLS to plain HTTP, and to plain HTTP only where
    /// it is spoken anyway.
    pub(super) fn may_lead(&self, from: &Url, to: &Url) -> bool {
        let host = to.uri().authority().map_or("", http::uri::Authority::as_str);
        to.is_tls() || (!from.is_tls() && self.plain_http.allows(host))
    }

    /// Send a request; follow redirects of GET and HEAD. Credentials stay with the origin that they are for.
    pub(super) fn send(&self, request: &Request<'_>) -> Result<Answer, RegistryError> {
        let mut url = request.url.clone();
        for _ in 0..=REDIRECT_LIMIT {
            let authorization = request.authorization.as_ref().filter(|_| url.same_origin(&request.url));
            let answer = self.hop(request, &url, authorization)?;
            let redirect = matches!(answer.status, 301 | 302 | 303 | 307 | 308);
            if !redirect {
                return Ok(answer);
            }
            let Place { method, url: from } = answer.place.clone();
            let refused = |reason: String| RegistryError::Redirect { method, url: from.clone(), reason };
            if !request.follow {
                return Err(refused(format!("status {} is not expected here", answer.status)));
            }
            let location = answer.header(LOCATION.as_str()).ok_or_else(|| refused("it has no Location".to_owned()))?;
            let next = url.join(location).map_err(|error| refused(format!("its Location is unusable: {error}")))?;
            let may = self.may_lead(&url, &next) || (request.plain && !url.is_tls());
            if !may {
                return Err(refused(format!("{next} would be plain HTTP")));
            }
            url = next;
        }
        let Place { method, url } = request.place();
        Err(RegistryError::Redirect { method, url, reason: format!("more than {REDIRECT_LIMIT} in a row") })
    }

    fn hop(&self, request: &Request<'_>, url: &Url, authorization: Option<&Secret>) -> Result<Answer, RegistryError> {
        let place = Place::new(name(&request.method), url);
        let mut builder = http::Request::builder().method(request.method.clone()).uri(url.uri().clone());
        for (name, value) in &request.headers {
            builder = builder.header(*name, value);
        }
        if let Some(authorization) = authorization {
            let mut value = HeaderValue::from_str(authorization.expose())
                .map_err(|_| place.clone().protocol("the credentials cannot be put into a header"))?;
            value.set_sensitive(true);
            builder = builder.header(AUTHORIZATION, value);
        }
        if !matches!(request.body, Body::None) {
            builder = builder.header(CONTENT_LENGTH, request.body.size());
        }
        let proxy = self.proxies.of(url);
        if proxy.is_some_and(Proxy::resolves) {
            request.reach.check_name(&url.host()).map_err(|error| {
                let Place { method, url: place } = place.clone();
                match error {
                    NameError::Address(source) => RegistryError::Forbidden { method, url: place, source },
                    NameError::Name => RegistryError::ForbiddenName { method, url: place, host: url.host() },
                }
            })?;
        }
        let agent = self.agent(url, request.reach, proxy);
        let outcome = match request.body {
            Body::None => self.run(agent, request, builder, SendBody::none()),
            Body::Bytes(mut bytes) => self.run(agent, request, builder, SendBody::from_reader(&mut bytes)),
            Body::Blob(blob, progress) => {
                let mut upload = Upload::open(blob, 0, progress)?;
                self.run(agent, request, builder, SendBody::from_reader(&mut upload))
            }
            Body::Part(upload, position, size) => {
                let mut upload = upload.borrow_mut();
                upload.seek(position)?;
                self.run(agent, request, builder, SendBody::from_reader(&mut (&mut *upload).take(size)))
            }
        };
        let (parts, body) = outcome.map_err(|error| failed(place.clone(), request, proxy, error))?.into_parts();
        Ok(Answer { place, url: url.clone(), status: parts.status.as_u16(), headers: parts.headers, body })
    }

    fn run(
        &self,
        agent: &Agent,
        request: &Request<'_>,
        builder: http::request::Builder,
        body: SendBody<'_>,
    ) -> Result<http::Response<ureq::Body>, ureq::Error> {
        let allowance = |bytes: u64| Some(self.patience + Duration::from_secs(bytes / SLOWEST_BYTES_PER_SECOND));
        let configured = agent
            .configure_request(builder.body(body)?)
            .timeout_send_body(allowance(request.body.size()))
            .timeout_recv_body(allowance(request.expected))
            .build();
        agent.run(configured)
    }
}

fn failed(place: Place, request: &Request<'_>, proxy: Option<&Proxy>, error: ureq::Error) -> RegistryError {
    let Place { method, url } = place;
    let proxy = proxy.map(ToString::to_string);
    match error {
        ureq::Error::Other(source) => match source.downcast::<ForbiddenAddress>() {
            Ok(source) => RegistryError::Forbidden { method, url, source: *source },
            Err(source) => RegistryError::Unreachable { method, url, proxy, source },
        },
        ureq::Error::Io(error) if error.get_ref().is_some_and(|inner| inner.downcast_ref::<Unsent>().is_some()) => {
            let blob = match request.body {
                Body::Blob(blob, _) => blob.descriptor.digest().to_string(),
                Body::Part(upload, ..) => upload.borrow().digest().to_string(),
                Body::None | Body::Bytes(_) => String::new(),
            };
            match error.into_inner().and_then(|inner| inner.downcast::<Unsent>().ok()).map(|unsent| *unsent) {
                Some(Unsent::Mismatch(mismatch)) => mismatch.into_error(format!("local blob {blob}")),
                Some(Unsent::Read(source)) => RegistryError::Local { action: format!("read blob {blob}"), source },
                None => RegistryError::Protocol { method, url, reason: "the blob could not be sent".to_owned() },
            }
        }
        ureq::Error::Io(error) => RegistryError::Unreachable { method, url, proxy, source: error.into() },
        error => RegistryError::Unreachable { method, url, proxy, source: error.into() },
    }
}

/// Public roots, and with them the given ones. A file that gives none is an error: nobody names it for nothing.
fn roots(pem: &[Vec<u8>]) -> Result<RootCerts, RegistryError> {
    if pem.is_empty() {
        return Ok(RootCerts::WebPki);
    }
    let mut certificates: Vec<Certificate<'static>> = webpki_root_certs::TLS_SERVER_ROOT_CERTS
        .iter()
        .map(|certificate| Certificate::from_der(certificate.as_ref()))
        .collect();
    for pem in pem {
        let before = certificates.len();
        for item in ureq::tls::parse_pem(pem) {
            let item = item.map_err(|error| RegistryError::Certificates { reason: error.to_string() })?;
            if let PemItem::Certificate(certificate) = item {
                certificates.push(certificate);
            }
        }
        if certificates.len() == before {
            return Err(RegistryError::Certificates { reason: "there is no PEM certificate in the file".to_owned() });
        }
    }
    Ok(RootCerts::new_with_certs(&certificates))
}

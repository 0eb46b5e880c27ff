//! Named upstreams that filters may call, whole HTTP calls to them, and their gRPC clients.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::grpc;
use crate::header_map::HeaderMap;
use crate::upstream::{Address, Dialer, Event, Failure, Upstream};

/// More of a response body than this fails the call, as in Envoy.
const MAX_RESPONSE: usize = 32 << 20;

/// Answers calls in this process, for a proxy without sockets.
pub(crate) trait Backends {
    /// How long a response takes, and which it is; it breaks off when there is none. `None`: no such cluster.
    fn http(&self, cluster: &str, call: &Call) -> Option<(Duration, Option<Response>)>;

    /// Whether there is such a cluster for gRPC.
    fn has_grpc(&self, cluster: &str) -> bool;

    /// What is answered to one part of a gRPC call, which has a number.
    fn grpc(&self, cluster: &str, call: (u64, &HeaderMap), message: Option<Bytes>, end: bool) -> grpc::Scripted;
}

/// A worker's clusters, by name.
pub(crate) struct Clusters {
    by_name: RefCell<HashMap<String, Cluster>>,
    /// What stands for all of them, in a proxy without sockets.
    backends: Option<Rc<dyn Backends>>,
    /// Of gRPC clients that ask there.
    numbers: Cell<u64>,
}

struct Cluster {
    address: Address,
    http: Upstream,
    grpc: grpc::Client,
}

/// A call with its whole body.
#[derive(Debug)]
pub(crate) struct Call {
    /// With `:method`, `:path` and `:authority`.
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
    /// `None`: wait for ever.
    pub(crate) timeout: Option<Duration>,
    /// This proxy's address, for the header that names it.
    pub(crate) forwarded_for: Option<IpAddr>,
}

impl Call {
    /// Whether it has the headers that a call needs.
    pub(crate) fn check(&self) -> Result<(), CallError> {
        let missing = [":method", ":path", ":authority"].iter().any(|name| self.headers.get(name.as_bytes()).is_none());
        if missing { Err(CallError::MissingHeader) } else { Ok(()) }
    }
}

/// A whole response. A connection that fails and a timeout are responses too, as in Envoy: 503 and 504.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
}

/// Why a call is not made at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    #[error("there is no cluster of that name")]
    UnknownCluster,
    #[error("a call needs :method, :path and :authority")]
    MissingHeader,
}

/// The response broke off after its headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reset;

impl Clusters {
    /// Clusters by name, each at an address.
    pub(crate) fn new(addresses: &BTreeMap<String, Address>, dialer: &Dialer) -> Self {
        let clusters = Self { by_name: RefCell::default(), backends: None, numbers: Cell::default() };
        clusters.replace(addresses, dialer);
        clusters
    }

    /// Clusters that are asked in this process.
    pub(crate) fn scripted(backends: Rc<dyn Backends>) -> Self {
        Self { by_name: RefCell::default(), backends: Some(backends), numbers: Cell::default() }
    }

    /// Takes other clusters. Those whose addresses stay keep their connections.
    pub(crate) fn replace(&self, addresses: &BTreeMap<String, Address>, dialer: &Dialer) {
        let mut clusters = self.by_name.borrow_mut();
        let mut before = std::mem::take(&mut *clusters);
        let mut cluster = |(name, address): (&String, &Address)| {
            let same = before.remove(name).filter(|cluster| cluster.address == *address);
            let made = || Cluster {
                address: address.clone(),
                http: Upstream::new(address.clone(), dialer.clone()),
                grpc: grpc::Client::new(address.clone(), dialer.clone()),
            };
            (name.clone(), same.unwrap_or_else(made))
        };
        *clusters = addresses.iter().map(&mut cluster).collect();
    }

    /// The client for gRPC calls to a cluster, which is spoken to in HTTP/2.
    pub(crate) fn grpc(&self, cluster: &str) -> Option<grpc::Client> {
        match &self.backends {
            Some(backends) => backends.has_grpc(cluster).then(|| {
                let number = self.numbers.get() + 1;
                self.numbers.set(number);
                grpc::Client::scripted(cluster, number, backends.clone())
            }),
            None => self.by_name.borrow().get(cluster).map(|cluster| cluster.grpc.clone()),
        }
    }

    /// Whether there is a cluster of that name.
    pub(crate) fn has(&self, cluster: &str) -> bool {
        self.by_name.borrow().contains_key(cluster) || self.backends.is_some()
    }

    /// Makes a call. Dropping the future cancels it.
    pub(crate) fn call(
        &self,
        cluster: &str,
        mut call: Call,
    ) -> Result<impl Future<Output = Result<Response, Reset>> + use<>, CallError> {
        let (upstream, scripted) = match &self.backends {
            None => (Some(self.by_name.borrow().get(cluster).ok_or(CallError::UnknownCluster)?.http.clone()), None),
            Some(backends) => {
                call.check()?;
                (None, Some(backends.http(cluster, &call).ok_or(CallError::UnknownCluster)?))
            }
        };
        call.check()?;
        // The map's bound is the same for everyone: what does not fit is left out.
        if !call.body.is_empty() {
            let _ = call.headers.replace(b"content-length", call.body.len().to_string().as_bytes());
        }
        let _ = call.headers.replace(b"x-envoy-internal", b"true");
        if let Some(own) = call.forwarded_for {
            let _ = call.headers.add(b"x-forwarded-for", own.to_string().as_bytes());
        }
        if let Some(timeout) = call.timeout {
            let timeout = timeout.as_millis().to_string();
            let _ = call.headers.replace(b"x-envoy-expected-rq-timeout-ms", timeout.as_bytes());
        }
        Ok(async move {
            let timeout = call.timeout;
            let exchange = async move {
                match (upstream, scripted) {
                    (Some(upstream), _) => exchange(upstream, call).await,
                    (None, Some((delay, response))) => {
                        tokio::time::sleep(delay).await;
                        response.ok_or(Reset)
                    }
                    (None, None) => Err(Reset),
                }
            };
            match timeout {
                None => exchange.await,
                Some(timeout) => tokio::time::timeout(timeout, exchange)
                    .await
                    .unwrap_or_else(|_| Ok(proxy_made(504, "upstream request timeout"))),
            }
        })
    }
}

async fn exchange(upstream: Upstream, call: Call) -> Result<Response, Reset> {
    let end = call.body.is_empty() && call.trailers.is_none();
    let mut exchange = match upstream.start(&call.headers, end) {
        Ok(exchange) => exchange,
        Err(failure) => return Ok(unreachable(failure)),
    };
    if !call.body.is_empty() {
        exchange.data(call.body, call.trailers.is_none());
    }
    if let Some(trailers) = call.trailers {
        exchange.trailers(trailers);
    }
    let mut response: Option<HeaderMap> = None;
    let mut body = BytesMut::new();
    let mut trailers = None;
    loop {
        match poll_fn(|cx| exchange.poll_event(cx)).await {
            Event::Headers { headers, end } => {
                response = Some(headers);
                if end {
                    break;
                }
            }
            Event::Data(bytes) if body.len() + bytes.len() > MAX_RESPONSE => return Err(Reset),
            Event::Data(bytes) => body.extend_from_slice(&bytes),
            Event::Trailers(received) => {
                trailers = Some(received);
                break;
            }
            Event::End => break,
            Event::Failed(_) if response.is_some() => return Err(Reset),
            Event::Failed(failure) => return Ok(unreachable(failure)),
        }
    }
    let headers = response.ok_or(Reset)?;
    Ok(Response { headers, body: body.freeze(), trailers })
}

pub(crate) fn unreachable(failure: Failure) -> Response {
    proxy_made(503, &failure.message())
}

fn proxy_made(status: u16, body: &str) -> Response {
    let mut headers = HeaderMap::default();
    let length = body.len().to_string();
    for (name, value) in
        [(":status", status.to_string().as_str()), ("content-length", &length), ("content-type", "text/plain")]
    {
        // Three short headers fit any map.
        let _ = headers.add(name.as_bytes(), value.as_bytes());
    }
    Response { headers, body: Bytes::copy_from_slice(body.as_bytes()), trailers: None }
}

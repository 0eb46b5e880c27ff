//! Calls to clusters and names to resolve. What comes back arrives at the root context, after this callback.

use std::time::Duration;

use bytes::Bytes;

use super::{Call, Fault, memory};
use crate::abi::{LogLevel, Status, pairs};
use crate::callouts::{Kind, Refusal};
use crate::cluster;
use crate::grpc::{Service, ServiceError};
use crate::header_map::{HeaderMap, TooLarge};
use crate::state::HostState;

/// No cluster has a longer name.
const MAX_NAME: u32 = 4096;

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::UnknownCluster | Refusal::MissingHeader => Status::BadArgument,
            Refusal::TooMuch => Status::InternalFailure,
        }
        .into()
    }
}

fn name(memory: &[u8], ptr: u32, len: u32) -> Result<String, Fault> {
    let bytes = memory::range(memory, ptr, len)?;
    let shown = bytes.get(..MAX_NAME as usize).unwrap_or(bytes);
    Ok(String::from_utf8_lossy(shown).into_owned())
}

fn map(pairs: &[(Bytes, Bytes)]) -> Result<HeaderMap, TooLarge> {
    let mut map = HeaderMap::default();
    for (key, value) in pairs {
        map.add(key, value)?;
    }
    Ok(map)
}

/// Says once for each name that there is no such cluster.
fn report(state: &HostState, cluster: &str, refusal: Refusal) -> Refusal {
    if refusal == Refusal::UnknownCluster && state.shared.report_missing_cluster(cluster) {
        let plugin = state.root().map_or("", |root| &root.plugin.name);
        let advice = if state.by_hand.is_some() {
            "a plugin test has no clusters, a chain test has".to_owned()
        } else {
            format!("give it with --cluster '{cluster}=http://HOST:PORT'")
        };
        let line = format!("plugin {plugin} calls the cluster `{cluster}`, which is not there; {advice}");
        state.sink.log(LogLevel::Warn, &line);
    }
    refusal
}

#[expect(clippy::too_many_arguments, reason = "the ABI's signature")]
pub(super) fn http_call(
    call: &mut Call<'_>,
    upstream: u32,
    upstream_len: u32,
    headers: u32,
    headers_len: u32,
    body: u32,
    body_len: u32,
    trailers: u32,
    trailers_len: u32,
    timeout: i32,
    token: u32,
) -> Result<(), Fault> {
    let (memory, state) = memory::split(call)?;
    let cluster = name(memory, upstream, upstream_len)?;
    let body = memory::range(memory, body, body_len)?;
    let headers = pairs::deserialize(memory::range(memory, headers, headers_len)?);
    let trailers = pairs::deserialize(memory::range(memory, trailers, trailers_len)?);
    if body.len() > crate::buffer::MAX_SIZE {
        return Err(Status::InternalFailure.into());
    }
    let body = Bytes::copy_from_slice(body);
    memory::write_u32(memory, token, 0)?;
    let timeout = u64::try_from(timeout).map_err(|_| Status::BadArgument)?;
    let root = state.root_id().ok_or(Status::InternalFailure)?;
    let request = cluster::Call {
        headers: map(&headers)?,
        body,
        trailers: if trailers.is_empty() { None } else { Some(map(&trailers)?) },
        timeout: (timeout > 0).then(|| Duration::from_millis(timeout)),
        forwarded_for: None,
    };
    let described = state.describe_call("http", &cluster, &request.headers, request.body.len());
    let started = match state.by_hand {
        Some(_) => Err(Refusal::UnknownCluster),
        None => state.callouts.http(state.host.as_ref(), root, &cluster, request),
    };
    if let Some(callout) = described {
        state.record_call(callout, started.ok());
    }
    let started = started.map_err(|refusal| report(state, &cluster, refusal))?;
    memory::write_u32(memory, token, started)
}

/// The service a gRPC call names: a serialized `GrpcService`, or a cluster of that name.
fn service(state: &HostState, bytes: &[u8]) -> Result<Service, Fault> {
    match Service::parse(bytes) {
        Ok(service) => Ok(service),
        Err(ServiceError::NotEnvoyGrpc) => {
            let plugin = state.root().map_or("", |root| &root.plugin.name);
            let line = format!("plugin {plugin} makes a gRPC call by google_grpc, which the harness does not have");
            state.sink.log(LogLevel::Warn, &line);
            Err(Status::InternalFailure.into())
        }
        Err(ServiceError::NotAMessage) => {
            let shown = bytes.get(..MAX_NAME as usize).unwrap_or(bytes);
            let cluster = String::from_utf8_lossy(shown).into_owned();
            match &state.host {
                Some(host) if host.services.clusters.grpc(&cluster).is_none() => {
                    report(state, &cluster, Refusal::UnknownCluster);
                    Err(Status::ParseFailure.into())
                }
                _ => Ok(Service { cluster, ..Service::default() }),
            }
        }
    }
}

struct Target {
    service: Service,
    headers: HeaderMap,
}

/// Reads what a gRPC call and a gRPC stream have in common.
fn target(
    memory: &[u8],
    state: &HostState,
    upstream: (u32, u32),
    service_name: (u32, u32),
    method: (u32, u32),
    metadata: (u32, u32),
    timeout: u64,
) -> Result<Target, Fault> {
    let upstream = memory::range(memory, upstream.0, upstream.1)?;
    let path = format!("/{}/{}", name(memory, service_name.0, service_name.1)?, name(memory, method.0, method.1)?);
    let metadata = pairs::deserialize(memory::range(memory, metadata.0, metadata.1)?);
    let service = service(state, upstream)?;
    let authority = service.authority.as_deref().unwrap_or(&service.cluster);
    let mut headers = HeaderMap::default();
    for (name, value) in
        [(":method", "POST"), (":path", &path), (":authority", authority), (":scheme", "http"), ("te", "trailers")]
    {
        headers.add(name.as_bytes(), value.as_bytes())?;
    }
    if timeout > 0 {
        headers.add(b"grpc-timeout", format!("{timeout}m").as_bytes())?;
    }
    headers.add(b"content-type", b"application/grpc")?;
    for (name, value) in service.metadata.iter().chain(&metadata) {
        headers.add(name, value)?;
    }
    headers.replace(b"x-envoy-internal", b"true")?;
    if timeout > 0 {
        headers.replace(b"x-envoy-expected-rq-timeout-ms", timeout.to_string().as_bytes())?;
    }
    Ok(Target { service, headers })
}

#[expect(clippy::too_many_arguments, reason = "the ABI's signature")]
pub(super) fn grpc_call(
    call: &mut Call<'_>,
    upstream: u32,
    upstream_len: u32,
    service: u32,
    service_len: u32,
    method: u32,
    method_len: u32,
    metadata: u32,
    metadata_len: u32,
    message: u32,
    message_len: u32,
    timeout: u32,
    token: u32,
) -> Result<(), Fault> {
    let (memory, state) = memory::split(call)?;
    let message = memory::range(memory, message, message_len)?;
    memory::range(memory, token, 4)?;
    let timeout = u64::from(timeout);
    let pointers = [(upstream, upstream_len), (service, service_len), (method, method_len), (metadata, metadata_len)];
    let [upstream, service, method, metadata] = pointers;
    let target = target(memory, state, upstream, service, method, metadata, timeout)?;
    let timeout = (timeout > 0).then(|| Duration::from_millis(timeout));
    let started = start(state, target, Some(message), timeout)?;
    memory::write_u32(memory, token, started)
}

#[expect(clippy::too_many_arguments, reason = "the ABI's signature")]
pub(super) fn grpc_stream(
    call: &mut Call<'_>,
    upstream: u32,
    upstream_len: u32,
    service: u32,
    service_len: u32,
    method: u32,
    method_len: u32,
    metadata: u32,
    metadata_len: u32,
    token: u32,
) -> Result<(), Fault> {
    let (memory, state) = memory::split(call)?;
    memory::range(memory, token, 4)?;
    let pointers = [(upstream, upstream_len), (service, service_len), (method, method_len), (metadata, metadata_len)];
    let [upstream, service, method, metadata] = pointers;
    let target = target(memory, state, upstream, service, method, metadata, 0)?;
    let started = start(state, target, None, None)?;
    memory::write_u32(memory, token, started)
}

fn start(
    state: &mut HostState,
    target: Target,
    message: Option<&[u8]>,
    timeout: Option<Duration>,
) -> Result<u32, Fault> {
    let root = state.root_id().ok_or(Status::InternalFailure)?;
    let cluster = &target.service.cluster;
    let kind = if message.is_some() { "grpc_call" } else { "grpc_stream" };
    let described = state.describe_call(kind, cluster, &target.headers, message.map_or(0, <[u8]>::len));
    let started = match state.by_hand {
        Some(_) => Err(Refusal::UnknownCluster),
        None => state.callouts.grpc(state.host.as_ref(), root, cluster, target.headers, message, timeout),
    };
    if let Some(callout) = described {
        state.record_call(callout, started.ok());
    }
    started.map_err(|refusal| match report(state, cluster, refusal) {
        // A service that was named by its message is looked up only now, and Envoy fails then.
        Refusal::UnknownCluster => Status::InternalFailure.into(),
        refusal => refusal.into(),
    })
}

/// A token is the root context's that got it.
fn own(state: &mut HostState, token: u32) -> Result<(), Fault> {
    let root = state.root_id();
    let pending = state.callouts.get(token).filter(|pending| Some(pending.root) == root);
    pending.map(drop).ok_or_else(|| Status::NotFound.into())
}

pub(super) fn grpc_send(call: &mut Call<'_>, token: u32, message: u32, len: u32, end: u32) -> Result<(), Fault> {
    let (memory, state) = memory::split(call)?;
    let message = memory::range(memory, message, len)?;
    if Kind::of(token) != Some(Kind::GrpcStream) {
        return Err(Status::BadArgument.into());
    }
    own(state, token)?;
    state.callouts.send(token, message, end != 0).ok_or(Status::NotFound)??;
    Ok(())
}

pub(super) fn grpc_close(call: &mut Call<'_>, token: u32) -> Result<(), Fault> {
    let state = call.data_mut();
    match Kind::of(token) {
        Some(Kind::GrpcCall) => grpc_cancel(call, token),
        Some(Kind::GrpcStream) => {
            own(state, token)?;
            state.callouts.close(token).ok_or_else(|| Status::NotFound.into())
        }
        _ => Err(Status::BadArgument.into()),
    }
}

pub(super) fn grpc_cancel(call: &mut Call<'_>, token: u32) -> Result<(), Fault> {
    if !matches!(Kind::of(token), Some(Kind::GrpcCall | Kind::GrpcStream)) {
        return Err(Status::BadArgument.into());
    }
    let state = call.data_mut();
    own(state, token)?;
    state.callouts.remove(token);
    Ok(())
}

pub(super) fn resolve_dns(call: &mut Call<'_>, host: u32, len: u32, token: u32) -> Result<(), Fault> {
    let (memory, state) = memory::split(call)?;
    let name = name(memory, host, len)?;
    memory::range(memory, token, 4)?;
    let root = state.root_id().ok_or(Status::InternalFailure)?;
    let started = state.callouts.resolve(state.host.as_ref(), root, name)?;
    memory::write_u32(memory, token, started)
}

//! `proxy_call_foreign_function`: the ten functions that Envoy has beside the ABI.

use std::io::{Read as _, Write as _};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;

use super::{Call, Fault, memory, properties};
use crate::abi::{LogLevel, Status};
use crate::cel::{self, Expression};
use crate::crypto::{PrivateKey, PublicKey};
use crate::proto::{self, Field};
use crate::state::{Context, HostState};
use crate::stream::state::Declared;

/// What is larger when it is uncompressed is refused.
const MAX_UNCOMPRESSED: u64 = 32 << 20;
const MAX_COMPRESSED: usize = 32 << 20;
const MAX_NAME: usize = 4096;
const MAX_DECLARED: usize = 1024;
const MAX_OBJECT: usize = 64 << 10;

/// Keys of Envoy's own filter state that can be made from bytes.
const ENVOY_OBJECTS: &[&str] = &[
    "envoy.hashable_string",
    "envoy.network.application_protocols",
    "envoy.network.upstream_server_name",
    "envoy.network.upstream_subject_alt_names",
    "envoy.ratelimit.hits_addend",
    "envoy.string",
    "envoy.tcp_proxy.cluster",
    "envoy.tcp_proxy.per_connection_idle_timeout_ms",
    "envoy.upstream.dynamic_host",
    "envoy.upstream.dynamic_port",
];

type Answer = Result<Option<Vec<u8>>, Status>;

pub(super) fn call(
    call: &mut Call<'_>,
    name: u32,
    name_len: u32,
    arguments: u32,
    arguments_len: u32,
    ptr: u32,
    size: u32,
) -> Result<(), Fault> {
    let (memory, state) = memory::split(call)?;
    let name = memory::range(memory, name, name_len)?;
    let arguments = memory::range(memory, arguments, arguments_len)?;
    let answer = run(state, name, arguments);
    let (answer, code) = match answer {
        Ok(answer) => (answer.unwrap_or_default(), None),
        Err(Status::NotFound) if !FUNCTIONS.contains(&name) => return Err(Status::NotFound.into()),
        Err(status) => (Vec::new(), Some(status)),
    };
    give(call, &answer, ptr, size)?;
    code.map_or(Ok(()), |status| Err(status.into()))
}

const FUNCTIONS: &[&[u8]] = &[
    b"compress",
    b"uncompress",
    b"set_envoy_filter_state",
    b"declare_property",
    b"clear_route_cache",
    b"expr_create",
    b"expr_evaluate",
    b"expr_delete",
    b"verify_signature",
    b"sign",
];

fn run(state: &mut HostState, name: &[u8], arguments: &[u8]) -> Answer {
    match name {
        b"compress" => compress(arguments),
        b"uncompress" => uncompress(arguments),
        b"set_envoy_filter_state" => set_envoy_filter_state(state, arguments),
        b"declare_property" => declare_property(state, arguments),
        // There is one route, so that nothing is cached.
        b"clear_route_cache" => Ok(None),
        b"expr_create" => in_own_context(state, |state| expr_create(state, arguments)),
        b"expr_evaluate" => in_own_context(state, |state| expr_evaluate(state, arguments)),
        b"expr_delete" => in_own_context(state, |state| expr_delete(state, arguments)),
        b"verify_signature" => verify_signature(arguments),
        b"sign" => sign(arguments),
        _ => Err(Status::NotFound),
    }
}

/// A caller that passes no pointers does not want the answer.
fn give(call: &mut Call<'_>, answer: &[u8], ptr: u32, size: u32) -> Result<(), Fault> {
    let len = u32::try_from(answer.len()).map_err(|_| Fault::OutOfBounds)?;
    let address = if ptr == 0 { 0 } else { memory::place(call, answer)? };
    let (memory, _) = memory::split(call)?;
    if ptr != 0 {
        memory::write_u32(memory, ptr, address)?;
    }
    if size != 0 {
        memory::write_u32(memory, size, len)?;
    }
    Ok(())
}

fn compress(arguments: &[u8]) -> Answer {
    if arguments.len() > MAX_COMPRESSED {
        return Err(Status::InternalFailure);
    }
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    let written = encoder.write_all(arguments).and_then(|()| encoder.finish());
    written.map(Some).map_err(|_| Status::SerializationFailure)
}

fn uncompress(arguments: &[u8]) -> Answer {
    let mut out = Vec::new();
    let mut decoder = ZlibDecoder::new(arguments).take(MAX_UNCOMPRESSED + 1);
    decoder.read_to_end(&mut out).map_err(|_| Status::SerializationFailure)?;
    if out.len() as u64 > MAX_UNCOMPRESSED { Err(Status::InternalFailure) } else { Ok(Some(out)) }
}

fn fields(arguments: &[u8]) -> Result<Vec<(u64, Field<'_>)>, Status> {
    proto::parse(arguments).ok_or(Status::BadArgument)
}

fn set_envoy_filter_state(state: &HostState, arguments: &[u8]) -> Answer {
    let (mut path, mut value) = ("", "");
    for (number, field) in fields(arguments)? {
        match number {
            1 => path = field.text().ok_or(Status::BadArgument)?,
            2 => value = field.text().ok_or(Status::BadArgument)?,
            _ => {}
        }
    }
    if !ENVOY_OBJECTS.contains(&path) {
        return Err(Status::NotFound);
    }
    if value.len() > MAX_OBJECT {
        return Err(Status::BadArgument);
    }
    let (stream, _) = state.stream().ok_or(Status::NotFound)?;
    let value = Bytes::copy_from_slice(value.as_bytes());
    stream.borrow_mut().envoy_filter_state.insert(path.as_bytes().to_vec(), value);
    Ok(None)
}

/// Declarations of the calling root context count; those of a stream's are forgotten with it.
fn declare_property(state: &mut HostState, arguments: &[u8]) -> Answer {
    let mut name = "";
    let mut declared = Declared::default();
    for (number, field) in fields(arguments)? {
        match (number, field) {
            (1, field) => name = field.text().ok_or(Status::BadArgument)?,
            (2, Field::Varint(read_only)) => declared.read_only = read_only != 0,
            (3, Field::Varint(kind)) => declared.text = kind == 1,
            _ => {}
        }
    }
    if let Some(Context::Root(root)) = state.contexts.get_mut(&state.current) {
        if name.len() > MAX_NAME || root.declared.len() >= MAX_DECLARED {
            return Err(Status::InternalFailure);
        }
        if root.declared.contains_key(name.as_bytes()) {
            return Err(Status::BadArgument);
        }
        root.declared.insert(name.as_bytes().to_vec(), declared);
    }
    Ok(None)
}

/// Expressions take no notice of the effective context.
fn in_own_context(state: &mut HostState, f: impl FnOnce(&mut HostState) -> Answer) -> Answer {
    let effective = std::mem::take(&mut state.effective);
    let answer = f(state);
    state.effective = effective;
    answer
}

fn expr_create(state: &mut HostState, source: &[u8]) -> Answer {
    let expression = match Expression::parse(source) {
        Ok(expression) => expression,
        Err(error) => {
            let plugin = state.root().map_or("", |root| &root.plugin.name);
            state.sink.log(LogLevel::Info, &format!("expr_create of plugin {plugin}: {error}"));
            return Err(Status::BadArgument);
        }
    };
    let root = state.root_mut().ok_or(Status::InternalFailure)?;
    let token = root.expressions.insert(expression).ok_or(Status::InternalFailure)?;
    Ok(Some(token.to_le_bytes().to_vec()))
}

fn token(arguments: &[u8]) -> Result<u32, Status> {
    <[u8; 4]>::try_from(arguments).map(u32::from_le_bytes).map_err(|_| Status::BadArgument)
}

fn expr_evaluate(state: &HostState, arguments: &[u8]) -> Answer {
    let token = token(arguments)?;
    let expression = state.root().and_then(|root| root.expressions.get(token)).ok_or(Status::NotFound)?;
    let value =
        properties::scoped(state, |scope| cel::evaluate(expression, scope).map_err(|_| Status::InternalFailure))?;
    value.serialize().map(Some)
}

fn expr_delete(state: &mut HostState, arguments: &[u8]) -> Answer {
    let token = token(arguments)?;
    if let Some(root) = state.root_mut() {
        root.expressions.remove(token);
    }
    Ok(None)
}

/// A key is given in DER or in PEM, and not in both.
fn one_key<K>(
    der: &[u8],
    pem: &str,
    from_der: impl FnOnce(&[u8]) -> Option<K>,
    from_pem: impl FnOnce(&str) -> Option<K>,
) -> Result<K, Status> {
    match (der.is_empty(), pem.is_empty()) {
        (false, true) => from_der(der),
        (true, false) => from_pem(pem),
        _ => None,
    }
    .ok_or(Status::BadArgument)
}

fn verify_signature(arguments: &[u8]) -> Answer {
    let (mut hash, mut pem) = ("", "");
    let (mut key, mut signature, mut text) = (&b""[..], &b""[..], &b""[..]);
    for (number, field) in fields(arguments)? {
        match number {
            1 => hash = field.text().ok_or(Status::BadArgument)?,
            2 => key = field.bytes().ok_or(Status::BadArgument)?,
            3 => signature = field.bytes().ok_or(Status::BadArgument)?,
            4 => text = field.bytes().ok_or(Status::BadArgument)?,
            5 => pem = field.text().ok_or(Status::BadArgument)?,
            _ => {}
        }
    }
    let key = one_key(key, pem, PublicKey::from_der, PublicKey::from_pem)?;
    let mut out = Vec::new();
    match key.verify(hash, signature, text) {
        Ok(()) => out.extend_from_slice(&[1 << 3, 1]),
        Err(error) => proto::put_text(&mut out, 2, &error),
    }
    Ok(Some(out))
}

fn sign(arguments: &[u8]) -> Answer {
    let (mut hash, mut pem) = ("", "");
    let (mut key, mut text) = (&b""[..], &b""[..]);
    for (number, field) in fields(arguments)? {
        match number {
            1 => hash = field.text().ok_or(Status::BadArgument)?,
            2 => key = field.bytes().ok_or(Status::BadArgument)?,
            3 => text = field.bytes().ok_or(Status::BadArgument)?,
            4 => pem = field.text().ok_or(Status::BadArgument)?,
            _ => {}
        }
    }
    let key = one_key(key, pem, PrivateKey::from_der, PrivateKey::from_pem)?;
    let mut out = Vec::new();
    match key.sign(hash, text) {
        Ok(signature) => {
            out.extend_from_slice(&[1 << 3, 1]);
            proto::put_bytes(&mut out, 2, &signature);
        }
        Err(error) => proto::put_text(&mut out, 3, &error),
    }
    Ok(Some(out))
}

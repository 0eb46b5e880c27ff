//! Header map hostcalls, with Envoy's rules on which map is there when.

use super::{Call, Fault, memory};
use crate::abi::{MapType, Status, pairs};
use crate::callouts::Received;
use crate::hazard::{self, HazardKind};
use crate::header_map::{HeaderMap, TooLarge};
use crate::state::HostState;
use crate::stream::state::StreamState;

impl From<TooLarge> for Fault {
    fn from(_: TooLarge) -> Self {
        Status::InternalFailure.into()
    }
}

fn map_type(map: u32) -> Result<MapType, Fault> {
    MapType::from_u32(map).ok_or_else(|| Status::BadArgument.into())
}

/// What reading a map finds.
enum Readable<'a> {
    Map(&'a HeaderMap),
    /// In `on_log` a map that never came is merely empty.
    Missing,
    Unavailable,
}

fn read<T>(state: &HostState, map: MapType, f: impl FnOnce(Readable<'_>, bool) -> T) -> T {
    if let Some(headers) = received(state, map) {
        return f(Readable::Map(headers), false);
    }
    let Some((stream, filter)) = state.stream() else { return f(Readable::Unavailable, false) };
    let stream = stream.borrow();
    let (found, logging) = of_stream(&stream, filter, map);
    f(found, logging)
}

/// What a filter finds of its stream, and whether it is in `on_log`.
fn of_stream(stream: &StreamState, filter: usize, map: MapType) -> (Readable<'_>, bool) {
    let Some(view) = stream.views.get(filter) else { return (Readable::Unavailable, false) };
    let (open, headers) = match map {
        MapType::RequestHeaders => (view.request_headers, Some(&stream.request_headers)),
        MapType::RequestTrailers => (view.request_trailers, stream.request_trailers.as_ref()),
        MapType::ResponseHeaders => (view.response_headers, stream.response_headers.as_ref()),
        MapType::ResponseTrailers => (view.response_trailers, stream.response_trailers.as_ref()),
        _ => (false, None),
    };
    let found = match headers {
        Some(headers) if open || view.logging => Readable::Map(headers),
        _ if view.logging => Readable::Missing,
        _ => Readable::Unavailable,
    };
    (found, view.logging)
}

/// The map of the callout that the running callback is about.
fn received(state: &HostState, map: MapType) -> Option<&HeaderMap> {
    match (map, state.received()) {
        (MapType::GrpcInitialMetadata, Received::InitialMetadata(map))
        | (MapType::GrpcTrailingMetadata, Received::TrailingMetadata(map)) => Some(map),
        (MapType::HttpCallHeaders, Received::Http(response)) => Some(&response.headers),
        (MapType::HttpCallTrailers, Received::Http(response)) => response.trailers.as_ref(),
        _ => None,
    }
}

fn modify(
    state: &mut HostState,
    hostcall: &'static str,
    map: MapType,
    f: impl FnOnce(&mut HeaderMap) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let Some(modified) = modify_open(state, map, f) else {
        out_of_phase(state, hostcall, map);
        return Err(Status::BadArgument.into());
    };
    modified
}

/// `None`: the map is not there, or must not be written.
fn modify_open(
    state: &mut HostState,
    map: MapType,
    f: impl FnOnce(&mut HeaderMap) -> Result<(), Fault>,
) -> Option<Result<(), Fault>> {
    let (stream, filter) = state.stream()?;
    let stream = &mut *stream.borrow_mut();
    let view = stream.views.get_mut(filter).filter(|view| !view.logging)?;
    let StreamState { request_headers, request_trailers, response_headers, response_trailers, .. } = stream;
    let headers = match map {
        MapType::RequestHeaders => Some(request_headers).filter(|_| view.request_headers),
        MapType::ResponseHeaders => response_headers.as_mut().filter(|_| view.response_headers),
        // Writing trailers at the end of a body that has none creates them.
        MapType::RequestTrailers if view.request_body.as_ref().is_some_and(|body| body.end_of_stream) => {
            view.request_trailers = true;
            Some(request_trailers.get_or_insert_default())
        }
        MapType::ResponseTrailers if view.response_body.as_ref().is_some_and(|body| body.end_of_stream) => {
            view.response_trailers = true;
            Some(response_trailers.get_or_insert_default())
        }
        MapType::RequestTrailers => request_trailers.as_mut().filter(|_| view.request_trailers),
        MapType::ResponseTrailers => response_trailers.as_mut().filter(|_| view.response_trailers),
        _ => None,
    };
    Some(f(headers?))
}

/// The hostcall cannot have its map in the running callback, which an SDK does not expect.
fn out_of_phase(state: &HostState, hostcall: &'static str, map: MapType) {
    let explanation = format!("the map {map:?} is not there in this callback");
    state.hazard(HazardKind::MapOutOfPhase, Some(hostcall), &explanation);
}

fn check_header(state: &HostState, hostcall: &'static str, key: &[u8], value: &[u8]) {
    if hazard::has_control_character(key) || hazard::has_control_character(value) {
        let key = String::from_utf8_lossy(key);
        let explanation = format!("the header {key:?} has a CR, LF or NUL");
        state.hazard(HazardKind::HeaderControlCharacter, Some(hostcall), &explanation);
    }
}

pub(super) fn get_pairs(call: &mut Call<'_>, map: u32, ptr: u32, size: u32) -> Result<(), Fault> {
    let map = map_type(map)?;
    let (bytes, unavailable) = read(call.data(), map, |found, _| match found {
        Readable::Map(headers) if headers.len() > 0 => (pairs::serialize(headers.iter()), false),
        found => (Vec::new(), matches!(found, Readable::Unavailable)),
    });
    if unavailable {
        out_of_phase(call.data(), "proxy_get_header_map_pairs", map);
        if call.data().by_hand.is_some() {
            return Err(Status::BadArgument.into());
        }
    }
    memory::give(call, &bytes, ptr, size)
}

pub(super) fn set_pairs(call: &mut Call<'_>, map: u32, ptr: u32, size: u32) -> Result<(), Fault> {
    let map = map_type(map)?;
    let (memory, state) = memory::split(call)?;
    let pairs = pairs::deserialize(memory::range(memory, ptr, size)?);
    for (key, value) in &pairs {
        check_header(state, "proxy_set_header_map_pairs", key, value);
    }
    modify(state, "proxy_set_header_map_pairs", map, |headers| {
        headers.clear();
        for (key, value) in &pairs {
            headers.add(key, value)?;
        }
        Ok(())
    })
}

pub(super) fn get(call: &mut Call<'_>, map: u32, k: u32, k_len: u32, ptr: u32, size: u32) -> Result<(), Fault> {
    give_value(call, map, (k, k_len), (ptr, size), false)
}

/// In ABI 0.1.0 a missing key is an empty value.
pub(super) fn get_or_empty(
    call: &mut Call<'_>,
    map: u32,
    k: u32,
    k_len: u32,
    ptr: u32,
    size: u32,
) -> Result<(), Fault> {
    give_value(call, map, (k, k_len), (ptr, size), true)
}

fn give_value(
    call: &mut Call<'_>,
    map: u32,
    (k, k_len): (u32, u32),
    (ptr, size): (u32, u32),
    missing_is_empty: bool,
) -> Result<(), Fault> {
    let map = map_type(map)?;
    let (memory, state) = memory::split(call)?;
    let key = memory::range(memory, k, k_len)?;
    let (received, stream) = (received(state, map), state.stream().map(|(stream, filter)| (stream.clone(), filter)));
    let copied = received.map(|headers| headers.get(key).map(<[u8]>::to_vec));
    // Apart from the guest's memory, so that a value is copied once only: to where the guest wants it.
    let stream = stream.as_ref().map(|(stream, filter)| (stream.borrow(), *filter));
    let value = match (&copied, &stream) {
        (Some(copied), _) => Ok(copied.as_deref()),
        (None, Some((stream, filter))) => match of_stream(stream, *filter, map) {
            (Readable::Map(headers), _) => Ok(headers.get(key)),
            (Readable::Missing, _) | (Readable::Unavailable, true) => Ok(None),
            (Readable::Unavailable, false) => Err(Status::BadArgument),
        },
        (None, None) => Err(Status::BadArgument),
    };
    match value {
        Ok(Some(value)) => memory::give(call, value, ptr, size),
        Ok(None) if missing_is_empty => memory::give(call, &[], ptr, size),
        Ok(None) => Err(Status::NotFound.into()),
        Err(status) => {
            out_of_phase(state, "proxy_get_header_map_value", map);
            Err(status.into())
        }
    }
}

pub(super) fn add(call: &mut Call<'_>, map: u32, k: u32, k_len: u32, v: u32, v_len: u32) -> Result<(), Fault> {
    let map = map_type(map)?;
    let (memory, state) = memory::split(call)?;
    let (key, value) = (memory::range(memory, k, k_len)?, memory::range(memory, v, v_len)?);
    check_header(state, "proxy_add_header_map_value", key, value);
    modify(state, "proxy_add_header_map_value", map, |headers| Ok(headers.add(key, value)?))
}

pub(super) fn replace(call: &mut Call<'_>, map: u32, k: u32, k_len: u32, v: u32, v_len: u32) -> Result<(), Fault> {
    let map = map_type(map)?;
    let (memory, state) = memory::split(call)?;
    let (key, value) = (memory::range(memory, k, k_len)?, memory::range(memory, v, v_len)?);
    check_header(state, "proxy_replace_header_map_value", key, value);
    modify(state, "proxy_replace_header_map_value", map, |headers| Ok(headers.replace(key, value)?))
}

pub(super) fn remove(call: &mut Call<'_>, map: u32, k: u32, k_len: u32) -> Result<(), Fault> {
    let map = map_type(map)?;
    let (memory, state) = memory::split(call)?;
    let key = memory::range(memory, k, k_len)?;
    modify(state, "proxy_remove_header_map_value", map, |headers| {
        headers.remove(key);
        Ok(())
    })
}

/// Envoy's answer is the sum of key and value lengths, and only while the map is in reach of its callback.
pub(super) fn size(call: &mut Call<'_>, map: u32, out: u32) -> Result<(), Fault> {
    let map = map_type(map)?;
    let mut bytes = read(call.data(), map, |found, logging| match found {
        Readable::Map(headers) if !logging => Some(headers.told_size()),
        _ => None,
    });
    if bytes.is_none() && matches!(map, MapType::RequestTrailers | MapType::ResponseTrailers) {
        // At the end of a body that has none, to ask for their size is to make them.
        let made = modify_open(call.data_mut(), map, |_| Ok(()));
        bytes = made.map(|_| 0);
    }
    let bytes = bytes.ok_or(Status::BadArgument)?;
    let (memory, _) = memory::split(call)?;
    memory::write_u32(memory, out, u32::try_from(bytes).unwrap_or(u32::MAX))
}

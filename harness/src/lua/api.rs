//! The host's side of what a script may call. Each function returns an error's text or nil, then its values:
//! `prelude.lua` raises the text where the script called.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use mlua::{BString, Function, IntoLua, LightUserData, Lua, LuaString, MultiValue, Table, Value};

use super::crypto::{PublicKey, VerifyError};
use super::object::{
    self, Answer, BODY, CONNECTION, CONNECTION_STREAM_INFO, Calling, FILTER_STATE, Fault, HANDLE, HEADERS, Host, Kind,
    METADATA, METRIC, PUBLIC_KEY, ROUTE, STATS, STREAM_INFO, Stage, This, make, type_name,
};
use super::state::{Deadline, Log};
use super::stream::{ImportedKey, Phase, Script};
use super::{call, metadata, patterns};
use crate::abi::LogLevel;
use crate::header_map::{HeaderMap, TooLarge};
use crate::nature::Nature;
use crate::shared::MetricType;
use crate::stream::state::{Direction, LocalReply, StreamState};

impl This<HEADERS> {
    fn with<T>(&self, f: impl FnOnce(&mut HeaderMap) -> T) -> Option<T> {
        let mut state = self.script.stream.state();
        let StreamState { request_headers, request_trailers, response_headers, response_trailers, .. } = &mut *state;
        let map = match (self.kind, self.script.direction) {
            (Kind::Trailers, Direction::Request) => request_trailers.as_mut(),
            (Kind::Trailers, Direction::Response) => response_trailers.as_mut(),
            (Kind::Headers, Direction::Response) => response_headers.as_mut(),
            _ => Some(request_headers),
        };
        map.map(f)
    }

    fn edit(&self, f: impl FnOnce(&mut HeaderMap) -> Result<(), TooLarge>) -> Answer<()> {
        if self.is_iterating() {
            return Err("header map cannot be modified while iterating".into());
        }
        if self.kind == Kind::Headers && self.script.headers_continued.get() {
            return Err("header map can no longer be modified".into());
        }
        Ok(self.with(f).unwrap_or(Ok(()))?)
    }
}

/// A C string ends at its first NUL.
fn c_string(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// A number as C converts it to an int.
#[expect(clippy::cast_possible_truncation, reason = "saturates")]
fn int(number: f64) -> i64 {
    number as i64
}

/// Fills a fresh state: objects, functions, and a standard library without the host. What it gives is the function that
/// every coroutine runs.
pub(super) fn install(
    lua: &Lua,
    stage: &Rc<Stage>,
    limits: &Rc<Deadline>,
    log: &Log,
    nature: &Arc<dyn Nature>,
) -> mlua::Result<Function> {
    let host = Host::new(lua, stage)?;
    headers(&host)?;
    bodies(&host)?;
    stream_info(&host)?;
    stats(&host)?;
    keys(&host)?;
    metadata::install(&host)?;
    patterns::install(&host, limits)?;
    handle_functions(&host)?;
    plain_functions(&host, log, nature)?;
    host.table.raw_set("limit", limits.flag())?;
    let methods = lua.create_table()?;
    let prelude = lua.load(include_str!("prelude.lua")).set_name("=prelude");
    prelude.call::<()>((host.table.clone(), methods.clone()))?;
    lua.set_type_metatable::<LightUserData>(Some(methods.raw_get("object")?));
    methods.raw_get("main")
}

fn headers(host: &Host<'_>) -> mlua::Result<()> {
    host.one("headers_get", |lua, (this_, name): (Value, BString)| {
        let this = lua.this::<HEADERS>(&this_)?;
        let value = this.with(|map| map.joined(&name).map(|value| lua.create_string(value)));
        Ok(value.flatten().transpose()?)
    })?;
    host.one("headers_at", |lua, (this_, name, index): (Value, LuaString, f64)| {
        let this = lua.this::<HEADERS>(&this_)?;
        let Ok(index) = usize::try_from(int(index)) else { return Ok(None) };
        let value = this.with(|map| map.values(&name.as_bytes()).nth(index).map(|value| lua.create_string(value)));
        Ok(value.flatten().transpose()?)
    })?;
    host.one("headers_count", |lua, (this_, name): (Value, LuaString)| {
        let this = lua.this::<HEADERS>(&this_)?;
        Ok(this.with(|map| map.values(&name.as_bytes()).count()))
    })?;
    host.none("headers_add", |lua, (this_, name, value): (Value, BString, BString)| {
        lua.this::<HEADERS>(&this_)?.edit(|map| map.add(c_string(&name), c_string(&value)))
    })?;
    host.none("headers_replace", |lua, (this_, name, value): (Value, BString, BString)| {
        lua.this::<HEADERS>(&this_)?.edit(|map| map.replace(c_string(&name), c_string(&value)))
    })?;
    host.none("headers_remove", |lua, (this_, name): (Value, LuaString)| {
        lua.this::<HEADERS>(&this_)?.edit(|map| {
            map.remove(c_string(&name.as_bytes()));
            Ok(())
        })
    })?;
    host.none("headers_reason", |lua, (this_, phrase): (Value, LuaString)| {
        let this = lua.this::<HEADERS>(&this_)?;
        this.edit(|_| Ok(()))?;
        if this.kind == Kind::Headers && this.script.direction == Direction::Response {
            this.script.stream.state().reason_phrase = Some(Bytes::copy_from_slice(&phrase.as_bytes()));
        }
        Ok(())
    })?;
    host.none("iterate", |lua, this_: Value| lua.this::<HEADERS>(&this_)?.iterate(true))?;
    host.many("headers_step", |lua, (this_, index): (Value, usize)| {
        let this = lua.this::<HEADERS>(&this_)?;
        let entry = this.with(|map| {
            let (name, value) = map.entry(index)?;
            Some(lua.create_string(name).and_then(|name| Ok([name, lua.create_string(value)?])))
        });
        let Some(entry) = entry.flatten() else {
            this.iterate(false)?;
            return Ok(MultiValue::new());
        };
        Ok(entry?.into_iter().map(Value::String).collect())
    })
}

fn bodies(host: &Host<'_>) -> mlua::Result<()> {
    host.one("body_length", |lua, this_: Value| {
        let this = lua.this::<BODY>(&this_)?;
        Ok(this.script.with_body(|body| body.as_ref().map_or(0, |body| body.buffer.len())))
    })?;
    host.one("body_get", |lua, (this_, index, length): (Value, f64, f64)| {
        let this = lua.this::<BODY>(&this_)?;
        let all = this.script.with_body(|body| body.as_mut().map(|body| body.buffer.contiguous()));
        let all = all.flatten().unwrap_or_default();
        let range = usize::try_from(int(index)).ok().zip(usize::try_from(int(length)).ok());
        let found = range.and_then(|(from, length)| all.get(from..from.checked_add(length)?));
        match found {
            Some(bytes) => Ok(lua.create_string(bytes)?),
            None => Err("index/length must be >= 0 and (index + length) must be <= buffer size".into()),
        }
    })?;
    host.one("body_set", |lua, (this_, content): (Value, LuaString)| {
        let this = lua.this::<BODY>(&this_)?;
        let script = &this.script;
        let content = Bytes::copy_from_slice(&content.as_bytes());
        let length = content.len();
        script.with_body(|body| {
            let buffer = &mut body.get_or_insert_default().buffer;
            buffer.take();
            buffer.push(content);
        });
        let mut state = script.stream.state();
        let map = match script.direction {
            Direction::Request => Some(&mut state.request_headers),
            Direction::Response => state.response_headers.as_mut(),
        };
        if let Some(map) = map {
            map.set(b"content-length", length.to_string().as_bytes())?;
        }
        Ok(length)
    })
}

/// A method of the handle that gives one of the stretch's objects.
fn gives<const M: u8>(host: &Host<'_>, name: &str, kind: Kind) -> mlua::Result<()> {
    host.one(name, move |lua, this_: Value| Ok(object::get(&lua.this::<M>(&this_)?.script, kind)))
}

/// Handle, hash, key, signature and its length, data and its length.
type Signed = (Value, LuaString, LuaString, LuaString, f64, LuaString, f64);

/// A call that makes the script wait belongs into its own coroutine: from another one it would resume that one.
pub(super) fn may_wait(lua: &Calling<'_>, script: &Script, name: &str) -> Answer<()> {
    if script.runs_in(&lua.current_thread()) {
        Ok(())
    } else {
        Err(format!("{name} waits, which a coroutine made by the script cannot").into())
    }
}

fn handle_functions(host: &Host<'_>) -> mlua::Result<()> {
    host.table.raw_set("WAIT", true)?;
    gives::<HANDLE>(host, "headers", Kind::Headers)?;
    gives::<HANDLE>(host, "request_headers", Kind::RequestHeaders)?;
    gives::<HANDLE>(host, "metadata", Kind::Metadata)?;
    gives::<HANDLE>(host, "route", Kind::Route)?;
    gives::<ROUTE>(host, "route_metadata", Kind::Metadata)?;
    gives::<HANDLE>(host, "stream_info", Kind::StreamInfo)?;
    gives::<HANDLE>(host, "connection", Kind::Connection)?;
    gives::<HANDLE>(host, "connection_stream_info", Kind::ConnectionStreamInfo)?;
    gives::<HANDLE>(host, "stats", Kind::Stats)?;
    host.one("body", |lua, (this_, always): (Value, bool)| {
        let this = lua.this::<HANDLE>(&this_)?;
        let script = &this.script;
        if !script.end.get() {
            if script.saw_body.get() {
                return Err("cannot call body() after body streaming has started".into());
            }
            may_wait(lua, script, "body()")?;
            script.phase.set(Phase::WaitForBody);
            script.buffers_body.set(true);
            return Ok(Value::Boolean(true));
        }
        if !script.buffers_body.get() && script.saw_body.get() {
            return Err("cannot call body() after body has been streamed".into());
        }
        let there = script.with_body(|body| {
            if always {
                body.get_or_insert_default();
            }
            body.is_some()
        });
        if there == Some(true) { Ok(Value::LightUserData(object::get(script, Kind::Body))) } else { Ok(Value::Nil) }
    })?;
    host.none("chunks", |lua, this_: Value| {
        if lua.this::<HANDLE>(&this_)?.script.saw_body.get() {
            return Err("cannot call bodyChunks after body processing has begun".into());
        }
        Ok(())
    })?;
    host.one("chunk", |lua, this_: Value| {
        let this = lua.this::<HANDLE>(&this_)?;
        if this.script.end.get() {
            return Ok(false);
        }
        may_wait(lua, &this.script, "bodyChunks()")?;
        this.script.phase.set(Phase::WaitForChunk);
        Ok(true)
    })?;
    host.one("trailers", |lua, this_: Value| {
        let this = lua.this::<HANDLE>(&this_)?;
        let script = &this.script;
        if script.has_trailers.get() {
            return Ok(Value::LightUserData(object::get(script, Kind::Trailers)));
        }
        if script.end.get() {
            return Ok(Value::Nil);
        }
        may_wait(lua, script, "trailers()")?;
        script.phase.set(Phase::WaitForTrailers);
        Ok(Value::Boolean(true))
    })?;
    host.none("may_respond", |lua, this_: Value| {
        let this = lua.this::<HANDLE>(&this_)?;
        if this.script.headers_continued.get() {
            return Err("respond() cannot be called if headers have been continued".into());
        }
        may_wait(lua, &this.script, "respond()")
    })?;
    host.none("respond", |lua, (this_, count, table, body): (Value, usize, Table, Option<LuaString>)| {
        let this = lua.this::<HANDLE>(&this_)?;
        let headers = headers_of(&table, "respond", count + 1)?;
        let status = headers.text(":status").and_then(|status| status.parse().ok());
        let Some(status) = status.filter(|status| (200..600).contains(status)) else {
            return Err(":status must be between 200-599".into());
        };
        if this.script.direction == Direction::Response {
            return Err("respond not currently supported in the response path".into());
        }
        let body = body.map_or_else(Bytes::new, |body| Bytes::copy_from_slice(&body.as_bytes()));
        let mut reply = LocalReply::new(status, body, "lua_response");
        let own = headers.iter().filter(|(name, _)| !name.starts_with(b":"));
        reply.headers =
            own.map(|(name, value)| (Bytes::copy_from_slice(name), Bytes::copy_from_slice(value))).collect();
        this.script.stream.reply(reply);
        this.script.phase.set(Phase::Responded);
        Ok(())
    })?;
    call::install(host)
}

/// Headers from a table whose values are strings or lists of strings. `first` is where Lua's stack has the next value.
pub(super) fn headers_of(table: &Table, function: &str, first: usize) -> Answer<HeaderMap> {
    let bad = |index: usize, value: &Value| {
        let got = type_name(value);
        Fault::from(format!("bad argument #{index} to '{function}' (string expected, got {got})"))
    };
    let text = |index: usize, value: &Value| match value {
        Value::String(text) => Ok(c_string(&text.as_bytes()).to_vec()),
        Value::Integer(_) | Value::Number(_) => Ok(value.to_string()?.into_bytes()),
        other => Err(bad(index, other)),
    };
    let mut headers = HeaderMap::default();
    for pair in table.pairs::<Value, Value>() {
        let (key, value) = pair?;
        let name = text(first + 1, &key)?;
        if let Value::Table(list) = &value {
            for value in list.pairs::<Value, Value>() {
                headers.add(&name, &text(first + 4, &value?.1)?)?;
            }
        } else {
            headers.add(&name, &text(first + 2, &value)?)?;
        }
    }
    Ok(headers)
}

fn stream_info(host: &Host<'_>) -> mlua::Result<()> {
    gives::<STREAM_INFO>(host, "dynamic_metadata", Kind::DynamicMetadata)?;
    gives::<STREAM_INFO>(host, "filter_state", Kind::FilterState)?;
    gives::<CONNECTION_STREAM_INFO>(host, "connection_metadata", Kind::ConnectionMetadata)?;
    host.none("live_metadata", |lua, this_: Value| lua.this::<METADATA>(&this_).map(drop))?;
    host.none("live_stream_info", |lua, this_: Value| lua.this::<STREAM_INFO>(&this_).map(drop))?;
    host.none("live_connection", |lua, this_: Value| lua.this::<CONNECTION>(&this_).map(drop))?;
    host.one("stream_info_field", |lua, (this_, name): (Value, LuaString)| {
        let this = lua.this::<STREAM_INFO>(&this_)?;
        let state = this.script.stream.state();
        let address = |address: Option<SocketAddr>| address.map_or_else(String::new, |address| address.to_string());
        Ok(match &*name.to_str()? {
            "protocol" => state.protocol.to_owned(),
            "routeName" => "default".to_owned(),
            "downstreamLocalAddress" | "downstreamDirectLocalAddress" => address(state.destination),
            "downstreamRemoteAddress" | "downstreamDirectRemoteAddress" => address(state.source),
            // No TLS, no virtual clusters.
            _ => String::new(),
        })
    })?;
    host.none("drain", |lua, this_: Value| {
        lua.this::<STREAM_INFO>(&this_)?.script.stream.state().drain = true;
        Ok(())
    })?;
    host.one("filter_state_get", |lua, (this_, name): (Value, LuaString)| {
        let this = lua.this::<FILTER_STATE>(&this_)?;
        let state = this.script.stream.state();
        // Plugins' values are the only filter state here; Envoy has them under a prefix.
        let name = name.as_bytes();
        let value = name.strip_prefix(b"wasm.").and_then(|key| state.filter_state.get(key));
        Ok(value.map(|value| lua.create_string(value)).transpose()?)
    })
}

fn stats(host: &Host<'_>) -> mlua::Result<()> {
    host.one("stat", |lua, (this_, kind, name): (Value, LuaString, LuaString)| {
        let this = lua.this::<STATS>(&this_)?;
        let script = &this.script;
        let define = |kind| {
            let defined = script.runtime.metrics.borrow_mut().define(&script.runtime.shared, kind, &name.as_bytes());
            defined.map_err(|_| Fault::from("no more metrics can be defined"))
        };
        Ok(match &*kind.as_bytes() {
            b"counter" => make(script, Kind::Counter, define(MetricType::Counter)?),
            b"gauge" => make(script, Kind::Gauge, define(MetricType::Gauge)?),
            _ => make(script, Kind::Histogram, define(MetricType::Histogram)?),
        })
    })?;
    // A metric's kind decides what it takes; what it does not take is left out.
    host.none("stat_add", |lua, (this_, amount): (Value, f64)| {
        let this = lua.this::<METRIC>(&this_)?;
        let (script, id) = (&this.script, this.metric);
        let _ = script.runtime.metrics.borrow().increment(&script.runtime.shared, id, int(amount));
        Ok(())
    })?;
    host.none("stat_record", |lua, (this_, value): (Value, f64)| {
        let this = lua.this::<METRIC>(&this_)?;
        let (script, id) = (&this.script, this.metric);
        let _ =
            script.runtime.metrics.borrow().record(&script.runtime.shared, id, u64::try_from(int(value)).unwrap_or(0));
        Ok(())
    })?;
    host.one("stat_value", |lua, this_: Value| {
        let this = lua.this::<METRIC>(&this_)?;
        let (script, id) = (&this.script, this.metric);
        Ok(script
            .runtime
            .metrics
            .borrow()
            .get(&script.runtime.shared, id)
            .ok()
            .map(|value| i64::try_from(value).unwrap_or(i64::MAX)))
    })
}

fn keys(host: &Host<'_>) -> mlua::Result<()> {
    host.one("import_key", |lua, (this_, der, length): (Value, LuaString, f64)| {
        let this = lua.this::<HANDLE>(&this_)?;
        let script = &this.script;
        // As in Envoy a stream has one key: importing another gives the first.
        if let Some(key) = &*script.key.borrow() {
            return Ok(key.object);
        }
        let der = der.as_bytes();
        let length = usize::try_from(int(length)).unwrap_or(0).min(der.len());
        let key = PublicKey::import(&der[..length]);
        let name = if key.is_some() { c_string(&der).to_vec() } else { Vec::new() };
        let object = object::get(script, Kind::PublicKey);
        *script.key.borrow_mut() = Some(ImportedKey { object, name, key });
        Ok(object)
    })?;
    host.one("key_name", |lua, this_: Value| {
        let this = lua.this::<PUBLIC_KEY>(&this_)?;
        let key = this.script.key.borrow();
        let name = key.as_ref().map(|key| &key.name).filter(|name| !name.is_empty());
        Ok(name.map(|name| lua.create_string(name)).transpose()?)
    })?;
    host.many("verify", |lua, (this_, hash, key, signature, signature_length, data, length): Signed| {
        let this = lua.this::<HANDLE>(&this_)?;
        let stored = this.script.key.borrow();
        let stored = stored.as_ref().filter(|stored| stored.name == c_string(&key.as_bytes()));
        let Some(key) = stored.and_then(|stored| stored.key.as_ref()) else { return Err("invalid public key".into()) };
        let cut = |text: &LuaString, length: f64| {
            let bytes = text.as_bytes();
            bytes[..usize::try_from(int(length)).unwrap_or(0).min(bytes.len())].to_vec()
        };
        let (signature, data) = (cut(&signature, signature_length), cut(&data, length));
        match key.verify(&hash.to_string_lossy(), &signature, &data) {
            Ok(()) => Ok(MultiValue::from_iter([Value::Boolean(true), Value::Nil])),
            Err(error @ VerifyError::NotHere { .. }) => Err(error.to_string().into()),
            Err(error) => {
                let text = lua.create_string(error.to_string())?;
                Ok(MultiValue::from_iter([Value::Boolean(false), Value::String(text)]))
            }
        }
    })
}

/// Functions that neither fail nor belong to a stream.
fn plain_functions(host: &Host<'_>, log: &Log, nature: &Arc<dyn Nature>) -> mlua::Result<()> {
    let (lua, table) = (host.lua, &host.table);
    let lines = log.clone();
    let write = lua.create_function(move |_, (level, message): (u32, LuaString)| {
        // A C string, too.
        lines.write(LogLevel::from_u32(level).unwrap_or(LogLevel::Info), c_string(&message.as_bytes()));
        Ok(())
    })?;
    table.raw_set("log", write)?;
    let lines = log.clone();
    let print = lua.create_function(move |_, message: LuaString| {
        lines.write(LogLevel::Info, &message.as_bytes());
        Ok(())
    })?;
    table.raw_set("print", print)?;
    let encode = lua.create_function(|_, text: LuaString| Ok(STANDARD.encode(text.as_bytes())))?;
    table.raw_set("base64_encode", encode)?;
    let decode = lua.create_function(|lua, text: LuaString| {
        let decoded = STANDARD.decode(text.as_bytes()).ok();
        decoded.map(|decoded| lua.create_string(decoded)).transpose()
    })?;
    table.raw_set("base64_decode", decode)?;
    let nature = nature.clone();
    let now = lua.create_function(move |_, microseconds: bool| {
        let now = nature.now().duration_since(UNIX_EPOCH).unwrap_or_default();
        #[expect(clippy::cast_precision_loss, reason = "microseconds fit a double for another two centuries")]
        let now = if microseconds { now.as_micros() as f64 } else { now.as_millis() as f64 };
        Ok(now)
    })?;
    table.raw_set("timestamp", now)?;
    let traceback = lua.create_function(|lua, (message, level): (Value, Option<usize>)| {
        if !matches!(message, Value::Nil | Value::String(_)) {
            return Ok(message);
        }
        let message = message.as_string().map(LuaString::to_string_lossy);
        lua.traceback(message.as_deref(), level.unwrap_or(1))?.into_lua(lua)
    })?;
    table.raw_set("traceback", traceback)
}

//! `httpCall`.

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use mlua::{IntoLua, Lua, LuaString, Table, Value};

use super::api::{headers_of, may_wait};
use super::object::{Fault, HANDLE, Host};
use super::state::MAX_ASYNCHRONOUS;
use super::stream::Phase;
use crate::cluster::{Call, CallError, Reset, Response};
use crate::native::StreamHandle;
use crate::trace::{CallToken, Callout};

type Arguments = (Value, usize, LuaString, Table, Option<LuaString>, f64, bool, bool, bool);

/// One more call in flight, until it is dropped.
struct InFlight(Rc<Cell<usize>>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

pub(super) fn install(host: &Host<'_>) -> mlua::Result<()> {
    host.one("http_call", |lua, arguments: Arguments| {
        let (this_, count, cluster, table, body, timeout, asynchronous, duplicates, send_xff) = arguments;
        let this = lua.this::<HANDLE>(&this_)?;
        let script = &this.script;
        if !asynchronous {
            may_wait(lua, script, "httpCall()")?;
        }
        let Some(services) = &script.runtime.services else { return Err("there are no clusters yet".into()) };
        let cluster = cluster.to_string_lossy();
        if !services.clusters.has(&cluster) {
            return Err("http call cluster invalid. Must be configured".into());
        }
        let mut headers = headers_of(&table, "httpCall", count + 1)?;
        if body.is_some() {
            let length = body.as_ref().map_or(0, |body| body.as_bytes().len());
            headers.replace(b"content-length", length.to_string().as_bytes())?;
        }
        let body = body.map_or_else(Bytes::new, |body| Bytes::copy_from_slice(&body.as_bytes()));
        let timeout = (timeout >= 1.0).then(|| Duration::try_from_secs_f64(timeout.floor() / 1e3).ok()).flatten();
        let mut token = CallToken::None;
        script.stream.record(|recording, filter| {
            token = CallToken::Lua(recording.next_call());
            let callout = Callout::new("http", &cluster, &headers, body.len());
            recording.callout(filter, Callout { token, ..callout });
        });
        let forwarded_for = send_xff.then(|| script.stream.state().destination.map(|own| own.ip())).flatten();
        let call = Call { headers, body, trailers: None, timeout, forwarded_for };
        let refused = || ended_without(&script.stream, token, "refused");
        let future = services.clusters.call(&cluster, call).map_err(|error| {
            refused();
            Fault::from(match error {
                CallError::UnknownCluster => "http call cluster invalid. Must be configured",
                CallError::MissingHeader => "http call headers must include ':path', ':method', and ':authority'",
            })
        })?;
        if asynchronous {
            let flying = &script.runtime.asynchronous;
            if flying.get() >= MAX_ASYNCHRONOUS {
                refused();
                return Err(format!("{MAX_ASYNCHRONOUS} asynchronous calls are in flight, and no more are made").into());
            }
            flying.set(flying.get() + 1);
            let flying = InFlight(flying.clone());
            let stream = (token != CallToken::None).then(|| script.stream.clone());
            tokio::task::spawn_local(async move {
                // The script does not ask how it went.
                let response = future.await;
                if let Some(stream) = stream {
                    ended(&stream, token, &response);
                }
                drop(flying);
            });
            return Ok(false);
        }
        script.phase.set(Phase::Call);
        let waiting = script.clone();
        let task = tokio::task::spawn_local(async move {
            let response = future.await;
            // This task is not to be aborted by what follows.
            waiting.call.borrow_mut().take();
            ended(&waiting.stream, token, &response);
            waiting.called(Answer { response, duplicates });
        });
        *script.call.borrow_mut() = Some(task.abort_handle());
        Ok(true)
    })
}

/// Notes how a call went.
fn ended(stream: &StreamHandle, token: CallToken, response: &Result<Response, Reset>) {
    match response {
        Ok(response) => {
            let status = || response.headers.text(":status").and_then(|status| status.parse().ok());
            stream.record(|recording, _| recording.callout_ended(token, status(), None));
        }
        Err(Reset) => ended_without(stream, token, "reset"),
    }
}

fn ended_without(stream: &StreamHandle, token: CallToken, failure: &'static str) {
    stream.record(|recording, _| recording.callout_ended(token, None, Some(failure)));
}

/// A call's outcome as a script gets it: a table of headers, and the body or nil.
struct Answer {
    response: Result<Response, Reset>,
    duplicates: bool,
}

impl mlua::IntoLuaMulti for Answer {
    fn into_lua_multi(self, lua: &Lua) -> mlua::Result<mlua::MultiValue> {
        let table = lua.create_table()?;
        let body = match &self.response {
            Ok(response) => {
                let mut seen: HashMap<&[u8], Option<Table>> = HashMap::new();
                for (name, value) in response.headers.iter() {
                    let value = lua.create_string(value)?;
                    let key = lua.create_string(name)?;
                    match seen.get_mut(name).filter(|_| self.duplicates) {
                        None => {
                            seen.insert(name, None);
                            table.raw_set(key, value)?;
                        }
                        Some(Some(list)) => list.raw_push(value)?,
                        Some(slot) => {
                            let first: Value = table.raw_get(&key)?;
                            let list = lua.create_sequence_from([first, Value::String(value)])?;
                            table.raw_set(key, &list)?;
                            *slot = Some(list);
                        }
                    }
                }
                response.body.clone()
            }
            Err(Reset) => {
                table.raw_set(":status", "503")?;
                Bytes::from_static(b"upstream failure")
            }
        };
        let body = if body.is_empty() { Value::Nil } else { lua.create_string(&body)?.into_lua(lua)? };
        Ok(mlua::MultiValue::from_iter([Value::Table(table), body]))
    }
}

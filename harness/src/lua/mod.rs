//! Envoy's Lua filter: scripts in LuaJIT, one state per script and worker, one coroutine per stream and direction.
//!
//! What a script sees is made in two halves: `prelude.lua` has the methods, checks arguments and waits; `api` has the
//! host's side of each. `stream` is Envoy's state machine of one coroutine. A script has no access to the machine, and
//! its time and memory are bounded: everything here that could take long looks at the clock.

mod api;
mod call;
mod crypto;
mod metadata;
mod object;
mod pattern;
mod patterns;
mod state;
mod stream;

use std::rc::Rc;

use self::state::Runtime;
pub(crate) use self::state::Setting;
use self::stream::Script;
use crate::abi::LogLevel;
use crate::native::{Action, NativeFilter, NativePlugin, NativeWorker, Services, StreamHandle};
use crate::stream::state::Direction;

/// A script that was accepted.
pub(crate) struct LuaPlugin {
    name: String,
    code: String,
    setting: Setting,
}

impl LuaPlugin {
    /// Tries the script, in a state that is then dropped. `name` is the extension's, `namespace.name`.
    pub(crate) fn load(name: String, code: &str, setting: Setting) -> Result<Self, String> {
        // Whoever loads a chain may have less of a stack than a script can use up.
        let (requests, responses) = std::thread::scope(|scope| {
            let load = || {
                let tried = Runtime::load(&name, code, &setting, None)?;
                Ok((tried.on_request.is_some(), tried.on_response.is_some()))
            };
            let thread = std::thread::Builder::new().stack_size(crate::server::WORKER_STACK);
            let thread = thread.spawn_scoped(scope, load).map_err(|error| format!("start a thread: {error}"))?;
            thread.join().unwrap_or_else(|_| Err("the script's thread ended".to_owned()))
        })?;
        for (function, found, what) in
            [("envoy_on_request", requests, "requests"), ("envoy_on_response", responses, "responses")]
        {
            if !found && setting.log_level <= LogLevel::Info {
                let line = format!("{function}() function not found. Lua filter will not hook {what}.");
                setting.sink.script(LogLevel::Info, &line);
            }
        }
        Ok(Self { name, code: code.to_owned(), setting })
    }
}

impl NativePlugin for LuaPlugin {
    fn name(&self) -> &str {
        &self.name
    }

    fn start(&self, services: &Rc<Services>) -> Result<Rc<dyn NativeWorker>, String> {
        let runtime = Runtime::load(&self.name, &self.code, &self.setting, Some(services.clone()))?;
        Ok(Rc::new(LuaWorker { runtime, given: self.setting.callback }))
    }
}

struct LuaWorker {
    runtime: Rc<Runtime>,
    given: std::time::Duration,
}

impl NativeWorker for LuaWorker {
    fn stream(self: Rc<Self>, handle: StreamHandle) -> Box<dyn NativeFilter> {
        Box::new(LuaFilter { worker: self, handle, request: None, response: None })
    }
}

struct LuaFilter {
    worker: Rc<LuaWorker>,
    handle: StreamHandle,
    request: Option<Rc<Script>>,
    response: Option<Rc<Script>>,
}

impl LuaFilter {
    fn script(&self, direction: Direction) -> Option<&Rc<Script>> {
        match direction {
            Direction::Request => self.request.as_ref(),
            Direction::Response => self.response.as_ref(),
        }
    }
}

impl NativeFilter for LuaFilter {
    fn headers(&mut self, direction: Direction, end: bool) -> Action {
        let runtime = &self.worker.runtime;
        let function = match direction {
            Direction::Request => &runtime.on_request,
            Direction::Response => &runtime.on_response,
        };
        let Some(function) = function else { return Action::Continue };
        let script = Script::new(runtime.clone(), self.worker.given, self.handle.clone(), direction, end);
        let action = script.start(function);
        match direction {
            Direction::Request => self.request = Some(script),
            Direction::Response => self.response = Some(script),
        }
        action
    }

    fn wants_body(&self, direction: Direction) -> bool {
        self.script(direction).is_some_and(|script| script.waits())
    }

    fn body(&mut self, direction: Direction, end: bool) -> Action {
        self.script(direction).map_or(Action::Continue, |script| script.on_body(end))
    }

    fn trailers(&mut self, direction: Direction) -> Action {
        self.script(direction).map_or(Action::Continue, Script::on_trailers)
    }
}

impl Drop for LuaFilter {
    fn drop(&mut self) {
        for script in self.request.iter().chain(&self.response) {
            script.abandon();
        }
    }
}

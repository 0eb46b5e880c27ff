//! A worker's Lua state for one script: loading, and the limits of what a script may take.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mlua::debug::Debug;
use mlua::thread::ThreadStatus;
use mlua::{Function, HookTriggers, Lua, LuaOptions, StdLib, Table, Thread, VmState};

use super::api;
use super::object::Stage;
use crate::abi::LogLevel;
use crate::log::Sink;
use crate::native::{Services, StreamHandle};
use crate::nature::Nature;
use crate::shared::{Shared, VmMetrics};

/// What one script's state may take on one worker.
pub(super) const MEMORY: usize = 64 << 20;
/// Instructions between two looks at the clock.
const INSTRUCTIONS: u32 = 1000;
/// More of a log line is cut off, as a plugin's is.
const MAX_LINE: usize = 64 << 10;
/// Coroutines that are kept for scripts to come, so that not each stream makes its own.
const MAX_IDLE: usize = 16;
/// Calls that a script does not wait for, at once on one worker.
pub(super) const MAX_ASYNCHRONOUS: usize = 1024;

/// What all scripts of a chain have in common.
#[derive(Clone)]
pub(crate) struct Setting {
    pub(crate) sink: Arc<dyn Sink>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) log_level: LogLevel,
    /// What the time is for scripts.
    pub(crate) nature: Arc<dyn Nature>,
    /// The longest a script may run at a stretch.
    pub(crate) callback: Duration,
    /// The longest it may take to load.
    pub(crate) startup: Duration,
}

/// A script that is loaded, with its globals.
pub(super) struct Runtime {
    pub(super) lua: Lua,
    /// Runs one of the script's functions, and gives what it failed with.
    pub(super) main: Function,
    pub(super) on_request: Option<Function>,
    pub(super) on_response: Option<Function>,
    idle: RefCell<Vec<Thread>>,
    pub(super) stage: Rc<Stage>,
    pub(super) limits: Rc<Deadline>,
    pub(super) log: Log,
    pub(super) shared: Arc<Shared>,
    pub(super) metrics: RefCell<VmMetrics>,
    /// `None` while a script is only tried.
    pub(super) services: Option<Rc<Services>>,
    pub(super) asynchronous: Rc<Cell<usize>>,
}

/// A script's lines.
#[derive(Clone)]
pub(super) struct Log {
    sink: Arc<dyn Sink>,
    level: LogLevel,
    /// The recorded stream whose script runs.
    stream: Rc<RefCell<Option<StreamHandle>>>,
}

impl Log {
    /// A line of the script that runs.
    pub(super) fn write(&self, level: LogLevel, message: &[u8]) {
        self.write_of(self.stream.borrow().as_ref(), level, message);
    }

    /// A line about the script of a stream.
    pub(super) fn write_of(&self, stream: Option<&StreamHandle>, level: LogLevel, message: &[u8]) {
        if level < self.level {
            return;
        }
        let message = String::from_utf8_lossy(&message[..message.len().min(MAX_LINE)]);
        let recorded =
            stream.is_some_and(|stream| stream.record(|recording, filter| recording.log(filter, level, &message)));
        if !recorded || self.sink.takes_traced_lines() {
            self.sink.script(level, &format!("script log: {message}"));
        }
    }

    /// What is written from now on is about this stream, until it is about none.
    pub(super) fn about(&self, stream: Option<&StreamHandle>) {
        self.stream.replace(stream.cloned());
    }
}

/// The time a script has, counted from when it is entered to when it waits or ends.
pub(super) struct Deadline {
    script: String,
    at: Cell<Option<Instant>>,
    given: Cell<Duration>,
    over: RefCell<Option<String>>,
    /// Its field `over` says to the prelude that the time is up.
    flag: Table,
}

impl Deadline {
    pub(super) fn begin(&self, given: Duration) {
        self.given.set(given);
        self.at.set(Instant::now().checked_add(given));
    }

    /// What to say when the time was up.
    pub(super) fn end(&self) -> Option<String> {
        self.at.set(None);
        let over = self.over.borrow_mut().take();
        if over.is_some() {
            // A script whose flag stays has nothing caught, which is the safe side.
            let _ = self.flag.raw_set("over", false);
        }
        over
    }

    pub(super) fn in_time(&self) -> bool {
        self.at.get().is_none_or(|at| Instant::now() < at)
    }

    fn expire(&self, position: Option<String>) -> String {
        let mut over = self.over.borrow_mut();
        if let Some(over) = &*over {
            return over.clone();
        }
        let position = position.unwrap_or_default();
        let text =
            format!("{position}the script of {} ran longer than {:?} and was stopped", self.script, self.given.get());
        // The field is there already, so that this takes no memory.
        let _ = self.flag.raw_set("over", true);
        *over = Some(text.clone());
        text
    }

    /// What the prelude looks at.
    pub(super) fn flag(&self) -> Table {
        self.flag.clone()
    }

    /// For functions of the host that take their time: as if the script had been interrupted where it called.
    pub(super) fn expired(&self, lua: &Lua) -> String {
        // Between the script and the host is the prelude.
        self.expire(lua.inspect_stack(2, position).flatten())
    }
}

impl Runtime {
    /// Loads a script: its top level is run, its two functions are looked up.
    pub(super) fn load(
        name: &str,
        code: &str,
        setting: &Setting,
        services: Option<Rc<Services>>,
    ) -> Result<Rc<Self>, String> {
        let libraries = StdLib::TABLE | StdLib::STRING | StdLib::MATH | StdLib::BIT | StdLib::OS;
        // Without the `jit` library the compiler stays off: compiled loops never look at the clock.
        let lua = Lua::new_with(libraries, LuaOptions::new()).map_err(|error| error.to_string())?;
        let limits = Rc::new(Deadline {
            script: name.to_owned(),
            at: Cell::new(None),
            given: Cell::new(setting.callback),
            over: RefCell::new(None),
            flag: lua.create_table_from([("over", false)]).map_err(|error| error.to_string())?,
        });
        let log = Log { sink: setting.sink.clone(), level: setting.log_level, stream: Rc::default() };
        let stage = Rc::new(Stage::default());
        let main = prepare(&lua, &stage, &limits, &log, &setting.nature)
            .map_err(|error| format!("prepare the script's state: {error}"))?;
        limits.begin(setting.startup);
        let loaded = lua.load(code).set_name(code).exec();
        let over = limits.end();
        if let Err(error) = loaded {
            return Err(format!("script load error: {}", over.unwrap_or_else(|| describe(&error))));
        }
        let function = |name: &str| lua.globals().raw_get::<Option<Function>>(name).ok().flatten();
        let (on_request, on_response) = (function("envoy_on_request"), function("envoy_on_response"));
        Ok(Rc::new(Self {
            lua,
            main,
            on_request,
            on_response,
            idle: RefCell::default(),
            stage,
            limits,
            log,
            shared: setting.shared.clone(),
            metrics: RefCell::default(),
            services,
            asynchronous: Rc::default(),
        }))
    }
}

impl Runtime {
    /// A coroutine that is about to run [`Self::main`].
    pub(super) fn coroutine(&self) -> mlua::Result<Thread> {
        let Some(thread) = self.idle.borrow_mut().pop() else {
            return freely(&self.lua, || self.lua.create_thread(self.main.clone()));
        };
        thread.reset(self.main.clone())?;
        Ok(thread)
    }

    /// Takes a coroutine back, if it came to its end.
    pub(super) fn take_back(&self, thread: Thread) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < MAX_IDLE && thread.status() == ThreadStatus::Finished {
            idle.push(thread);
        }
    }
}

fn prepare(
    lua: &Lua,
    stage: &Rc<Stage>,
    limits: &Rc<Deadline>,
    log: &Log,
    nature: &Arc<dyn Nature>,
) -> mlua::Result<Function> {
    lua.set_memory_limit(MEMORY)?;
    let main = api::install(lua, stage, limits, log, nature)?;
    watch(lua, limits.clone())?;
    Ok(main)
}

/// Runs a step of the host's own that takes a little memory, without the limit. Within the limit every such step might
/// fail, and being ready for that costs a multiple of the step. What it takes counts as soon as the script goes on.
fn freely<T>(lua: &Lua, step: impl FnOnce() -> T) -> T {
    struct Limited<'l>(&'l Lua);
    impl Drop for Limited<'_> {
        fn drop(&mut self) {
            // It was there before.
            let _ = self.0.set_memory_limit(MEMORY);
        }
    }
    let _limited = lua.set_memory_limit(0).map(|_| Limited(lua));
    step()
}

/// Has the interpreter look at the clock. What is raised is not caught: the prelude's `pcall` raises it again.
fn watch(lua: &Lua, limits: Rc<Deadline>) -> mlua::Result<()> {
    let triggers = HookTriggers::new().every_nth_instruction(INSTRUCTIONS);
    lua.set_global_hook(triggers, move |_, debug| {
        if limits.in_time() {
            return Ok(VmState::Continue);
        }
        Err(mlua::Error::runtime(limits.expire(position(debug))))
    })
}

/// Where a function is, as Lua begins its errors.
fn position(debug: &Debug<'_>) -> Option<String> {
    let source = debug.source();
    source.short_src.zip(debug.current_line()).map(|(source, line)| format!("{source}:{line}: "))
}

/// Lua's own text for an allocation that failed does not say how much there was.
pub(super) fn explain(text: &str) -> String {
    match text {
        "not enough memory" => format!("{text}: a script may take {} MiB", MEMORY >> 20),
        other => other.to_owned(),
    }
}

/// An error as Envoy logs it: the script's own text, without a traceback.
pub(super) fn describe(error: &mlua::Error) -> String {
    match error {
        mlua::Error::RuntimeError(text) => match text.rfind("\nstack traceback:\n") {
            Some(end) => text[..end].to_owned(),
            None => text.clone(),
        },
        mlua::Error::SyntaxError { message, .. } => message.clone(),
        mlua::Error::MemoryError(text) => explain(text),
        mlua::Error::CallbackError { cause, .. } => describe(cause),
        other => other.to_string(),
    }
}

//! One coroutine on one direction of a stream: what it waits for, and what that means for the stream.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use mlua::thread::ThreadStatus;
use mlua::{Function, IntoLuaMulti, LightUserData, Thread, Value};
use smallvec::SmallVec;
use tokio::task::AbortHandle;

use super::crypto::PublicKey;
use super::object::{self, Kind, Object};
use super::state::{Runtime, describe, explain};
use crate::abi::LogLevel;
use crate::native::{Action, StreamHandle};
use crate::stream::state::{Body, Direction};
use crate::trace::Answer;

/// What the script is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// It runs, or it is over.
    Running,
    WaitForChunk,
    WaitForBody,
    WaitForTrailers,
    Call,
    /// It answered: nothing of it runs any more.
    Responded,
}

/// What `importPublicKey` made.
pub(super) struct ImportedKey {
    pub(super) object: LightUserData,
    /// What scripts name it by; empty when it was no key.
    pub(super) name: Vec<u8>,
    pub(super) key: Option<PublicKey>,
}

pub(super) struct Script {
    pub(super) runtime: Rc<Runtime>,
    given: Duration,
    pub(super) stream: StreamHandle,
    pub(super) direction: Direction,
    pub(super) phase: Cell<Phase>,
    pub(super) handle: Object,
    pub(super) end: Cell<bool>,
    pub(super) saw_body: Cell<bool>,
    pub(super) buffers_body: Cell<bool>,
    pub(super) has_trailers: Cell<bool>,
    pub(super) headers_continued: Cell<bool>,
    /// Those that were made in this stretch, which they do not outlive.
    pub(super) objects: RefCell<SmallVec<[Object; 2]>>,
    pub(super) key: RefCell<Option<ImportedKey>>,
    pub(super) call: RefCell<Option<AbortHandle>>,
    thread: RefCell<Option<Thread>>,
}

impl Script {
    pub(super) fn new(
        runtime: Rc<Runtime>,
        given: Duration,
        stream: StreamHandle,
        direction: Direction,
        end: bool,
    ) -> Rc<Self> {
        Rc::new(Self {
            handle: Object::new(&runtime.stage, Kind::Handle, 0),
            runtime,
            given,
            stream,
            direction,
            phase: Cell::new(Phase::Running),
            end: Cell::new(end),
            saw_body: Cell::new(false),
            buffers_body: Cell::new(false),
            has_trailers: Cell::new(false),
            headers_continued: Cell::new(false),
            objects: RefCell::default(),
            key: RefCell::default(),
            call: RefCell::default(),
            thread: RefCell::default(),
        })
    }

    /// Runs the script from its beginning, on headers.
    pub(super) fn start(self: &Rc<Self>, function: &Function) -> Action {
        match self.runtime.coroutine() {
            Ok(thread) => {
                *self.thread.borrow_mut() = Some(thread);
                let headers = object::get(self, Kind::Headers);
                self.resume((function, self.handle.value(), headers));
            }
            Err(error) => self.failed(&describe(&error)),
        }
        match self.phase.get() {
            Phase::WaitForBody | Phase::Call | Phase::Responded => Action::StopIteration,
            Phase::Running | Phase::WaitForChunk | Phase::WaitForTrailers => self.let_pass(),
        }
    }

    /// It has not come to its end.
    pub(super) fn waits(&self) -> bool {
        self.phase.get() != Phase::Running
    }

    pub(super) fn on_body(self: &Rc<Self>, end: bool) -> Action {
        self.end.set(end);
        self.saw_body.set(true);
        match self.phase.get() {
            Phase::WaitForChunk => self.resume_with(Kind::Chunk),
            Phase::WaitForBody if end => self.resume_with(Kind::Body),
            Phase::WaitForTrailers if end => self.resume(()),
            _ => {}
        }
        match self.phase.get() {
            Phase::Call | Phase::WaitForBody | Phase::Responded => Action::StopIteration,
            Phase::Running | Phase::WaitForChunk | Phase::WaitForTrailers => self.let_pass(),
        }
    }

    pub(super) fn on_trailers(self: &Rc<Self>) -> Action {
        self.end.set(true);
        self.has_trailers.set(true);
        match self.phase.get() {
            Phase::WaitForBody if self.saw_body.get() => self.resume_with(Kind::Body),
            Phase::WaitForBody | Phase::WaitForChunk => self.resume(()),
            _ => {}
        }
        if self.phase.get() == Phase::WaitForTrailers {
            self.resume_with(Kind::Trailers);
        }
        match self.phase.get() {
            Phase::Call | Phase::Responded => Action::StopAll,
            _ => self.let_pass(),
        }
    }

    fn let_pass(&self) -> Action {
        self.headers_continued.set(true);
        Action::Continue
    }

    /// What the script called for is here.
    pub(super) fn called(self: &Rc<Self>, values: impl IntoLuaMulti) {
        if self.phase.get() != Phase::Call {
            return;
        }
        let filter = self.stream.filter();
        self.stream.state().trace_begin(filter, "httpCall answered", None);
        self.resume(values);
        self.stream.state().trace_end(filter, Answer::Nothing);
        if matches!(self.phase.get(), Phase::Running | Phase::WaitForChunk | Phase::WaitForTrailers) {
            self.headers_continued.set(true);
            self.stream.resume(self.direction);
        }
    }

    fn resume_with(self: &Rc<Self>, kind: Kind) {
        // The object belongs to the stretch that begins now.
        let object = object::get(self, kind);
        self.resume(object);
    }

    fn resume(self: &Rc<Self>, values: impl IntoLuaMulti) {
        let Some(thread) = self.thread.borrow().clone() else {
            self.phase.set(Phase::Running);
            return;
        };
        self.phase.set(Phase::Running);
        self.runtime.log.about(Some(&self.stream));
        self.runtime.limits.begin(self.given);
        let resumed = self.runtime.stage.with(self, || thread.resume::<Value>(values));
        let over = self.runtime.limits.end();
        self.runtime.log.about(None);
        self.objects.borrow_mut().clear();
        let waits = thread.status() == ThreadStatus::Resumable;
        let error = match (over, resumed) {
            (Some(over), _) => Some(over),
            (None, Err(error)) => Some(describe(&error)),
            (None, Ok(Value::String(error))) if !waits => Some(explain(&error.to_string_lossy())),
            (None, Ok(_)) => None,
        };
        if let Some(error) = error {
            return self.failed(&error);
        }
        match self.phase.get() {
            Phase::Running if waits => self.failed("script performed an unexpected yield"),
            Phase::Running | Phase::Responded => self.over(),
            _ if !waits => {
                self.phase.set(Phase::Running);
                self.over();
            }
            _ => {}
        }
    }

    /// The request goes on as if the script had ended there, with what it changed before.
    fn failed(&self, error: &str) {
        self.runtime.log.write_of(Some(&self.stream), LogLevel::Error, error.as_bytes());
        if self.phase.get() != Phase::Responded {
            self.phase.set(Phase::Running);
        }
        self.over();
    }

    fn over(&self) {
        if let Some(thread) = self.thread.borrow_mut().take() {
            self.runtime.take_back(thread);
        }
        self.key.borrow_mut().take();
        if let Some(call) = self.call.borrow_mut().take() {
            call.abort();
        }
    }

    /// The stream is gone.
    pub(super) fn abandon(&self) {
        self.phase.set(Phase::Responded);
        self.objects.borrow_mut().clear();
        self.over();
    }

    pub(super) fn runs_in(&self, thread: &Thread) -> bool {
        self.thread.borrow().as_ref() == Some(thread)
    }

    /// Looks at the body that the filter holds.
    pub(super) fn with_body<T>(&self, f: impl FnOnce(&mut Option<Body>) -> T) -> Option<T> {
        let mut state = self.stream.state();
        let view = state.view(self.stream.filter())?;
        Some(f(match self.direction {
            Direction::Request => &mut view.request_body,
            Direction::Response => &mut view.response_body,
        }))
    }
}

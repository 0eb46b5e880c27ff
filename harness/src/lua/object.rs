//! The objects in a script's hands, and how functions of the host are made.
//!
//! To Lua an object is a number that comes once in a state's life, as light userdata: making one takes no memory, and
//! nothing of it is left to collect. What it stands for is known to the script's [`Script`], and gone with the stretch.
//! `prelude.lua` has the methods.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::ops::Deref;
use std::rc::Rc;

use mlua::{FromLuaMulti, IntoLua, LightUserData, Lua, MultiValue, Table, Value};

use super::stream::Script;
use crate::header_map::TooLarge;

/// What an object stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Handle,
    Headers,
    RequestHeaders,
    Trailers,
    Body,
    Chunk,
    Metadata,
    Route,
    StreamInfo,
    DynamicMetadata,
    ConnectionMetadata,
    FilterState,
    Connection,
    ConnectionStreamInfo,
    Stats,
    Counter,
    Gauge,
    Histogram,
    PublicKey,
}

pub(super) const HANDLE: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const BODY: u8 = 2;
pub(super) const METADATA: u8 = 3;
pub(super) const ROUTE: u8 = 4;
pub(super) const STREAM_INFO: u8 = 5;
pub(super) const DYNAMIC_METADATA: u8 = 6;
pub(super) const FILTER_STATE: u8 = 7;
pub(super) const CONNECTION: u8 = 8;
pub(super) const CONNECTION_STREAM_INFO: u8 = 9;
pub(super) const STATS: u8 = 10;
pub(super) const METRIC: u8 = 11;
pub(super) const PUBLIC_KEY: u8 = 12;

/// What each set of methods is called, by number.
const NAMES: [&str; 13] = [
    "handle",
    "headers",
    "body",
    "metadata",
    "route",
    "stream_info",
    "dynamic_metadata",
    "filter_state",
    "connection",
    "connection_stream_info",
    "stats",
    "metric",
    "public_key",
];

impl Kind {
    /// The number of its set of methods.
    const fn methods(self) -> u8 {
        match self {
            Self::Handle => HANDLE,
            Self::Headers | Self::RequestHeaders | Self::Trailers => HEADERS,
            Self::Body | Self::Chunk => BODY,
            Self::Metadata => METADATA,
            Self::Route => ROUTE,
            Self::StreamInfo => STREAM_INFO,
            Self::DynamicMetadata | Self::ConnectionMetadata => DYNAMIC_METADATA,
            Self::FilterState => FILTER_STATE,
            Self::Connection => CONNECTION,
            Self::ConnectionStreamInfo => CONNECTION_STREAM_INFO,
            Self::Stats => STATS,
            Self::Counter | Self::Gauge | Self::Histogram => METRIC,
            Self::PublicKey => PUBLIC_KEY,
        }
    }
}

/// What is known of an object in a script's hands.
#[derive(Debug)]
pub(super) struct Object {
    number: usize,
    kind: Kind,
    iterating: Cell<bool>,
    metric: u32,
}

impl Object {
    /// `metric` is a metric's number, and 0 for all else.
    pub(super) fn new(stage: &Stage, kind: Kind, metric: u32) -> Self {
        Self { number: stage.number(), kind, iterating: Cell::new(false), metric }
    }

    /// What the script gets.
    pub(super) fn value(&self) -> LightUserData {
        LightUserData(std::ptr::without_provenance_mut(self.number))
    }
}

/// Which script of a state runs: only its objects may be used.
#[derive(Default)]
pub(super) struct Stage {
    script: RefCell<Option<Rc<Script>>>,
    /// Objects made so far.
    numbers: Cell<usize>,
}

impl Stage {
    /// LuaJIT takes 47 bits: years of requests.
    fn number(&self) -> usize {
        self.numbers.set(self.numbers.get() + 1);
        self.numbers.get()
    }

    /// Runs a stretch of a script.
    pub(super) fn with<T>(&self, script: &Rc<Script>, stretch: impl FnOnce() -> T) -> T {
        let before = self.script.replace(Some(script.clone()));
        let result = stretch();
        self.script.replace(before);
        result
    }
}

/// The object that a method was called on, `M` being the number of its set of methods.
pub(super) struct This<const M: u8> {
    pub(super) script: Rc<Script>,
    pub(super) kind: Kind,
    pub(super) metric: u32,
    number: usize,
}

impl<const M: u8> This<M> {
    /// Of dynamic metadata: the connection's, which has none, or the stream's.
    pub(super) fn is_of_stream(&self) -> bool {
        self.kind == Kind::DynamicMetadata
    }

    fn iterating<T>(&self, f: impl FnOnce(&Cell<bool>) -> T) -> Option<T> {
        let objects = self.script.objects.borrow();
        objects.iter().find(|object| object.number == self.number).map(|object| f(&object.iterating))
    }

    pub(super) fn is_iterating(&self) -> bool {
        self.iterating(Cell::get).unwrap_or(false)
    }

    pub(super) fn iterate(&self, on: bool) -> Answer<()> {
        let was = self.iterating(|iterating| iterating.replace(on)).unwrap_or(false);
        if on && was {
            return Err("cannot create a second iterator before completing the first".into());
        }
        Ok(())
    }
}

/// A call of a function of the host.
pub(super) struct Calling<'c> {
    lua: &'c Lua,
    stage: &'c Stage,
}

impl Deref for Calling<'_> {
    type Target = Lua;

    fn deref(&self) -> &Lua {
        self.lua
    }
}

impl Calling<'_> {
    /// The object that a method was called on.
    pub(super) fn this<const M: u8>(&self, value: &Value) -> Answer<This<M>> {
        let bad = || {
            let (name, got) = (NAMES[usize::from(M)], type_name(value));
            Fault::from(format!("calling a method of {name} on bad self ({name} expected, got {got})"))
        };
        let Value::LightUserData(LightUserData(number)) = value else { return Err(bad()) };
        let number = number.addr();
        let running = self.stage.script.borrow();
        let script = running.as_ref().ok_or(GONE)?;
        let object = |object: &Object| (object.number == number).then_some((object.kind, object.metric));
        let found = object(&script.handle).or_else(|| script.objects.borrow().iter().find_map(object));
        let (kind, metric) = found.ok_or(GONE)?;
        if kind.methods() != M {
            return Err(bad());
        }
        Ok(This { script: script.clone(), kind, metric, number })
    }
}

const GONE: &str = "object used outside of proper scope";

/// A value's type as Lua calls it.
pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::LightUserData(_) => "userdata",
        other => other.type_name(),
    }
}

/// A new object of this stretch.
pub(super) fn make(script: &Script, kind: Kind, metric: u32) -> LightUserData {
    let object = Object::new(&script.runtime.stage, kind, metric);
    let value = object.value();
    script.objects.borrow_mut().push(object);
    value
}

/// The stretch's object of a kind: asking again gives the same one.
pub(super) fn get(script: &Script, kind: Kind) -> LightUserData {
    let known = script.objects.borrow().iter().find(|object| object.kind == kind).map(Object::value);
    known.unwrap_or_else(|| make(script, kind, 0))
}

/// Why a call fails.
pub(super) enum Fault {
    /// An error of the script's.
    Text(Cow<'static, str>),
    Lua(mlua::Error),
}

impl From<mlua::Error> for Fault {
    fn from(error: mlua::Error) -> Self {
        Self::Lua(error)
    }
}

impl From<&'static str> for Fault {
    fn from(text: &'static str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Fault {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<TooLarge> for Fault {
    fn from(_: TooLarge) -> Self {
        "the header map is full".into()
    }
}

pub(super) type Answer<T> = Result<T, Fault>;

/// The host's functions, as a table under construction.
pub(super) struct Host<'l> {
    pub(super) lua: &'l Lua,
    stage: Rc<Stage>,
    pub(super) table: Table,
}

impl<'l> Host<'l> {
    pub(super) fn new(lua: &'l Lua, stage: &Rc<Stage>) -> mlua::Result<Self> {
        Ok(Self { lua, stage: stage.clone(), table: lua.create_table()? })
    }

    /// A function with one value beside the error.
    pub(super) fn one<A: FromLuaMulti, R: IntoLua>(
        &self,
        name: &str,
        f: impl Fn(&Calling<'_>, A) -> Answer<R> + 'static,
    ) -> mlua::Result<()> {
        let stage = self.stage.clone();
        let function =
            self.lua.create_function(move |lua, args: A| match f(&Calling { lua, stage: &stage }, args) {
                Ok(value) => Ok((Value::Nil, value.into_lua(lua)?)),
                Err(Fault::Text(text)) => Ok((Value::String(lua.create_string(text.as_bytes())?), Value::Nil)),
                Err(Fault::Lua(error)) => Err(error),
            })?;
        self.table.raw_set(name, function)
    }

    /// A function that only succeeds or fails.
    pub(super) fn none<A: FromLuaMulti>(
        &self,
        name: &str,
        f: impl Fn(&Calling<'_>, A) -> Answer<()> + 'static,
    ) -> mlua::Result<()> {
        let stage = self.stage.clone();
        let function =
            self.lua.create_function(move |lua, args: A| match f(&Calling { lua, stage: &stage }, args) {
                Ok(()) => Ok(Value::Nil),
                Err(Fault::Text(text)) => Ok(Value::String(lua.create_string(text.as_bytes())?)),
                Err(Fault::Lua(error)) => Err(error),
            })?;
        self.table.raw_set(name, function)
    }

    /// A function with any number of values beside the error.
    pub(super) fn many<A: FromLuaMulti>(
        &self,
        name: &str,
        f: impl Fn(&Calling<'_>, A) -> Answer<MultiValue> + 'static,
    ) -> mlua::Result<()> {
        let stage = self.stage.clone();
        let function =
            self.lua.create_function(move |lua, args: A| match f(&Calling { lua, stage: &stage }, args) {
                Ok(mut values) => {
                    values.push_front(Value::Nil);
                    Ok(values)
                }
                Err(Fault::Text(text)) => {
                    Ok(MultiValue::from_iter([Value::String(lua.create_string(text.as_bytes())?)]))
                }
                Err(Fault::Lua(error)) => Err(error),
            })?;
        self.table.raw_set(name, function)
    }
}

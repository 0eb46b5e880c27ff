//! The objects in a script's hands, and how functions of the host are made.

use std::borrow::Cow;
use std::cell::Cell;
use std::rc::Rc;

use mlua::{
    AnyUserData, FromLuaMulti, Function, IntoLua, Lua, MultiValue, Table, UserDataFields as _, UserDataRef,
    UserDataRegistry, Value,
};

use super::state::freely;
use super::stream::Script;
use crate::header_map::TooLarge;

/// What an object stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
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
    Metric,
    PublicKey,
    Handle,
}

/// An object in a script's hands. `M` is its set of methods, since a Rust type has one metatable.
pub(super) struct Object<const M: u8> {
    pub(super) script: Rc<Script>,
    stretch: u32,
    pub(super) kind: Kind,
    iterating: Cell<bool>,
    /// A metric's.
    pub(super) id: u32,
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
pub(super) const COUNTER: u8 = 11;
pub(super) const GAUGE: u8 = 12;
pub(super) const HISTOGRAM: u8 = 13;
pub(super) const PUBLIC_KEY: u8 = 14;

/// What each set of methods is called, by number.
const NAMES: [&str; 15] = [
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
    "counter",
    "gauge",
    "histogram",
    "public_key",
];

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
    pub(super) table: Table,
}

impl<'l> Host<'l> {
    pub(super) fn new(lua: &'l Lua) -> mlua::Result<Self> {
        Ok(Self { lua, table: lua.create_table()? })
    }

    /// A function with one value beside the error.
    pub(super) fn one<A: FromLuaMulti, R: IntoLua>(
        &self,
        name: &str,
        f: impl Fn(&Lua, A) -> Answer<R> + 'static,
    ) -> mlua::Result<()> {
        let function = self.lua.create_function(move |lua, args: A| match f(lua, args) {
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
        f: impl Fn(&Lua, A) -> Answer<()> + 'static,
    ) -> mlua::Result<()> {
        let function = self.lua.create_function(move |lua, args: A| match f(lua, args) {
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
        f: impl Fn(&Lua, A) -> Answer<MultiValue> + 'static,
    ) -> mlua::Result<()> {
        let function = self.lua.create_function(move |lua, args: A| match f(lua, args) {
            Ok(mut values) => {
                values.push_front(Value::Nil);
                Ok(values)
            }
            Err(Fault::Text(text)) => Ok(MultiValue::from_iter([Value::String(lua.create_string(text.as_bytes())?)])),
            Err(Fault::Lua(error)) => Err(error),
        })?;
        self.table.raw_set(name, function)
    }
}

/// The object that a method was called on.
pub(super) fn this<const M: u8>(value: &Value) -> Answer<UserDataRef<Object<M>>> {
    let name = NAMES[usize::from(M)];
    let bad =
        || Fault::from(format!("calling a method of {name} on bad self ({name} expected, got {})", value.type_name()));
    let object = value.as_userdata().ok_or_else(bad)?.borrow::<Object<M>>().map_err(|_| bad())?;
    let script = &object.script;
    if script.live.get() && (M == HANDLE || object.stretch == script.stretch.get()) {
        Ok(object)
    } else {
        Err("object used outside of proper scope".into())
    }
}

pub(super) fn make<const M: u8>(script: &Rc<Script>, kind: Kind, id: u32) -> mlua::Result<AnyUserData> {
    let object =
        Object::<M> { script: script.clone(), stretch: script.stretch.get(), kind, iterating: Cell::new(false), id };
    script.runtime.lua.create_any_userdata(object)
}

/// The stream handle.
pub(super) fn handle(script: &Rc<Script>) -> mlua::Result<AnyUserData> {
    make::<HANDLE>(script, Kind::Handle, 0)
}

/// The stretch's object of a kind: asking again gives the same one.
pub(super) fn get(script: &Rc<Script>, kind: Kind) -> mlua::Result<AnyUserData> {
    let known = script.objects.borrow().iter().find(|(known, _)| *known == kind).map(|(_, object)| object.clone());
    if let Some(object) = known {
        return Ok(object);
    }
    let object = freely(&script.runtime.lua, || match kind {
        Kind::Headers | Kind::RequestHeaders | Kind::Trailers => make::<HEADERS>(script, kind, 0),
        Kind::Body | Kind::Chunk => make::<BODY>(script, kind, 0),
        Kind::Metadata => make::<METADATA>(script, kind, 0),
        Kind::Route => make::<ROUTE>(script, kind, 0),
        Kind::StreamInfo => make::<STREAM_INFO>(script, kind, 0),
        Kind::DynamicMetadata | Kind::ConnectionMetadata => make::<DYNAMIC_METADATA>(script, kind, 0),
        Kind::FilterState => make::<FILTER_STATE>(script, kind, 0),
        Kind::Connection => make::<CONNECTION>(script, kind, 0),
        Kind::ConnectionStreamInfo => make::<CONNECTION_STREAM_INFO>(script, kind, 0),
        Kind::Stats => make::<STATS>(script, kind, 0),
        Kind::PublicKey => make::<PUBLIC_KEY>(script, kind, 0),
        Kind::Metric | Kind::Handle => Err(mlua::Error::runtime("not an object of a stretch")),
    })?;
    script.objects.borrow_mut().push((kind, object.clone()));
    Ok(object)
}

impl<const M: u8> Object<M> {
    /// Of dynamic metadata: the connection's, which has none, or the stream's.
    pub(super) fn is_of_stream(&self) -> bool {
        self.kind == Kind::DynamicMetadata
    }

    pub(super) fn is_iterating(&self) -> bool {
        self.iterating.get()
    }

    pub(super) fn iterate(&self, on: bool) -> Answer<()> {
        if on && self.iterating.get() {
            return Err("cannot create a second iterator before completing the first".into());
        }
        self.iterating.set(on);
        Ok(())
    }
}

/// Gives every kind of object its methods.
pub(super) fn register_all(lua: &Lua, methods: &Table) -> mlua::Result<()> {
    register::<HANDLE>(lua, methods)?;
    register::<HEADERS>(lua, methods)?;
    register::<BODY>(lua, methods)?;
    register::<METADATA>(lua, methods)?;
    register::<ROUTE>(lua, methods)?;
    register::<STREAM_INFO>(lua, methods)?;
    register::<DYNAMIC_METADATA>(lua, methods)?;
    register::<FILTER_STATE>(lua, methods)?;
    register::<CONNECTION>(lua, methods)?;
    register::<CONNECTION_STREAM_INFO>(lua, methods)?;
    register::<STATS>(lua, methods)?;
    register::<COUNTER>(lua, methods)?;
    register::<GAUGE>(lua, methods)?;
    register::<HISTOGRAM>(lua, methods)?;
    register::<PUBLIC_KEY>(lua, methods)
}

fn register<const M: u8>(lua: &Lua, methods: &Table) -> mlua::Result<()> {
    let name = NAMES[usize::from(M)];
    let index: Table = methods.raw_get(name)?;
    let pairs: Option<Function> = methods.raw_get(format!("{name}_pairs"))?;
    lua.register_userdata_type(|registry: &mut UserDataRegistry<Object<M>>| {
        registry.add_meta_field("__index", index);
        if let Some(pairs) = pairs {
            registry.add_meta_field("__pairs", pairs);
        }
    })
}

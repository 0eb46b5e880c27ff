//! Dynamic metadata: what filters leave for each other, as scripts read and write it.

use mlua::{Lua, LuaString, Table, Value};
use serde_json::{Map, Number};

use super::object::{DYNAMIC_METADATA, Fault, Host, type_name};

/// Values within values.
const MAX_DEPTH: usize = 32;
/// A list is as long as its largest key.
const MAX_LIST: usize = 65_536;

pub(super) fn install(host: &Host<'_>) -> mlua::Result<()> {
    host.one("dynamic_get", |lua, (this_, filter): (Value, LuaString)| {
        let this = lua.this::<DYNAMIC_METADATA>(&this_)?;
        if !this.is_of_stream() {
            return Ok(None);
        }
        let state = this.script.stream.state();
        let fields = state.dynamic_metadata.get(&filter.to_string_lossy());
        Ok(fields.map(|fields| table(lua, fields)).transpose()?)
    })?;
    host.none("dynamic_set", |lua, (this_, filter, key, value): (Value, LuaString, LuaString, Value)| {
        let this = lua.this::<DYNAMIC_METADATA>(&this_)?;
        if this.is_iterating() {
            return Err("dynamic metadata map cannot be modified while iterating".into());
        }
        if !this.is_of_stream() {
            return Err("the connection's dynamic metadata cannot be modified".into());
        }
        let value = load(&value, 0)?;
        let mut state = this.script.stream.state();
        let kept = state.dynamic_metadata.set(filter.to_string_lossy(), key.to_string_lossy(), value);
        kept.map_err(|error| Fault::from(error.to_string()))
    })?;
    host.one("dynamic_names", |lua, this_: Value| {
        let this = lua.this::<DYNAMIC_METADATA>(&this_)?;
        this.iterate(true)?;
        let state = this.script.stream.state();
        let names: Vec<&str> = if this.is_of_stream() { state.dynamic_metadata.names().collect() } else { Vec::new() };
        Ok(lua.create_sequence_from(names)?)
    })?;
    host.one("dynamic_step", |lua, (this_, name): (Value, Option<LuaString>)| {
        let this = lua.this::<DYNAMIC_METADATA>(&this_)?;
        let Some(name) = name else {
            this.iterate(false)?;
            return Ok(None);
        };
        let state = this.script.stream.state();
        let fields = state.dynamic_metadata.get(&name.to_string_lossy());
        Ok(fields.map(|fields| table(lua, fields)).transpose()?)
    })
}

fn table(lua: &Lua, fields: &Map<String, serde_json::Value>) -> mlua::Result<Table> {
    let table = lua.create_table_with_capacity(0, fields.len())?;
    for (name, value) in fields {
        table.raw_set(name.as_str(), to_lua(lua, value)?)?;
    }
    Ok(table)
}

fn to_lua(lua: &Lua, value: &serde_json::Value) -> mlua::Result<Value> {
    Ok(match value {
        serde_json::Value::Null => Value::Nil,
        serde_json::Value::Bool(value) => Value::Boolean(*value),
        serde_json::Value::Number(value) => Value::Number(value.as_f64().unwrap_or_default()),
        serde_json::Value::String(value) => Value::String(lua.create_string(value)?),
        serde_json::Value::Array(values) => {
            let list = lua.create_table_with_capacity(values.len(), 0)?;
            for (index, value) in values.iter().enumerate() {
                list.raw_set(index + 1, to_lua(lua, value)?)?;
            }
            Value::Table(list)
        }
        serde_json::Value::Object(fields) => Value::Table(table(lua, fields)?),
    })
}

/// A protobuf value from a script's: numbers are doubles, a table with only counting keys is a list.
fn load(value: &Value, depth: usize) -> Result<serde_json::Value, Fault> {
    if depth > MAX_DEPTH {
        return Err(format!("a value in dynamicMetadata is nested more than {MAX_DEPTH} deep").into());
    }
    Ok(match value {
        Value::Nil => serde_json::Value::Null,
        Value::Boolean(value) => (*value).into(),
        Value::Integer(value) => (*value).into(),
        Value::Number(value) => Number::from_f64(*value).map_or(serde_json::Value::Null, serde_json::Value::Number),
        Value::String(value) => value.to_string_lossy().into(),
        Value::Table(table) => load_table(table, depth)?,
        other => return Err(format!("unexpected type '{}' in dynamicMetadata", type_name(other)).into()),
    })
}

fn load_table(table: &Table, depth: usize) -> Result<serde_json::Value, Fault> {
    let pairs: Vec<(Value, Value)> = table.pairs().collect::<mlua::Result<_>>()?;
    let counting = |key: &Value| match key {
        Value::Integer(key) => usize::try_from(*key).ok().filter(|key| *key > 0),
        _ => None,
    };
    let keys: Option<Vec<usize>> = pairs.iter().map(|(key, _)| counting(key)).collect();
    if let Some(last) = keys.as_ref().and_then(|keys| keys.iter().max()) {
        if *last > MAX_LIST {
            return Err(format!("a list in dynamicMetadata has an index above {MAX_LIST}").into());
        }
        let mut list = vec![serde_json::Value::Null; *last];
        for (index, (_, value)) in keys.iter().flatten().zip(&pairs) {
            list[index - 1] = load(value, depth + 1)?;
        }
        return Ok(list.into());
    }
    let mut fields = Map::new();
    for (key, value) in &pairs {
        let Value::String(name) = key else {
            let kind = type_name(key);
            return Err(format!("unexpected type {kind} in table key (only string keys are supported)").into());
        };
        fields.insert(name.to_string_lossy(), load(value, depth + 1)?);
    }
    Ok(fields.into())
}

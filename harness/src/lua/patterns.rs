//! `string.find`, `match`, `gmatch` and `gsub` over [`super::pattern`].

use std::rc::Rc;

use mlua::{Lua, LuaString, MultiValue, Value};

use super::object::{Fault, Host};
use super::pattern::{Captured, Match, Matcher, PatternError};
use super::state::Deadline;

pub(super) fn install(host: &Host<'_>, limits: &Rc<Deadline>) -> mlua::Result<()> {
    let clock = limits.clone();
    host.many("find", move |lua, (subject, pattern, init, mode): (LuaString, LuaString, f64, LuaString)| {
        let (subject, pattern, mode) = (subject.as_bytes(), pattern.as_bytes(), mode.as_bytes());
        let Some(from) = start(init, subject.len()) else { return Ok(MultiValue::from_iter([Value::Nil])) };
        let special = |byte: &u8| b"^$*+?.([%-".contains(byte);
        let plain = *mode == *b"plain" || *mode == *b"find" && !pattern.iter().any(special);
        let found = if plain {
            let at = memchr::memmem::find(&subject[from..], &pattern).map(|at| from + at);
            at.map(|start| Match { start, end: start + pattern.len(), captures: Vec::new() })
        } else {
            let in_time = || clock.in_time();
            let found = Matcher::new(&subject, &pattern, &in_time).find(from, true);
            found.map_err(|error| fault(lua, error, &clock))?
        };
        let Some(found) = found else { return Ok(MultiValue::from_iter([Value::Nil])) };
        let mut values = MultiValue::new();
        if *mode == *b"match" {
            push_captures(lua, &mut values, &found, &subject)?;
        } else {
            push_range(&mut values, &found);
            for capture in &found.captures {
                values.push_back(value(lua, *capture)?);
            }
        }
        Ok(values)
    })?;
    let clock = limits.clone();
    // The next match, with the whole of it when nothing is captured.
    host.many("scan", move |lua, (subject, pattern, from, anchors): (LuaString, LuaString, usize, bool)| {
        let (subject, pattern) = (subject.as_bytes(), pattern.as_bytes());
        let in_time = || clock.in_time();
        let found = Matcher::new(&subject, &pattern, &in_time).find(from.saturating_sub(1), anchors);
        let Some(found) = found.map_err(|error| fault(lua, error, &clock))? else {
            return Ok(MultiValue::from_iter([Value::Nil]));
        };
        let mut values = MultiValue::new();
        push_range(&mut values, &found);
        push_captures(lua, &mut values, &found, &subject)?;
        Ok(values)
    })?;
    let clock = limits.clone();
    host.many("substitute", move |lua, (subject, pattern, template, max): (LuaString, LuaString, LuaString, f64)| {
        let (subject, pattern, template) = (subject.as_bytes(), pattern.as_bytes(), template.as_bytes());
        let in_time = || clock.in_time();
        let mut matcher = Matcher::new(&subject, &pattern, &in_time);
        let anchored = pattern.first() == Some(&b'^');
        let (mut out, mut at, mut count) = (Vec::new(), 0, 0_u32);
        while f64::from(count) < max && at <= subject.len() {
            let Some(found) = matcher.find(at, true).map_err(|error| fault(lua, error, &clock))? else { break };
            count += 1;
            out.extend_from_slice(&subject[at..found.start]);
            expand(&mut out, &template, &found, &subject)?;
            at = found.end;
            if found.end == found.start {
                out.extend(subject.get(at));
                at += 1;
            }
            if out.len() > super::state::MEMORY {
                return Err("not enough memory".into());
            }
            if anchored {
                break;
            }
        }
        out.extend_from_slice(subject.get(at..).unwrap_or_default());
        Ok(MultiValue::from_iter([Value::String(lua.create_string(out)?), Value::Integer(count.into())]))
    })
}

fn fault(lua: &Lua, error: PatternError, clock: &Deadline) -> Fault {
    match error {
        PatternError::OutOfTime => clock.expired(lua).into(),
        malformed => malformed.to_string().into(),
    }
}

/// Where to begin: counted from 1, from the end when negative. `None`: behind the end.
#[expect(clippy::cast_possible_truncation, reason = "saturates")]
fn start(init: f64, len: usize) -> Option<usize> {
    let init = init as i64;
    let from = match usize::try_from(init) {
        Ok(init) => init.saturating_sub(1),
        Err(_) => len.saturating_sub(usize::try_from(init.unsigned_abs()).unwrap_or(usize::MAX)),
    };
    (from <= len).then_some(from)
}

fn value(lua: &Lua, captured: Captured<'_>) -> mlua::Result<Value> {
    Ok(match captured {
        Captured::Text(text) => Value::String(lua.create_string(text)?),
        Captured::Position(at) => index(at),
    })
}

fn index(at: usize) -> Value {
    Value::Integer(i64::try_from(at).unwrap_or(i64::MAX))
}

fn push_range(values: &mut MultiValue, found: &Match<'_>) {
    values.push_back(index(found.start + 1));
    values.push_back(index(found.end));
}

fn push_captures(lua: &Lua, values: &mut MultiValue, found: &Match<'_>, subject: &[u8]) -> mlua::Result<()> {
    if found.captures.is_empty() {
        values.push_back(Value::String(lua.create_string(&subject[found.start..found.end])?));
    }
    for capture in &found.captures {
        values.push_back(value(lua, *capture)?);
    }
    Ok(())
}

/// Writes a `gsub` template: `%0` is the match, `%1` to `%9` the captures, `%x` any other character.
fn expand(out: &mut Vec<u8>, template: &[u8], found: &Match<'_>, subject: &[u8]) -> Result<(), Fault> {
    let whole = &subject[found.start..found.end];
    let mut rest = template.iter();
    while let Some(&byte) = rest.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        match rest.next() {
            Some(b'0') => out.extend_from_slice(whole),
            Some(digit @ b'1'..=b'9') => match found.captures.get(usize::from(digit - b'1')) {
                Some(Captured::Text(text)) => out.extend_from_slice(text),
                Some(Captured::Position(at)) => out.extend_from_slice(at.to_string().as_bytes()),
                None if *digit == b'1' && found.captures.is_empty() => out.extend_from_slice(whole),
                None => return Err("invalid capture index".into()),
            },
            Some(other) => out.push(*other),
            None => return Err("invalid use of '%' in replacement string".into()),
        }
    }
    Ok(())
}

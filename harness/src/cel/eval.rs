//! What an expression comes to.

use std::cmp::Ordering;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::parser::{Expr, Expression};
use crate::properties::{self, Scope, Value};

/// No text, list or map that an expression makes is larger.
const MAX_SIZE: usize = 1 << 20;
const MAX_REGEX: usize = 1 << 18;

/// The expression has no value: a field that is not there, operands that do not fit, a range that is left.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct EvalError(String);

type Evaluated = Result<Value, EvalError>;

fn error<T>(what: impl Into<String>) -> Result<T, EvalError> {
    Err(EvalError(what.into()))
}

/// Evaluates over a context's properties.
pub(crate) fn evaluate(expression: &Expression, scope: &Scope<'_>) -> Evaluated {
    eval(&expression.0, scope)
}

fn eval(expr: &Expr, scope: &Scope<'_>) -> Evaluated {
    match expr {
        Expr::Literal(value) => Ok(value.clone()),
        Expr::Name(_) | Expr::Select(..) | Expr::Index(..) => member(expr, scope),
        Expr::List(items) => Ok(Value::List(items.iter().map(|item| eval(item, scope)).collect::<Result<_, _>>()?)),
        Expr::Map(fields) => {
            let mut map = Vec::new();
            for (key, value) in fields {
                let Value::Text(key) = eval(key, scope)? else { return error("keys of a map are strings") };
                map.push((key, eval(value, scope)?));
            }
            Ok(Value::Map(map))
        }
        Expr::Has(field) => match path(field, scope)? {
            Some(path) => Ok(Value::Bool(property(&path, scope).is_ok())),
            None => Ok(Value::Bool(member(field, scope).is_ok())),
        },
        Expr::Unary(operator, operand) => match (*operator, eval(operand, scope)?) {
            ("!", Value::Bool(value)) => Ok(Value::Bool(!value)),
            ("-", Value::Int(value)) => value.checked_neg().map_or_else(overflow, |value| Ok(Value::Int(value))),
            ("-", Value::Double(value)) => Ok(Value::Double(-value)),
            _ => error(format!("`{operator}` does not take such a value")),
        },
        Expr::Binary(operator @ ("||" | "&&"), left, right) => logic(operator, left, right, scope),
        Expr::Binary(operator, left, right) => binary(operator, eval(left, scope)?, eval(right, scope)?),
        Expr::Conditional(condition, yes, no) => match eval(condition, scope)? {
            Value::Bool(true) => eval(yes, scope),
            Value::Bool(false) => eval(no, scope),
            _ => error("a condition is a bool"),
        },
        Expr::Call(name, arguments) => {
            let arguments: Vec<Value> =
                arguments.iter().map(|argument| eval(argument, scope)).collect::<Result<_, _>>()?;
            call(name, &arguments)
        }
    }
}

fn overflow<T>() -> Result<T, EvalError> {
    error("integer overflow")
}

/// One side decides whatever the other is, even if that one is an error.
fn logic(operator: &str, left: &Expr, right: &Expr, scope: &Scope<'_>) -> Evaluated {
    let deciding = operator == "||";
    let bool = |expr| match eval(expr, scope) {
        Ok(Value::Bool(value)) => Ok(value),
        Ok(_) => error(format!("`{operator}` takes bools")),
        Err(error) => Err(error),
    };
    let left = bool(left);
    if left == Ok(deciding) {
        return Ok(Value::Bool(deciding));
    }
    match (left, bool(right)) {
        (_, Ok(right)) if right == deciding => Ok(Value::Bool(deciding)),
        (Ok(_), Ok(_)) => Ok(Value::Bool(!deciding)),
        (Err(error), _) | (_, Err(error)) => Err(error),
    }
}

/// The path of a property, when the expression is nothing but one.
fn path(expr: &Expr, scope: &Scope<'_>) -> Result<Option<Vec<Vec<u8>>>, EvalError> {
    Ok(match expr {
        Expr::Name(name) => Some(vec![name.clone().into_bytes()]),
        Expr::Select(object, field) => path(object, scope)?.map(|mut path| {
            path.push(field.clone().into_bytes());
            path
        }),
        Expr::Index(object, index) => {
            let Some(mut path) = path(object, scope)? else { return Ok(None) };
            path.push(segment(eval(index, scope)?)?);
            Some(path)
        }
        _ => None,
    })
}

fn segment(index: Value) -> Result<Vec<u8>, EvalError> {
    match index {
        Value::Text(name) => Ok(name),
        Value::Int(index) => Ok(index.to_string().into_bytes()),
        Value::Uint(index) => Ok(index.to_string().into_bytes()),
        _ => error("an index is a string or a number"),
    }
}

fn property(path: &[Vec<u8>], scope: &Scope<'_>) -> Evaluated {
    let segments: Vec<&[u8]> = path.iter().map(Vec::as_slice).collect();
    properties::segments_of(&segments, scope)
        .map_err(|_| EvalError(format!("no such property: {}", String::from_utf8_lossy(&path.join(&b'.')))))
}

fn member(expr: &Expr, scope: &Scope<'_>) -> Evaluated {
    if let Some(path) = path(expr, scope)? {
        return property(&path, scope);
    }
    let (object, segment) = match expr {
        Expr::Select(object, field) => (eval(object, scope)?, field.clone().into_bytes()),
        Expr::Index(object, index) => (eval(object, scope)?, segment(eval(index, scope)?)?),
        _ => return error("not a field"),
    };
    object.walk(&[&segment]).map_err(|_| EvalError(format!("no such key: {}", String::from_utf8_lossy(&segment))))
}

fn binary(operator: &str, left: Value, right: Value) -> Evaluated {
    match operator {
        "==" => Ok(Value::Bool(equal(&left, &right))),
        "!=" => Ok(Value::Bool(!equal(&left, &right))),
        "in" => match right {
            Value::List(items) => Ok(Value::Bool(items.iter().any(|item| equal(item, &left)))),
            Value::Map(fields) => match left {
                Value::Text(name) => Ok(Value::Bool(fields.iter().any(|(key, _)| *key == name))),
                _ => Ok(Value::Bool(false)),
            },
            _ => error("`in` takes a list or a map"),
        },
        "<" | "<=" | ">" | ">=" => {
            let Some(ordering) = compare(&left, &right)? else { return Ok(Value::Bool(false)) };
            Ok(Value::Bool(match operator {
                "<" => ordering.is_lt(),
                "<=" => ordering.is_le(),
                ">" => ordering.is_gt(),
                _ => ordering.is_ge(),
            }))
        }
        _ => arithmetic(operator, left, right),
    }
}

fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::List(a), Value::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Value::Map(a), Value::Map(b)) => {
            let same =
                |(name, value): &(Vec<u8>, Value)| b.iter().any(|(key, other)| key == name && equal(value, other));
            a.len() == b.len() && a.iter().all(same)
        }
        _ => match compare(left, right) {
            Ok(ordering) => ordering == Some(Ordering::Equal),
            Err(_) => left == right,
        },
    }
}

/// `None`: one of the numbers is none.
#[expect(clippy::cast_precision_loss, reason = "integers and doubles are compared as doubles")]
fn compare(left: &Value, right: &Value) -> Result<Option<Ordering>, EvalError> {
    Ok(match (left, right) {
        (Value::Uint(a), Value::Uint(b)) => Some(a.cmp(b)),
        (Value::Int(a), Value::Uint(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
        (Value::Uint(a), Value::Int(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
        (Value::Double(a), Value::Double(b)) => a.partial_cmp(b),
        (Value::Int(a), Value::Double(b)) => (*a as f64).partial_cmp(b),
        (Value::Double(a), Value::Int(b)) => a.partial_cmp(&(*b as f64)),
        (Value::Uint(a), Value::Double(b)) => (*a as f64).partial_cmp(b),
        (Value::Double(a), Value::Uint(b)) => a.partial_cmp(&(*b as f64)),
        (Value::Text(a), Value::Text(b)) | (Value::Bytes(a), Value::Bytes(b)) => Some(a.cmp(b)),
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        (Value::Int(a), Value::Int(b))
        | (Value::Duration(a), Value::Duration(b))
        | (Value::Timestamp(a), Value::Timestamp(b)) => Some(a.cmp(b)),
        _ => return error("values of different types have no order"),
    })
}

fn arithmetic(operator: &str, left: Value, right: Value) -> Evaluated {
    let checked = |int: Option<i64>, of: fn(i64) -> Value| int.map_or_else(overflow, |value| Ok(of(value)));
    match (operator, left, right) {
        (_, Value::Int(a), Value::Int(b)) => checked(
            match operator {
                "+" => a.checked_add(b),
                "-" => a.checked_sub(b),
                "*" => a.checked_mul(b),
                "/" | "%" if b == 0 => return error("divide by zero"),
                "/" => a.checked_div(b),
                _ => a.checked_rem(b),
            },
            Value::Int,
        ),
        (_, Value::Uint(a), Value::Uint(b)) => match operator {
            "+" => a.checked_add(b),
            "-" => a.checked_sub(b),
            "*" => a.checked_mul(b),
            "/" | "%" if b == 0 => return error("divide by zero"),
            "/" => a.checked_div(b),
            _ => a.checked_rem(b),
        }
        .map_or_else(overflow, |value| Ok(Value::Uint(value))),
        ("+", Value::Double(a), Value::Double(b)) => Ok(Value::Double(a + b)),
        ("-", Value::Double(a), Value::Double(b)) => Ok(Value::Double(a - b)),
        ("*", Value::Double(a), Value::Double(b)) => Ok(Value::Double(a * b)),
        ("/", Value::Double(a), Value::Double(b)) => Ok(Value::Double(a / b)),
        ("+", Value::Text(a), Value::Text(b)) => joined(a, &b).map(Value::Text),
        ("+", Value::Bytes(a), Value::Bytes(b)) => joined(a, &b).map(Value::Bytes),
        ("+", Value::List(a), Value::List(b)) if a.len() + b.len() <= MAX_SIZE / 64 => {
            Ok(Value::List(a.into_iter().chain(b).collect()))
        }
        ("+", Value::Duration(a), Value::Duration(b)) => checked(a.checked_add(b), Value::Duration),
        ("-", Value::Duration(a), Value::Duration(b)) | ("-", Value::Timestamp(a), Value::Timestamp(b)) => {
            checked(a.checked_sub(b), Value::Duration)
        }
        ("+", Value::Timestamp(a), Value::Duration(b)) | ("+", Value::Duration(a), Value::Timestamp(b)) => {
            checked(a.checked_add(b), Value::Timestamp)
        }
        ("-", Value::Timestamp(a), Value::Duration(b)) => checked(a.checked_sub(b), Value::Timestamp),
        _ => error(format!("`{operator}` does not take such values")),
    }
}

fn joined(mut a: Vec<u8>, b: &[u8]) -> Result<Vec<u8>, EvalError> {
    if a.len() + b.len() > MAX_SIZE {
        return error("a string became too long");
    }
    a.extend_from_slice(b);
    Ok(a)
}

fn call(name: &str, arguments: &[Value]) -> Evaluated {
    let wrong = || error(format!("{name}() does not take such a value"));
    match (name, arguments) {
        ("dyn", [value]) => Ok(value.clone()),
        ("size", [value]) => {
            let size = match value {
                Value::Text(text) => String::from_utf8_lossy(text).chars().count(),
                Value::Bytes(bytes) => bytes.len(),
                Value::List(items) => items.len(),
                Value::Map(fields) => fields.len(),
                _ => return wrong(),
            };
            Ok(Value::Int(i64::try_from(size).unwrap_or(i64::MAX)))
        }
        ("contains", [Value::Text(text), Value::Text(part)]) => {
            let found = part.is_empty() || String::from_utf8_lossy(text).contains(&*String::from_utf8_lossy(part));
            Ok(Value::Bool(found))
        }
        ("startsWith", [Value::Text(text), Value::Text(part)]) => Ok(Value::Bool(text.starts_with(part))),
        ("endsWith", [Value::Text(text), Value::Text(part)]) => Ok(Value::Bool(text.ends_with(part))),
        ("matches", [Value::Text(text), Value::Text(pattern)]) => {
            let pattern = String::from_utf8_lossy(pattern);
            let regex =
                regex::bytes::RegexBuilder::new(&pattern).size_limit(MAX_REGEX).dfa_size_limit(MAX_REGEX).build();
            let regex = regex.map_err(|_| EvalError("not a regular expression, or too large a one".to_owned()))?;
            Ok(Value::Bool(regex.is_match(text)))
        }
        ("duration", [Value::Text(text)]) => match std::str::from_utf8(text).ok().and_then(duration) {
            Some(nanoseconds) => Ok(Value::Duration(nanoseconds)),
            None => wrong(),
        },
        ("timestamp", [Value::Text(text)]) => {
            let parsed = std::str::from_utf8(text).ok().and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok());
            match parsed.and_then(|time| i64::try_from(time.unix_timestamp_nanos()).ok()) {
                Some(nanoseconds) => Ok(Value::Timestamp(nanoseconds)),
                None => wrong(),
            }
        }
        (_, [value]) => convert(name, value).map_or_else(wrong, Ok),
        _ => wrong(),
    }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "what a conversion between numbers is; the ranges are checked"
)]
fn convert(name: &str, value: &Value) -> Option<Value> {
    let parsed = |bytes: &[u8]| std::str::from_utf8(bytes).map(str::to_owned).ok();
    Some(match (name, value) {
        ("int", Value::Int(_))
        | ("uint", Value::Uint(_))
        | ("double", Value::Double(_))
        | ("string", Value::Text(_))
        | ("bytes", Value::Bytes(_))
        | ("bool", Value::Bool(_)) => value.clone(),
        ("int", Value::Uint(value)) => Value::Int(i64::try_from(*value).ok()?),
        ("int", Value::Double(value)) if value.abs() < 9.2e18 => Value::Int(*value as i64),
        ("int", Value::Timestamp(nanoseconds)) => Value::Int(nanoseconds.div_euclid(1_000_000_000)),
        ("int", Value::Text(text)) => Value::Int(parsed(text)?.parse().ok()?),
        ("uint", Value::Int(value)) => Value::Uint(u64::try_from(*value).ok()?),
        ("uint", Value::Double(value)) if (0.0..1.8e19).contains(value) => Value::Uint(*value as u64),
        ("uint", Value::Text(text)) => Value::Uint(parsed(text)?.parse().ok()?),
        ("double", Value::Int(value)) => Value::Double(*value as f64),
        ("double", Value::Uint(value)) => Value::Double(*value as f64),
        ("double", Value::Text(text)) => Value::Double(parsed(text)?.parse().ok()?),
        ("string", Value::Int(value)) => Value::text(value.to_string()),
        ("string", Value::Uint(value)) => Value::text(value.to_string()),
        ("string", Value::Double(value)) => Value::text(value.to_string()),
        ("string", Value::Bool(value)) => Value::text(value.to_string()),
        ("string", Value::Bytes(bytes)) => Value::text(parsed(bytes)?),
        ("bytes", Value::Text(text)) => Value::Bytes(text.clone()),
        ("bool", Value::Text(text)) => Value::Bool(parsed(text)?.parse().ok()?),
        _ => return None,
    })
}

/// `1h30m`, `1.5s`, `-2ms`: a sum of numbers with units, in nanoseconds.
#[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
fn duration(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text),
    };
    let mut total = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let units = [("ms", 1e6), ("us", 1e3), ("ns", 1.0), ("h", 3.6e12), ("m", 6e10), ("s", 1e9)];
        let (unit, scale) = units.into_iter().find(|(unit, _)| rest[digits..].starts_with(unit))?;
        total += number * scale;
        rest = &rest[digits + unit.len()..];
    }
    (total < 9.2e18).then_some((sign * total) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cel::CelError;

    fn run(source: &str) -> Result<Evaluated, CelError> {
        let expression = Expression::parse(source.as_bytes())?;
        // Without a plugin there are no properties: every name is unknown.
        Ok(pure(&expression.0))
    }

    /// Evaluates without a scope what needs none.
    fn pure(expr: &Expr) -> Evaluated {
        let engine = crate::engine::Engine::new(crate::engine::Limits::default()).unwrap();
        let wat = r#"(module (func (export "proxy_abi_version_0_2_1"))
            (func (export "malloc") (param i32) (result i32) (i32.const 0)))"#;
        let module = crate::module::Module::compile(&engine, &wat::parse_str(wat).unwrap()).unwrap();
        let plugin = crate::plugin::Plugin {
            name: "a".to_owned(),
            root_id: String::new(),
            vm: std::sync::Arc::default(),
            configuration: bytes::Bytes::new(),
            fail_strategy: mesh::model::FailStrategy::FailClose,
            module: module.into(),
        };
        let proxy = crate::stream::state::ProxyFacts {
            node: serde_json::json!({"id": "n", "metadata": {"LIST": ["a", "b"], "ON": true}}),
            ..Default::default()
        };
        eval(expr, &Scope { plugin: &plugin, proxy: &proxy, stream: None })
    }

    #[track_caller]
    fn check(source: &str, expected: Value) {
        assert_eq!(run(source), Ok(Ok(expected)), "{source}");
    }

    #[test]
    fn operators_have_their_precedence() {
        check("1 + 2 * 3 - -4", Value::Int(11));
        check("(1 + 2) * 3 % 4", Value::Int(1));
        check("!false && 1 < 2 || false", Value::Bool(true));
        check("2 > 1 ? 'yes' : 'no'", Value::text("yes"));
        check("0x10 + 1", Value::Int(17));
        check("1u + 2u", Value::Uint(3));
        check("1.5e1 / 2.0", Value::Double(7.5));
        check("'a\\n' + r'\\n' + \"\\u00e9\"", Value::text("a\n\\né"));
        check("b'\\xff' == b'\\xff'", Value::Bool(true));
    }

    #[test]
    fn values_are_compared_across_types() {
        check("1 == 1u && 1 == 1.0 && 1 != '1'", Value::Bool(true));
        check("[1, 'a'] == [1u, 'a']", Value::Bool(true));
        check("{'a': 1} == {'a': 1}", Value::Bool(true));
        check("'b' > 'a' && 2 in [1, 2] && 'k' in {'k': 1}", Value::Bool(true));
        check("duration('1h30m') > duration('90s')", Value::Bool(true));
        check("timestamp('1970-01-01T00:00:01Z') + duration('1s')", Value::Timestamp(2_000_000_000));
    }

    #[test]
    fn functions_and_conversions() {
        check("size('é') + size([1, 2]) + {'a': 1}.size()", Value::Int(4));
        check("'abc'.contains('b') && 'abc'.startsWith('a') && 'abc'.endsWith('c')", Value::Bool(true));
        check("'abc'.matches('^a.c$') && !matches('x', '[0-9]+')", Value::Bool(true));
        check("int('12') + int(2.9) + int(3u)", Value::Int(17));
        check("string(12) + string(true) + string(1u)", Value::text("12true1"));
        check("{'a': [1, 2]}.a[1]", Value::Int(2));
    }

    #[test]
    fn properties_are_names() {
        check("plugin_name + xds.node.id", Value::text("an"));
        check("xds.node.metadata['LIST'][1]", Value::text("b"));
        check("xds.node.metadata.ON && has(xds.node.metadata.LIST)", Value::Bool(true));
        check("has(xds.node.metadata.NONE) || has(request.path)", Value::Bool(false));
        check("'ON' in xds.node.metadata", Value::Bool(true));
    }

    #[test]
    fn what_has_no_value_is_an_error_unless_it_does_not_matter() {
        for source in
            ["1 / 0", "9223372036854775807 + 1", "request.path", "'a' < 1", "!1", "[1][7]", "'x'.matches('(')"]
        {
            assert!(run(source).unwrap().is_err(), "{source}");
        }
        check("none.at_all || true", Value::Bool(true));
        check("true || 1 / 0 == 1", Value::Bool(true));
        check("1 / 0 == 1 && false", Value::Bool(false));
    }

    #[test]
    fn what_is_not_an_expression_is_refused_with_its_place() {
        for source in [
            "",
            "1 +",
            "(1",
            "'open",
            "a b",
            "1 ? 2",
            "has(1)",
            "[1,,2]",
            "size(",
            "'\\q'",
            "99999999999999999999",
            "@",
        ] {
            assert!(matches!(run(source), Err(CelError::Syntax { .. })), "{source}");
        }
        for source in ["[1].all(x, x > 0)", "request.time.getFullYear()", "type(1)", "[1].map(x, x)", "f("] {
            assert!(matches!(run(source), Err(CelError::Unsupported(_))), "{source}");
        }
        let deep = |open: &str, close: &str| format!("{}1{}", open.repeat(500), close.repeat(500));
        for source in [
            deep("(", ")"),
            deep("[", "]"),
            deep("-", ""),
            deep("1+", ""),
            deep("true?1:", ""),
            format!("a{}", ".a".repeat(500)),
        ] {
            assert_eq!(run(&source), Err(CelError::TooDeep), "{source}");
        }
        assert_eq!(run(&" ".repeat(5000)), Err(CelError::TooLong));
    }
}

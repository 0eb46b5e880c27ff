//! A plugin's configuration against the JSON Schema that its image carries (JSON Schema 2020-12 unless it says else).
//!
//! Messages name fields and never quote values: configurations carry secrets. Nothing is fetched: a schema that refers
//! to another document is not valid here.

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::paths::LocationSegment;
use jsonschema::{ValidationError, Validator};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Most violations that are reported of one configuration.
const MAX_VIOLATIONS: usize = 100;

/// What is asked: one configuration and its schema.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// The schema.
    pub schema: Value,
    /// The configuration.
    pub config: Value,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The schema itself cannot be used, for this reason.
    BadSchema(String),
    /// Everything in which the configuration is not what the schema says; nothing if it fits.
    Violations(Vec<Violation>),
}

/// One thing that the schema does not allow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Violation {
    /// Keys and zero-based indices that lead to it.
    pub path: Vec<Step>,
    /// What is wrong with it, as a clause.
    pub what: String,
    /// What to do, where that can be said.
    pub fix: Option<String>,
}

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Step {
    /// A list's index.
    Index(usize),
    /// An object's key.
    Key(String),
}

/// Checks one configuration.
///
/// ```
/// use config_schema::{Answer, Question, check};
/// use serde_json::json;
///
/// let schema = json!({"type": "object", "properties": {"realm": {"type": "string"}}, "additionalProperties": false});
/// let Answer::Violations(found) = check(&Question { schema, config: json!({"relm": "x"}) }) else { unreachable!() };
/// assert_eq!(found[0].what, "is not a field here; known is realm");
/// assert_eq!(found[0].fix.as_deref(), Some("write `realm`"));
/// ```
pub fn check(question: &Question) -> Answer {
    let validator = match Validator::new(&question.schema) {
        Ok(validator) => validator,
        Err(error) => return Answer::BadSchema(format!("{} at `{}`", error.masked(), error.schema_path())),
    };
    let mut found = Vec::new();
    for error in validator.iter_errors(&question.config) {
        violations(&error, &question.schema, &mut found);
        if found.len() >= MAX_VIOLATIONS {
            found.truncate(MAX_VIOLATIONS);
            break;
        }
    }
    Answer::Violations(found)
}

fn violations(error: &ValidationError<'_>, schema: &Value, found: &mut Vec<Violation>) {
    let path = steps(error);
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected }
        | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
            let known = known_fields(error, schema);
            for name in unexpected {
                let what = match known.len() {
                    0 => "is not a field here".to_owned(),
                    1 => format!("is not a field here; known is {}", known[0]),
                    _ => format!("is not a field here; known are {}", known.join(", ")),
                };
                let fix = nearest(name, &known).map(|known| format!("write `{known}`"));
                let path = path.iter().cloned().chain([Step::Key(name.clone())]).collect();
                found.push(Violation { path, what, fix });
            }
        }
        ValidationErrorKind::Required { property } => {
            let name = property.as_str().unwrap_or_default().to_owned();
            let path = path.into_iter().chain([Step::Key(name)]).collect();
            found.push(Violation { path, what: "is missing".to_owned(), fix: None });
        }
        ValidationErrorKind::Type { kind } => {
            let expected = match kind {
                TypeKind::Single(kind) => kind.to_string(),
                TypeKind::Multiple(kinds) => kinds.iter().map(|kind| kind.to_string()).collect::<Vec<_>>().join(" or "),
            };
            let what = format!("must be of type {expected}, is {}", type_name(error.instance().as_ref()));
            found.push(Violation { path, what, fix: None });
        }
        ValidationErrorKind::PropertyNames { error } => {
            found.push(Violation {
                path,
                what: format!("has a key that is not allowed: {}", error.masked()),
                fix: None,
            });
        }
        ValidationErrorKind::OneOfMultipleValid { .. } | ValidationErrorKind::OneOfNotValid { .. }
            if let Some(fields) = alternatives(error, schema) =>
        {
            found.push(Violation {
                path,
                what: format!("has to have exactly one of {}", fields.join(", ")),
                fix: None,
            });
        }
        // What is said about alternatives is said of the whole; each one's own errors would contradict each other.
        _ => found.push(Violation { path, what: error.masked().to_string(), fix: None }),
    }
}

fn steps(error: &ValidationError<'_>) -> Vec<Step> {
    let step = |segment: LocationSegment<'_>| match segment {
        LocationSegment::Property(name) => Step::Key(name.into_owned()),
        LocationSegment::Index(index) => Step::Index(index),
    };
    error.instance_path().into_iter().map(step).collect()
}

/// The properties that the schema has at the place that refused another.
fn known_fields(error: &ValidationError<'_>, schema: &Value) -> Vec<String> {
    let path = error.schema_path().to_string();
    let Some((parent, _)) = path.rsplit_once('/') else { return Vec::new() };
    let here = follow(schema, parent);
    let properties = here.and_then(|here| here.get("properties")).and_then(Value::as_object);
    properties.into_iter().flat_map(|properties| properties.keys().cloned()).collect()
}

/// The fields of which there has to be exactly one: each alternative requires one field and says nothing of others.
fn alternatives(error: &ValidationError<'_>, schema: &Value) -> Option<Vec<String>> {
    let one = |alternative: &Value| {
        let required = alternative.get("required")?.as_array()?;
        let [name] = required.as_slice() else { return None };
        let name = name.as_str()?;
        let properties = alternative.get("properties").and_then(Value::as_object);
        let says_more = properties.is_some_and(|properties| properties.keys().any(|key| key != name));
        (!says_more).then(|| name.to_owned())
    };
    follow(schema, &error.schema_path().to_string())?.as_array()?.iter().map(one).collect()
}

/// Follows a schema path, `$ref`s to the same document included.
fn follow<'v>(schema: &'v Value, path: &str) -> Option<&'v Value> {
    let mut here = schema;
    for step in path.split('/').skip(1) {
        let step = step.replace("~1", "/").replace("~0", "~");
        here = match here {
            Value::Array(items) => items.get(step.parse::<usize>().ok()?)?,
            _ if step == "$ref" => schema.pointer(here.get("$ref")?.as_str()?.strip_prefix('#')?)?,
            _ => here.get(&step)?,
        };
    }
    Some(here)
}

fn nearest<'k>(name: &str, known: &'k [String]) -> Option<&'k str> {
    let likeness = |known: &'k String| (strsim::normalized_damerau_levenshtein(name, known), known.as_str());
    let best = known.iter().map(likeness).max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 >= 0.6).then_some(best.1)
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Answer, Question, Step, check};

    fn path(steps: &[Step]) -> String {
        let step = |step: &Step| match step {
            Step::Key(key) => format!(".{key}"),
            Step::Index(index) => format!("[{index}]"),
        };
        steps.iter().map(step).collect()
    }

    #[track_caller]
    fn assert_violations(schema: &Value, config: Value, expected: &[&str]) {
        match check(&Question { schema: schema.clone(), config }) {
            Answer::Violations(found) => {
                let shown: Vec<String> = found
                    .iter()
                    .map(|v| {
                        let fix = v.fix.as_ref().map(|fix| format!("; {fix}")).unwrap_or_default();
                        format!("{}: {}{fix}", path(&v.path), v.what)
                    })
                    .collect();
                assert_eq!(shown, expected);
            }
            Answer::BadSchema(reason) => panic!("{reason}"),
        }
    }

    fn rules() -> Value {
        json!({
            "type": "object",
            "additionalProperties": false,
            "properties": {"rules": {"type": "array", "items": {"$ref": "#/$defs/Rule"}}},
            "$defs": {"Rule": {
                "type": "object",
                "additionalProperties": false,
                "required": ["credentials"],
                "properties": {
                    "credentials": {"type": "array", "minItems": 1, "items": {"type": "string"}},
                    "prefix": {"type": ["string", "null"]},
                },
            }},
        })
    }

    #[test]
    fn a_configuration_that_fits_has_no_violations() {
        assert_violations(&rules(), json!({"rules": [{"credentials": ["a"], "prefix": null}]}), &[]);
        assert_violations(&json!(true), json!({"any": 1}), &[]);
    }

    #[test]
    fn a_misspelt_field_is_placed_and_corrected() {
        assert_violations(
            &rules(),
            json!({"rules": [{"credentals": ["a"]}]}),
            &[
                ".rules[0].credentals: is not a field here; known are credentials, prefix; write `credentials`",
                ".rules[0].credentials: is missing",
            ],
        );
    }

    #[test]
    fn values_are_never_quoted() {
        let answer = check(&Question {
            schema: json!({"properties": {
                "a": {"pattern": "^x"}, "b": {"maxLength": 1}, "c": {"enum": ["x"]}, "d": {"const": 1}, "e": {"type": "number"},
                "f": {"oneOf": [{"type": "number"}, {"type": "null"}]}, "g": {"uniqueItems": true},
            }}),
            config: json!({"a": "hunter2", "b": "hunter2", "c": "hunter2", "d": "hunter2", "e": "hunter2", "f": "hunter2",
                "g": ["hunter2", "hunter2"]}),
        });
        let Answer::Violations(found) = &answer else { panic!("{answer:?}") };
        assert_eq!(found.len(), 7);
        assert!(!format!("{answer:?}").contains("hunter2"), "{answer:?}");
    }

    #[test]
    fn types_say_what_there_is() {
        assert_violations(
            &rules(),
            json!({"rules": [{"credentials": "a", "prefix": 1}]}),
            &[
                ".rules[0].credentials: must be of type array, is a string",
                ".rules[0].prefix: must be of type null or string, is a number",
            ],
        );
    }

    #[test]
    fn fields_that_exclude_each_other_are_named() {
        let one = |name: &str| json!({"required": [name], "properties": {name: {"type": "string"}}});
        let schema = json!({"oneOf": [one("key"), one("key_env")]});
        let what = ": has to have exactly one of key, key_env";
        assert_violations(&schema, json!({"key": "a", "key_env": "b"}), &[what]);
        assert_violations(&schema, json!({}), &[what]);
        assert_violations(&schema, json!({"key": "a"}), &[]);
    }

    #[test]
    fn a_schema_that_is_none_is_told_apart() {
        for schema in [json!({"type": "banana"}), json!({"$ref": "https://example.com/schema.json"}), json!([])] {
            let answer = check(&Question { schema, config: json!({}) });
            assert!(matches!(answer, Answer::BadSchema(_)), "{answer:?}");
        }
    }

    #[test]
    fn there_is_an_end_to_what_is_said() {
        let schema = json!({"items": {"type": "string"}});
        let Answer::Violations(found) = check(&Question { schema, config: json!(vec![1; 1000]) }) else { panic!() };
        assert_eq!(found.len(), 100);
    }
}

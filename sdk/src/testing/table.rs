//! The table of a plugin's configuration in its README: written from the schema, checked by a test.

use std::fmt::Write as _;
use std::path::Path;

use schemars::{JsonSchema, schema_for};
use serde_json::{Map, Value};

/// What stands before and after the table in a README.
const BEGIN: &str = "<!-- begin configuration -->";
const END: &str = "<!-- end configuration -->";

/// Writes the fields of a configuration type as Markdown: a table of its own fields, and one for each type among them.
///
/// The text of a field is its doc comment, its type and bounds are the schema's. Fields come in alphabetical order.
pub fn config_table<C: JsonSchema>() -> String {
    tables(&schema_for!(C).to_value())
}

/// Checks that the README `file` has the [`config_table`] of the configuration type between
/// `<!-- begin configuration -->` and `<!-- end configuration -->`; with `update` it is written there instead.
///
/// # Errors
/// What to do about the file, as a sentence for whoever runs the tests.
pub fn check_config_table<C: JsonSchema>(file: &Path, update: bool) -> Result<(), String> {
    let shown = file.display();
    let text = std::fs::read_to_string(file).map_err(|error| format!("failed to read {shown}: {error}"))?;
    let around = text.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?)));
    let Some((before, (kept, after))) = around else {
        return Err(format!("{shown} has no place for the configuration: write `{BEGIN}` and `{END}`, each on a line"));
    };
    let table = config_table::<C>();
    if kept.trim() == table.trim() {
        return Ok(());
    }
    if update {
        let written = format!("{before}{BEGIN}\n{table}{END}{after}");
        return std::fs::write(file, written).map_err(|error| format!("failed to write {shown}: {error}"));
    }
    Err(format!("{shown} has another table than the configuration's type; `UPDATE_GOLDEN=1 cargo test` writes it"))
}

/// Writes the test that keeps the table of a plugin's README what its configuration type says.
///
/// Call it in a file under `tests/`, as [`schema_test!`](crate::schema_test), whose type it takes. The README, beside
/// `Cargo.toml`, has the lines `<!-- begin configuration -->` and `<!-- end configuration -->`; what is between them is
/// written by `UPDATE_GOLDEN=1 cargo test`.
#[macro_export]
macro_rules! readme_test {
    ($config:ty) => {
        #[test]
        fn the_readmes_table_is_what_the_configuration_type_says() -> Result<(), String> {
            let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
            let update = std::env::var_os("UPDATE_GOLDEN").is_some();
            $crate::testing::check_config_table::<$config>(&file, update)
        }
    };
}

fn tables(schema: &Value) -> String {
    let types = Types(schema.get("$defs").and_then(Value::as_object));
    let mut out = types.table(schema);
    // `serde_json` keeps keys in order or sorted, depending on what else is compiled.
    let mut named: Vec<_> = types.0.into_iter().flatten().filter(|(_, schema)| is_object(schema)).collect();
    named.sort_unstable_by_key(|(name, _)| *name);
    for (name, schema) in named {
        let _ = write!(out, "\n`{name}`: {}\n\n{}", text(schema), types.table(schema));
    }
    out
}

fn is_object(schema: &Value) -> bool {
    schema.get("properties").is_some()
}

/// A description in one line.
fn text(schema: &Value) -> String {
    let text = schema.get("description").and_then(Value::as_str).unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn quoted(value: &Value) -> String {
    value.as_str().map_or_else(|| format!("`{value}`"), |text| format!("`{text}`"))
}

fn either(kinds: impl Iterator<Item = String>) -> String {
    kinds.collect::<Vec<_>>().join(" or ")
}

/// The types that a schema refers to, by name.
struct Types<'a>(Option<&'a Map<String, Value>>);

impl Types<'_> {
    fn table(&self, schema: &Value) -> String {
        let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
            return format!("The configuration is {}. {}\n", self.kind(schema), text(schema));
        };
        let mut out = "| field | type | |\n|---|---|---|\n".to_owned();
        let required = |name: &str| {
            let names = schema.get("required").and_then(Value::as_array);
            names.is_some_and(|names| names.iter().any(|required| required == name))
        };
        let mut fields: Vec<_> = properties.iter().collect();
        fields.sort_unstable_by_key(|(name, _)| *name);
        for (name, field) in fields {
            let presence = match field.get("default").filter(|value| !value.is_null()) {
                _ if required(name) => ", required".to_owned(),
                Some(Value::Array(items)) if items.is_empty() => ", default none".to_owned(),
                Some(Value::Object(fields)) if fields.is_empty() => ", default none".to_owned(),
                Some(value) => format!(", default {}", quoted(value)),
                None => ", optional".to_owned(),
            };
            let kind = format!("{}{presence}", self.kind(field)).replace('|', "\\|");
            let _ = writeln!(out, "| `{name}` | {kind} | {} |", text(field).replace('|', "\\|"));
        }
        out
    }

    /// What a value may be, in words.
    fn kind(&self, schema: &Value) -> String {
        let Some(fields) = schema.as_object() else { return "anything".to_owned() };
        if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
            let name = reference.rsplit('/').next().unwrap_or(reference);
            return match self.0.and_then(|types| types.get(name)) {
                Some(schema) if !is_object(schema) => self.kind(schema),
                _ => format!("`{name}`"),
            };
        }
        if let Some(values) = fields.get("enum").and_then(Value::as_array) {
            return either(values.iter().filter(|value| !value.is_null()).map(quoted));
        }
        if let Some(value) = fields.get("const") {
            return quoted(value);
        }
        if let Some(kinds) = ["anyOf", "oneOf"].iter().find_map(|key| fields.get(*key)?.as_array()) {
            let is_null = |schema: &&Value| schema.get("type").is_some_and(|name| name == "null");
            return either(kinds.iter().filter(|schema| !is_null(schema)).map(|schema| self.kind(schema)));
        }
        match fields.get("type") {
            Some(Value::String(name)) => self.named(name, fields),
            Some(Value::Array(names)) => {
                let names = names.iter().filter_map(Value::as_str).filter(|name| *name != "null");
                either(names.map(|name| self.named(name, fields)))
            }
            _ => "anything".to_owned(),
        }
    }

    fn named(&self, name: &str, fields: &Map<String, Value>) -> String {
        let bounds = |least: &str, most: &str| match (fields.get(least), fields.get(most)) {
            (Some(least), Some(most)) => format!(", {least} to {most}"),
            (Some(least), None) if least.as_u64() != Some(0) => format!(", {least} or more"),
            (None, Some(most)) => format!(", {most} at most"),
            _ => String::new(),
        };
        match name {
            "array" => {
                let items = fields.get("items").map_or_else(|| "anything".to_owned(), |items| self.kind(items));
                format!("list of {items}{}", bounds("minItems", "maxItems"))
            }
            "object" => match fields.get("additionalProperties") {
                Some(values) if values.is_object() => format!("object, each value {}", self.kind(values)),
                _ => "object".to_owned(),
            },
            "integer" | "number" => format!("{name}{}", bounds("minimum", "maximum")),
            other => other.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{check_config_table, config_table};

    /// What is done with a request.
    #[derive(serde::Deserialize, schemars::JsonSchema)]
    #[serde(rename_all = "lowercase")]
    enum Action {
        Allow,
        Deny,
    }

    /// One rule.
    #[derive(serde::Deserialize, schemars::JsonSchema)]
    #[expect(dead_code, reason = "only its schema is wanted")]
    struct Rule {
        /// The prefix of a path, `a|b`.
        prefix: String,
        action: Option<Action>,
    }

    fn second() -> u16 {
        1000
    }

    /// All of it.
    #[derive(serde::Deserialize, schemars::JsonSchema)]
    #[expect(dead_code, reason = "only its schema is wanted")]
    struct Config {
        /// In order.
        rules: Vec<Rule>,
        /// How long,
        /// in milliseconds.
        #[serde(default = "second")]
        #[schemars(range(min = 1, max = 60_000))]
        timeout: u16,
        #[serde(default)]
        headers: BTreeMap<String, String>,
        realm: Option<String>,
    }

    const TABLE: &str = "\
| field | type | |
|---|---|---|
| `headers` | object, each value string, default none |  |
| `realm` | string, optional |  |
| `rules` | list of `Rule`, required | In order. |
| `timeout` | integer, 1 to 60000, default `1000` | How long, in milliseconds. |

`Rule`: One rule.

| field | type | |
|---|---|---|
| `action` | `allow` or `deny`, optional |  |
| `prefix` | string, required | The prefix of a path, `a\\|b`. |
";

    #[test]
    fn a_table_has_types_bounds_defaults_and_doc_comments() {
        assert_eq!(config_table::<Config>(), TABLE);
    }

    #[test]
    fn a_readme_with_another_table_is_refused_and_can_be_written() {
        let folder = std::env::temp_dir().join(format!("plugwright-table-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("README.md");
        std::fs::write(&file, "# x\n").unwrap();
        assert!(check_config_table::<Config>(&file, true).unwrap_err().contains("begin configuration"));
        std::fs::write(&file, "# x\n<!-- begin configuration -->\nold\n<!-- end configuration -->\n\nrest\n").unwrap();
        assert!(check_config_table::<Config>(&file, false).unwrap_err().contains("UPDATE_GOLDEN=1"));
        assert_eq!(check_config_table::<Config>(&file, true), Ok(()));
        assert_eq!(check_config_table::<Config>(&file, false), Ok(()));
        let text = std::fs::read_to_string(&file).unwrap();
        assert_eq!(text, format!("# x\n<!-- begin configuration -->\n{TABLE}<!-- end configuration -->\n\nrest\n"));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}

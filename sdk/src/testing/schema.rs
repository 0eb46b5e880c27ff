//! The JSON Schema of a plugin's configuration: derived from its type, kept in a file, checked by a test.

use std::path::Path;

use schemars::{JsonSchema, schema_for};

/// Derives the JSON Schema (2020-12) of a configuration type, as text that ends in a newline.
///
/// `serde`'s attributes count: `deny_unknown_fields`, `default`, `rename` and the like. The schema is for people and
/// tools before the rollout; the plugin itself still checks what it gets.
pub fn schema<C: JsonSchema>() -> String {
    // A `Value` whose keys are strings always has a text.
    let text = serde_json::to_string_pretty(&schema_for!(C)).unwrap_or_default();
    text + "\n"
}

/// Checks that `file` holds the [`schema`] of the configuration type; with `update` it is written instead.
///
/// # Errors
/// What to do about the file, as a sentence for whoever runs the tests.
pub fn check_schema<C: JsonSchema>(file: &Path, update: bool) -> Result<(), String> {
    let derived = schema::<C>();
    if update {
        return std::fs::write(file, derived).map_err(|error| format!("failed to write {}: {error}", file.display()));
    }
    // Which order keys are written in depends on what else is compiled.
    let differs = match std::fs::read_to_string(file) {
        Ok(kept) => {
            let parsed = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
            parsed(&kept) != parsed(&derived)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
        Err(error) => return Err(format!("failed to read {}: {error}", file.display())),
    };
    if differs {
        let file = file.display();
        return Err(format!(
            "{file} is not what the configuration's type says; `UPDATE_GOLDEN=1 cargo test` writes it"
        ));
    }
    Ok(())
}

/// Writes the test that keeps a plugin's `config.schema.json` what its configuration type says.
///
/// Call it in a file under `tests/`, with the configuration type, which must be public and derive `JsonSchema` where it
/// is not compiled for the proxy. `package` takes the file into the image when `Cargo.toml` names it:
///
/// ```toml
/// [package.metadata.plugin]
/// config-schema = "config.schema.json"
/// ```
///
/// ```
/// use serde::Deserialize;
///
/// #[derive(Deserialize)]
/// #[cfg_attr(
///     not(target_family = "wasm"),
///     derive(plugwright_sdk::schemars::JsonSchema),
///     schemars(crate = "plugwright_sdk::schemars")
/// )]
/// #[serde(deny_unknown_fields)]
/// pub struct Config {
///     header: String,
/// }
///
/// plugwright_sdk::schema_test!(Config);
/// # assert!(plugwright_sdk::testing::schema::<Config>().contains("\"additionalProperties\": false"));
/// ```
#[macro_export]
macro_rules! schema_test {
    ($config:ty) => {
        #[test]
        fn the_schema_is_what_the_configuration_type_says() -> Result<(), String> {
            let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config.schema.json");
            let update = std::env::var_os("UPDATE_GOLDEN").is_some();
            $crate::testing::check_schema::<$config>(&file, update)
        }
    };
}

#[cfg(test)]
mod tests {
    use super::{check_schema, schema};

    #[derive(serde::Deserialize, schemars::JsonSchema)]
    #[expect(dead_code, reason = "only its schema is wanted")]
    #[serde(deny_unknown_fields)]
    struct Config {
        #[serde(default)]
        rules: Vec<String>,
        realm: Option<String>,
    }

    #[test]
    fn a_file_that_is_missing_or_old_is_refused_and_can_be_written() {
        let folder = std::env::temp_dir().join(format!("plugwright-schema-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("config.schema.json");
        let refused = check_schema::<Config>(&file, false).unwrap_err();
        assert!(refused.contains("UPDATE_GOLDEN=1"), "{refused}");
        assert_eq!(check_schema::<Config>(&file, true), Ok(()));
        assert_eq!(check_schema::<Config>(&file, false), Ok(()));
        std::fs::write(&file, "{}").unwrap();
        assert!(check_schema::<Config>(&file, false).is_err());
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_schema_follows_serde() {
        let schema: serde_json::Value = serde_json::from_str(&schema::<Config>()).unwrap();
        assert_eq!(schema["additionalProperties"], false);
        assert_eq!(schema.get("required"), None);
        assert_eq!(schema["properties"]["realm"]["type"], serde_json::json!(["string", "null"]));
    }
}

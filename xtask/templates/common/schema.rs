//! `config.schema.json` and the table in README.md are what the configuration's type says.

plugwright_sdk::schema_test!(plugin_name::Config);
plugwright_sdk::readme_test!(plugin_name::Config);

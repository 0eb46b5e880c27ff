//! `config.schema.json` is what the configuration's type says.

plugwright_sdk::schema_test!(acl_check::Config);

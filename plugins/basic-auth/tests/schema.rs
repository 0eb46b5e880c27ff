//! `config.schema.json` is what the configuration's type says.

plugwright_sdk::schema_test!(basic_auth::Config);

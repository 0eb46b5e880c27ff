//! Adds configured headers to every response.
//!
//! Headers are added in the configuration's order and never replace one that is there already.

mod config;

use plugwright_sdk::{ConfigError, Flow, Host, MapType, Plugin};

pub use self::config::Config;

/// Adds its headers to every response, local responses included.
#[derive(Debug)]
pub struct HeaderAppend {
    headers: Vec<(String, String)>,
}

impl Plugin for HeaderAppend {
    type Config = Config;

    fn configure(config: Config, _: &mut impl Host) -> Result<Self, ConfigError> {
        Ok(Self { headers: config.into_headers()? })
    }

    fn on_response_headers(&self, host: &mut impl Host, _end_of_stream: bool) -> Flow {
        for (name, value) in &self.headers {
            if let Err(error) = host.add_header(MapType::ResponseHeaders, name, value) {
                host.error(&format!("{name} not added: {error}"));
            }
        }
        Flow::Continue
    }
}

plugwright_sdk::register!(HeaderAppend);

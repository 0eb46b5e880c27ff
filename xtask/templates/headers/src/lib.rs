//! Sets headers of requests, and takes headers out of responses.

mod config;

use plugwright_sdk::{ConfigError, Flow, Host, MapType, Plugin};

pub use self::config::Config;

/// Sets its headers on every request, and removes others from every response.
#[derive(Debug)]
pub struct PluginName {
    config: Config,
}

impl Plugin for PluginName {
    type Config = Config;

    fn configure(config: Config, _: &mut impl Host) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self { config })
    }

    fn on_request_headers(&self, host: &mut impl Host, _end_of_stream: bool) -> Flow {
        for (name, value) in &self.config.set_on_request {
            // The upstream may trust these headers, so that a request does not go on without them.
            if let Err(error) = host.replace_header(MapType::RequestHeaders, name, value) {
                return Flow::Respond(error.into());
            }
        }
        Flow::Continue
    }

    fn on_response_headers(&self, host: &mut impl Host, _end_of_stream: bool) -> Flow {
        for name in &self.config.remove_from_response {
            if let Err(error) = host.remove_header(MapType::ResponseHeaders, name) {
                host.error(&format!("{name} not removed: {error}"));
            }
        }
        Flow::Continue
    }
}

plugwright_sdk::register!(PluginName);

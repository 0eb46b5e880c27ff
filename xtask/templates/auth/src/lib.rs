//! Lets requests pass whose bearer token is known, and tells the upstream whose it is.

mod config;

use plugwright_sdk::{ConfigError, Flow, Host, HostError, LocalResponse, MapType, Plugin, quoted};
use sha2::{Digest, Sha256};

pub use self::config::Config;
use self::config::Client;

/// The request header that tells the upstream who asks.
const CLIENT: &str = "x-client";

/// Asks every request for a token.
#[derive(Debug)]
pub struct PluginName {
    challenge: String,
    clients: Vec<Client>,
}

impl Plugin for PluginName {
    type Config = Config;

    fn configure(config: Config, _: &mut impl Host) -> Result<Self, ConfigError> {
        Ok(Self { challenge: format!("Bearer realm={}", quoted(&config.realm)), clients: config.checked()? })
    }

    fn on_request_headers(&self, host: &mut impl Host, _end_of_stream: bool) -> Flow {
        match self.client(host) {
            Ok(Some(client)) => match host.replace_header(MapType::RequestHeaders, CLIENT, client) {
                Ok(()) => Flow::Continue,
                Err(error) => Flow::Respond(error.into()),
            },
            Ok(None) => self.denied(),
            Err(error) => Flow::Respond(error.into()),
        }
    }

    fn on_response_headers(&self, host: &mut impl Host, _end_of_stream: bool) -> Flow {
        // What one client may see, a cache must not give to another.
        if let Err(error) = host.add_header(MapType::ResponseHeaders, "vary", "authorization") {
            return Flow::Respond(error.into());
        }
        Flow::Continue
    }
}

impl PluginName {
    /// Whose token the request has. Two `authorization` headers are none: the upstream may heed another than we do.
    fn client(&self, host: &impl Host) -> Result<Option<&str>, HostError> {
        let values = host.header_values(MapType::RequestHeaders, "authorization")?;
        let [value] = values.as_slice() else { return Ok(None) };
        let Some((scheme, token)) = value.split_at_checked("Bearer ".len()) else { return Ok(None) };
        if !scheme.eq_ignore_ascii_case(b"Bearer ") {
            return Ok(None);
        }
        // How long it takes to compare digests says nothing of the tokens.
        let digest: [u8; 32] = Sha256::digest(token).into();
        Ok(self.clients.iter().find(|client| client.digest == digest).map(|client| client.name.as_str()))
    }

    fn denied(&self) -> Flow {
        let response = LocalResponse::new(401).details("bearer_token_unknown");
        Flow::Respond(response.header("www-authenticate", &self.challenge))
    }
}

plugwright_sdk::register!(PluginName);

//! Headers: removes what clients must not send, and tells the client how long its request took.

use plugwright_sdk::{ConfigError, Flow, Host, HostError, MapType, Plugin, property};
use serde::Deserialize;

/// The configuration.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Prefix of the headers that only the mesh sets.
    internal_prefix: String,
}

/// Guards the mesh's own headers.
pub struct Headers {
    prefix: String,
}

impl Plugin for Headers {
    type Config = Config;

    fn configure(config: Config, _: &mut impl Host) -> Result<Self, ConfigError> {
        if !plugwright_sdk::is_token(&config.internal_prefix) {
            return Err(ConfigError::new("is not the beginning of a header's name").field("internal_prefix"));
        }
        Ok(Self { prefix: config.internal_prefix.to_ascii_lowercase() })
    }

    fn on_request_headers(&self, host: &mut impl Host, _end_of_stream: bool) -> Flow {
        match self.remove_internal(host) {
            Ok(()) => Flow::Continue,
            Err(error) => Flow::Respond(error.into()),
        }
    }

    fn on_response_headers(&self, host: &mut impl Host, _end_of_stream: bool) -> Flow {
        if let Ok(Some(protocol)) = host.get(property::REQUEST_PROTOCOL)
            && let Err(error) = host.add_header(MapType::ResponseHeaders, "x-protocol", &protocol)
        {
            host.warn(&error.to_string());
        }
        Flow::Continue
    }
}

impl Headers {
    fn remove_internal(&self, host: &mut impl Host) -> Result<(), HostError> {
        // The names are parts of the map, which is one piece of memory.
        let headers = host.header_map(MapType::RequestHeaders)?;
        for (name, _) in headers.iter() {
            if let Ok(name) = std::str::from_utf8(name)
                && name.starts_with(&self.prefix)
            {
                host.remove_header(MapType::RequestHeaders, name)?;
            }
        }
        Ok(())
    }
}

plugwright_sdk::register!(Headers);

#[cfg(test)]
mod tests {
    use plugwright_sdk::testing::{InMemoryHost, Proxy, get};

    use super::Headers;

    fn proxy() -> Proxy<Headers> {
        let host = InMemoryHost::default().with_property(&["request", "protocol"], "HTTP/2");
        let setup = plugwright_sdk::proxy!(Headers, "examples/headers").on(host);
        setup.configure(r#"{"internal_prefix":"X-Mesh-"}"#).unwrap()
    }

    #[test]
    fn internal_headers_do_not_come_from_outside() {
        let request = get("/").header("x-mesh-user", "root").header("x-other", "1").header("X-Mesh-Role", "admin");
        let exchange = proxy().send(request);
        assert_eq!(exchange.forwarded().unwrap().lines(), ["x-other: 1"]);
        assert_eq!(exchange.values("x-protocol"), ["HTTP/2"]);
    }

    #[test]
    fn a_prefix_that_is_none_is_refused() {
        let refused = plugwright_sdk::proxy!(Headers, "examples/headers").configure(r#"{"internal_prefix":"a b"}"#);
        assert_eq!(refused.unwrap_err().to_string(), "internal_prefix: is not the beginning of a header's name");
    }
}

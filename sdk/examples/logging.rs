//! Logging through the `log` crate, from code that has no host at hand. Needs the feature `log`.

use plugwright_sdk::{ConfigError, Flow, Host, LocalResponse, MapType, Plugin};
use serde::de::IgnoredAny;

/// Asks for a version that is still supported.
pub struct Version;

impl Plugin for Version {
    type Config = IgnoredAny;

    fn configure(_: IgnoredAny, _: &mut impl Host) -> Result<Self, ConfigError> {
        log::debug!("configured");
        Ok(Self)
    }

    fn on_request_headers(&self, host: &mut impl Host, _end_of_stream: bool) -> Flow {
        let version = host.header(MapType::RequestHeaders, "x-version").ok().flatten().unwrap_or_default();
        if is_supported(&String::from_utf8_lossy(&version)) {
            Flow::Continue
        } else {
            Flow::Respond(LocalResponse::new(400).details("version_unsupported"))
        }
    }
}

/// Knows nothing of proxies.
fn is_supported(version: &str) -> bool {
    match version.parse() {
        Ok(2..=3_u32) => true,
        Ok(number) => {
            log::info!("version {number} is not supported");
            false
        }
        Err(error) => {
            log::warn!("{version:?} is no version: {error}");
            false
        }
    }
}

plugwright_sdk::register!(Version);

#[cfg(test)]
mod tests {
    use plugwright_sdk::LogLevel;
    use plugwright_sdk::testing::get;

    use super::Version;

    #[test]
    fn what_is_logged_is_in_the_proxys_log() {
        let mut proxy = plugwright_sdk::proxy!(Version, "examples/logging").configure("{}").unwrap();
        let statuses = ["2", "7", "x"].map(|version| proxy.send(get("/").header("x-version", version)).status());
        assert_eq!(statuses, [200, 400, 400]);
        let expected = [
            (LogLevel::Debug, "configured"),
            (LogLevel::Info, "version 7 is not supported"),
            (LogLevel::Warn, "\"x\" is no version: invalid digit found in string"),
        ];
        assert_eq!(proxy.logs(), expected.map(|(level, line)| (level, line.to_owned())));
    }
}

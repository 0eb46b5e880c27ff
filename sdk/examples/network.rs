//! Network filters: counts what a connection carries, and hides the server's banner.

use plugwright_sdk::{BufferType, ConfigError, Host, NetworkFlow, NetworkPlugin, Peer};
use serde::Deserialize;

/// The configuration.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What stands in the place of the first line that the server says.
    banner: String,
    /// What a client may send.
    most_bytes: usize,
}

/// Says who the server is.
pub struct Banner(Config);

/// What is kept of a connection.
#[derive(Default)]
pub struct Seen {
    sent: usize,
    replaced: bool,
}

impl NetworkPlugin for Banner {
    type Config = Config;
    type Connection = Seen;

    fn configure(config: Config, _: &mut impl Host) -> Result<Self, ConfigError> {
        Ok(Self(config))
    }

    fn on_downstream_data(&self, seen: &mut Seen, _: &mut impl Host, size: usize, _end: bool) -> NetworkFlow {
        seen.sent += size;
        if seen.sent > self.0.most_bytes { NetworkFlow::Close } else { NetworkFlow::Continue }
    }

    fn on_upstream_data(&self, seen: &mut Seen, host: &mut impl Host, size: usize, end: bool) -> NetworkFlow {
        if seen.replaced {
            return NetworkFlow::Continue;
        }
        let Ok(said) = host.body(BufferType::UpstreamData, 0..size) else { return NetworkFlow::Close };
        let Some(line) = said.iter().position(|byte| *byte == b'\n') else {
            return if end { NetworkFlow::Continue } else { NetworkFlow::Pause };
        };
        let rest = said.get(line..).unwrap_or_default();
        seen.replaced = true;
        match host.replace_body(BufferType::UpstreamData, &[self.0.banner.as_bytes(), rest].concat()) {
            Ok(()) => NetworkFlow::Continue,
            Err(_) => NetworkFlow::Close,
        }
    }

    fn on_downstream_close(&self, seen: &mut Seen, host: &mut impl Host, peer: Peer) {
        let by = if peer == Peer::Remote { "the client" } else { "us" };
        host.info(&format!("closed by {by} after {} bytes", seen.sent));
    }
}

plugwright_sdk::register!(network Banner);

#[cfg(test)]
mod tests {
    use plugwright_sdk::testing::Proxy;

    use super::Banner;

    fn proxy() -> Proxy<Banner> {
        let setup = plugwright_sdk::proxy!(Banner, "examples/network");
        setup.configure(r#"{"banner":"220 ready","most_bytes":10}"#).unwrap()
    }

    fn lines(proxy: &Proxy<Banner>) -> Vec<String> {
        proxy.logs().into_iter().map(|(_, line)| line).collect()
    }

    #[test]
    fn the_first_line_is_replaced_when_all_of_it_is_there() {
        let mut proxy = proxy();
        let mut connection = proxy.connect();
        assert_eq!(connection.reply("220 mail.internal"), b"");
        assert_eq!(connection.reply(" 1.2\r\nhello\n"), b"220 ready\nhello\n");
        assert_eq!(connection.reply("250 ok\n"), b"250 ok\n");
        assert_eq!(connection.send("QUIT\n"), b"QUIT\n");
        drop(connection);
        assert_eq!(lines(&proxy), ["closed by the client after 5 bytes"]);
    }

    #[test]
    fn a_client_that_sends_too_much_is_cut_off() {
        let mut proxy = proxy();
        let mut connection = proxy.connect();
        assert_eq!(connection.send("12345"), b"12345");
        assert!(!connection.is_closed());
        assert_eq!(connection.send("678901"), b"");
        assert!(connection.is_closed());
        drop(connection);
        assert_eq!(lines(&proxy), ["closed by us after 11 bytes"]);
    }
}

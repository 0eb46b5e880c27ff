//! Network filters that wait: lets in only clients that a server knows, and only those that speak first.

use std::time::Duration;

use plugwright_sdk::{AsyncNetworkPlugin, Call, Close, ConfigError, Connection, Host, property};
use serde::de::IgnoredAny;

/// What a client has to say first.
const GREETING: &[u8] = b"HELLO ";

/// Guards connections.
pub struct Door;

impl AsyncNetworkPlugin for Door {
    type Config = IgnoredAny;

    fn configure(_: IgnoredAny, _: &mut impl Host) -> Result<Self, ConfigError> {
        Ok(Self)
    }

    async fn on_connection(&self, connection: Connection) -> Result<(), Close> {
        let client = connection.host().get(property::SOURCE_ADDRESS)?.unwrap_or_default();
        let call = Call::get("clients", "/").header("x-client", &client).timeout(Duration::from_secs(1));
        if connection.call("clients", call).await?.status() != 200 {
            return Err(Close);
        }
        // From here on the upstream is connected, and what the client says is seen as it comes.
        let mut data = connection.into_data();
        let first = data.chunk().await?.unwrap_or_default();
        let name = first.strip_prefix(GREETING).ok_or(Close)?;
        data.replace(&[GREETING, b"from ", name].concat())?;
        Ok(())
    }
}

plugwright_sdk::register!(async network Door);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use plugwright_sdk::testing::{InMemoryHost, Proxy, Reply, response};

    use super::Door;

    fn proxy(client: &str) -> Proxy<Door> {
        let host = InMemoryHost::default().with_property(&["source", "address"], client);
        let proxy = plugwright_sdk::proxy!(Door, "examples/connections").on(host).configure("{}").unwrap();
        proxy.cluster("clients", |call| match call.values("x-client")[0] {
            "10.0.0.1:5000" => Reply::after(Duration::from_millis(500), response(200)),
            "10.0.0.2:5000" => Reply::after(Duration::from_secs(5), response(200)),
            _ => response(404).into(),
        })
    }

    #[test]
    fn a_known_client_is_let_in() {
        let mut proxy = proxy("10.0.0.1:5000");
        let mut connection = proxy.connect();
        assert!(!connection.is_closed());
        assert_eq!(connection.send("HELLO me\n"), b"HELLO from me\n");
        assert_eq!(connection.send("MORE\n"), b"MORE\n");
        assert_eq!(connection.reply("OK\n"), b"OK\n");
    }

    #[test]
    fn others_are_not() {
        for client in ["10.0.0.2:5000", "10.0.0.3:5000"] {
            assert!(proxy(client).connect().is_closed(), "{client}");
        }
    }

    #[test]
    fn whoever_does_not_greet_is_cut_off() {
        let mut proxy = proxy("10.0.0.1:5000");
        let mut connection = proxy.connect();
        assert_eq!(connection.send("GET / HTTP/1.1\r\n"), b"");
        assert!(connection.is_closed());
    }
}

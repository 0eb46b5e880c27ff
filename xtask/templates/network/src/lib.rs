//! Limits what a connection may carry each way, and says in the log what it carried.

mod config;

use plugwright_sdk::{ConfigError, Host, NetworkFlow, NetworkPlugin, Peer};

pub use self::config::Config;

/// Counts bytes.
#[derive(Debug)]
pub struct PluginName {
    config: Config,
}

/// What a connection has carried.
#[derive(Debug, Default)]
pub struct Carried {
    up: u64,
    down: u64,
}

impl NetworkPlugin for PluginName {
    type Config = Config;
    type Connection = Carried;

    fn configure(config: Config, _: &mut impl Host) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self { config })
    }

    fn on_downstream_data(&self, carried: &mut Carried, host: &mut impl Host, size: usize, _end: bool) -> NetworkFlow {
        carried.up = added(carried.up, size);
        within(host, "client", carried.up, self.config.max_upload)
    }

    fn on_upstream_data(&self, carried: &mut Carried, host: &mut impl Host, size: usize, _end: bool) -> NetworkFlow {
        carried.down = added(carried.down, size);
        within(host, "server", carried.down, self.config.max_download)
    }

    fn on_downstream_close(&self, carried: &mut Carried, host: &mut impl Host, peer: Peer) {
        let by = if peer == Peer::Remote { "the client" } else { "the proxy" };
        host.info(&format!("closed by {by} after {} bytes up, {} down", carried.up, carried.down));
    }
}

fn added(carried: u64, size: usize) -> u64 {
    carried.saturating_add(u64::try_from(size).unwrap_or(u64::MAX))
}

fn within(host: &impl Host, who: &str, carried: u64, most: Option<u64>) -> NetworkFlow {
    match most {
        Some(most) if carried > most => {
            host.warn(&format!("the {who} sent {carried} bytes, more than {most}: closing"));
            NetworkFlow::Close
        }
        _ => NetworkFlow::Continue,
    }
}

plugwright_sdk::register!(network PluginName);

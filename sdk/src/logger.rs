//! The `log` crate's macros, into the proxy's log. Needs the feature `log`.
//!
//! ```toml
//! plugwright-sdk = { version = "0.1", features = ["log"] }
//! ```
//!
//! A module then has its logger from the beginning, and `log::info!` and the like need no host at hand. Which levels are
//! printed is the proxy's to decide. In tests [`Proxy`](crate::testing::Proxy) installs it.
//!
//! ```
//! use plugwright_sdk::testing::{Proxy, get};
//! # use plugwright_sdk::{ConfigError, Flow, Host, LogLevel, Plugin};
//! # struct Loud;
//! # impl Plugin for Loud {
//! #     type Config = serde::de::IgnoredAny;
//! #     fn configure(_: Self::Config, _: &mut impl Host) -> Result<Self, ConfigError> { Ok(Loud) }
//! #     fn on_request_headers(&self, _: &mut impl Host, _: bool) -> Flow {
//! log::warn!("{} of {}", 1, 2);
//! #         Flow::Continue
//! #     }
//! # }
//! # let mut proxy = Proxy::<Loud>::new("{}").unwrap();
//! # proxy.send(get("/"));
//! # assert_eq!(proxy.logs(), [(LogLevel::Warn, "1 of 2".to_owned())]);
//! ```

use crate::asynchronous::Active;
use crate::{Host as _, LogLevel};

struct Logger;

impl log::Log for Logger {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let level = match record.level() {
            log::Level::Trace => LogLevel::Trace,
            log::Level::Debug => LogLevel::Debug,
            log::Level::Info => LogLevel::Info,
            log::Level::Warn => LogLevel::Warn,
            log::Level::Error => LogLevel::Error,
        };
        Active.log(level, &record.args().to_string());
    }

    fn flush(&self) {}
}

/// Has `log` log into the proxy's log. A logger that is there already stays.
pub(crate) fn install() {
    if log::set_logger(&Logger).is_ok() {
        log::set_max_level(log::LevelFilter::Trace);
    }
}

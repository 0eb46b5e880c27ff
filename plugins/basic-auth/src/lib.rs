//! Asks for HTTP Basic credentials (RFC 7617) on the paths, hosts and methods that its rules name.
//!
//! Where a request can be read in more than one way, every reading counts, and where it cannot be read at all, every
//! rule applies: what is in doubt needs credentials.

mod config;
mod credential;
mod host;
mod path;

use plugwright_sdk::{ConfigError, Flow, Host, LocalResponse, MapType, Plugin};

pub use self::config::Config;
use self::config::Policy;
use self::credential::{Presented, present};
use self::path::RequestPath;

/// Guards the paths that its rules name.
#[derive(Debug)]
pub struct BasicAuth {
    policy: Policy,
}

impl Plugin for BasicAuth {
    type Config = Config;

    fn configure(config: Config, host: &mut impl Host) -> Result<Self, ConfigError> {
        let policy = config.into_policy()?;
        if policy.rules.is_empty() {
            host.warn("basic_auth_rules is empty: no request is asked for credentials");
        }
        Ok(Self { policy })
    }

    fn on_request_headers(&self, host: &mut impl Host, _end_of_stream: bool) -> Flow {
        if self.policy.rules.is_empty() {
            return Flow::Continue;
        }
        // A header that the host refuses counts as one that is not there.
        let header = |name| host.header(MapType::RequestHeaders, name).ok().flatten();
        let method = header(":method");
        let authority = host::normalize(header(":authority").as_deref());
        let path = RequestPath::new(header(":path").as_deref());
        let applies = |rule: &&config::PolicyRule| rule.applies(method.as_deref(), authority.as_deref(), &path);
        let mut rules = self.policy.rules.iter().filter(applies).peekable();
        if rules.peek().is_none() {
            return Flow::Continue;
        }
        match present(&host.header_values(MapType::RequestHeaders, "authorization").unwrap_or_default()) {
            Presented::Missing => self.deny("basic_auth_missing_credentials"),
            Presented::Pair(pair) if rules.all(|rule| rule.credentials.contain(&pair)) => Flow::Continue,
            Presented::Pair(_) | Presented::Unreadable => self.deny("basic_auth_wrong_credentials"),
        }
    }
}

impl BasicAuth {
    fn deny(&self, details: &str) -> Flow {
        Flow::Respond(LocalResponse::new(401).details(details).header("www-authenticate", &self.policy.challenge))
    }
}

plugwright_sdk::register!(BasicAuth);

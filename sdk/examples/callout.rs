//! Callouts over HTTP: asks a policy server about each request, and remembers its answer for a while.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use plugwright_sdk::{Answer, AsyncPlugin, Call, ConfigError, Host, LocalResponse, Request};
use serde::Deserialize;

/// The configuration.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The cluster of the policy server.
    cluster: String,
    /// How long an answer holds.
    seconds: u32,
}

/// Lets pass what the policy server lets pass.
pub struct Policy {
    config: Config,
    known: RefCell<BTreeMap<String, (bool, SystemTime)>>,
}

impl AsyncPlugin for Policy {
    type Config = Config;

    fn configure(config: Config, _: &mut impl Host) -> Result<Self, ConfigError> {
        if config.cluster.is_empty() {
            return Err(ConfigError::new("is empty").field("cluster"));
        }
        Ok(Self { config, known: RefCell::default() })
    }

    async fn on_request(&self, request: Request) -> Answer {
        let path = request.path();
        let now = request.host().now()?;
        let known = self.known.borrow().get(&path).copied().filter(|(_, until)| now < *until);
        let allowed = match known {
            Some((allowed, _)) => allowed,
            None => {
                let call = Call::get("policy", &path).timeout(Duration::from_secs(1));
                let allowed = request.call(&self.config.cluster, call).await?.status() == 200;
                let until = now + Duration::from_secs(self.config.seconds.into());
                self.known.borrow_mut().insert(path, (allowed, until));
                allowed
            }
        };
        if allowed { Ok(()) } else { Err(LocalResponse::new(403).details("policy_denied")) }
    }
}

plugwright_sdk::register!(async Policy);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use plugwright_sdk::testing::{Proxy, Reply, get, response};

    use super::Policy;

    fn proxy() -> Proxy<Policy> {
        let setup = plugwright_sdk::proxy!(Policy, "examples/callout");
        let proxy = setup.configure(r#"{"cluster":"policy","seconds":60}"#).unwrap();
        proxy.cluster("policy", |call| match call.values(":path")[0] {
            "/open" => Reply::from(response(200)),
            "/slow" => Reply::after(Duration::from_secs(2), response(200)),
            _ => Reply::from(response(403)),
        })
    }

    #[test]
    fn the_policy_server_decides() {
        let mut proxy = proxy();
        assert_eq!(proxy.send(get("/open")).status(), 200);
        let denied = proxy.send(get("/closed"));
        assert_eq!((denied.status(), denied.details()), (403, "policy_denied"));
        assert_eq!(proxy.send(get("/slow")).status(), 403);
    }

    #[test]
    fn an_answer_holds_for_a_minute() {
        let mut proxy = proxy();
        let calls = |proxy: &mut Proxy<Policy>| proxy.send(get("/open")).calls().len();
        assert_eq!(calls(&mut proxy), 1);
        assert_eq!(calls(&mut proxy), 0);
        proxy.pass(Duration::from_secs(61));
        assert_eq!(calls(&mut proxy), 1);
    }

    #[test]
    fn without_a_policy_server_nothing_passes() {
        let setup = plugwright_sdk::proxy!(Policy, "examples/callout");
        let exchange = setup.configure(r#"{"cluster":"nowhere","seconds":60}"#).unwrap().send(get("/open"));
        assert_eq!((exchange.status(), exchange.details()), (503, "call_refused"));
    }
}

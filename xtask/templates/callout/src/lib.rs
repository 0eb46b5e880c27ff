//! Asks a policy server about each request: only what it allows goes on, with what it says about the client.

mod config;

use std::time::SystemTime;

use plugwright_sdk::{Answer, AsyncPlugin, Call, CallResponse, ConfigError, Host, LocalResponse, Request};

pub use self::config::Config;
use self::config::Policy;

/// Lets pass what the policy server lets pass.
#[derive(Debug)]
pub struct PluginName {
    policy: Policy,
}

impl AsyncPlugin for PluginName {
    type Config = Config;

    fn configure(config: Config, _: &mut impl Host) -> Result<Self, ConfigError> {
        Ok(Self { policy: config.checked()? })
    }

    async fn on_request(&self, mut request: Request) -> Answer {
        for name in &self.policy.copy {
            // Only the policy server says these.
            request.remove_header(name)?;
        }
        let asked = request.host().now()?;
        let answer = request.call(&self.policy.cluster, self.question(&request)?).await?;
        let took = since(asked, request.host().now()?);
        allowed(&answer)?;
        for name in &self.policy.copy {
            if let Some(value) = answer.header(name) {
                request.set_header(name, value)?;
            }
        }
        let mut response = request.forward().await;
        response.add_header("server-timing", &format!("policy;dur={took}"))?;
        Ok(())
    }
}

impl PluginName {
    fn question(&self, request: &Request) -> Result<Call, LocalResponse> {
        let mut call = Call::get(&self.policy.authority, &self.policy.path)
            .header("x-forwarded-method", &request.method())
            .header("x-forwarded-host", &request.authority())
            .header("x-forwarded-uri", &request.path())
            .timeout(self.policy.timeout);
        match request.header_values("authorization")?.as_slice() {
            [] => {}
            // Envoy joins several with a comma. The policy server could heed another one than the upstream.
            [value] if !value.contains(&b',') => {
                call = call.header("authorization", &String::from_utf8_lossy(value));
            }
            _ => return Err(LocalResponse::new(400).details("policy_malformed_request")),
        }
        Ok(call)
    }
}

/// What the policy server's answer means. Whatever it may mean, only 200 lets a request pass.
fn allowed(answer: &CallResponse) -> Answer {
    match answer.status() {
        200 => Ok(()),
        status @ (401 | 403) => Err(LocalResponse::new(status).details("policy_denied")),
        _ => Err(LocalResponse::new(503).details("policy_server_failed")),
    }
}

/// Milliseconds; a clock that was set back makes them none.
fn since(start: SystemTime, end: SystemTime) -> u128 {
    end.duration_since(start).unwrap_or_default().as_millis()
}

plugwright_sdk::register!(async PluginName);

//! Waiting: keys are fetched beside the requests, which are held until they are there; a wrong key costs time.

use std::cell::RefCell;
use std::time::Duration;

use plugwright_sdk::{Answer, AsyncPlugin, Call, ConfigError, Host, Latch, LocalResponse, Request, Root};
use serde::de::IgnoredAny;

const FRESH: Duration = Duration::from_mins(5);
const AGAIN: Duration = Duration::from_secs(2);
const PENALTY: Duration = Duration::from_secs(1);

/// Asks each request for a key.
#[derive(Default)]
pub struct Keys {
    keys: RefCell<Vec<String>>,
    ready: Latch,
}

impl AsyncPlugin for Keys {
    type Config = IgnoredAny;

    fn configure(_: IgnoredAny, _: &mut impl Host) -> Result<Self, ConfigError> {
        Ok(Self::default())
    }

    async fn start(&self, root: Root) {
        loop {
            match root.call("keys", Call::get("keys", "/")).await {
                Ok(keys) if keys.status() == 200 => {
                    let keys = String::from_utf8_lossy(keys.body()).lines().map(str::to_owned).collect();
                    self.keys.replace(keys);
                    self.ready.open();
                    root.sleep(FRESH).await;
                }
                _ => root.sleep(AGAIN).await,
            }
        }
    }

    async fn on_request(&self, mut request: Request) -> Answer {
        self.ready.wait().await;
        let key = request.header("x-key").unwrap_or_default();
        if !self.keys.borrow().contains(&key) {
            request.sleep(PENALTY).await;
            return Err(LocalResponse::new(401).details("key_unknown"));
        }
        request.remove_header("x-key")?;
        let mut nonce = [0; 4];
        request.host().random(&mut nonce)?;
        request.set_header("x-request-nonce", &format!("{:08x}", u32::from_be_bytes(nonce)))?;
        let mut response = request.forward().await;
        if response.status() >= 500 {
            return Err(LocalResponse::new(502).body("try again later\n"));
        }
        response.set_header("x-checked", "yes")?;
        Ok(())
    }
}

plugwright_sdk::register!(async Keys);

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use plugwright_sdk::LogLevel;
    use plugwright_sdk::testing::{Clock, InMemoryHost, Proxy, Reply, get, response};

    use super::Keys;

    /// A key server that is there from the third call on.
    fn proxy(clock: &Clock) -> Proxy<Keys> {
        let setup = plugwright_sdk::proxy!(Keys, "examples/asynchronous");
        let setup = setup.on(InMemoryHost::default().with_clock(clock).with_random_seed(7));
        let calls = Cell::new(0);
        setup.configure("{}").unwrap().cluster("keys", move |_| {
            calls.set(calls.get() + 1);
            if calls.get() < 3 { Reply::unreachable() } else { response(200).body("one\ntwo").into() }
        })
    }

    #[test]
    fn requests_wait_for_the_keys() {
        let clock = Clock::at(Duration::from_secs(1000));
        let mut proxy = proxy(&clock);
        let exchange = proxy.send(get("/").header("x-key", "one"));
        assert_eq!((exchange.status(), exchange.values("x-checked")), (200, vec!["yes"]));
        assert!(exchange.forwarded().unwrap().values("x-key").is_empty());
        assert_eq!(clock.since_epoch().as_secs(), 1004);
    }

    #[test]
    fn a_wrong_key_costs_a_second() {
        let clock = Clock::default();
        let mut proxy = proxy(&clock);
        proxy.send(get("/").header("x-key", "two"));
        let before = clock.since_epoch();
        assert_eq!(proxy.send(get("/").header("x-key", "three")).details(), "key_unknown");
        assert!(clock.since_epoch() >= before + Duration::from_secs(1));
    }

    #[test]
    fn a_client_that_does_not_wait_for_its_penalty_leaves_nothing_behind() {
        let clock = Clock::default();
        let mut proxy = proxy(&clock);
        proxy.send(get("/").header("x-key", "one"));
        let before = clock.since_epoch();
        let exchange = proxy.send_and_leave(get("/").header("x-key", "three"), Duration::from_millis(100));
        assert!(exchange.response().is_none() && exchange.forwarded().is_none());
        assert_eq!(clock.since_epoch(), before + Duration::from_millis(100));
        proxy.pass(Duration::from_secs(5));
        assert!(proxy.logs().iter().all(|(level, _)| *level < LogLevel::Warn), "{:?}", proxy.logs());
        assert_eq!(proxy.send(get("/").header("x-key", "two")).status(), 200);
    }

    #[test]
    fn randomness_is_the_same_in_every_run() {
        let nonce = || {
            let exchange = proxy(&Clock::default()).send(get("/").header("x-key", "one"));
            exchange.forwarded().unwrap().values("x-request-nonce")[0].to_owned()
        };
        assert_eq!(nonce(), "6304e695");
        assert_eq!(nonce(), nonce());
    }

    #[test]
    fn an_unwell_upstream_is_not_shown() {
        let mut proxy = proxy(&Clock::default()).upstream(response(500).body("stack trace"));
        let exchange = proxy.send(get("/").header("x-key", "one"));
        assert_eq!(exchange.status(), 502);
        assert_eq!(exchange.response().unwrap().bytes(), b"try again later\n");
    }
}

//! A browser, a site behind the plugin, and a provider.
#![allow(dead_code, reason = "each suite uses a part of it")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

pub(crate) mod provider;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;

use openid::OpenId;
use plugwright_sdk::LogLevel;
use plugwright_sdk::testing::{AsyncProxy, Clock, Exchange, InMemoryHost, Message, get, response};
use serde_json::{Value, json};

use self::provider::{CLIENT, ISSUER, Provider, SECRET};

pub(crate) const CLUSTER: &str = "outbound|443||login.example";
pub(crate) const ORIGIN: &str = "https://shop.example";
pub(crate) const KEY: &str = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";

/// Where a test's time begins, in seconds.
pub(crate) const BEGIN: u64 = 1_700_000_000;

/// What the cookies of a browser are, by name.
pub(crate) type Jar = BTreeMap<String, String>;

pub(crate) struct Site {
    pub(crate) proxy: AsyncProxy<OpenId>,
    pub(crate) provider: Provider,
    pub(crate) jar: Jar,
}

/// The full form's least, and members that replace or add.
pub(crate) fn configuration(members: &Value) -> String {
    let mut configuration = json!({"issuer": ISSUER, "client_id": CLIENT});
    let object = configuration.as_object_mut().unwrap();
    for (name, value) in members.as_object().unwrap() {
        if value.is_null() {
            object.remove(name);
        } else {
            object.insert(name.clone(), value.clone());
        }
    }
    configuration.to_string()
}

thread_local! {
    static SITES: Cell<u64> = const { Cell::new(0) };
}

/// The host of a site, whose randomness is its own.
pub(crate) fn host(clock: &Clock) -> InMemoryHost {
    SITES.set(SITES.get() + 1);
    let host = InMemoryHost::default().with_clock(clock).with_random_seed(SITES.get() << 32);
    host.with_env("OPENID_CLIENT_SECRET", SECRET).with_env("OPENID_COOKIE_KEYS", KEY)
}

impl Site {
    pub(crate) fn new() -> Self {
        Self::with(&json!({}))
    }

    pub(crate) fn with(members: &Value) -> Self {
        Self::on(host, members, CLUSTER)
    }

    pub(crate) fn on(host: impl FnOnce(&Clock) -> InMemoryHost, members: &Value, cluster: &str) -> Self {
        let clock = Clock::at(Duration::from_secs(BEGIN));
        let provider = Provider::new(&clock);
        let answers = provider.clone();
        let proxy = plugwright_sdk::proxy!(OpenId).on(host(&clock)).configure(configuration(members)).unwrap();
        let proxy = proxy.upstream(response(200).header("set-cookie", "site=1").body("page"));
        let proxy = proxy.cluster(cluster, move |call| answers.answer(call));
        Self { proxy, provider, jar: Jar::new() }
    }

    /// A browser's request for a page, with what it keeps; and it keeps what it is given.
    pub(crate) fn browse(&mut self, path: &str) -> Exchange {
        self.send(navigation(path))
    }

    /// Any request, with the browser's cookies.
    pub(crate) fn send(&mut self, request: Message) -> Exchange {
        let cookies: Vec<String> = self.jar.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let request = if cookies.is_empty() { request } else { request.header("cookie", cookies.join("; ")) };
        let exchange = self.proxy.send(request);
        keep(&mut self.jar, &exchange);
        exchange
    }

    /// Goes to a page without a session, signs in at the provider, and comes back: the answer to that.
    pub(crate) fn sign_in(&mut self, path: &str) -> Exchange {
        let back = self.go_to_provider(path);
        self.browse(&back)
    }

    /// As far as the provider: the path that it sends the browser back to.
    pub(crate) fn go_to_provider(&mut self, path: &str) -> String {
        let exchange = self.browse(path);
        assert_eq!((exchange.status(), exchange.details()), (302, "openid_login"), "{:?}", self.proxy.logs());
        let back = self.provider.authorize(exchange.values("location")[0]);
        back.strip_prefix(ORIGIN).unwrap().to_owned()
    }

    pub(crate) fn signed_in(mut self) -> Self {
        let exchange = self.sign_in("/");
        assert_eq!((exchange.status(), exchange.details()), (302, "openid_logged_in"), "{:?}", self.proxy.logs());
        self
    }

    pub(crate) fn pass(&mut self, seconds: u64) {
        self.proxy.pass(Duration::from_secs(seconds));
    }

    pub(crate) fn warnings(&self) -> Vec<String> {
        let logs = self.proxy.logs().into_iter();
        logs.filter(|(level, _)| *level >= LogLevel::Warn).map(|(_, text)| text).collect()
    }
}

pub(crate) fn navigation(path: &str) -> Message {
    request(path).header("sec-fetch-mode", "navigate")
}

/// A GET that says nothing of who sends it.
pub(crate) fn request(path: &str) -> Message {
    get(path).without(":scheme").header(":scheme", "https").header("host", "shop.example")
}

/// Keeps cookies as a browser does, and checks what each has to say.
pub(crate) fn keep(jar: &mut Jar, exchange: &Exchange) {
    for cookie in exchange.values("set-cookie").into_iter().filter(|cookie| !cookie.starts_with("site=")) {
        assert!(cookie.len() <= 4096, "a browser drops this: {} bytes", cookie.len());
        let mut parts = cookie.split("; ");
        let (name, value) = parts.next().unwrap().split_once('=').unwrap();
        let attributes: Vec<&str> = parts.collect();
        for attribute in ["Path=/", "HttpOnly", "Secure", "SameSite=Lax"] {
            assert!(attributes.contains(&attribute), "{cookie}");
        }
        assert!(!attributes.iter().any(|attribute| attribute.starts_with("Domain")));
        let age = attributes.iter().find_map(|attribute| attribute.strip_prefix("Max-Age=")).unwrap();
        if age == "0" {
            jar.remove(name);
        } else {
            jar.insert(name.to_owned(), value.to_owned());
        }
    }
}

/// The claims of the token that a request went on with.
pub(crate) fn forwarded_token(exchange: &Exchange) -> String {
    let values = exchange.forwarded().unwrap().values("authorization");
    assert_eq!(values.len(), 1);
    values[0].strip_prefix("Bearer ").unwrap().to_owned()
}

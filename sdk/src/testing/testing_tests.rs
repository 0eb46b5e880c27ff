//! A plugin that meets every callback, on the in-memory proxy.

use serde::Deserialize;

use super::{InMemoryHost, Proxy, get, post, response};
use crate::{BufferType, ConfigError, Flow, Host, LocalResponse, LogLevel, MapType, Plugin};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(default)]
    hold: bool,
}

/// Does what the request's `x-do` header says.
struct Probe {
    hold: bool,
}

impl Plugin for Probe {
    type Config = Config;

    fn configure(config: Config, host: &mut impl Host) -> Result<Self, ConfigError> {
        host.info(&format!("region {}", host.env("REGION").unwrap_or_default()));
        Ok(Self { hold: config.hold })
    }

    fn on_request_headers(&self, host: &mut impl Host, end_of_stream: bool) -> Flow {
        assert!(host.header(MapType::ResponseHeaders, "x").is_err());
        let ask = host.header(MapType::RequestHeaders, "X-Do").unwrap().unwrap_or_default();
        match ask.as_slice() {
            b"deny" => Flow::Respond(LocalResponse::new(403).details("denied").header("x-by", "probe").body("no")),
            b"split" => Flow::Respond(LocalResponse::new(403).header("x-bad", "a\r\nb: c").header("x-good", "1")),
            b"hold" => Flow::Pause,
            b"reset" => {
                host.reset_stream().unwrap();
                Flow::Pause
            }
            _ => {
                let end = if end_of_stream { "end" } else { "more" };
                host.replace_header(MapType::RequestHeaders, "x-do", end).unwrap();
                Flow::Continue
            }
        }
    }

    fn on_request_body(&self, host: &mut impl Host, size: usize, end_of_stream: bool) -> Flow {
        assert!(host.header(MapType::RequestHeaders, "x-do").is_err());
        if self.hold && !end_of_stream {
            return Flow::Pause;
        }
        let body = host.body(BufferType::RequestBody, 0..size).unwrap();
        if !body.is_empty() {
            host.replace_body(BufferType::RequestBody, &body.to_ascii_uppercase()).unwrap();
        }
        Flow::Continue
    }

    fn on_response_headers(&self, host: &mut impl Host, _: bool) -> Flow {
        if host.header(MapType::ResponseHeaders, ":status").unwrap().as_deref() == Some(b"500") {
            return Flow::Respond(LocalResponse::new(502).details("masked"));
        }
        host.add_header(MapType::ResponseHeaders, "X-Seen", "1").unwrap();
        Flow::Continue
    }
}

fn probe(config: &str) -> Proxy<Probe> {
    Proxy::new(config).unwrap()
}

#[test]
fn no_configuration_is_an_empty_object() {
    assert_eq!(probe("").send(get("/")).status(), 200);
}

#[test]
fn a_configuration_error_reaches_the_test() {
    let error = Proxy::<Probe>::new(r#"{"hold":1}"#).unwrap_err();
    assert_eq!(error.path(), "hold");
}

#[test]
fn a_request_reaches_the_upstream_as_the_plugin_left_it() {
    let exchange = probe("").send(post("/").header("x-do", "a").header("X-Do", "b").body("body"));
    let forwarded = exchange.forwarded().unwrap();
    assert_eq!(forwarded.values("x-do"), ["more"]);
    assert_eq!(forwarded.bytes(), b"BODY");
}

#[test]
fn a_held_body_accumulates() {
    let exchange = probe(r#"{"hold":true}"#).send(post("/").body("body"));
    assert_eq!(exchange.forwarded().unwrap().bytes(), b"BODY");
}

#[test]
fn a_local_response_passes_the_senders_own_response_callbacks() {
    let exchange = probe("").send(get("/").header("x-do", "deny"));
    assert_eq!((exchange.status(), exchange.details()), (403, "denied"));
    assert_eq!(exchange.forwarded(), None);
    let lines = exchange.response().unwrap().lines();
    assert_eq!(lines, ["x-by: probe", "content-length: 2", "content-type: text/plain", "x-seen: 1"]);
    assert_eq!(exchange.response().unwrap().bytes(), b"no");
}

#[test]
fn a_local_response_in_the_response_path_goes_out_directly() {
    let exchange = probe("").upstream(response(500).body("stack trace")).send(get("/"));
    assert_eq!((exchange.status(), exchange.details()), (502, "masked"));
    assert!(exchange.response().unwrap().lines().is_empty());
}

#[test]
fn a_header_that_would_split_the_response_is_left_out_and_logged() {
    let mut proxy = probe("");
    let exchange = proxy.send(get("/").header("x-do", "split"));
    assert_eq!(exchange.response().unwrap().lines(), ["x-good: 1", "x-seen: 1"]);
    assert!(proxy.logs().iter().any(|(level, text)| *level == LogLevel::Error && text.contains("left out")));
}

#[test]
fn a_stream_that_is_held_or_reset_has_no_response() {
    for ask in ["hold", "reset"] {
        let exchange = probe("").send(get("/").header("x-do", ask));
        assert_eq!((exchange.status(), exchange.forwarded()), (0, None), "{ask}");
    }
}

#[test]
fn the_environment_is_the_tests_own() {
    let proxy = Proxy::<Probe>::on(InMemoryHost::default().with_env("REGION", "eu"), "").unwrap();
    assert_eq!(proxy.logs(), [(LogLevel::Info, "region eu".to_owned())]);
}

#[test]
fn a_local_response_with_more_headers_than_a_proxy_takes_resets_the_stream() {
    struct Many(usize);
    impl Plugin for Many {
        type Config = usize;
        fn configure(count: usize, _: &mut impl Host) -> Result<Self, ConfigError> {
            Ok(Self(count))
        }
        fn on_request_headers(&self, _: &mut impl Host, _: bool) -> Flow {
            let add = |response: LocalResponse, n| response.header("set-cookie", &format!("{n}=; max-age=0"));
            Flow::Respond((0..self.0).fold(LocalResponse::new(403), add))
        }
    }
    let send = |count: &str| Proxy::<Many>::new(count).unwrap().send(get("/"));
    assert_eq!(send("1024").status(), 403);
    let exchange = send("1025");
    assert!(exchange.response().is_none() && exchange.forwarded().is_none());
}

//! Plugins that wait, on the SDK's in-memory proxy.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use plugwright_sdk::testing::{AsyncProxy, Clock, InMemoryHost, Reply, get, post, response};
use plugwright_sdk::{
    Answer, AsyncPlugin, Call, ConfigError, Host, Latch, LocalResponse, LogLevel, MapType, Request, Root,
};
use serde::de::IgnoredAny;

/// A plugin whose handler is one of the functions below, by the configuration's name for it.
macro_rules! plugin {
    ($name:ident, |$request:ident| $body:block) => {
        struct $name;

        impl AsyncPlugin for $name {
            type Config = IgnoredAny;

            fn configure(_: IgnoredAny, _: &mut impl Host) -> Result<Self, ConfigError> {
                Ok(Self)
            }

            async fn on_request(&self, $request: Request) -> Answer $body
        }
    };
}

plugin!(Nothing, |_request| { Ok(()) });

#[test]
fn a_plugin_that_does_nothing_lets_everything_pass() {
    let mut proxy = AsyncProxy::<Nothing>::new("{}").unwrap().upstream(response(201).body("made"));
    let exchange = proxy.send(post("/").body("make"));
    assert_eq!(exchange.status(), 201);
    assert_eq!(exchange.response().unwrap().bytes(), b"made");
    assert_eq!(exchange.forwarded().unwrap().bytes(), b"make");
}

plugin!(AskTwice, |request| {
    let mut request = request;
    let first = request.call("a", Call::get("a.example", "/one")).await?;
    let second = request.call("b", Call::post("b.example", "/two").header("x-from", "one").body(first.body())).await?;
    request.set_header("x-answers", &format!("{} {}", first.status(), second.status()))?;
    Ok(())
});

#[test]
fn calls_are_made_one_after_another_while_the_request_is_held() {
    let mut proxy = AsyncProxy::<AskTwice>::new("{}").unwrap().cluster("a", |_| response(200).body("from a")).cluster(
        "b",
        |call| {
            assert_eq!(call.bytes(), b"from a");
            assert_eq!(call.lines(), ["x-from: one"]);
            response(204)
        },
    );
    let exchange = proxy.send(post("/").body("kept"));
    assert_eq!(exchange.forwarded().unwrap().values("x-answers"), ["200 204"]);
    assert_eq!(exchange.forwarded().unwrap().bytes(), b"kept");
    let calls: Vec<_> =
        exchange.calls().iter().map(|(cluster, call)| (cluster.as_str(), call.values(":path"))).collect();
    assert_eq!(calls, [("a", vec!["/one"]), ("b", vec!["/two"])]);
}

plugin!(AskOnce, |request| {
    let answer = request.call("policy", Call::get("policy.example", "/").timeout(Duration::from_secs(2))).await?;
    if answer.status() == 200 { Ok(()) } else { Err(LocalResponse::new(403).details("denied").body("no\n")) }
});

#[test]
fn what_becomes_of_a_call_decides() {
    let status = |backend: fn() -> Reply| {
        let mut proxy = AsyncProxy::<AskOnce>::new("{}").unwrap().cluster("policy", move |_| backend());
        let exchange = proxy.send(get("/"));
        (exchange.status(), exchange.details().to_owned(), exchange.forwarded().is_some())
    };
    assert_eq!(status(|| response(200).into()), (200, String::new(), true));
    assert_eq!(status(|| response(404).into()), (403, "denied".to_owned(), false));
    assert_eq!(status(Reply::unreachable), (403, "denied".to_owned(), false));
    assert_eq!(status(Reply::never), (403, "denied".to_owned(), false));
    assert_eq!(status(|| Reply::after(Duration::from_secs(1), response(200))), (200, String::new(), true));
    assert_eq!(status(|| Reply::after(Duration::from_secs(3), response(200))), (403, "denied".to_owned(), false));
    assert_eq!(status(Reply::broken), (503, "call_broken".to_owned(), false));
}

#[test]
fn a_cluster_that_does_not_exist_is_a_refusal() {
    let exchange = AsyncProxy::<AskOnce>::new("{}").unwrap().send(get("/"));
    assert_eq!((exchange.status(), exchange.details()), (503, "call_refused"));
}

plugin!(Split, |request| {
    let path = request.path();
    request.call("policy", Call::get("policy.example", "/").header("x-path", &path[1..].replace('_', "\r\n"))).await?;
    Ok(())
});

#[test]
fn a_call_cannot_be_split_in_two() {
    let mut proxy = AsyncProxy::<Split>::new("{}").unwrap().cluster("policy", |_| response(200));
    assert_eq!(proxy.send(get("/fine")).status(), 200);
    let exchange = proxy.send(get("/a_b:"));
    assert_eq!((exchange.status(), exchange.details()), (503, "call_invalid"));
    assert!(exchange.calls().is_empty());
}

plugin!(Wait, |request| {
    let before = request.host().now().unwrap();
    request.sleep(Duration::from_millis(2500)).await;
    let waited = request.host().now().unwrap().duration_since(before).unwrap();
    let mut response = request.forward().await;
    response.add_header("x-waited", &waited.as_millis().to_string())?;
    response.add_header("x-status", &response.status().to_string())?;
    Ok(())
});

#[test]
fn time_passes_without_anybody_waiting_for_it() {
    let exchange = AsyncProxy::<Wait>::new("{}").unwrap().upstream(response(202)).send(get("/"));
    let waited: u64 = exchange.values("x-waited")[0].parse().unwrap();
    assert!((2500..2520).contains(&waited), "{waited}");
    assert_eq!(exchange.values("x-status"), ["202"]);
}

plugin!(Replace, |request| {
    let response = request.forward().await;
    if response.status() == 500 {
        return Err(LocalResponse::new(502).body("the upstream is unwell\n"));
    }
    Ok(())
});

#[test]
fn a_response_can_be_replaced() {
    let mut proxy = AsyncProxy::<Replace>::new("{}").unwrap().upstream(response(500).body("stack trace"));
    let exchange = proxy.send(get("/"));
    assert_eq!(exchange.status(), 502);
    assert_eq!(exchange.response().unwrap().bytes(), b"the upstream is unwell\n");
}

plugin!(Upper, |request| {
    let mut request = request;
    request.remove_header("content-length")?;
    let mut body = request.into_body();
    let text = body.whole().await?;
    if text.starts_with(b"bad") {
        return Err(LocalResponse::new(400));
    }
    body.replace(&text.to_ascii_uppercase())?;
    let mut response = body.forward().await;
    response.remove_header("content-length")?;
    let mut body = response.into_body();
    while let Some(chunk) = body.chunk().await? {
        body.replace(&[b"<", chunk.as_slice(), b">"].concat())?;
    }
    Ok(())
});

#[test]
fn bodies_are_had_whole_or_in_pieces_and_replaced() {
    let mut proxy = AsyncProxy::<Upper>::new("{}").unwrap().upstream(response(200).body("answer"));
    let exchange = proxy.send(post("/").header("content-length", "5").body("hello"));
    assert_eq!(exchange.forwarded().unwrap().bytes(), b"HELLO");
    assert!(exchange.forwarded().unwrap().values("content-length").is_empty());
    assert_eq!(exchange.response().unwrap().bytes(), b"<answer>");
    assert_eq!(proxy.send(post("/").body("bad")).status(), 400);
    let empty = proxy.send(get("/"));
    assert_eq!(empty.forwarded().unwrap().bytes(), b"");
    assert_eq!(empty.status(), 200);
}

plugin!(AskAboutBody, |request| {
    let mut body = request.into_body();
    while let Some(chunk) = body.chunk().await? {
        let verdict = body.call("scanner", Call::post("scanner", "/").body(chunk)).await?;
        if verdict.status() != 200 {
            return Err(LocalResponse::new(422));
        }
    }
    Ok(())
});

#[test]
fn a_piece_of_a_body_is_held_while_something_is_asked_about_it() {
    let mut proxy = AsyncProxy::<AskAboutBody>::new("{}")
        .unwrap()
        .cluster("scanner", |call| response(if call.bytes() == b"virus" { 406 } else { 200 }));
    let exchange = proxy.send(post("/").body("harmless"));
    assert_eq!((exchange.status(), exchange.calls().len()), (200, 1));
    assert_eq!(exchange.forwarded().unwrap().bytes(), b"harmless");
    let exchange = proxy.send(post("/").body("virus"));
    assert_eq!(exchange.status(), 422);
    assert!(exchange.forwarded().is_none());
}

/// Fetches a word at the start, again every minute, and adds it to each request.
struct Word {
    latest: RefCell<String>,
    ready: Latch,
    logged: Cell<u32>,
}

impl AsyncPlugin for Word {
    type Config = IgnoredAny;

    fn configure(_: IgnoredAny, _: &mut impl Host) -> Result<Self, ConfigError> {
        Ok(Self { latest: RefCell::default(), ready: Latch::default(), logged: Cell::new(0) })
    }

    async fn start(&self, root: Root) {
        loop {
            match root.call("words", Call::get("words", "/")).await {
                Ok(word) if word.status() == 200 => {
                    self.latest.replace(String::from_utf8_lossy(word.body()).into_owned());
                    self.ready.open();
                    root.sleep(Duration::from_mins(1)).await;
                }
                _ => {
                    root.host().warn("no word");
                    root.sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    async fn on_request(&self, mut request: Request) -> Answer {
        self.ready.wait().await;
        request.set_header("x-word", &self.latest.borrow())?;
        Ok(())
    }

    fn on_log(&self, host: &mut impl Host) {
        self.logged.set(self.logged.get() + 1);
        let status = host.header(MapType::ResponseHeaders, ":status").unwrap().unwrap();
        host.info(&format!("{} {}", self.logged.get(), String::from_utf8(status).unwrap()));
    }
}

#[test]
fn what_is_fetched_beside_the_streams_holds_them_until_it_is_there() {
    let calls = Rc::new(Cell::new(0));
    let counted = Rc::clone(&calls);
    let mut proxy = AsyncProxy::<Word>::new("{}").unwrap().cluster("words", move |_| {
        counted.set(counted.get() + 1);
        if counted.get() < 3 {
            Reply::unreachable()
        } else {
            response(200).body(format!("word {}", counted.get())).into()
        }
    });
    assert_eq!(proxy.send(get("/")).forwarded().unwrap().values("x-word"), ["word 3"]);
    assert_eq!(proxy.send(get("/")).forwarded().unwrap().values("x-word"), ["word 3"]);
    assert_eq!(calls.get(), 3);
    proxy.pass(Duration::from_secs(61));
    assert_eq!(proxy.send(get("/")).forwarded().unwrap().values("x-word"), ["word 4"]);
    let logs: Vec<_> = proxy.logs().into_iter().map(|(level, line)| format!("{level:?} {line}")).collect();
    assert_eq!(logs, ["Warn no word", "Warn no word", "Info 1 200", "Info 2 200", "Info 3 200"]);
    assert!(proxy.logs().iter().all(|(level, _)| *level >= LogLevel::Info));
}

/// Waits for ever, and notes when it is dropped.
struct Forever(Rc<Cell<bool>>);

impl Drop for Forever {
    fn drop(&mut self) {
        self.0.set(true);
    }
}

thread_local! {
    static DROPPED: Rc<Cell<bool>> = Rc::default();
}

plugin!(Hold, |_request| {
    let _guard = Forever(DROPPED.with(Rc::clone));
    std::future::pending::<()>().await;
    Ok(())
});

#[test]
fn a_stream_that_ends_drops_its_future() {
    let mut proxy = AsyncProxy::<Hold>::new("{}").unwrap();
    let exchange = proxy.send(get("/"));
    assert!(exchange.response().is_none() && exchange.forwarded().is_none());
    assert!(DROPPED.with(|dropped| dropped.get()));
}

plugin!(Mint, |request| {
    let mut nonce = [0; 8];
    request.host().random(&mut nonce)?;
    let nonce = u64::from_be_bytes(nonce);
    let at = request.host().now()?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut request = request;
    request.set_header("x-minted", &format!("{nonce:x} {at}"))?;
    Ok(())
});

#[test]
fn randomness_and_time_are_the_tests() {
    let minted = |seed| {
        let clock = Clock::at(Duration::from_secs(1000));
        let host = InMemoryHost::default().with_random_seed(seed).with_clock(&clock);
        let mut proxy = AsyncProxy::<Mint>::on(host, "{}").unwrap();
        clock.advance(Duration::from_secs(5));
        let first = proxy.send(get("/")).forwarded().unwrap().values("x-minted")[0].to_owned();
        proxy.pass(Duration::from_secs(10));
        assert_eq!(proxy.clock().since_epoch().as_secs(), 1015);
        (first, proxy.send(get("/")).forwarded().unwrap().values("x-minted")[0].to_owned())
    };
    let (first, second) = minted(1);
    assert_eq!((first.clone(), second.clone()), minted(1));
    assert!(first.ends_with(" 1005") && second.ends_with(" 1015"), "{first}, {second}");
    assert_ne!(first.split(' ').next(), second.split(' ').next());
    assert_ne!(first, minted(2).0);
}

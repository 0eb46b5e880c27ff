//! Plugins without sockets, as tests of plugins run them: one after another in the same thread.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use harness::engine::{Engine, Limits};
use harness::module::Module;
use harness::offline::{Answer, Backends, GrpcReply, GrpcRequest, Message, Proxy, Reply, Setup, World};

use crate::support::{Guest, Recorder, pairs};

const HEADERS: &[(&str, &str)] = &[(":method", "GET"), (":path", "/call"), (":authority", "auth.example")];

#[derive(Default)]
struct Counted(Cell<u32>);

impl Backends for Counted {
    fn http(&self, _: &str, _: &Message) -> Option<Reply> {
        self.0.set(self.0.get() + 1);
        Some(Reply { delay: Duration::ZERO, answer: Answer::Whole(message(&[(":status", "200")])) })
    }

    fn has_grpc(&self, _: &str) -> bool {
        false
    }

    fn grpc(&self, _: &str, _: &GrpcRequest) -> GrpcReply {
        GrpcReply::default()
    }
}

fn message(headers: &[(&str, &str)]) -> Message {
    let headers = headers.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()));
    Message { headers: headers.collect(), ..Message::default() }
}

fn call(guest: &mut Guest) -> String {
    let (cluster, headers, none) = (guest.text("backend"), pairs(guest, HEADERS), guest.text(""));
    format!(
        "(drop (call $proxy_http_call {cluster} {headers} {none} (i32.const 0) (i32.const 0) (i32.const 1000)
            (i32.const 520)))"
    )
}

/// Calls a backend on each request without waiting for it, and again whenever it answers.
fn calling() -> Guest {
    Guest::default().on("request_headers", |g| format!("{} (i32.const 0)", call(g))).on("http_call_response", call)
}

#[test]
fn nothing_of_a_proxy_runs_after_it_is_gone() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let engine = Engine::new(Limits::default()).unwrap();
        let module = Arc::new(Module::compile(&engine, &calling().build()).unwrap());
        let setup = Setup { module, configuration: Vec::new(), network: false, env: Vec::new() };
        let world = Arc::new(World::new(Duration::ZERO, 0, []));
        let backends = Rc::new(Counted::default());
        let mut proxy = Proxy::new(setup, &world, Arc::<Recorder>::default(), backends.clone()).unwrap();
        proxy.start().unwrap();
        let request = [(":method", "GET"), (":path", "/"), (":authority", "a"), (":scheme", "http")];
        proxy.send(&message(&request), &message(&[(":status", "200")]), None).await;
        drop(proxy);
        let called = backends.0.get();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!((called, backends.0.get()), (1, 1));
    });
}

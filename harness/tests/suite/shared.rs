//! What VMs share: queues across workers, and metrics for whoever scrapes them.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use crate::support::{Guest, Harness, send, wasm};

#[test]
fn a_queues_last_owner_is_told_on_its_own_worker_and_takes_what_is_in_it() {
    let register = |g: &mut Guest| {
        let name = g.text("q");
        format!("(drop (call $proxy_register_shared_queue {name} (i32.const 520))) (i32.const 1)")
    };
    let owner = Guest::default().on("configure", register).on("queue_ready", |g| {
        let say = g.say("ready");
        format!(
            "{say} (call $number (local.get 1))
             (call $number (call $proxy_dequeue_shared_queue (local.get 1) (i32.const 512) (i32.const 516)))
             (call $value)"
        )
    });
    let sender = Guest::default().on("request_headers", |g| {
        let (name, value) = (g.text("q"), g.text("value"));
        format!(
            "(drop (call $proxy_resolve_shared_queue (i32.const 0) (i32.const 0) {name} (i32.const 520)))
             (drop (call $proxy_enqueue_shared_queue (i32.load (i32.const 520)) {value})) (i32.const 0)"
        )
    });
    let harness = Harness::with(
        vec![wasm("owner", |_| {}), wasm("sender", |_| {})],
        &[("owner", owner.build()), ("sender", sender.build())],
        |options| options.workers = Some(2),
    );
    for _ in 0..4 {
        assert_eq!(harness.get("/").status, 200);
        harness.log.wait_for(": value");
        assert_eq!(harness.log.messages(), ["ready", "1", "0", "value"]);
    }
}

#[test]
fn metrics_are_on_the_administration_endpoint() {
    let guest = Guest::default().on("request_headers", |g| {
        let name = g.text("my.requests");
        format!(
            "(drop (call $proxy_define_metric (i32.const 0) {name} (i32.const 520)))
             (drop (call $proxy_increment_metric (i32.load (i32.const 520)) (i64.const 2))) (i32.const 0)"
        )
    });
    let harness = Harness::with(vec![wasm("a", |_| {})], &[("a", guest.build())], |options| {
        options.admin = Some("127.0.0.1:0".to_owned());
    });
    assert_eq!([(); 2].map(|()| harness.get("/").status), [200, 200]);
    let admin = harness.server.admin_address().unwrap();
    let reply = send(admin, "GET", "/stats/prometheus", &[], "").unwrap();
    assert_eq!((reply.status, reply.body.as_str()), (200, "# TYPE my_requests counter\nmy_requests 4\n"));
    assert_eq!(send(admin, "GET", "/ready", &[], "").unwrap().status, 200);
    assert_eq!(send(admin, "POST", "/ready", &[], "").unwrap().status, 405);
    assert_eq!(send(admin, "GET", "/quitquitquit", &[], "").unwrap().status, 404);
    harness.server.shut_down();
    let again = TcpStream::connect(admin).map(|mut stream| {
        let _ = stream.write_all(b"GET /ready HTTP/1.1\r\nhost: x\r\n\r\n");
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    });
    assert!(again.is_err() || again.is_ok_and(|answer| answer.is_empty()));
}

//! Several workers behind one listener.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use crate::support::{Guest, Harness, wasm};

#[test]
fn connections_are_spread_evenly_over_workers() {
    const WORKERS: usize = 3;
    // A VM that counts its own requests: what it answers tells how many its worker has had.
    let guest = Guest::default().on("request_headers", |g| {
        let said = g.say_number("request", "(global.get $count)");
        format!("(global.set $count (i32.add (global.get $count) (i32.const 1))) {said} (i32.const 0)")
    });
    let harness = Harness::with(vec![wasm("a", |_| {})], &[("a", guest.build())], |options| {
        options.workers = Some(WORKERS);
    });
    let connections: Vec<TcpStream> = (0..4 * WORKERS)
        .map(|_| {
            let mut client = TcpStream::connect(harness.server.address()).unwrap();
            client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
            // Answered, so that the next connection finds this one counted.
            client.read_exact(&mut [0; 16]).unwrap();
            client
        })
        .collect();
    let mut seen = BTreeMap::<String, usize>::new();
    for message in harness.log.messages() {
        *seen.entry(message).or_default() += 1;
    }
    let expected = (1..=4).map(|n| (format!("request 00{n}"), WORKERS)).collect();
    assert_eq!(seen, expected);
    drop(connections);
}

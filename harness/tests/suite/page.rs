//! The trace page over connections: events as they happen, viewers that do not read, and an end for all of them.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use harness::abi::LogLevel;
use harness::chain::Chain;
use harness::engine::Engine;
use harness::log::Sink;
use harness::page::Page;
use harness::server::{Options, Server};
use harness::trace::{Settings, Trace};

use crate::support::{self, limits};

/// Shows what happened on the page, as `run` does.
struct Shown(Page);

impl Sink for Shown {
    fn log(&self, _: LogLevel, _: &str) {}

    fn trace(&self, trace: &Trace) {
        self.0.trace(trace);
    }
}

/// A server with a page on both of its addresses. It has all the time it likes to drain.
fn server() -> Server {
    let (page, engine) = (Page::new(), Engine::new(limits()).unwrap());
    let modules = BTreeMap::<String, Vec<u8>>::new();
    let (chain, sink) = (support::chain(vec![]), Arc::new(Shown(page.clone())));
    let chain = Chain::load(&engine, &chain, &modules, &BTreeMap::new(), sink, LogLevel::Info).unwrap();
    let options = Options {
        workers: Some(1),
        admin: Some("127.0.0.1:0".to_owned()),
        admin_page: Some(page.clone()),
        listener_page: Some(page),
        trace: Some(Settings::default()),
        drain: Duration::from_hours(1),
        ..Options::listen_on("127.0.0.1:0")
    };
    Server::start(chain, options).unwrap()
}

/// A connection on which the events come.
fn viewer(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    stream.write_all(b"GET /__plugwright/events HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    stream
}

#[test]
fn viewers_see_what_happens_and_are_let_go_at_the_end() {
    let server = server();
    let addresses = [server.address(), server.admin_address().unwrap()];
    let mut viewers = addresses.map(|address| BufReader::new(viewer(address)));
    // One that never reads takes nothing from the others.
    let silent = viewer(addresses[1]);
    for number in 0..3 {
        assert_eq!(support::send(addresses[0], "GET", &format!("/{number}"), &[], "").unwrap().status, 200);
    }
    for viewer in &mut viewers {
        let mut lines = viewer.lines().map(Result::unwrap);
        for number in 0..3 {
            lines.find(|line| line.contains(&format!("\"path\":\"/{number}\""))).unwrap();
        }
    }
    let (ended, has_ended) = channel();
    std::thread::spawn(move || {
        server.shut_down();
        ended.send(()).unwrap();
    });
    has_ended.recv_timeout(Duration::from_mins(1)).expect("nobody is waited for who only looks");
    for mut viewer in viewers.into_iter().map(BufReader::into_inner).chain([silent]) {
        // It ends, whatever was on its way.
        viewer.read_to_end(&mut Vec::new()).unwrap();
    }
}

#[test]
fn a_viewer_that_never_reads_keeps_nobody_waiting() {
    let server = server();
    let (address, admin) = (server.address(), server.admin_address().unwrap());
    let silent = viewer(admin);
    // More than any socket takes.
    let long = "x".repeat(50_000);
    for _ in 0..150 {
        assert_eq!(support::send(address, "GET", "/", &[("x-long", &long)], "").unwrap().status, 200);
    }
    let mut reading = BufReader::new(viewer(admin)).lines().map(Result::unwrap);
    reading.find(|line| line.contains("event: trace")).unwrap();
    let (ended, has_ended) = channel();
    std::thread::spawn(move || {
        server.shut_down();
        ended.send(()).unwrap();
    });
    has_ended.recv_timeout(Duration::from_mins(1)).expect("nor at the end");
    drop(silent);
}

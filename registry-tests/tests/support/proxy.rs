//! Proxies, of which tests know what they were asked for.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use packager::registry::{NoProxy, Proxies};

/// A proxy that leads to one server, whatever it is asked for, and keeps what it was asked.
pub(crate) struct Proxy {
    pub(crate) address: String,
    scheme: &'static str,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// One for HTTP, which gives this answer to `CONNECT`.
    pub(crate) fn start(target: String, answer: &'static str) -> Self {
        Self::serving("http", move |client, keeper| {
            let _ = connect(client, &target, answer, keeper);
        })
    }

    /// One for SOCKS 5 (RFC 1928), without a password. It keeps what it was asked to connect to.
    pub(crate) fn socks(target: String) -> Self {
        Self::serving("socks5h", move |client, keeper| {
            let _ = socks(client, &target, keeper);
        })
    }

    /// One for HTTP that is not there.
    pub(crate) fn at(address: String) -> Self {
        Self { address, scheme: "http", seen: Arc::default() }
    }

    fn serving(scheme: &'static str, serve: impl Fn(TcpStream, &Mutex<Vec<String>>) + Send + Sync + 'static) -> Self {
        let serve = Arc::new(serve);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let keeper = Arc::clone(&seen);
        // They end with the test's process.
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (serve, keeper) = (Arc::clone(&serve), Arc::clone(&keeper));
                std::thread::spawn(move || serve(client, &keeper));
            }
        });
        Self { address, scheme, seen }
    }

    pub(crate) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    /// Everything through it, but what is excepted.
    pub(crate) fn proxies(&self, user: &str, except: &str) -> Proxies {
        let proxy: packager::registry::Proxy = format!("{}://{user}{}", self.scheme, self.address).parse().unwrap();
        Proxies { https: Some(proxy.clone()), http: Some(proxy), except: NoProxy::parse(except) }
    }
}

fn connect(client: TcpStream, target: &str, answer: &str, seen: &Mutex<Vec<String>>) -> Option<()> {
    let mut reader = BufReader::new(client.try_clone().ok()?);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    seen.lock().unwrap().push(head);
    let mut client = client;
    client.write_all(answer.as_bytes()).ok()?;
    tunnel(reader, &client, target)
}

fn socks(mut client: TcpStream, target: &str, seen: &Mutex<Vec<String>>) -> Option<()> {
    let mut byte = [0; 1];
    let mut next = |client: &mut TcpStream| client.read_exact(&mut byte).ok().map(|()| byte[0]);
    assert_eq!(next(&mut client)?, 5, "the version");
    for _ in 0..next(&mut client)? {
        next(&mut client)?;
    }
    client.write_all(&[5, 0]).ok()?;
    let mut head = [0; 5];
    client.read_exact(&mut head).ok()?;
    assert_eq!(head[..4], [5, 1, 0, 3], "to be connected to a name");
    let mut name = vec![0; usize::from(head[4])];
    client.read_exact(&mut name).ok()?;
    let mut port = [0; 2];
    client.read_exact(&mut port).ok()?;
    seen.lock().unwrap().push(format!("{}:{}", String::from_utf8_lossy(&name), u16::from_be_bytes(port)));
    client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).ok()?;
    tunnel(client.try_clone().ok()?, &client, target)
}

fn tunnel(mut from: impl std::io::Read, client: &TcpStream, target: &str) -> Option<()> {
    let mut server = TcpStream::connect(target).ok()?;
    let (mut down, mut up) = (server.try_clone().ok()?, client.try_clone().ok()?);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut down, &mut up);
        let _ = up.shutdown(Shutdown::Both);
    });
    let _ = std::io::copy(&mut from, &mut server);
    let _ = server.shutdown(Shutdown::Both);
    Some(())
}

pub(crate) const CONNECTED: &str = "HTTP/1.1 200 Connection established\r\n\r\n";

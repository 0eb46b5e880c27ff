//! Upstreams over TLS, with HTTP/2 or HTTP/1.1 as they choose.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::support::{Guest, Harness, wasm};

/// What each client negotiated: server name and protocol.
pub(crate) type Negotiated = Arc<Mutex<Vec<(Option<String>, Option<Vec<u8>>)>>>;

/// A server that ends TLS and passes what is inside on to `behind`; its certificate is for `name`.
pub(crate) fn terminator(name: &str, alpn: &[&str], behind: SocketAddr) -> (SocketAddr, String, Negotiated) {
    let key = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let pem = key.cert.pem();
    let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.signing_key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![key.cert.der().clone()], private)
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let negotiated = Negotiated::default();
    let seen = negotiated.clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, seen) = (acceptor.clone(), seen.clone());
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let session = stream.get_ref().1;
                    let facts = (session.server_name().map(str::to_owned), session.alpn_protocol().map(<[u8]>::to_vec));
                    seen.lock().unwrap().push(facts);
                    let mut behind = tokio::net::TcpStream::connect(behind).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut stream, &mut behind).await;
                });
            }
        });
    });
    (address, pem, negotiated)
}

fn harness(upstream: &str, pem: Vec<String>) -> Harness {
    Harness::with(vec![wasm("a", |_| {})], &[("a", Guest::recorder("a").build())], |options| {
        options.upstream = Some(upstream.to_owned());
        options.ca_certificates = pem;
    })
}

#[test]
fn the_upstream_chooses_http_2_or_http_1() {
    let behind = Harness::new(vec![], &[]);
    for (alpn, chosen) in
        [(&["h2", "http/1.1"][..], Some(b"h2".to_vec())), (&["http/1.1"], Some(b"http/1.1".to_vec())), (&[], None)]
    {
        let (address, pem, negotiated) = terminator("localhost", alpn, behind.server.address());
        let harness = harness(&format!("https://localhost:{}", address.port()), vec![pem]);
        for _ in 0..3 {
            let reply = harness.send("POST", "/x?y=1", &[], "payload");
            assert_eq!((reply.status, &reply.echo()["body"]), (200, &"payload".into()));
            // The certificate is for where the connection goes, the authority is the request's.
            assert_eq!((&reply.echo()["authority"], &reply.echo()["path"]), (&"example.com".into(), &"/x?y=1".into()));
        }
        // One connection, which is kept.
        assert_eq!(*negotiated.lock().unwrap(), [(Some("localhost".to_owned()), chosen)]);
    }
}

#[test]
fn a_certificate_that_is_not_trusted_or_for_another_name_is_503_and_said() {
    let behind = Harness::new(vec![], &[]);
    let (address, pem, _) = terminator("localhost", &["h2"], behind.server.address());
    let untrusted = harness(&format!("https://localhost:{}", address.port()), vec![]);
    let other_name = harness(&format!("https://{address}"), vec![pem]);
    for (harness, reason) in [(untrusted, "UnknownIssuer"), (other_name, "not valid for name")] {
        let reply = harness.get("/");
        let text = "upstream connect error or disconnect/reset before headers. reset reason: \
                    remote connection failure, transport failure reason: TLS_error";
        assert_eq!((reply.status, reply.body.as_str()), (503, text));
        let lines = harness.log.lines();
        let said = lines.iter().find(|line| line.starts_with("warning: upstream https://")).unwrap();
        assert!(said.contains(reason), "{said}");
    }
}

#[test]
fn certificates_that_are_none_are_refused() {
    use harness::server::{Options, ServeError, Server};
    for pem in ["", "text", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let chain = crate::support::load(vec![], &[], Arc::default()).unwrap();
        let options = Options {
            upstream: Some("https://localhost:1".to_owned()),
            ca_certificates: vec![pem.to_owned()],
            ..Options::listen_on("127.0.0.1:0")
        };
        let error = Server::start(chain, options).unwrap_err();
        assert!(matches!(error, ServeError::Certificates(_)), "{error}");
    }
}

#[test]
fn a_server_that_speaks_no_tls_is_503() {
    let plain = Harness::new(vec![], &[]);
    let harness = harness(&format!("https://localhost:{}", plain.server.address().port()), vec![]);
    assert_eq!(harness.get("/").status, 503);
}

//! Registries behind a proxy: what goes through it, what does not, and what the rules about addresses mean there.

use std::net::TcpListener;

use packager::registry::{Client, Options, PlainHttp, Proxies, RegistryError};
use registry_tests::{Does, Fault, Registry};

use crate::proxy::{CONNECTED, Proxy};
use crate::support::{image, options, reference, same};

fn client(proxies: Proxies) -> Client {
    Client::new(Options { proxies, plain_http: PlainHttp::Always, ..options() }).unwrap()
}

#[test]
fn a_registry_behind_a_proxy_is_reached_by_a_name_that_only_the_proxy_knows() {
    let registry = Registry::start(registry_tests::Options::default()).unwrap();
    let proxy = Proxy::start(registry.host(), CONNECTED);
    let client = client(proxy.proxies("ann:very-secret@", ""));
    let (image, place) = (image(1, 500_000), reference("registry.nowhere.invalid:5000", "acme/x:t"));
    client.push(&image, &place).unwrap();
    same(&client.pull(&place, tempfile::tempdir().unwrap().path()).unwrap(), &image);
    let seen = proxy.seen();
    assert!(!seen.is_empty());
    for head in seen {
        assert!(head.starts_with("CONNECT registry.nowhere.invalid:5000 HTTP/1.1\r\n"), "{head}");
        assert!(head.contains("Proxy-Authorization: Basic YW5uOnZlcnktc2VjcmV0\r\n"), "{head}");
    }
    assert!(registry.seen().iter().all(|seen| seen.authorization.is_none()), "the proxy's password is the proxy's");
}

#[test]
fn what_is_excepted_and_this_machine_are_met_directly() {
    let registry = Registry::start(registry_tests::Options::default()).unwrap();
    let port = registry.host().rsplit_once(':').unwrap().1.to_owned();
    let proxy = Proxy::start(registry.host(), CONNECTED);
    for (host, except) in [("127.0.0.1", ""), ("localhost", ""), ("0.0.0.0", "0.0.0.0"), ("0.0.0.0", "10.0.0.0/8,*")] {
        let place = reference(&format!("{host}:{port}"), "acme/x:t");
        client(proxy.proxies("", except)).push(&image(1, 10), &place).unwrap();
        assert_eq!(proxy.seen(), Vec::<String>::new(), "{host} {except}");
    }
}

#[test]
fn a_proxy_that_refuses_or_is_not_there_is_named_without_its_password() {
    let refusing =
        Proxy::start(String::new(), "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n");
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let gone = Proxy::at(gone);
    for proxy in [refusing, gone] {
        let error = client(proxy.proxies("ann:very-secret@", ""))
            .resolve(&reference("registry.nowhere.invalid", "acme/x:t"))
            .unwrap_err();
        let RegistryError::Unreachable { proxy: Some(named), .. } = &error else { panic!("{error:?}") };
        assert_eq!(*named, format!("http://{}", proxy.address));
        let text = format!("{error} {error:?}");
        assert!(text.contains("through the proxy") && !text.contains("very-secret"), "{text}");
        assert!(error.hint().is_some_and(|hint| hint.contains("NO_PROXY")));
    }
}

#[test]
fn addresses_that_are_never_dialled_are_not_asked_of_a_proxy_either() {
    let registry = Registry::start(registry_tests::Options::default()).unwrap();
    let proxy = Proxy::start(registry.host(), CONNECTED);
    let client = client(proxy.proxies("", ""));
    for host in ["169.254.169.254", "[fe80::1]", "100.100.100.200"] {
        let error = client.resolve(&reference(&format!("{host}:80"), "x:t")).unwrap_err();
        assert!(matches!(error, RegistryError::Forbidden { .. }), "{host}: {error:?}");
    }
    let error = client.resolve(&reference("metadata.google.internal", "x:t")).unwrap_err();
    assert!(matches!(error, RegistryError::ForbiddenName { .. }), "{error:?}");
    assert_eq!(proxy.seen(), Vec::<String>::new());

    for realm in ["http://10.0.0.1/token", "http://intranet/token", "http://db.internal/token"] {
        let challenge = format!("Bearer realm=\"{realm}\",service=\"s\"");
        registry.set_faults([Fault::everywhere(Does::StatusWith(401, "www-authenticate", challenge))]);
        let error = client.resolve(&reference("registry.example.com", "x:t")).unwrap_err();
        let refused = matches!(error, RegistryError::Forbidden { .. } | RegistryError::ForbiddenName { .. });
        assert!(refused, "{realm}: {error:?}");
    }
    assert!(proxy.seen().iter().all(|head| head.starts_with("CONNECT registry.example.com:80 ")), "{:?}", proxy.seen());
}

#[test]
fn a_registry_behind_a_socks_proxy_is_reached_by_a_name_that_only_the_proxy_knows() {
    let registry = Registry::start(registry_tests::Options::default()).unwrap();
    let proxy = Proxy::socks(registry.host());
    let client = client(proxy.proxies("", ""));
    let (image, place) = (image(1, 500_000), reference("registry.nowhere.invalid:5000", "acme/x:t"));
    client.push(&image, &place).unwrap();
    same(&client.pull(&place, tempfile::tempdir().unwrap().path()).unwrap(), &image);
    let seen = proxy.seen();
    assert!(!seen.is_empty() && seen.iter().all(|asked| asked == "registry.nowhere.invalid:5000"), "{seen:?}");
}

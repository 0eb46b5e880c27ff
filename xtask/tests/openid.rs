//! The chain of `examples/openid` from end to end: a browser, a real OpenID provider, a policy server, and both proxies.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot set itself up fails")]

mod support;

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use jose::json::Object;
use jose::{Key, Keys, Token};
use support::browser::{Browser, Page};
use support::{Server, command, dist, finish, plugwright, repository, request};

const SECRET: &str = "only+for/trying =&";
const COOKIE_KEY: &str = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
/// The documentation's key, which is in the resource.
const POLICY_KEY: &str = "a89gAzxvls0JKAKIJSBnnvvvkIO";
const CALLBACK: &str = "/_openid/callback?";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Proxy {
    Harness,
    Envoy,
}

/// The gateway, in one of the proxies.
#[expect(dead_code, reason = "a server is there to be dropped")]
enum Gateway {
    Harness(Server),
    Envoy(Child),
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Self::Envoy(child) = self {
            // The shell in front of Envoy passes it on and takes the bootstrap away.
            finish(Command::new("kill").arg(child.id().to_string()));
            let _ = child.wait();
        }
    }
}

/// Addresses that stay the same while what listens there comes and goes.
struct Stage {
    folder: tempfile::TempDir,
    proxy: Proxy,
    provider: String,
    policy: String,
    site: String,
}

/// An address that nobody takes while its server is away: connections go out from higher ports.
fn free_address() -> String {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() % 10_000).unwrap();
    let ports = std::iter::repeat_with(|| 20_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000);
    let addresses = ports.take(10_000).map(|port| format!("127.0.0.1:{port}"));
    addresses.into_iter().find(|address| TcpListener::bind(address).is_ok()).unwrap()
}

impl Stage {
    fn new(proxy: Proxy) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { folder, proxy, provider: free_address(), policy: free_address(), site: free_address() }
    }

    fn issuer(&self) -> String {
        format!("http://{}/realms/ingress", self.provider)
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.site)
    }

    fn provider(&self, more: &[&str]) -> Server {
        let modules = repository().join("target/tools/openid-provider");
        assert!(
            modules.join("node_modules").is_dir(),
            "no OpenID provider in {}: run `cargo xtask ci --prepare`",
            modules.display()
        );
        // The script is read from standard input: so its modules are looked for in the working directory.
        let script = File::open(repository().join("examples/openid/provider/provider.mjs")).unwrap();
        let mut node = Command::new("node");
        node.current_dir(modules).args(["--input-type=module", "-"]).stdin(script);
        node.args(["--listen", &self.provider, "--site", &self.url("")]).args(more);
        Server::start(node.env("OPENID_CLIENT_SECRET", SECRET).env_remove("NODE_OPTIONS"))
    }

    fn policy_server(&self) -> Server {
        let mut server = support::cargo(&["run", "--quiet", "--package", "policy-server", "--"]);
        server.args(["--listen", &self.policy, "--key-env", "POLICY_KEY", "--policy", "examples/openid/policy.json"]);
        server.args(["--jwt-issuer", &self.issuer(), "--jwt-audience", "ingress"]);
        server.args(["--jwt-keys", &format!("{}/jwks", self.issuer())]);
        Server::start(server.env("POLICY_KEY", POLICY_KEY).stdin(Stdio::null()))
    }

    /// A file of the example, with this stage's provider in it.
    fn manifest(&self, name: &str) -> PathBuf {
        let text = fs::read_to_string(repository().join("examples/openid").join(name)).unwrap();
        let text = text.replace("127.0.0.1:9000", &self.provider);
        // A machine that is busy with other tests is slower than a gateway should put up with.
        let with_timeout = |line: &str| {
            let setting = |field: &str, more: &str| Some(format!("{line}\n{}{more}\n", line.strip_suffix(field)?));
            setting("openid_realm: ingress", "hold_seconds: 25")
                .or_else(|| setting("acl_server: some_server", "timeout_ms: 10000"))
                .unwrap_or_else(|| format!("{line}\n"))
        };
        let text: String = text.lines().map(with_timeout).collect();
        let file = self.folder.path().join(name);
        fs::write(&file, text).unwrap();
        file
    }

    fn gateway(&self, manifests: &[&str]) -> Gateway {
        let layout = dist().display();
        let mut arguments: Vec<String> = vec![if self.proxy == Proxy::Envoy { "envoy" } else { "run" }.to_owned()];
        for name in manifests {
            arguments.extend(["-f".to_owned(), self.manifest(name).display().to_string()]);
        }
        for (url, image) in [
            ("openid-connect/openid:latest", "openid"),
            ("acl-check/acl:latest", "acl-check"),
            ("check-header:latest", "check-header"),
        ] {
            arguments.extend(["--image".to_owned(), format!("oci://private-registry:5000/{url}=oci:{layout}:{image}")]);
        }
        for (cluster, address) in [("outbound|80||authn", &self.provider), ("outbound|80||some_server", &self.policy)] {
            arguments.extend(["--cluster".to_owned(), format!("{cluster}=http://{address}")]);
        }
        arguments.extend(["--listen", &self.site, "--workers", "2"].map(str::to_owned));
        if self.proxy == Proxy::Envoy {
            arguments.push("--exec".to_owned());
        }
        let mut command = command(self.folder.path(), &arguments);
        command.env("OPENID_CLIENT_SECRET", SECRET).env("OPENID_COOKIE_KEYS", COOKIE_KEY);
        match self.proxy {
            Proxy::Harness => Gateway::Harness(Server::start(&mut command)),
            Proxy::Envoy => {
                command.env("ENVOY", support::envoy::program()).env("TMPDIR", self.folder.path());
                let log = File::create(self.folder.path().join("envoy.log")).unwrap();
                let mut child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
                let started = Instant::now();
                while TcpStream::connect(&self.site).is_err() {
                    let log = || fs::read_to_string(self.folder.path().join("envoy.log")).unwrap();
                    assert!(started.elapsed() < Duration::from_mins(1), "it does not listen:\n{}", log());
                    assert!(child.try_wait().unwrap().is_none(), "it has ended:\n{}", log());
                    std::thread::sleep(Duration::from_millis(20));
                }
                Gateway::Envoy(child)
            }
        }
    }

    /// Goes to a page, through the provider's login and consent, and as far as the way back: where that leads.
    fn go_to_provider(&self, browser: &mut Browser, path: &str, user: &str) -> String {
        let callback = self.url(CALLBACK);
        let mut page = browser.get(&self.url(path));
        for _ in 0..20 {
            if let Some(location) = page.location() {
                if location.starts_with(&callback) {
                    return location;
                }
                page = browser.get(&location);
                continue;
            }
            let Some((action, mut fields)) = page.form().filter(|_| page.status == 200) else { break };
            for (name, value) in &mut fields {
                match name.as_str() {
                    "login" => user.clone_into(value),
                    "password" => "any".clone_into(value),
                    _ => {}
                }
            }
            page = browser.post(&action, &fields);
        }
        panic!("{user} did not get back from the provider: {page:?}");
    }

    /// The same, and back to the page.
    fn sign_in(&self, browser: &mut Browser, path: &str, user: &str) -> Page {
        let back = self.go_to_provider(browser, path, user);
        let back = browser.get(&back);
        assert_eq!(back.location(), Some(self.url(path)), "{back:?}");
        browser.get(&self.url(path))
    }

    /// The claims of the token that the upstream got, with the provider's signature verified.
    fn user_of(&self, page: &Page) -> Object {
        let jwks = request(&self.provider, "GET", "/realms/ingress/jwks", &[]).body;
        let (keys, _) = Keys::from_set(&jwks).unwrap();
        let token = upstream_header(page, "authorization");
        Token::parse(token.strip_prefix("Bearer ").unwrap()).unwrap().verify(&keys).unwrap()
    }
}

/// The one value of a header as the upstream got it: what answers is the echo.
#[track_caller]
fn upstream_header(page: &Page, name: &str) -> String {
    assert_eq!(page.status, 200, "{page:?}");
    let mut values = upstream_headers(page, name);
    assert_eq!(values.len(), 1, "{name}: {}", page.body);
    values.remove(0)
}

fn upstream_headers(page: &Page, name: &str) -> Vec<String> {
    let echo: serde_json::Value = serde_json::from_str(&page.body).unwrap();
    let headers = echo["headers"].as_array().unwrap().iter();
    headers.filter(|pair| pair[0] == name).map(|pair| pair[1].as_str().unwrap().to_owned()).collect()
}

fn policy_of(page: &Page) -> Object {
    let keys = Keys::from(Key::shared(POLICY_KEY.as_bytes()).unwrap());
    Token::parse(&upstream_header(page, "authz_complete")).unwrap().verify(&keys).unwrap()
}

/// An answer of the openid plugin's own.
#[track_caller]
fn refused(page: &Page, status: u16, text: &str) {
    assert_eq!(page.status, status, "{page:?}");
    assert!(page.body.contains(text), "{page:?}");
    assert!(!page.body.contains(SECRET) && !page.body.contains("eyJ"), "{page:?}");
}

#[test]
fn the_printed_chain_is_the_documentations_line() {
    for plugins in ["wasm-plugins.yaml", "traffic-extensions.yaml"] {
        let folder = Path::new("examples/openid");
        let mut arguments = vec!["explain".into(), "-f".into(), folder.join(plugins)];
        arguments.extend(["-f".into(), folder.join("request-authentication.yaml")]);
        let proxy = ["--namespace", "istio-ingress", "--label", "istio=ingressgateway", "--kind", "gateway"];
        arguments.extend(proxy.map(PathBuf::from));
        let printed = plugwright(repository(), &arguments).fine().stdout;
        let line = printed.lines().next().unwrap();
        assert_eq!(line, "-> openid-connect -> istio.authn -> acl-check -> check-header -> router", "{plugins}");
    }
}

#[test]
fn modules_with_cryptography_stay_under_700_kb() {
    let folder = tempfile::tempdir().unwrap();
    for plugin in ["openid", "acl-check", "check-header"] {
        let module = folder.path().join(plugin);
        let image = format!("oci:{}:{plugin}", dist().display());
        plugwright(repository(), &["pull", &image, "--output", module.to_str().unwrap()]).fine();
        let size = fs::metadata(&module).unwrap().len();
        assert!((50_000..700_000).contains(&size), "{plugin} has {size} bytes");
    }
}

#[test]
fn the_chain_in_the_harness() {
    walk(Proxy::Harness, "wasm-plugins.yaml");
}

#[test]
fn the_chain_in_envoy() {
    walk(Proxy::Envoy, "traffic-extensions.yaml");
}

fn walk(proxy: Proxy, plugins: &str) {
    let stage = Stage::new(proxy);
    let provider = stage.provider(&[]);
    let _policy = stage.policy_server();
    let gateway = stage.gateway(&[plugins, "request-authentication.yaml"]);

    let mut alice = anonymous_then_signed_in(&stage);
    what_is_forged_is_refused(&stage, &alice);
    what_is_not_permitted_is_refused(&stage);
    logging_out_ends_it(&stage, &mut alice.clone());
    a_provider_that_does_not_answer_is_waited_for_no_longer_than_it_should(&stage, provider, &mut alice);

    // A provider that has started again signs with another key. The openid plugin fetches it when it meets it; Istio
    // fetches keys now and then, so that the proxy is started again here: sessions do not mind.
    let provider = stage.provider(&["--algorithm", "ES256", "--id-token-seconds", "20"]);
    let mut rotated = Browser::default();
    let back = stage.go_to_provider(&mut rotated, "/", "alice");
    let back = rotated.get(&back);
    assert_eq!((back.status, back.location()), (302, Some(stage.url("/"))), "{back:?}");
    drop(gateway);
    let gateway = stage.gateway(&[plugins, "request-authentication.yaml"]);
    sessions_are_refreshed(&stage, &mut rotated);

    // One whose clock is behind issues tokens that have expired by the time they are here.
    drop(provider);
    let provider = stage.provider(&["--algorithm", "ES256", "--clock-offset-seconds=-3600"]);
    let mut late = Browser::default();
    let back = stage.go_to_provider(&mut late, "/", "alice");
    refused(&late.get(&back), 502, "This sign-in cannot be trusted");
    assert!(!late.has("__Host-openid"));
    drop((provider, gateway));

    requests_before_discovery_are_held(&stage, plugins);
}

fn anonymous_then_signed_in(stage: &Stage) -> Browser {
    let mut alice = Browser::default();
    assert_eq!(alice.fetch(&stage.url("/data"), &[]).status, 401);
    let sent = alice.get(&stage.url("/data?of=alice"));
    let location = sent.location().unwrap();
    assert!(
        location.starts_with(&format!("{}/auth?response_type=code&client_id=ingress", stage.issuer())),
        "{location}"
    );

    let page = stage.sign_in(&mut alice, "/data?of=alice", "alice");
    let user = stage.user_of(&page);
    assert_eq!((user.text("sub"), user.text("aud")), (Some("alice"), Some("ingress")));
    assert_eq!(user.text("iss"), Some(stage.issuer().as_str()));
    let policy = policy_of(&page);
    assert_eq!(policy.text("sub"), Some("alice"));
    assert!(policy.texts("function").unwrap().contains(&"read_data"), "{policy:?}");
    let cookies = upstream_headers(&page, "cookie").join("; ");
    assert!(!cookies.contains("__Host-openid"), "{cookies}");
    // A second page, and what a script asks for, without signing in again.
    assert_eq!(alice.get(&stage.url("/other")).status, 200);
    assert_eq!(alice.fetch(&stage.url("/api"), &[]).status, 200);
    alice
}

fn what_is_forged_is_refused(stage: &Stage, alice: &Browser) {
    // Headers that the chain sets are the chain's, whatever the client sends.
    let smuggled =
        [("authorization", "Bearer e30.e30.x"), ("authz_complete", "e30.e30.x"), ("authz-complete", "e30.e30.x")];
    let page = alice.clone().fetch(&stage.url("/"), &smuggled);
    assert_eq!(stage.user_of(&page).text("sub"), Some("alice"));
    assert_eq!(policy_of(&page).text("sub"), Some("alice"));
    assert_eq!(Browser::default().fetch(&stage.url("/"), &smuggled).status, 401);

    let mut tampered = alice.clone();
    tampered.tamper("__Host-openid", |value| {
        let last = value.pop().unwrap();
        value.push(if last == 'A' { 'B' } else { 'A' });
    });
    assert_eq!(tampered.fetch(&stage.url("/"), &[]).status, 401);
    assert!(tampered.get(&stage.url("/")).location().unwrap().starts_with(&stage.issuer()));

    let mut browser = Browser::default();
    let back = stage.go_to_provider(&mut browser, "/", "alice");
    refused(&Browser::default().get(&back), 400, "This sign-in was not started here");
    let (until, nonce) = back.split_once("state=").unwrap();
    let other = if nonce.starts_with('A') { "B" } else { "A" };
    let wrong = format!("{until}state={other}{}", &nonce[1..]);
    refused(&browser.get(&wrong), 400, "This sign-in was not started here");
    let before = browser.clone();
    assert_eq!(browser.get(&back).location(), Some(stage.url("/")));
    refused(&browser.get(&back), 400, "This sign-in was not started here");
    // Even with the cookie of that time: the provider takes a code once.
    refused(&before.clone().get(&back), 400, "This sign-in cannot be completed");
    let denied = format!(
        "{}error=access_denied&error_description=%3Cb%3E&state={}",
        stage.url(CALLBACK),
        parameter(&back, "state")
    );
    refused(&before.clone().get(&denied), 403, "Access was not granted");
}

fn parameter<'a>(url: &'a str, name: &str) -> &'a str {
    url.split(['?', '&']).find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')).unwrap()
}

fn what_is_not_permitted_is_refused(stage: &Stage) {
    // The policy server knows bob, but check-header's function is not among his; carol it does not know.
    for user in ["bob", "carol"] {
        let mut browser = Browser::default();
        let page = stage.sign_in(&mut browser, "/", user);
        assert_eq!((page.status, page.body.as_str()), (403, ""), "{user}");
    }
}

fn logging_out_ends_it(stage: &Stage, browser: &mut Browser) {
    let page = browser.get(&stage.url("/_openid/logout"));
    let location = page.location().unwrap();
    assert!(location.starts_with(&format!("{}/session/end?id_token_hint=", stage.issuer())), "{location}");
    assert!(!browser.has("__Host-openid"));
    let ask = browser.get(&location);
    let (action, mut fields) = ask.form().unwrap();
    fields.push(("logout".to_owned(), "yes".to_owned()));
    let page = browser.post(&action, &fields);
    let location = page.location().unwrap();
    assert!(location.starts_with(&stage.url("/_openid/logged-out")), "{location}");
    refused(&browser.get(&location), 200, "You are signed out");
    // The provider does not know the user either: it asks again.
    let mut page = browser.get(&stage.url("/"));
    while let Some(location) = page.location() {
        assert!(!location.starts_with(&stage.url(CALLBACK)), "signed in without being asked");
        page = browser.get(&location);
    }
    assert!(page.form().unwrap().1.iter().any(|(name, _)| name == "password"), "{page:?}");
}

fn a_provider_that_does_not_answer_is_waited_for_no_longer_than_it_should(
    stage: &Stage,
    provider: Server,
    alice: &mut Browser,
) {
    let mut slow = Browser::default();
    let back = stage.go_to_provider(&mut slow, "/", "alice");
    provider.signal("STOP");
    refused(&slow.get(&back), 503, "The identity provider does not answer");
    assert_eq!(alice.get(&stage.url("/")).status, 200);
    provider.signal("CONT");

    let mut down = Browser::default();
    let back = stage.go_to_provider(&mut down, "/", "alice");
    drop(provider);
    let page = down.get(&back);
    refused(&page, 503, "The identity provider does not answer");
    assert_eq!(page.header("retry-after"), Some("5"));
    assert_eq!(alice.get(&stage.url("/")).status, 200);
}

/// Its ID tokens last shorter than the plugin would like, so that each of these requests refreshes.
fn sessions_are_refreshed(stage: &Stage, browser: &mut Browser) {
    let before = browser.clone();
    let at_once: Vec<_> = (0..4)
        .map(|_| {
            let (mut browser, url) = (before.clone(), stage.url("/"));
            std::thread::spawn(move || browser.fetch(&url, &[]))
        })
        .collect();
    let at_once: Vec<Page> = at_once.into_iter().map(|thread| thread.join().unwrap()).collect();
    let first = browser.get(&stage.url("/"));
    let second = browser.get(&stage.url("/"));
    let (one, other) = (stage.user_of(&first), stage.user_of(&second));
    assert_eq!((one.text("sub"), other.text("sub")), (Some("alice"), Some("alice")));
    let token = |page: &Page| upstream_header(page, "authorization");
    assert_ne!(token(&first), token(&second));
    // Requests that were sent with the cookie of before, to either worker, get what its refresh token was exchanged for,
    // once: the provider takes a second use for theft.
    assert!(at_once.iter().all(|page| token(page) == token(&first)));
}

fn requests_before_discovery_are_held(stage: &Stage, plugins: &str) {
    let _gateway = stage.gateway(&[plugins]);
    let url = stage.url("/");
    let held = std::thread::spawn(move || Browser::default().get(&url));
    let _provider = stage.provider(&[]);
    let page = held.join().unwrap();
    assert!(page.location().is_some_and(|location| location.starts_with(&stage.issuer())), "{page:?}");
}

//! Questions to the policy server, as acl-check asks them.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use jose::{Key, Keys, Signer, Token};

const SHARED: &str = "the policy server's shared key, of some length";
const PRIVATE: &str = include_str!("../../../../jose/tests/keys/rfc7515-a3-private.pem");
const PUBLIC: &str = include_str!("../../../../jose/tests/keys/rfc7515-a3.pem");
const JWK: &str = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;

struct Server {
    child: Child,
    address: String,
    folder: tempfile::TempDir,
}

impl Server {
    /// Starts it with a policy for alice, keys that verify [`jwt`], and more arguments.
    fn start(jwt_keys: Option<&str>, more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let policy = file("policy.json", r#"{"alice": ["read_data", "list"], "bob": []}"#);
        let keys = file("keys.pem", PUBLIC);
        let key = file("key", &format!("{SHARED}\n"));
        let mut command = program();
        command.env("POLICY_KEY", PRIVATE);
        command.args(["--listen", "127.0.0.1:0", "--policy", &policy, "--jwt-keys", jwt_keys.unwrap_or(&keys)]);
        if !more.iter().any(|argument| argument.starts_with("--key-")) {
            command.args(["--key-file", &key]);
        }
        let mut child = command.args(more).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim_end().strip_prefix("listening on http://").unwrap().to_owned();
        Self { child, address, folder }
    }

    fn policy(&self, text: &str) {
        std::fs::write(self.folder.path().join("policy.json"), text).unwrap();
    }

    /// Status, head and body of the answer to a GET with these lines in its head.
    fn ask(&self, lines: &str) -> (u16, String, String) {
        self.send(&format!("GET /token HTTP/1.1\r\nhost: policy\r\nconnection: close\r\n{lines}\r\n"))
    }

    fn send(&self, request: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), head.to_owned(), body.to_owned())
    }

    fn ask_with(&self, token: &str) -> (u16, String, String) {
        self.ask(&format!("authorization: Bearer {token}\r\n"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_policy-server"))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// What the provider would have signed for a subject.
fn jwt(subject: &str, more: &str) -> String {
    let claims = format!(r#"{{"sub":"{subject}","exp":{}{more}}}"#, now() + 60);
    Signer::from_pem(PRIVATE).unwrap().sign(&claims)
}

#[test]
fn a_subject_gets_a_signed_token_with_its_functions() {
    let server = Server::start(None, &["--lifetime", "20", "--issuer", "https://policy.example"]);
    let (status, head, body) = server.ask_with(&jwt("alice", ""));
    assert_eq!(status, 200, "{head}");
    assert!(head.contains("content-type: application/jwt"), "{head}");
    assert!(head.contains("cache-control: private, max-age=10"), "{head}");
    let keys = Keys::from(Key::shared(SHARED.as_bytes()).unwrap());
    let claims = Token::parse(&body).unwrap().verify(&keys).unwrap();
    assert_eq!(claims.texts("function"), Some(vec!["read_data", "list"]));
    assert_eq!((claims.text("sub"), claims.text("iss")), (Some("alice"), Some("https://policy.example")));
    let lifetime = claims.integer("exp").unwrap() - claims.integer("iat").unwrap();
    assert_eq!(lifetime, 20);
}

#[test]
fn the_key_to_sign_with_may_be_a_private_key_in_the_environment() {
    let server = Server::start(None, &["--key-env", "POLICY_KEY"]);
    let (status, _, body) = server.ask_with(&jwt("alice", ""));
    assert_eq!(status, 200);
    let claims = Token::parse(&body).unwrap().verify(&Keys::from(Key::from_pem(PUBLIC).unwrap())).unwrap();
    assert_eq!(claims.text("sub"), Some("alice"));
}

#[test]
fn a_subject_without_permissions_is_403() {
    let server = Server::start(None, &[]);
    for subject in ["bob", "mallory", "", "ALICE"] {
        assert_eq!(server.ask_with(&jwt(subject, "")).0, 403, "{subject}");
    }
}

#[test]
fn a_jwt_that_is_not_good_is_401() {
    let server = Server::start(None, &["--jwt-issuer", "https://idp.example", "--jwt-audience", "web"]);
    let good = jwt("alice", r#","iss":"https://idp.example","aud":["web"]"#);
    assert_eq!(server.ask_with(&good).0, 200);
    let signer = Signer::from_pem(PRIVATE).unwrap();
    let rest = r#""iss":"https://idp.example","aud":"web""#;
    for token in [
        "x".to_owned(),
        jwt("alice", r#","aud":"web""#),
        jwt("alice", r#","iss":"https://evil.example","aud":"web""#),
        jwt("alice", r#","iss":"https://idp.example","aud":"other""#),
        signer.sign(&format!(r#"{{"sub":"alice",{rest}}}"#)),
        signer.sign(&format!(r#"{{"sub":"alice","exp":1,{rest}}}"#)),
        signer.sign(&format!(r#"{{"exp":{},{rest}}}"#, now() + 60)),
        Signer::shared(PUBLIC.as_bytes()).unwrap().sign(&format!(r#"{{"sub":"alice","exp":{},{rest}}}"#, now() + 60)),
        format!("{}.{}.", good.split('.').next().unwrap(), good.split('.').nth(1).unwrap()),
    ] {
        let (status, head, body) = server.ask_with(&token);
        assert_eq!((status, body.as_str()), (401, ""), "{token}");
        assert!(head.contains(r#"www-authenticate: Bearer error="invalid_token""#), "{head}");
    }
    for lines in [
        String::new(),
        "authorization: Basic eDp5\r\n".to_owned(),
        format!("authorization: Bearer {good}\r\n").repeat(2),
    ] {
        assert_eq!(server.ask(&lines).0, 401, "{lines}");
    }
}

#[test]
fn a_policy_is_read_anew_and_one_that_is_broken_permits_nothing() {
    let server = Server::start(None, &[]);
    server.policy(r#"{"bob": ["read_data"]}"#);
    assert_eq!(server.ask_with(&jwt("alice", "")).0, 403);
    assert_eq!(server.ask_with(&jwt("bob", "")).0, 200);
    server.policy(r#"{"bob": "read_data"}"#);
    assert_eq!(server.ask_with(&jwt("bob", "")).0, 500);
}

#[test]
fn other_methods_are_405() {
    let server = Server::start(None, &[]);
    let request = "POST / HTTP/1.1\r\nhost: policy\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    assert_eq!(server.send(request).0, 405);
}

/// Serves a key set that the test may change; none is a 500.
fn provider() -> (String, Arc<Mutex<Option<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/jwks", listener.local_addr().unwrap());
    let set = Arc::new(Mutex::new(None::<String>));
    let served = Arc::clone(&set);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut line = String::new();
            while reader.read_line(&mut line).unwrap() > 2 {
                line.clear();
            }
            let answer = match served.lock().unwrap().as_ref() {
                Some(set) => format!("200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{set}", set.len()),
                None => "500 Gone\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned(),
            };
            let _ = stream.write_all(format!("HTTP/1.1 {answer}").as_bytes());
        }
    });
    (url, set)
}

#[test]
fn keys_are_fetched_when_they_are_needed_and_again_when_they_were_changed() {
    let (url, set) = provider();
    let server = Server::start(Some(&url), &[]);
    assert_eq!(server.ask_with(&jwt("alice", "")).0, 500, "there are no keys yet");
    *set.lock().unwrap() = Some(r#"{"keys":[]}"#.to_owned());
    assert_eq!(server.ask_with(&jwt("alice", "")).0, 401, "the key is not in the set");
    *set.lock().unwrap() = Some(format!(r#"{{"keys":[{JWK}]}}"#));
    assert_eq!(server.ask_with(&jwt("alice", "")).0, 200, "the key was added");
    *set.lock().unwrap() = None;
    assert_eq!(server.ask_with(&jwt("alice", "")).0, 200, "the provider is away, its keys are known");
    let token = jwt("alice", "");
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let other: String = signature.chars().rev().collect();
    assert_eq!(server.ask_with(&format!("{signed}.{other}")).0, 401, "the signature is another");
}

#[track_caller]
fn refused(arguments: &[&str], code: i32, part: &str) {
    let output = program().args(arguments).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(stderr.contains(part), "{stderr}");
    assert!(output.stdout.is_empty());
}

#[test]
fn it_does_not_start_without_what_it_needs() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (policy, keys, key) = (file("p.json", "{}"), file("k.pem", PUBLIC), file("key", SHARED));
    let with = |policy: &str, keys: &str, key: &str, code: i32, part: &str| {
        let arguments = ["--listen", "127.0.0.1:0", "--policy", policy, "--jwt-keys", keys, "--key-file", key];
        refused(&arguments, code, part);
    };
    let missing = Path::new("no/such/file").to_str().unwrap();
    with(missing, &keys, &key, 1, "error: failed to read no/such/file: ");
    with(&policy, missing, &key, 1, "error: failed to read no/such/file: ");
    with(&policy, &keys, missing, 1, "error: failed to read no/such/file: ");
    with(&file("broken.json", "[]"), &keys, &key, 1, "not an object of lists of strings");
    with(&policy, &file("empty", r#"{"keys":[]}"#), &key, 1, "no key of the set can be used");
    with(&policy, &file("private.pem", PRIVATE), &key, 1, "is a private key; give the public one");
    with(&policy, &keys, &file("short", "short"), 1, "the key to sign with has fewer than 16 bytes");
    with(&policy, &keys, &keys, 1, "the key to sign with is neither");
    refused(
        &["--policy", &policy, "--jwt-keys", &keys, "--key-env", "NOT_SET_ANYWHERE"],
        1,
        "`NOT_SET_ANYWHERE` is not set",
    );
    refused(&["--policy", &policy, "--jwt-keys", &keys], 2, "--key-file");
}

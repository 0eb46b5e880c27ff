//! The registry by the distribution specification's own requests, without our client.

#![expect(clippy::unwrap_used, reason = "what the tests share is not itself a test")]

use registry_tests::{Options, Registry};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use ureq::http::{Method, Request};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";

struct Answer {
    status: u16,
    headers: ureq::http::HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    #[track_caller]
    fn refused(&self, status: u16, code: &str) {
        assert_eq!((self.status, self.json()["errors"][0]["code"].as_str()), (status, Some(code)));
    }
}

struct Server {
    registry: Registry,
    agent: ureq::Agent,
}

impl Server {
    fn start(options: Options) -> Self {
        let config = ureq::Agent::config_builder().http_status_as_error(false).proxy(None).build();
        Self { registry: Registry::start(options).unwrap(), agent: config.new_agent() }
    }

    fn open() -> Self {
        Self::start(Options::default())
    }

    fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut request =
            Request::builder().method(Method::try_from(method).unwrap()).uri(format!("{}{path}", self.registry.url()));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = if matches!(method, "GET" | "HEAD" | "DELETE") {
            self.agent.run(request.body(()).unwrap())
        } else {
            self.agent.run(request.body(body).unwrap())
        };
        let (parts, mut body) = answer.unwrap().into_parts();
        Answer { status: parts.status.as_u16(), headers: parts.headers, body: body.read_to_vec().unwrap() }
    }

    fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], b"")
    }

    /// A blob in one POST.
    fn blob(&self, name: &str, bytes: &[u8]) -> String {
        let digest = digest(bytes);
        let answer = self.send("POST", &format!("/v2/{name}/blobs/uploads/?digest={digest}"), &[], bytes);
        assert_eq!(answer.status, 201);
        digest
    }

    fn manifest(&self, name: &str, reference: &str, manifest: &Value) -> Answer {
        let path = format!("/v2/{name}/manifests/{reference}");
        self.send("PUT", &path, &[("content-type", MANIFEST)], manifest.to_string().as_bytes())
    }

    /// A manifest with the empty configuration and no layers.
    fn artifact(&self, name: &str, more: &Value) -> Value {
        let config = self.blob(name, b"{}");
        let mut manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "layers": [],
            "config": {"mediaType": EMPTY, "digest": config, "size": 2}});
        manifest.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        manifest
    }
}

fn digest(bytes: &[u8]) -> String {
    let hex: Vec<String> = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{}", hex.concat())
}

#[test]
fn a_blob_comes_in_chunks_and_goes_out_in_ranges() {
    let server = Server::open();
    let started = server.send("POST", "/v2/a/b/blobs/uploads/", &[], b"");
    assert_eq!(started.status, 202);
    let location = started.header("location").to_owned();
    let chunk = |range: &str, body: &[u8]| server.send("PATCH", &location, &[("content-range", range)], body);
    let first = chunk("0-3", b"abcd");
    assert_eq!((first.status, first.header("range")), (202, "0-3"));
    assert_eq!(chunk("9-10", b"xy").status, 416, "chunks come in order");
    assert_eq!(server.get(&location).header("range"), "0-3");
    let id = location.split('?').next().unwrap();
    let wrong = server.send("PUT", &format!("{id}?digest={}", digest(b"other")), &[], b"ef");
    wrong.refused(400, "DIGEST_INVALID");
    server.get(&location).refused(404, "BLOB_UPLOAD_UNKNOWN");

    let digest = server.blob("a/b", b"abcdef");
    let path = format!("/v2/a/b/blobs/{digest}");
    let part = server.send("GET", &path, &[("range", "bytes=2-3")], b"");
    assert_eq!((part.status, part.body.as_slice(), part.header("content-range")), (206, &b"cd"[..], "bytes 2-3/6"));
    assert_eq!(server.send("GET", &path, &[("range", "bytes=9-")], b"").status, 416);
    let head = server.send("HEAD", &path, &[], b"");
    assert_eq!((head.status, head.header("content-length")), (200, "6"));
    assert_eq!(server.send("DELETE", &path, &[], b"").status, 202);
    server.get(&path).refused(404, "BLOB_UNKNOWN");
}

#[test]
fn a_blob_is_mounted_from_where_it_is_and_uploaded_otherwise() {
    let server = Server::open();
    let digest = server.blob("a", b"blob");
    server.get(&format!("/v2/b/blobs/{digest}")).refused(404, "BLOB_UNKNOWN");
    let mount = |from: &str| server.send("POST", &format!("/v2/b/blobs/uploads/?mount={digest}&from={from}"), &[], b"");
    assert_eq!(mount("nowhere").status, 202);
    assert_eq!(mount("a").status, 201);
    assert_eq!(server.get(&format!("/v2/b/blobs/{digest}")).body, b"blob");
}

#[test]
fn a_manifest_that_names_what_is_not_there_is_refused() {
    let server = Server::open();
    let good = server.artifact("x", &json!({}));
    let change = |pointer: &str, value: Value| {
        let mut manifest = good.clone();
        *manifest.pointer_mut(pointer).unwrap() = value;
        server.manifest("x", "t", &manifest)
    };
    change("/config/digest", json!(digest(b"absent"))).refused(400, "MANIFEST_BLOB_UNKNOWN");
    change("/config/size", json!(3)).refused(400, "MANIFEST_INVALID");
    change("/schemaVersion", json!(1)).refused(400, "MANIFEST_INVALID");
    change("/mediaType", json!("text/plain")).refused(400, "MANIFEST_INVALID");
    server.manifest("x", &digest(b"other"), &good).refused(400, "DIGEST_INVALID");
    server.manifest("x", "-bad-", &good).refused(400, "TAG_INVALID");
    server.manifest("X", "t", &good).refused(400, "NAME_INVALID");
    server.manifest("other", "t", &good).refused(400, "MANIFEST_BLOB_UNKNOWN");
    server.get("/v2/x/manifests/t").refused(404, "MANIFEST_UNKNOWN");
}

#[test]
fn manifests_are_found_by_tag_and_digest_until_they_are_deleted() {
    let server = Server::open();
    let manifest = server.artifact("x", &json!({}));
    let put = server.manifest("x", "t", &manifest);
    let digest = digest(manifest.to_string().as_bytes());
    assert_eq!((put.status, put.header("docker-content-digest")), (201, digest.as_str()));
    for reference in ["t", &digest] {
        let got = server.get(&format!("/v2/x/manifests/{reference}"));
        assert_eq!((got.header("content-type"), got.header("docker-content-digest")), (MANIFEST, digest.as_str()));
        assert_eq!(got.json(), manifest);
    }
    assert_eq!(server.send("DELETE", &format!("/v2/x/manifests/{digest}"), &[], b"").status, 202);
    server.get("/v2/x/manifests/t").refused(404, "MANIFEST_UNKNOWN");
}

#[test]
fn tags_are_listed_page_by_page() {
    let server = Server::open();
    server.get("/v2/x/tags/list").refused(404, "NAME_UNKNOWN");
    let manifest = server.artifact("x", &json!({}));
    for tag in ["c", "a", "b"] {
        server.manifest("x", tag, &manifest);
    }
    assert_eq!(server.get("/v2/x/tags/list").json(), json!({"name": "x", "tags": ["a", "b", "c"]}));
    let page = server.get("/v2/x/tags/list?n=2");
    assert_eq!(
        (page.json()["tags"].clone(), page.header("link")),
        (json!(["a", "b"]), "</v2/x/tags/list?n=2&last=b>; rel=\"next\"")
    );
    assert_eq!(server.get("/v2/x/tags/list?n=2&last=b").json()["tags"], json!(["c"]));
}

#[test]
fn referrers_are_listed_and_filtered_where_the_registry_knows_them() {
    let server = Server::open();
    let subject = digest(b"subject");
    let path = format!("/v2/x/referrers/{subject}");
    assert_eq!(server.get(&path).json()["manifests"], json!([]), "an empty list, not 404");
    for kind in ["application/a", "application/b"] {
        let subject = json!({"mediaType": MANIFEST, "digest": subject, "size": 7});
        let put = server.manifest(
            "x",
            kind.trim_start_matches("application/"),
            &server.artifact("x", &json!({"subject": subject, "artifactType": kind})),
        );
        assert_eq!(put.header("oci-subject"), digest(b"subject"));
    }
    assert_eq!(server.get(&path).json()["manifests"].as_array().unwrap().len(), 2);
    let filtered = server.get(&format!("{path}?artifactType=application%2Fb"));
    assert_eq!(filtered.header("oci-filters-applied"), "artifactType");
    assert_eq!(filtered.json()["manifests"][0]["artifactType"], "application/b");

    let old = Server::start(Options { referrers: false, ..Options::default() });
    assert_eq!(old.get(&path).status, 404);
}

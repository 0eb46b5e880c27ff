//! Proof by others: skopeo, Debian's registry and a real Envoy agree with what we package and how we run it.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use support::envoy::{Envoy, WasmFilter};
use support::registry::DockerRegistry;
use support::{Response, Server, command, dist, exchange, finish, plugwright, repository, request, upstream};

fn skopeo(arguments: &[&str]) -> String {
    finish(Command::new("skopeo").args(arguments)).fine().stdout
}

#[test]
fn skopeo_reads_the_layout_and_carries_it_through_a_registry_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let registry = DockerRegistry::start(folder.path());
    for name in ["basic-auth", "header-append"] {
        let source = format!("oci:{}:{name}", dist().display());
        let digest = skopeo(&["inspect", "--format", "{{.Digest}}", &source]);
        let remote = format!("docker://{}/by-skopeo/{name}:1", registry.address);
        let back = format!("oci:{}:{name}", folder.path().join("back").display());
        skopeo(&["copy", "--dest-tls-verify=false", &source, &remote]);
        skopeo(&["copy", "--src-tls-verify=false", &remote, &back]);
        assert_eq!(skopeo(&["inspect", "--format", "{{.Digest}}", &back]), digest);

        // What skopeo pushed we accept, and what we push skopeo finds under the same digest.
        let reference = format!("{}/by-skopeo/{name}:1", registry.address);
        plugwright(repository(), &["verify", &reference]).fine();
        let ours = format!("{}/by-us/{name}:1", registry.address);
        let pushed = plugwright(repository(), &["push", &source, &ours]).fine().stdout;
        assert_eq!(pushed.trim_end(), format!("{}/by-us/{name}@{}", registry.address, digest.trim_end()));
        let seen = skopeo(&["inspect", "--tls-verify=false", "--format", "{{.Digest}}", &format!("docker://{ours}")]);
        assert_eq!(seen, digest);
    }
}

#[test]
fn a_layout_that_lacks_a_blob_is_bad_and_nothing_of_it_is_published() {
    let folder = tempfile::tempdir().unwrap();
    let registry = DockerRegistry::start(folder.path());
    let layout = folder.path().join("layout");
    let (from, to) = (format!("oci:{}:basic-auth", dist().display()), format!("oci:{}:x", layout.display()));
    skopeo(&["copy", &from, &to]);
    let blobs = fs::read_dir(layout.join("blobs/sha256")).unwrap().map(|entry| entry.unwrap().path());
    let layer = blobs.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    fs::remove_file(&layer).unwrap();
    let place = format!("{}/x:1", registry.address);
    let hint = format!("hint: the layout {} is not whole", layout.display());
    let name = layer.file_name().unwrap().to_str().unwrap().to_owned();
    plugwright(repository(), &["push", &to, &place]).refused(1, &[&name, &hint]);
    plugwright(repository(), &["inspect", &place]).refused(1, &["not found"]);
}

#[test]
fn a_terminal_shows_a_bar_for_each_large_blob_and_ends_with_the_reference() {
    let folder = tempfile::tempdir().unwrap();
    let registry = DockerRegistry::start(folder.path());
    let text = r#"(module (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1"))
        (func (export "malloc") (param i32) (result i32) i32.const 0))"#;
    let mut module = wat::parse_str(text).unwrap();
    // A custom section of 4 MiB that no compression makes smaller.
    module.extend([0, 0x80, 0x80, 0x80, 0x02, 0]);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    module.extend((0..(4 << 20) - 1).map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    }));
    fs::write(folder.path().join("m.wasm"), module).unwrap();
    plugwright(folder.path(), &["package", "--module", "m.wasm", "--name", "m"]).fine();
    let push = format!("{} push m {}/m:1", env!("CARGO_BIN_EXE_cargo-plugwright"), registry.address);
    // It gives the command a terminal of its own.
    let mut script = Command::new("script");
    script.args(["-qfec", &push, "/dev/null"]).current_dir(folder.path()).stdin(Stdio::null());
    let shown = finish(&mut script).fine().stdout;
    assert!(shown.contains("sha256:") && shown.contains("/4.0") && shown.contains("MiB"), "{shown:?}");
    let last = shown.trim_end().rsplit(['\n', '\u{1b}']).next().unwrap();
    assert!(last.contains(&format!("{}/m@sha256:", registry.address)), "{shown:?}");
}

#[test]
fn inspect_tells_an_image_that_skopeo_pushed_in_dockers_format() {
    let folder = tempfile::tempdir().unwrap();
    let registry = DockerRegistry::start(folder.path());
    let source = format!("oci:{}:basic-auth", dist().display());
    let target = format!("docker://{}/p/basic-auth:1", registry.address);
    skopeo(&["copy", "--format", "v2s2", "--dest-tls-verify=false", &source, &target]);
    let digest = skopeo(&["inspect", "--tls-verify=false", "--format", "{{.Digest}}", &target]);
    let reference = format!("{}/p/basic-auth:1", registry.address);
    let text = plugwright(repository(), &["inspect", &reference]).fine().stdout;
    for line in [
        format!("reference    {reference}\n"),
        "variant      docker\n".to_owned(),
        format!("manifest     {digest}"),
        "language     Rust (by its runtime configuration)\n".to_owned(),
        "envoy        1.33 to 1.40: loads\n".to_owned(),
    ] {
        assert!(text.contains(&line), "`{line}` is not in:\n{text}");
    }
}

#[test]
fn umoci_unpacks_the_image_to_the_module() {
    let folder = tempfile::tempdir().unwrap();
    let image = format!("{}:basic-auth", dist().display());
    let bundle = folder.path().join("bundle");
    finish(Command::new("umoci").args(["stat", "--image", &image])).fine();
    finish(Command::new("umoci").args(["unpack", "--rootless", "--image", &image]).arg(&bundle)).fine();
    let unpacked = fs::read(bundle.join("rootfs/plugin.wasm")).unwrap();
    assert_eq!(unpacked, fs::read(pulled(folder.path(), "basic-auth")).unwrap());
    assert!(bundle.join("rootfs/runtime-config.json").is_file());
}

/// The module of a plugin as it comes back from a registry that the image was pushed to.
fn pulled(folder: &Path, name: &str) -> PathBuf {
    let registry = DockerRegistry::start(folder);
    let reference = format!("{}/plugins/{name}:test", registry.address);
    plugwright(repository(), &["push", &format!("oci:{}:{name}", dist().display()), &reference]).fine();
    let module = folder.join(format!("{name}.wasm"));
    plugwright(repository(), &["pull", &reference, "--output", module.to_str().unwrap()]).fine();
    module
}

const UPSTREAM: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-type: text/plain\r\nx-kept: upstream\r\n\
                        set-cookie: a=1\r\nset-cookie: b=2\r\n\r\nhello";

/// Headers whose values depend on the moment or on the proxy's build, not on the chain.
const INCIDENTAL: &[&str] = &["date", "x-envoy-upstream-service-time"];

/// Both proxies with the same module, configuration and upstream.
struct Pair {
    envoy: Envoy,
    harness: Server,
    _folder: tempfile::TempDir,
}

impl Pair {
    fn start(plugin: &str, configuration: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let module = pulled(folder.path(), plugin);
        let upstream = upstream(UPSTREAM);
        let filter = WasmFilter { name: plugin, module: &module, configuration };
        let envoy = Envoy::start(folder.path(), &[filter], upstream);
        let resource = folder.path().join("plugin.yaml");
        fs::write(&resource, wasm_plugin(plugin, configuration)).unwrap();
        let image = format!("oci://registry.example/{plugin}:1={}", module.display());
        let upstream = format!("http://{upstream}");
        let harness = Server::start(&mut command(
            folder.path(),
            &["run", "-f", "plugin.yaml", "--image", &image, "--listen", "127.0.0.1:0", "--upstream", &upstream],
        ));
        Self { envoy, harness, _folder: folder }
    }

    #[track_caller]
    fn same(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
        let envoy = request(&self.envoy.address, method, path, headers);
        let ours = request(self.harness.address(), method, path, headers);
        compare(envoy, ours, &format!("{method} {path} {headers:?}"))
    }

    #[track_caller]
    fn same_raw(&self, text: &str) -> Response {
        compare(exchange(&self.envoy.address, text), exchange(self.harness.address(), text), text)
    }
}

#[track_caller]
fn compare(mut envoy: Response, mut ours: Response, what: &str) -> Response {
    for response in [&mut envoy, &mut ours] {
        response.headers.retain(|(name, _)| !INCIDENTAL.contains(&name.as_str()));
        response.headers.sort_by(|one, two| one.0.cmp(&two.0));
    }
    assert_eq!(envoy, ours, "Envoy left, harness right, for {what}");
    ours
}

fn wasm_plugin(name: &str, configuration: &str) -> String {
    format!(
        "apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata: {{name: {name}}}\nspec:\n  \
         selector: {{matchLabels: {{app: web}}}}\n  url: oci://registry.example/{name}:1\n  phase: AUTHN\n  \
         pluginConfig: {configuration}\n"
    )
}

const BASIC_AUTH: &str = r#"{"basic_auth_rules":[{"credentials":["ok:test","YWRtaW4zOmFkbWluMw=="],"prefix":"/productpage","request_methods":["GET","POST"]},{"credentials":["x:y"],"exact":"/exact","hosts":["*.example.com","127.0.0.1"],"request_methods":["GET"]},{"credentials":["x:y"],"request_methods":["GET"],"suffix":".secret"}],"realm":"the \"mesh\""}"#;

#[test]
fn basic_auth_answers_alike_in_envoy_and_in_the_harness() {
    let pair = Pair::start("basic-auth", BASIC_AUTH);
    let ok = ("authorization", "Basic b2s6dGVzdA==");
    let admin = ("authorization", "Basic YWRtaW4zOmFkbWluMw==");
    let wrong = ("authorization", "Basic b2s6d3Jvbmc=");
    for (path, headers, status) in [
        ("/productpage", vec![], 401),
        ("/productpage", vec![ok], 200),
        ("/productpage", vec![admin], 200),
        ("/productpage", vec![wrong], 401),
        ("/productpage", vec![("authorization", "basic b2s6dGVzdA==")], 200),
        ("/productpage", vec![("authorization", "Bearer b2s6dGVzdA==")], 401),
        ("/productpage", vec![("authorization", "Basic !!!")], 401),
        ("/productpage", vec![("authorization", "")], 401),
        ("/productpage/1?x=y", vec![], 401),
        ("//productpage", vec![], 401),
        ("/./productpage", vec![], 401),
        ("/a/../productpage", vec![], 401),
        ("/%70roductpage", vec![], 401),
        ("/a/%2e%2E/productpage", vec![], 401),
        ("/exact?x", vec![], 401),
        ("/exact/more", vec![], 200),
        ("/a.secret?x=1", vec![], 401),
        ("/other", vec![], 200),
        ("/", vec![wrong], 200),
    ] {
        assert_eq!(pair.same("GET", path, &headers).status, status, "{path} {headers:?}");
    }
    assert_eq!(pair.same("POST", "/productpage", &[("content-length", "0")]).status, 401);
    assert_eq!(pair.same("DELETE", "/productpage", &[]).status, 200);
    assert_eq!(pair.same("HEAD", "/other", &[]).status, 200);
    let body = "POST /productpage HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello";
    assert_eq!(pair.same_raw(body).status, 401);
    let allowed = body.replace("host: x", "host: x\r\nauthorization: Basic b2s6dGVzdA==");
    assert_eq!(pair.same_raw(&allowed).body, b"hello");
    let mut denied = pair.same("GET", "/exact", &[("host", "EXAMPLE.com")]);
    denied.headers.retain(|(name, _)| name == "www-authenticate");
    assert_eq!(denied.headers, [("www-authenticate".to_owned(), r#"Basic realm="the \"mesh\"""#.to_owned())]);
}

#[test]
fn header_append_answers_alike_in_envoy_and_in_the_harness() {
    let configuration = r#"{"set-cookie":"c=3","x-first":"1","x-kept":"plugin","X-Upper":"Value"}"#;
    let pair = Pair::start("header-append", configuration);
    let response = pair.same("GET", "/", &[]);
    let values = |name: &str| -> Vec<String> {
        response.headers.iter().filter(|header| header.0 == name).map(|header| header.1.clone()).collect()
    };
    assert_eq!(values("x-kept"), ["upstream", "plugin"]);
    assert_eq!(values("set-cookie"), ["a=1", "b=2", "c=3"]);
    assert_eq!(values("x-upper"), ["Value"]);
    assert_eq!(response.body, b"hello");
}

#[test]
fn a_bad_configuration_is_refused_by_both_with_the_plugins_own_words() {
    let check = |plugin: &str, configuration: &str, message: &str| {
        let folder = tempfile::tempdir().unwrap();
        let module = pulled(folder.path(), plugin);
        let filter = WasmFilter { name: plugin, module: &module, configuration };
        let Err(log) = Envoy::try_start(folder.path(), &[filter], ([127, 0, 0, 1], 9).into()) else {
            panic!("Envoy accepted {configuration}");
        };
        assert!(log.contains(message), "{log}");
        fs::write(folder.path().join("plugin.yaml"), wasm_plugin(plugin, configuration)).unwrap();
        let image = format!("oci://registry.example/{plugin}:1={}", module.display());
        plugwright(folder.path(), &["run", "-f", "plugin.yaml", "--image", &image, "--listen", "127.0.0.1:0"])
            .refused(1, &[message]);
    };
    let rule = r#"{"basic_auth_rules":[{"credentials":["a:b"],"prefix":"/","request_methods":["GET"]},{"credentials":["not base64"],"prefix":"/","request_methods":["GET"]}]}"#;
    check("basic-auth", rule, "basic_auth_rules[1].credentials[0]: ");
    check("header-append", r#"{"x-ok":"1","x-bad":7}"#, "x-bad: ");
}

//! `migrate`: files, folders and standard input in, YAML out, and images repackaged on the way.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

mod support;

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use packager::layout::Layout;

use support::{Ended, Server, command, plugwright};

const EXTENSION: &str = "\
apiVersion: maistra.io/v1
kind: ServiceMeshExtension
metadata:
  name: header-append
  namespace: istio-system
spec:
  # which pods
  workloadSelector:
    labels:
      app: httpbin
  config:
    first-header: some-value
  image: quay.io/maistra-dev/header-append-filter:2.2
";
const IMAGE: &str = "oci://quay.io/maistra-dev/header-append-filter:2.2";
const PLACED: &str = "  phase: PostAuthZ\n  priority: 100\n";

/// A folder with the resource, and an image of Maistra's as `oci:old:hdr`.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("sme.yaml"), format!("{EXTENSION}{PLACED}")).unwrap();
    let text = r#"(module (memory (export "memory") 1)
        (func (export "proxy_abi_version_0_2_1")) (func (export "_initialize"))
        (func (export "malloc") (param i32) (result i32) i32.const 0))"#;
    fs::write(folder.path().join("m.wasm"), wat::parse_str(text).unwrap()).unwrap();
    let arguments =
        ["--module", "m.wasm", "--name", "hdr", "--format", "maistra", "--phase", "AUTHN", "--priority", "7"];
    plugwright(folder.path(), &[&["package", "--layout", "old"], &arguments[..]].concat()).fine();
    folder
}

#[track_caller]
fn migrate(folder: &Path, arguments: &[&str]) -> Ended {
    plugwright(folder, &[&["migrate", "-f"], arguments].concat())
}

/// With the text on standard input.
fn piped(folder: &Path, text: &str, arguments: &[&str]) -> Ended {
    let mut child = command(folder, &[&["migrate", "-f", "-"], arguments].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    Ended {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

const MIGRATED: &str = "\
apiVersion: extensions.istio.io/v1alpha1
kind: WasmPlugin
metadata:
  name: header-append
  namespace: istio-system
spec:
  # which pods
  selector:
    matchLabels:
      app: httpbin
  pluginConfig:
    first-header: some-value
  url: oci://quay.io/maistra-dev/header-append-filter:2.2
  phase: STATS
  priority: 100
";

#[test]
fn a_service_mesh_extension_is_printed_as_a_wasm_plugin_and_what_changes_is_said() {
    let folder = folder();
    let ended = migrate(folder.path(), &["sme.yaml"]).fine();
    assert_eq!(ended.stdout, MIGRATED);
    for words in [
        "note: sme.yaml:1: ServiceMeshExtension istio-system/header-append: its image must hold",
        "the priority is kept",
        "note: another chain: sidecar `httpbin` in namespace `istio-system`, outbound: before nothing, after `-> \
         istio-system/header-append`",
    ] {
        assert!(ended.stderr.contains(words), "{words}: {}", ended.stderr);
    }
    let kept = migrate(folder.path(), &["sme.yaml", "--keep-inbound"]).fine();
    assert_eq!(kept.stdout, format!("{MIGRATED}  match:\n  - mode: SERVER\n"));
    assert!(!kept.stderr.contains("another chain"), "{}", kept.stderr);
}

#[test]
fn files_folders_and_standard_input_give_the_same() {
    let folder = folder();
    let text = fs::read_to_string(folder.path().join("sme.yaml")).unwrap();
    assert_eq!(piped(folder.path(), &text, &[]).fine().stdout, MIGRATED);
    fs::create_dir(folder.path().join("resources")).unwrap();
    let other = "kind: ConfigMap # as it was\napiVersion: v1\n";
    fs::write(folder.path().join("resources/a.yaml"), other).unwrap();
    fs::write(folder.path().join("resources/b.yaml"), text).unwrap();
    assert_eq!(migrate(folder.path(), &["resources"]).fine().stdout, format!("{other}---\n{MIGRATED}"));
    // What was printed has nothing left to migrate, and goes through unchanged.
    let again = piped(folder.path(), MIGRATED, &[]).fine();
    assert_eq!(again.stdout, MIGRATED);
    assert!(again.stderr.contains("nothing to migrate"), "{}", again.stderr);
}

#[test]
fn a_traffic_extension_is_two_steps_away_and_namespaces_may_change() {
    let folder = folder();
    let arguments = ["sme.yaml", "--to", "TrafficExtension", "--namespace-map", "istio-system=mesh"];
    let stdout = migrate(folder.path(), &arguments).fine().stdout;
    for line in [
        "kind: TrafficExtension\n",
        "  namespace: mesh\n",
        "  wasm:\n    pluginConfig:\n      first-header: some-value\n",
    ] {
        assert!(stdout.contains(line), "{stdout}");
    }
}

#[test]
fn images_are_repackaged_and_their_manifest_fills_in_what_the_resource_leaves_out() {
    let folder = folder();
    fs::write(folder.path().join("bare.yaml"), EXTENSION).unwrap();
    let image = format!("{IMAGE}=oci:old:hdr");
    let ended = migrate(folder.path(), &["bare.yaml", "--images", "--image", &image, "--layout", "new"]).fine();
    assert!(ended.stdout.contains("  phase: AUTHN\n") && ended.stdout.contains("  priority: 7\n"), "{}", ended.stdout);
    let push = "push oci:new:header-append-filter quay.io/maistra-dev/header-append-filter:2.2";
    assert!(ended.stderr.contains(push), "{}", ended.stderr);
    let image = Layout::open(&folder.path().join("new")).unwrap().image("header-append-filter").unwrap();
    assert_eq!(packager::image::variant(&image).unwrap(), packager::image::Variant::Compat);
    let module = packager::image::extract_module(&image, 1 << 20).unwrap();
    assert_eq!(module, fs::read(folder.path().join("m.wasm")).unwrap());
    plugwright(folder.path(), &["verify", "oci:new:header-append-filter"]).fine();
}

#[test]
fn what_the_resource_says_comes_before_what_its_image_says() {
    let folder = folder();
    let image = format!("{IMAGE}=oci:old:hdr");
    let ended = migrate(folder.path(), &["sme.yaml", "--images", "--image", &image]).fine();
    assert_eq!(ended.stdout, MIGRATED);
}

#[test]
fn pushed_images_are_named_in_the_resources() {
    let folder = folder();
    let registry = Server::start(&mut command(folder.path(), &["registry", "--listen", "127.0.0.1:0"]));
    let prefix = format!("{}/plugins", registry.address());
    let image = format!("{IMAGE}=oci:old:hdr");
    let arguments = ["sme.yaml", "--images", "--image", &image, "--push", &prefix];
    let ended = migrate(folder.path(), &arguments).fine();
    let url = ended.stdout.lines().find_map(|line| line.strip_prefix("  url: ")).unwrap();
    assert!(url.starts_with(&format!("oci://{prefix}/header-append-filter:2.2@sha256:")), "{url}");
    plugwright(folder.path(), &["verify", url]).fine();
}

#[test]
fn bad_input_is_refused_as_a_whole_and_nothing_is_written() {
    let folder = folder();
    let path = folder.path();
    let two = format!("{EXTENSION}  phase: AUTHN\n---\n{EXTENSION}  priorty: 1\n");
    let ended = piped(path, &two.replace("httpbin", "web*"), &[]).refused(
        1,
        &["-:14:10: `spec.phase`: `AUTHN` is not one of PreAuthN", "-:29:3: `spec.priorty`: unknown field"],
    );
    assert_eq!(ended.stdout, "");
    let wild = format!("{EXTENSION}{PLACED}").replace("httpbin", "\"web*\"");
    let image = format!("{IMAGE}=oci:old:hdr");
    let ended = piped(path, &wild, &["--images", "--image", &image])
        .refused(1, &["failed to migrate: -:1:1: `spec.selector.matchLabels.app`: `web*` has a `*`"]);
    assert_eq!(ended.stdout, "");
    assert!(!path.join("dist").exists());
    migrate(path, &["none.yaml"]).refused(3, &["none.yaml"]);
    migrate(path, &["sme.yaml", "--images", "--image", &format!("{IMAGE}=oci:old:none")]).refused(1, &["none"]);
    migrate(path, &["sme.yaml", "--images", "--image", &format!("{IMAGE}=file:sme.yaml")]).refused(1, &["sme.yaml"]);
    let pinned = format!("{EXTENSION}{PLACED}").replace(":2.2", &format!("@sha256:{}", "a".repeat(64)));
    piped(path, &pinned, &["--images"]).refused(2, &["is pinned to a digest", "--push"]);
    for arguments in [
        &["sme.yaml", "--to", "ServiceMeshExtension"][..],
        &["sme.yaml", "--namespace-map", "a"],
        &["sme.yaml", "--namespace-map", "a=b", "--namespace-map", "a=c"],
        &["sme.yaml", "--push", "h/x"],
        &["sme.yaml", "--images", "--image", "oci://h/other:1=oci:old:hdr"],
        &[],
    ] {
        migrate(path, arguments).refused(2, &[]);
    }
    assert!(!path.join("dist").exists());
}

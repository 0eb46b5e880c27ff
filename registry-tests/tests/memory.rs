//! A module of 256 MiB is packaged, pushed, pulled and fetched into a file in less than 40 MiB: each in a process of its
//! own, whose peak is looked at.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a program that stops at the first thing wrong")]

#[path = "support/mod.rs"]
#[expect(dead_code, reason = "other suites use the rest")]
mod support;

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use oci_spec::image::Descriptor;
use packager::blob::{Blob, Content};
use packager::digest::Digest;
use packager::fetch::{FetchOptions, fetch_module_to};
use packager::image::{CheckedModule, Metadata, Variant, package};
use packager::layout::Layout;
use packager::module::{EnvoyVersion, Source};
use registry_tests::Registry;

use support::{LAYER, client, image_of, reference};

const SIZE: usize = 256 << 20;
const LIMIT_KIB: u64 = 40 * 1024;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["push", layout, host] => push(Path::new(layout), host),
        ["pull", layout, host] => pull(Path::new(layout), host),
        ["package", layout, module] => package_module(Path::new(layout), Path::new(module)),
        ["fetch", file, what] => fetch(Path::new(file), what),
        // Whatever a test runner passes.
        _ => measure(),
    }
}

fn push(layout: &Path, host: &str) {
    let image = Layout::open(layout).unwrap().image("large").unwrap();
    client().push(&image, &reference(host, "acme/large:t")).unwrap();
    println!("{}", peak());
}

fn pull(layout: &Path, host: &str) {
    let layout = Layout::open_or_create(layout).unwrap();
    let staging = layout.staging().unwrap();
    let image = client().pull(&reference(host, "acme/large:t"), staging.path()).unwrap();
    layout.put_staged(&image, "large", &staging).unwrap();
    println!("{}", peak());
}

fn package_module(layout: &Path, module: &Path) {
    let metadata = Metadata { name: "module".to_owned(), ..Metadata::default() };
    let module = CheckedModule::new("module", Source::File(module), EnvoyVersion::NEWEST).unwrap();
    let layout = Layout::open_or_create(layout).unwrap();
    package(Variant::Compat, &metadata, &module, &layout, "module").unwrap();
    println!("{}", peak());
}

fn fetch(file: &Path, what: &str) {
    let (_, size) = fetch_module_to(file, &what.parse().unwrap(), None, &FetchOptions::new(client())).unwrap();
    assert!(size > 255 << 20);
    println!("{}", peak());
}

/// In KiB: `VmHWM` of this process.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn measure() {
    let registry = Registry::start(registry_tests::Options::default()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    let made = Layout::open_or_create(&from).unwrap();
    made.put(&image_of(vec![large(&folder.path().join("large"))]), "large").unwrap();
    ran("push", &from, &registry.host());
    ran("pull", &to, &registry.host());
    let (sent, came) = (made.image("large").unwrap(), Layout::open(&to).unwrap().image("large").unwrap());
    assert_eq!(sent.digest(), came.digest());
    came.layers[0].open().unwrap().finish().unwrap();

    // Noise in a custom section, and in a data section, which validation has to look into.
    for (name, before) in [("custom", &b"\0\0"[..]), ("data", b"\x0b\x01\x01")] {
        let path = folder.path().join(name);
        module(&path, before);
        let (layout, back) = (folder.path().join("packaged").join(name), folder.path().join("back"));
        std::fs::create_dir_all(layout.parent().unwrap()).unwrap();
        ran("package", &layout, path.to_str().unwrap());
        ran("fetch", &back, &format!("oci:{}:module", layout.display()));
        assert_eq!(digest(&path), digest(&back), "{name}");
        let place = reference(&registry.host(), &format!("acme/{name}:t"));
        client().push(&Layout::open(&layout).unwrap().image("module").unwrap(), &place).unwrap();
        ran("fetch", &back, &place.to_string());
        assert_eq!(digest(&path), digest(&back), "{name}");
    }
}

fn digest(path: &Path) -> Digest {
    Digest::of_reader(std::fs::File::open(path).unwrap()).unwrap().0
}

fn ran(operation: &str, path: &Path, other: &str) {
    let mut child = Command::new(std::env::current_exe().unwrap());
    let output = child.arg(operation).arg(path).arg(other).output().unwrap();
    assert!(output.status.success(), "{operation}: {}", String::from_utf8_lossy(&output.stderr));
    let peak: u64 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
    println!("{operation} of {} MiB: {} MiB at most", SIZE >> 20, peak >> 10);
    assert!(peak < LIMIT_KIB, "{operation} takes {peak} KiB, more than {LIMIT_KIB}");
}

/// A module that Envoy loads, almost as large as Istio takes it: a section of noise at its end, whose identifier and
/// content begin with `before`.
fn module(path: &Path, before: &[u8]) {
    let text = "(module (memory (export \"memory\") 1) (func (export \"proxy_abi_version_0_2_1\"))
        (func (export \"malloc\") (param i32) (result i32) i32.const 0))";
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
    file.write_all(&wat::parse_str(text).unwrap()).unwrap();
    let size = SIZE - (64 << 10);
    let leb = |value: usize| {
        [value | 0x80, value >> 7 | 0x80, value >> 14 | 0x80, value >> 21].map(|byte| byte.to_le_bytes()[0])
    };
    // Of a data segment the size comes before its bytes.
    let sized = if before.len() > 2 { leb(size).to_vec() } else { Vec::new() };
    let section = [&before[..1], &leb(before.len() - 1 + sized.len() + size), &before[1..], &sized].concat();
    file.write_all(&section).unwrap();
    noise(&mut file, size);
    file.flush().unwrap();
}

fn noise(into: &mut impl std::io::Write, size: usize) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..size / 8 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        into.write_all(&state.to_le_bytes()).unwrap();
    }
}

/// A file that no registry can make smaller.
fn large(path: &Path) -> Blob {
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
    noise(&mut file, SIZE);
    file.flush().unwrap();
    let (digest, size) = Digest::of_reader(std::fs::File::open(path).unwrap()).unwrap();
    let digest: oci_spec::image::Digest = digest.as_str().parse().unwrap();
    Blob { descriptor: Descriptor::new(LAYER.into(), size, digest), content: Content::File(path.to_owned()) }
}

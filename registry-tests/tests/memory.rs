//! A module of 256 MiB is pushed and pulled in less than 40 MiB: each in a process of its own, whose peak is looked at.

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
use packager::layout::Layout;
use registry_tests::Registry;

use support::{LAYER, client, image_of, reference};

const SIZE: usize = 256 << 20;
const LIMIT_KIB: u64 = 40 * 1024;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["push", layout, host] => push(Path::new(layout), host),
        ["pull", layout, host] => pull(Path::new(layout), host),
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
    for (operation, layout) in [("push", &from), ("pull", &to)] {
        let mut child = Command::new(std::env::current_exe().unwrap());
        let output = child.arg(operation).arg(layout).arg(registry.host()).output().unwrap();
        assert!(output.status.success(), "{operation}: {}", String::from_utf8_lossy(&output.stderr));
        let peak: u64 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
        println!("{operation} of {} MiB: {} MiB at most", SIZE >> 20, peak >> 10);
        assert!(peak < LIMIT_KIB, "{operation} takes {peak} KiB, more than {LIMIT_KIB}");
    }
    let (sent, came) = (made.image("large").unwrap(), Layout::open(&to).unwrap().image("large").unwrap());
    assert_eq!(sent.digest(), came.digest());
    came.layers[0].open().unwrap().finish().unwrap();
}

/// A file that no registry can make smaller.
fn large(path: &Path) -> Blob {
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..SIZE / 8 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        file.write_all(&state.to_le_bytes()).unwrap();
    }
    file.flush().unwrap();
    let (digest, size) = Digest::of_reader(std::fs::File::open(path).unwrap()).unwrap();
    let digest: oci_spec::image::Digest = digest.as_str().parse().unwrap();
    Blob { descriptor: Descriptor::new(LAYER.into(), size, digest), content: Content::File(path.to_owned()) }
}

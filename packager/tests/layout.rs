//! Layouts under `kill -9`: the writer is a process of its own, this test's executable started again.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use packager::blob::Image;
use packager::image::{Metadata, Variant, assemble, extract_module};
use packager::layout::Layout;
use packager::module::{EnvoyVersion, MAX_MODULE_SIZE};

const FOLDER: &str = "PLUGWRIGHT_TEST_LAYOUT";

/// Two images that differ in all blobs.
fn images() -> [Image; 2] {
    let image = |byte: &str| {
        let module = wat::parse_str(format!(
            r#"(module (memory (export "memory") 1) (data (i32.const 0) "{}")
                (func (export "proxy_abi_version_0_2_1"))
                (func (export "malloc") (param i32) (result i32) i32.const 0))"#,
            byte.repeat(50_000)
        ))
        .unwrap();
        let metadata = Metadata { name: byte.to_owned(), ..Metadata::default() };
        assemble(Variant::Compat, &metadata, &module, EnvoyVersion::NEWEST).unwrap()
    };
    [image("a"), image("b")]
}

/// In the child: replace one image by the other until killed. In the test run itself: nothing.
#[test]
fn writer() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let images = images();
    let layout = Layout::open_or_create(Path::new(&folder)).unwrap();
    for image in images.iter().cycle() {
        layout.put(image, "plugin").unwrap();
        println!("put");
    }
}

fn start(folder: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "writer", "--nocapture"]).env(FOLDER, folder);
    command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

fn stop(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_writer_killed_at_any_moment_leaves_a_layout_that_can_be_read_and_written() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("dist");
    let digests = images().map(|image| image.digest());
    let mut seen = [0; 2];
    for round in 0..40_u64 {
        let mut child = start(&folder);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        lines.by_ref().map_while(Result::ok).find(|line| line.ends_with("put")).expect("the writer puts");
        // Spread over the phases of a put, which takes milliseconds.
        std::thread::sleep(Duration::from_micros(173 * round));
        stop(child);

        let layout = Layout::open(&folder).unwrap();
        let image = layout.image("plugin").unwrap();
        seen[digests.iter().position(|digest| *digest == image.digest()).unwrap()] += 1;
        extract_module(&image, MAX_MODULE_SIZE).unwrap();
        image.config.read(1 << 20).unwrap();
    }
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
    Layout::open(&folder).unwrap().put(&images()[0], "plugin").unwrap();
    let names = walk(&folder);
    assert_eq!(names.len(), 3 + 3, "marker, index, lock and three blobs: {names:?}");
}

#[test]
fn a_creation_killed_at_any_moment_is_finished_by_the_next() {
    let temporary = tempfile::tempdir().unwrap();
    for round in 0..40_u64 {
        let folder = temporary.path().join(round.to_string());
        let child = start(&folder);
        while !folder.exists() {
            std::thread::yield_now();
        }
        std::thread::sleep(Duration::from_micros(40 * round));
        stop(child);
        let layout = Layout::open_or_create(&folder).unwrap();
        layout.put(&images()[0], "plugin").unwrap();
        assert_eq!(layout.entries().unwrap().len(), 1);
    }
}

fn walk(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            names.extend(walk(&path));
        } else {
            names.push(path.display().to_string());
        }
    }
    names
}

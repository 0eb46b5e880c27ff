//! What packaging one module costs, step by step: `cargo bench -p packager`.
//!
//! Takes the modules in `target/plugins`, where there are any, else one of the usual size that it makes up.

#![expect(clippy::print_stdout, clippy::expect_used, reason = "a benchmark prints, or fails")]

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use packager::digest::Digest;
use packager::image::{Metadata, Variant, assemble, extract_module};
use packager::layout::Layout;
use packager::module::{self, EnvoyVersion, MAX_MODULE_SIZE};

const ROUNDS: usize = 51;

fn median(mut work: impl FnMut()) -> Duration {
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let started = Instant::now();
            work();
            started.elapsed()
        })
        .collect();
    times.sort();
    times[ROUNDS / 2]
}

/// A module with a code section of about 140 kB that compresses as code does.
fn made_up() -> Vec<u8> {
    use std::fmt::Write as _;
    let mut text = String::from(
        "(module (memory (export \"memory\") 1) (func (export \"proxy_abi_version_0_2_1\")) (func (export \"_initialize\"))\
         (func (export \"proxy_on_memory_allocate\") (param i32) (result i32) (i32.const 8))",
    );
    let mut seed = 1u32;
    for _ in 0..1000 {
        text.push_str("(func (param i32) (result i32) (local i32) local.get 0");
        for _ in 0..24 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let _ = write!(text, " i32.const {} i32.add", (seed >> 8) & 0xffff);
        }
        text.push(')');
    }
    text.push(')');
    wat::parse_str(text).expect("the text is a module")
}

fn main() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/plugins");
    let mut modules: Vec<(String, Vec<u8>)> = ["basic-auth", "header-append"]
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), std::fs::read(folder.join(format!("{name}.wasm"))).ok()?)))
        .collect();
    if modules.is_empty() {
        modules.push(("made up".to_owned(), made_up()));
    }
    println!("median of {ROUNDS}; ms");
    println!(
        "{:<14} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}",
        "module", "bytes", "hash", "check", "assemble", "put", "extract"
    );
    for (name, module) in modules {
        let metadata = Metadata { name: name.clone(), ..Metadata::default() };
        let scratch = tempfile::tempdir().expect("a temporary folder");
        let layout = Layout::open_or_create(&scratch.path().join("dist")).expect("a layout");
        let make = || assemble(Variant::Compat, &metadata, &module, EnvoyVersion::NEWEST).expect("an image");
        let image = make();
        let steps = [
            median(|| drop(black_box(Digest::of(&module)))),
            median(|| drop(black_box(module::check(&module, EnvoyVersion::NEWEST)))),
            median(|| drop(black_box(make()))),
            median(|| drop(black_box(layout.put(&image, &name).expect("an entry")))),
            median(|| drop(black_box(extract_module(&image, MAX_MODULE_SIZE).expect("a module")))),
        ];
        let cells: Vec<String> = steps.iter().map(|time| format!("{:>8.2}", time.as_secs_f64() * 1e3)).collect();
        println!("{name:<14} {:>8} {}", module.len(), cells.join(" "));
    }
}

//! Creating, pushing and pulling images, beside the tools that others use for it.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::measure::{Figures, median, once};
use crate::report::{Failure, data, note};
use crate::{environment, tools};

/// Create, push and pull images over loopback, beside crane, skopeo, buildah, umoci and wkg.
///
/// Prints a markdown table: median wall time and peak memory of the largest process, and both as ratios to ours. Of umoci
/// only the step that adds the module is counted, and crane is given a tar to make its image of. wkg has no images apart
/// from what it pushes. The first time it is compiled, which takes minutes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How often each is run; the median counts.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
}

const BIG: usize = 64 << 20;

/// One module to move about.
struct Module {
    name: &'static str,
    file: String,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let Some(root) = Path::new(env!("CARGO_MANIFEST_DIR")).parent().filter(|root| root.join(".ci/run").is_file())
    else {
        return Err(Failure::usage("`bench` measures Plugwright itself: run it in a checkout"));
    };
    let folder = root.join("target/tools");
    let wkg = tools::wkg(&folder)?;
    let ours = build(root, &["--package", "xtask", "--bin", "cargo-plugwright"], "cargo-plugwright")?;
    let measure = build(root, &["--package", "xtask", "--example", "measure"], "measure")?;
    let bench = Bench::new(&ours, measure, &wkg, &tools::newer_programs(&folder))?;
    let modules = bench.modules(root)?;
    data(format!("| task | {} |", modules.iter().map(|module| module.name).collect::<Vec<_>>().join(" | ")));
    data(format!("|---|{}", "---|".repeat(modules.len())));
    for task in ["create", "push", "pull"] {
        let mut columns: Vec<Vec<(&'static str, Figures)>> = Vec::new();
        for module in &modules {
            note(format!("{task}, {}", module.name));
            columns.push(bench.column(task, module, args.rounds)?);
        }
        for (row, (tool, _)) in columns.first().into_iter().flatten().enumerate() {
            let cells = columns.iter().filter_map(|column| Some(cell(column.get(row)?.1, column.first()?.1)));
            data(format!("| {task}: {tool} | {} |", cells.collect::<Vec<_>>().join(" | ")));
        }
    }
    Ok(())
}

/// Time and memory, each with how often ours it is.
#[expect(clippy::cast_precision_loss, reason = "KiB of memory are far below 2^52")]
fn cell(figures: Figures, ours: Figures) -> String {
    let mut text = format!("{:.3} s", figures.time.as_secs_f64());
    let _ = write!(text, " (×{:.2})", figures.time.as_secs_f64() / ours.time.as_secs_f64());
    let _ = write!(
        text,
        ", {:.0} MiB (×{:.2})",
        figures.memory as f64 / 1024.0,
        figures.memory as f64 / ours.memory as f64
    );
    text
}

/// A program of ours as users have it.
fn build(root: &Path, what: &[&str], name: &str) -> Result<PathBuf, Failure> {
    note(format!("building {name} in release"));
    let mut command = Command::new(environment::cargo());
    command.current_dir(root).args(["build", "--release", "--quiet", "--message-format", "json"]).args(what);
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| Failure::environment(format!("failed to run cargo: {error}")))?;
    let found = output.stdout.split(|byte| *byte == b'\n').find_map(|line| {
        let message: serde_json::Value = serde_json::from_slice(line).ok()?;
        (message.pointer("/target/name")? == name).then_some(())?;
        Some(PathBuf::from(message.get("executable")?.as_str()?))
    });
    found
        .filter(|_| output.status.success())
        .ok_or_else(|| Failure::environment(format!("cargo could not build {name}")))
}

struct Bench {
    folder: tempfile::TempDir,
    measure: PathBuf,
    ours: String,
    crane: String,
    umoci: String,
    wkg: String,
    registry: Registry,
}

fn io(error: std::io::Error) -> Failure {
    Failure::environment(error).context("the benchmark's folder")
}

impl Bench {
    fn new(ours: &Path, measure: PathBuf, wkg: &Path, newer: &Path) -> Result<Self, Failure> {
        let program = |name: &str| {
            let path = newer.join(name);
            if path.is_file() {
                return Ok(path.display().to_string());
            }
            Err(Failure::environment(format!("there is no {}", path.display())).hint("cargo xtask ci --prepare"))
        };
        for name in ["skopeo", "buildah", "docker-registry", "tar"] {
            if environment::on_path(name).is_none() {
                return Err(Failure::environment(format!("`{name}` is missing")).hint("cargo xtask ci --prepare"));
            }
        }
        // buildah reads layouts only where the path is like a repository's name.
        let name = format!("plugwright-bench-{}", std::process::id());
        let folder = tempfile::Builder::new().prefix(&name).rand_bytes(0).tempdir().map_err(io)?;
        std::fs::write(folder.path().join("config.json"), "{}").map_err(io)?;
        let registry = Registry::start(folder.path())?;
        let (crane, umoci) = (program("crane")?, program("umoci")?);
        let (ours, wkg) = (ours.display().to_string(), wkg.display().to_string());
        Ok(Self { folder, measure, ours, crane, umoci, wkg, registry })
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Modules of the three sizes. The big ones are a small module with a custom section behind it.
    fn modules(&self, root: &Path) -> Result<Vec<Module>, Failure> {
        let small = self.path("plugin.wasm");
        let built = std::fs::read_dir(root.join("target/plugins"))
            .ok()
            .and_then(|mut entries| entries.find_map(|e| e.ok().map(|e| e.path()).filter(|p| is_wasm(p))));
        let Some(built) = built else {
            return Err(Failure::environment("there is no plugin in target/plugins").hint("cargo xtask build"));
        };
        let mut module = std::fs::read(&built).map_err(io)?;
        std::fs::write(&small, &module).map_err(io)?;
        let mut random = module.clone();
        random.extend(section(&noise(BIG)));
        let program = std::fs::read(&self.ours).map_err(io)?;
        let code: Vec<u8> = program.iter().copied().cycle().take(BIG).collect();
        module.extend(section(&code));
        std::fs::write(self.path("random.wasm"), random).map_err(io)?;
        std::fs::write(self.path("code.wasm"), module).map_err(io)?;
        Ok(vec![
            Module { name: "plugin", file: small },
            Module { name: "64 MiB random", file: self.path("random.wasm") },
            Module { name: "64 MiB code-like", file: self.path("code.wasm") },
        ])
    }

    /// One task with one module, tool by tool; ours first. Rounds go round the tools, so that a slow moment of the
    /// machine is not one tool's alone.
    fn column(&self, task: &str, module: &Module, rounds: u16) -> Result<Vec<(&'static str, Figures)>, Failure> {
        let source = self.path("source");
        let create = [&self.ours, "package", "--module", &module.file, "--name", "image", "--layout", &source];
        self.untimed(&create)?;
        let mut tools = vec!["ours"];
        tools.extend(match task {
            "create" => vec!["crane", "umoci", "buildah"],
            _ => vec!["crane", "skopeo", "buildah", "wkg"],
        });
        let mut runs: Vec<Vec<Figures>> = tools.iter().map(|_| Vec::new()).collect();
        for round in 0..rounds {
            for (tool, runs) in tools.iter().zip(&mut runs) {
                runs.push(self.timed(task, tool, module, &source, round)?);
            }
        }
        Ok(tools.into_iter().zip(runs.iter().filter_map(|runs| median(runs))).collect())
    }

    /// One run, with what has to be there before and is gone afterwards.
    fn timed(&self, task: &str, tool: &str, module: &Module, source: &str, round: u16) -> Result<Figures, Failure> {
        let out = self.path("out");
        let storage = self.path("storage");
        for folder in [&out, &storage] {
            let path = Path::new(folder);
            if path.is_dir() {
                std::fs::remove_dir_all(path).map_err(io)?;
            } else if path.exists() {
                std::fs::remove_file(path).map_err(io)?;
            }
        }
        // A registry that has the blobs already would make each push but the first free.
        self.registry.empty().map_err(io)?;
        let image = format!("{}/bench/{tool}:r{round}", self.registry.host);
        let remote = format!("docker://{image}");
        let (layout, run_root) = (format!("oci:{source}:image"), self.path("run"));
        let buildah = ["buildah", "--storage-driver", "vfs", "--root", &storage, "--runroot", &run_root];
        if task == "pull" {
            self.untimed(&[&self.ours, "push", &layout, &image])?;
        }
        let target = format!("oci:{out}:image");
        let command: Vec<&str> = match (task, tool) {
            ("create", "ours") => {
                vec![&self.ours, "package", "--module", &module.file, "--name", "image", "--layout", &out]
            }
            ("create", "crane") => {
                let (folder, archive) = (self.path("tar"), self.path("layer.tar"));
                std::fs::create_dir_all(&folder).map_err(io)?;
                std::fs::copy(&module.file, Path::new(&folder).join("plugin.wasm")).map_err(io)?;
                self.untimed(&["tar", "-cf", &archive, "-C", &folder, "plugin.wasm"])?;
                let append =
                    [&self.crane, "append", "--oci-empty-base", "-f", &archive, "-t", "bench/image:r0", "-o", &out];
                return self.once(&append);
            }
            ("create", "umoci") => {
                let name = format!("{out}:image");
                self.untimed(&[&self.umoci, "init", "--layout", &out])?;
                self.untimed(&[&self.umoci, "new", "--image", &name])?;
                return self.once(&[&self.umoci, "insert", "--image", &name, &module.file, "/plugin.wasm"]);
            }
            ("create", _) => {
                let script = format!(
                    "c=$({0} from scratch) && {0} copy \"$c\" '{1}' /plugin.wasm && {0} commit -q \"$c\" '{target}'",
                    buildah.join(" "),
                    module.file
                );
                return self.once(&["sh", "-c", &script]);
            }
            ("push", "ours") => vec![&self.ours, "push", &layout, &image],
            ("push", "crane") => {
                // It takes a layout that holds one image.
                vec![&self.crane, "push", source, &image]
            }
            ("push", "skopeo") => vec!["skopeo", "copy", "--quiet", "--dest-tls-verify=false", &layout, &remote],
            ("push", "wkg") => vec![&self.wkg, "oci", "push", "--insecure", &self.registry.host, &image, &module.file],
            ("push", _) => {
                self.untimed(&join(&buildah, &["pull", "--quiet", &layout]))?;
                let list = self.path("id");
                self.untimed(&["sh", "-c", &format!("{} images -q --no-trunc > '{list}'", buildah.join(" "))])?;
                let id = std::fs::read_to_string(&list).map_err(io)?;
                return self.once(&join(&buildah, &["push", "--quiet", "--tls-verify=false", id.trim(), &remote]));
            }
            (_, "ours") => vec![&self.ours, "pull", &image, "--layout", &out],
            (_, "crane") => vec![&self.crane, "pull", "--format", "oci", &image, &out],
            (_, "skopeo") => vec!["skopeo", "copy", "--quiet", "--src-tls-verify=false", &remote, &target],
            (_, "wkg") => {
                self.untimed(&[&self.wkg, "oci", "push", "--insecure", &self.registry.host, &image, &module.file])?;
                vec![&self.wkg, "oci", "pull", "--insecure", &self.registry.host, &image, "--output", &out]
            }
            (_, _) => join(&buildah, &["pull", "--quiet", "--tls-verify=false", &image]),
        };
        self.once(&command)
    }

    fn once(&self, arguments: &[&str]) -> Result<Figures, Failure> {
        let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        once(&self.measure, &arguments, self.folder.path())
    }

    fn untimed(&self, arguments: &[&str]) -> Result<(), Failure> {
        self.once(arguments).map(drop)
    }
}

fn join<'a>(one: &[&'a str], other: &[&'a str]) -> Vec<&'a str> {
    [one, other].concat()
}

fn is_wasm(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "wasm")
}

/// A custom section named `x`.
fn section(content: &[u8]) -> Vec<u8> {
    let mut section = vec![0];
    let mut size = content.len() + 2;
    while size >= 0x80 {
        section.push(u8::try_from(size & 0x7f).unwrap_or(0) | 0x80);
        size >>= 7;
    }
    section.push(u8::try_from(size).unwrap_or(0));
    section.extend([1, b'x']);
    section.extend_from_slice(content);
    section
}

/// Bytes that do not compress (xorshift).
fn noise(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.take(size / 8).flatten().collect()
}

/// Debian's docker-registry on a free port. It is killed when dropped.
struct Registry {
    child: Child,
    host: String,
    root: PathBuf,
}

impl Registry {
    fn start(folder: &Path) -> Result<Self, Failure> {
        let (configuration, root) = (folder.join("registry.yml"), folder.join("registry"));
        let text = format!(
            "version: 0.1\nlog: {{level: info, formatter: json}}\nhttp: {{addr: '127.0.0.1:0'}}\n\
             storage: {{filesystem: {{rootdirectory: '{}'}}}}\n",
            root.display()
        );
        std::fs::write(&configuration, text).map_err(io)?;
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&configuration).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let failed = |reason: &str| Failure::environment(format!("docker-registry: {reason}"));
        let mut child = command.spawn().map_err(|error| failed(&error.to_string()))?;
        let log = child.stderr.take().ok_or_else(|| failed("it has no log"))?;
        let mut lines = BufReader::new(log).lines().map_while(Result::ok);
        let host = lines.find_map(|line| {
            let (_, address) = line.split_once("listening on ")?;
            address.split(|c: char| !matches!(c, '.' | ':' | '0'..='9')).next().map(str::to_owned)
        });
        // It blocks once nobody reads what it logs.
        std::thread::spawn(move || lines.count());
        match host {
            Some(host) => Ok(Self { child, host, root }),
            None => {
                let _ = child.wait();
                Err(failed("it does not say where it listens"))
            }
        }
    }

    /// Forget everything. It looks at its files anew with each request.
    fn empty(&self) -> std::io::Result<()> {
        if self.root.exists() { std::fs::remove_dir_all(&self.root) } else { Ok(()) }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

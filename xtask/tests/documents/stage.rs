//! Where a document's blocks are executed: a folder, a shell's state, servers, and what stands for addresses.

use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::block::Block;
use super::support::{Server, build_programs, cargo, command, finish, plugwright, repository};
use super::{ELSEWHERE, excerpt, transcript};

/// The longest that a server may take to start, or to say what it should: it may have to be compiled.
const PATIENCE: Duration = Duration::from_mins(2);

/// What is in the place of what: as a document has it, and as it is here.
type Substitutions = Vec<(String, String)>;

pub(crate) struct Stage {
    /// Where a document begins.
    home: PathBuf,
    /// What the blocks have come to: the folder, variables, the last exit code.
    state: TempDir,
    /// That the blocks run with the repository's own cargo configuration.
    in_repository: bool,
    substitutions: Substitutions,
    registry: Server,
    servers: Vec<Background>,
    printed: Option<String>,
    _scratch: Option<TempDir>,
}

impl Stage {
    /// A folder of somebody who has installed the program, with a clone beside which plugins are made.
    pub(crate) fn of_a_reader() -> Self {
        build_programs(&PROGRAMS);
        let scratch = tempfile::tempdir().unwrap();
        let home = scratch.path().canonicalize().unwrap();
        fs::create_dir(home.join(".cargo")).unwrap();
        let config =
            "[alias]\nxtask = \"plugwright\"\n[net]\noffline = true\n[profile.dev]\ndebug = \"line-tables-only\"\n";
        fs::write(home.join(".cargo/config.toml"), config).unwrap();
        clone(&home.join("plugwright"));
        Self::new(home, false, Some(scratch))
    }

    /// The repository itself.
    pub(crate) fn of_the_repository() -> Self {
        Self::new(repository().to_owned(), true, None)
    }

    fn new(home: PathBuf, in_repository: bool, scratch: Option<TempDir>) -> Self {
        let registry = Server::start(&mut command(&home, &["registry", "--listen", "127.0.0.1:0"]));
        let state = tempfile::tempdir().unwrap();
        let substitutions = Vec::new();
        let servers = Vec::new();
        Self { home, state, in_repository, substitutions, registry, servers, printed: None, _scratch: scratch }
    }

    /// Begins a document: in the folder that documents begin in, with ports of its own.
    pub(crate) fn enter(&mut self) {
        for name in ["folder", "variables", "code"] {
            let _ = fs::remove_file(self.state.path().join(name));
        }
        fs::write(self.state.path().join("folder"), self.home.to_str().unwrap()).unwrap();
        self.substitutions = vec![("ghcr.io/acme".to_owned(), format!("{}/acme", self.registry.address()))];
        // All at once, so that no two are the same.
        let taken: Vec<_> = (0..6).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let free = taken.iter().map(|listener| listener.local_addr().unwrap().to_string());
        let documented = ["8080", "8081", "5000", "9000", "9001", "15000"].map(|port| format!("127.0.0.1:{port}"));
        self.substitutions.extend(documented.into_iter().zip(free));
        self.printed = None;
    }

    /// Ends a document: its servers end well.
    pub(crate) fn leave(&mut self) {
        for server in self.servers.drain(..) {
            let (code, said) = server.stop();
            assert_eq!(code, Some(0), "a server ended otherwise than it should:\n{said}");
            assert!(!said.contains("\nthread '"), "{said}");
        }
    }

    /// Does what a block says.
    pub(crate) fn run(&mut self, block: &Block) {
        let (language, mode) = block.kind.split_once(' ').unwrap_or((&block.kind, ""));
        match (language, mode) {
            ("sh", "") => {
                let (code, stdout, stderr) = self.script(&block.text, false);
                assert_eq!(code, Some(0), "{stdout}\n{stderr}");
                self.printed = Some(stdout);
            }
            ("sh", "server") => self.serve(&block.text),
            ("sh", "cluster") => self.cluster(&block.text),
            ("sh", "elsewhere") => elsewhere(&block.text),
            ("sh", "ci") => {
                let ci = fs::read_to_string(repository().join(".ci/run")).unwrap();
                assert!(ci.lines().any(|line| line == format!("exec {}", block.text.trim_end())), "{ci}");
            }
            ("text", "") => {
                let printed =
                    self.printed.take().unwrap_or_else(|| panic!("a `text` block is what an `sh` before it prints"));
                assert!(transcript::matches(&block.text, &printed), "it prints\n{printed}");
            }
            ("text", "server") => {
                let text = self.reader_to_here(&block.text);
                let server = self.servers.last_mut().unwrap_or_else(|| panic!("no server has been started"));
                server.wait_for(&text);
            }
            ("console", "") => self.transcript(&block.text),
            (_, "") => self.file(block, language),
            _ => panic!("no rule for a block `{}`", block.kind),
        }
        self.share_target();
    }

    fn reader_to_here(&self, text: &str) -> String {
        self.substitutions.iter().fold(text.to_owned(), |text, (documented, here)| text.replace(documented, here))
    }

    fn here_to_reader(&self, text: &str) -> String {
        self.substitutions.iter().fold(text.to_owned(), |text, (documented, here)| text.replace(here, documented))
    }

    fn folder(&self) -> PathBuf {
        fs::read_to_string(self.state.path().join("folder")).unwrap().trim_end().into()
    }

    /// A shell that goes on where the one before it stopped.
    fn shell(&self, script: &str) -> Command {
        let path = |name: &str| self.state.path().join(name).display().to_string();
        let (folder, variables, code) = (path("folder"), path("variables"), path("code"));
        let before = format!(
            "[ ! -f '{variables}' ] || . '{variables}'\ncd \"$(cat '{folder}')\"\n\
             trap 'code=$?; pwd >'\"'{folder}'\"'; export -p >'\"'{variables}'\"'; echo $code >'\"'{code}'\"'; exit $code' EXIT\n"
        );
        let script = self.reader_to_here(script);
        let mut command = if self.in_repository { cargo(&[]) } else { command(&self.home, &["--version"]) };
        let environment: Vec<_> =
            command.get_envs().map(|(name, value)| (name.to_owned(), value.map(ToOwned::to_owned))).collect();
        command = Command::new("bash");
        command.args(["-c", &format!("{before}{script}")]).current_dir(&self.home).stdin(Stdio::null());
        for (name, value) in environment {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        if !self.in_repository {
            for (name, _) in std::env::vars_os().filter(|(name, _)| is_cargos(&name.to_string_lossy())) {
                command.env_remove(name);
            }
        }
        let program = Path::new(env!("CARGO_BIN_EXE_cargo-plugwright")).parent().unwrap().to_owned();
        let path = std::env::var_os("PATH").unwrap();
        let path = std::env::join_paths([program].into_iter().chain(std::env::split_paths(&path))).unwrap();
        command.env("PATH", path);
        command
    }

    /// Runs a script: its exit code, and what it says on both streams; on the first alone with `together`.
    fn script(&self, script: &str, together: bool) -> (Option<i32>, String, String) {
        let strict = if together { "exec 2>&1\n" } else { "set -e\n" };
        let ended = finish(&mut self.shell(&format!("{strict}{script}")));
        let (stdout, stderr) = (self.here_to_reader(&ended.stdout), self.here_to_reader(&ended.stderr));
        assert!(!stdout.contains("panicked at") && !stderr.contains("panicked at"), "{stdout}\n{stderr}");
        (Some(ended.code), stdout, stderr)
    }

    /// Commands after `$ `, lines that go on after `> `, and what each says.
    fn transcript(&mut self, text: &str) {
        let mut lines = text.lines().peekable();
        let mut code = 0;
        while let Some(line) = lines.next() {
            let first = line.strip_prefix("$ ").unwrap_or_else(|| panic!("`{line}` is neither a command nor output"));
            let mut script = format!("(exit {code})\n{first}\n");
            while let Some(more) = lines.next_if(|line| line.starts_with("> ")) {
                script.push_str(more.trim_start_matches("> "));
                script.push('\n');
            }
            let mut expected = String::new();
            while let Some(line) = lines.next_if(|line| !line.starts_with("$ ")) {
                expected.push_str(line);
                expected.push('\n');
            }
            let (ended, printed, _) = self.script(&script, true);
            assert!(transcript::matches(&expected, &printed), "{first}\nsays\n{printed}\nand not\n{expected}");
            code = ended.unwrap_or(-1);
            self.share_target();
        }
    }

    fn serve(&mut self, script: &str) {
        // The shell's own state is what it was before: a server does not change it. Its last command is the server.
        let (before, last) = split_last_command(script);
        let mut command = self.shell(&format!("trap - EXIT\nexec 2>&1\n{before}exec {last}"));
        self.servers.push(Background::start(&mut command));
    }

    /// What goes to a cluster is what can be read here.
    fn cluster(&self, text: &str) {
        for line in text.replace("\\\n", " ").lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["kubectl", "apply", rest @ ..] => {
                    let files: Vec<&str> = rest.iter().copied().filter(|word| !word.starts_with('-')).collect();
                    assert!(!files.is_empty(), "{line}");
                    for file in files {
                        let (code, stdout, stderr) = self.script(&format!("cargo plugwright lint -f {file}"), false);
                        assert_eq!(code, Some(0), "{line}\n{stdout}\n{stderr}");
                    }
                }
                ["kubectl", "get" | "logs" | "label" | "describe", _, ..] => syntax(line),
                _ => panic!("no rule for `{line}`"),
            }
        }
    }

    /// Writes a file, or reads an excerpt. A mesh's resource is explained as well.
    fn file(&self, block: &Block, language: &str) {
        let text = self.reader_to_here(&block.text);
        let path = match &block.file {
            Some(name) => {
                let path = self.folder().join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                path
            }
            None => {
                excerpt::read(language, &text);
                self.state.path().join("excerpt.yaml")
            }
        };
        if text.contains("\nkind: ChainTest\n") {
            excerpt::read(language, &text);
        }
        fs::write(&path, &text).unwrap();
        // Where it is said what is wrong with a file, the commands that follow have it.
        if language == "yaml" && block.file.is_none() && excerpt::is_resource(&text) {
            plugwright(&self.home, &["explain", "-f", path.to_str().unwrap()]).fine();
        }
    }

    /// New projects compile where all tests' projects do, with the versions that the repository is locked to.
    fn share_target(&self) {
        if self.in_repository {
            return;
        }
        let shared = Path::new(env!("CARGO_TARGET_TMPDIR")).join("new");
        fs::create_dir_all(&shared).unwrap();
        for entry in fs::read_dir(&self.home).unwrap() {
            let folder = entry.unwrap().path();
            if folder.join("Cargo.toml").is_file() && !folder.join("target").exists() {
                std::os::unix::fs::symlink(&shared, folder.join("target")).unwrap();
                fs::copy(repository().join("Cargo.lock"), folder.join("Cargo.lock")).unwrap();
            }
        }
    }
}

fn is_cargos(name: &str) -> bool {
    ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_TARGET_"].iter().any(|prefix| name.starts_with(prefix))
}

/// What the program hands over to.
const PROGRAMS: [(&str, &str); 5] = [
    ("harness", "plugwright-harness"),
    ("harness", "plugwright-test-host"),
    ("suite-runner", "plugwright-suites"),
    ("registry-tests", "plugwright-registry"),
    ("config-schema", "plugwright-schema"),
];

/// What a clone has for somebody who makes plugins: its workspace, without plugins in it, and the examples.
fn clone(tree: &Path) {
    fs::create_dir(tree).unwrap();
    let root = repository();
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let lines = manifest.lines().filter(|line| !line.starts_with("default-members")).map(|line| {
        if line.starts_with("members = ") {
            return "members = [\"plugins/*\"]".to_owned();
        }
        line.replace("{ path = \"", &format!("{{ path = \"{}/", root.display()))
    });
    fs::write(tree.join("Cargo.toml"), lines.collect::<Vec<_>>().join("\n")).unwrap();
    for file in ["rustfmt.toml", "clippy.toml"] {
        fs::copy(root.join(file), tree.join(file)).unwrap();
    }
    for folder in ["sdk", "examples", "docs"] {
        std::os::unix::fs::symlink(root.join(folder), tree.join(folder)).unwrap();
    }
}

/// What cannot be run here is a script that a shell can read, and each of its commands is listed.
fn elsewhere(text: &str) {
    syntax(text);
    for line in text.replace("\\\n", " ").lines().filter(|line| !line.starts_with("cd ") && !line.is_empty()) {
        assert!(ELSEWHERE.iter().any(|(start, _)| line.contains(start)), "`{line}` is not in `ELSEWHERE`");
    }
}

/// A script's last command, which may go on over several lines, and what is before it.
fn split_last_command(script: &str) -> (&str, &str) {
    let script = script.trim_end();
    let mut ends = script.match_indices('\n').filter(|(end, _)| !script[..*end].ends_with('\\'));
    script.split_at(ends.next_back().map_or(0, |(end, _)| end + 1))
}

fn syntax(script: &str) {
    finish(Command::new("bash").args(["-n", "-c", script])).fine();
}

/// A server, and all that it says.
struct Background {
    child: Child,
    said: Arc<(Mutex<(String, bool)>, Condvar)>,
    /// How much of it has been compared.
    compared: usize,
}

impl Background {
    /// Starts a command, and waits for it to say where it listens.
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut output = child.stdout.take().unwrap();
        let said = Arc::new((Mutex::new((String::new(), false)), Condvar::new()));
        let into = Arc::clone(&said);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            let mut text = Vec::new();
            loop {
                let read = output.read(&mut bytes).unwrap_or(0);
                text.extend_from_slice(bytes.get(..read).unwrap_or_default());
                let mut said = into.0.lock().unwrap();
                said.0 = String::from_utf8_lossy(&text).into_owned();
                said.1 = read == 0;
                into.1.notify_all();
                if read == 0 {
                    return;
                }
            }
        });
        let server = Self { child, said, compared: 0 };
        server.wait(|text| transcript::find("listening on …\n", text).map(drop));
        server
    }

    fn wait<T>(&self, mut test: impl FnMut(&str) -> Option<T>) -> T {
        let until = Instant::now() + PATIENCE;
        let mut said = self.said.0.lock().unwrap();
        loop {
            if let Some(found) = test(&said.0) {
                return found;
            }
            let left = until.saturating_duration_since(Instant::now());
            if said.1 || left.is_zero() {
                let all = said.0.clone();
                drop(said);
                panic!("the server says\n{all}");
            }
            said = self.said.1.wait_timeout(said, left).unwrap().0;
        }
    }

    /// Waits until it has said this, after what was waited for before.
    fn wait_for(&mut self, expected: &str) {
        let compared = self.compared;
        self.compared += self.wait(|text| transcript::find(expected, text.get(compared..)?));
    }

    fn stop(mut self) -> (Option<i32>, String) {
        let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        let code = self.child.wait().unwrap().code();
        let said = self.said.0.lock().unwrap().0.clone();
        (code, said)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

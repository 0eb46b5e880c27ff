//! Plugins in other languages than Rust: a `plugin.toml` says what they are, where their module is, and what makes it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

use super::discover::PluginPhase;
use super::{Built, Developed, Plugin};
use crate::reference::Reference;

/// The file's name.
const FILE: &str = "plugin.toml";

/// How much of what a program says is given back: its end.
const MOST_SAID: u64 = 256 << 10;

/// A plugin that something else than cargo builds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreign {
    /// What `plugin.toml` says of it.
    pub plugin: Plugin,
    /// Where its module is, or will be.
    pub module: PathBuf,
    /// The program that makes it, and its arguments; nothing where it is there already.
    pub build: Vec<String>,
    /// Variables that the program gets besides those of whoever builds.
    pub env: BTreeMap<String, String>,
}

/// Why a plugin in another language could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ForeignError {
    /// The file could not be read.
    #[error("failed to read {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file does not say what it must.
    #[error("{}:{line}: {reason}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Where in it.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// Two files name the same plugin.
    #[error("{} and {} are both called `{name}`", first.display(), second.display())]
    Twice {
        /// The name.
        name: String,
        /// The folder of one.
        first: PathBuf,
        /// The folder of the other.
        second: PathBuf,
    },
    /// The program could not be started.
    #[error("failed to run `{program}` for `{plugin}`")]
    Spawn {
        /// Whose build it is.
        plugin: String,
        /// As `plugin.toml` names it.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What the program says could not be kept.
    #[error("failed to keep what `{program}` says for `{plugin}`")]
    Output {
        /// Whose build it is.
        plugin: String,
        /// As `plugin.toml` names it.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The program failed; what it said has been shown on standard error.
    #[error("`{program}` could not build `{plugin}`: it ended with {status}")]
    Failed {
        /// Whose build it is.
        plugin: String,
        /// As `plugin.toml` names it.
        program: String,
        /// How it ended.
        status: std::process::ExitStatus,
    },
    /// There is no module where it should be.
    #[error("`{plugin}` has no module: there is no {}", module.display())]
    NoModule {
        /// Whose it is.
        plugin: String,
        /// Where it should be.
        module: PathBuf,
        /// Whether a program was run that should have made it.
        built: bool,
    },
}

/// The file as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Table {
    name: toml::Spanned<String>,
    version: Option<String>,
    description: Option<String>,
    license: Option<String>,
    source: Option<String>,
    #[serde(default)]
    root_ids: Vec<String>,
    phase: Option<PluginPhase>,
    priority: Option<i32>,
    image: Option<String>,
    config_schema: Option<PathBuf>,
    module: PathBuf,
    build: Option<toml::Spanned<Vec<String>>>,
    #[serde(default)]
    env: BTreeMap<String, String>,
}

impl Foreign {
    /// Reads a `plugin.toml`, or the one of a folder.
    pub fn read(path: &Path) -> Result<Self, ForeignError> {
        let file = if path.is_dir() { path.join(FILE) } else { path.to_owned() };
        let text =
            std::fs::read_to_string(&file).map_err(|source| ForeignError::Read { path: file.clone(), source })?;
        let wrong = |span: Option<Range<usize>>, reason: &str| {
            let start = span.map_or(0, |span| span.start);
            let line = 1 + text.bytes().take(start).filter(|byte| *byte == b'\n').count();
            ForeignError::File { path: file.clone(), line, reason: reason.to_owned() }
        };
        let table: Table = toml::from_str(&text).map_err(|error| wrong(error.span(), error.message()))?;
        let name = table.name.get_ref();
        // The name becomes the last part of a repository.
        if name.contains(['/', ':', '@']) || Reference::parse(&format!("localhost/{name}")).is_err() {
            let reason =
                "`name` is not a plugin's name: expected lower-case letters and digits, and `-`, `_` or `.` between";
            return Err(wrong(Some(table.name.span()), reason));
        }
        if let Some(build) = &table.build
            && build.get_ref().first().is_none_or(String::is_empty)
        {
            return Err(wrong(Some(build.span()), "`build` names no program: expected a list of it and its arguments"));
        }
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Ok(Self {
            module: folder.join(&table.module),
            build: table.build.map(toml::Spanned::into_inner).unwrap_or_default(),
            env: table.env,
            plugin: Plugin {
                name: table.name.into_inner(),
                version: table.version.unwrap_or_else(|| "0.0.0".to_owned()),
                description: table.description,
                license: table.license,
                source: table.source,
                root: folder.to_owned(),
                root_ids: table.root_ids,
                phase: table.phase.map(|phase| phase.as_str().to_owned()),
                priority: table.priority,
                image: table.image,
                config_schema: table.config_schema.map(|path| folder.join(path)),
            },
        })
    }

    /// The same from wherever it is looked at.
    pub fn absolute(mut self) -> io::Result<Self> {
        let paths = [&mut self.module, &mut self.plugin.root].into_iter().chain(&mut self.plugin.config_schema);
        for path in paths {
            *path = std::path::absolute(&*path)?;
        }
        Ok(self)
    }

    /// Runs the program that makes the module, if there is one, in the plugin's folder and without a shell. What it says
    /// goes to standard error.
    pub fn build(&self) -> Result<Built, ForeignError> {
        let plugin = &self.plugin;
        if let Some((program, mut command)) = self.command() {
            let status = command.stdout(io::stderr()).status().map_err(|source| self.spawn(program, source))?;
            if !status.success() {
                return Err(ForeignError::Failed { plugin: plugin.name.clone(), program: program.to_owned(), status });
            }
        }
        let module = self.made()?;
        Ok(Built { plugin: plugin.clone(), module: module.clone(), artifact: module, toolchain: None })
    }

    /// The same for somebody who works on it: a program that fails is an outcome and no error, and what it says is given
    /// back, or the end of it where that is long.
    pub fn develop(&self) -> Result<Developed, ForeignError> {
        let mut diagnostics = String::new();
        if let Some((program, mut command)) = self.command() {
            let kept = |source| {
                let (plugin, program) = (self.plugin.name.clone(), program.to_owned());
                ForeignError::Output { plugin, program, source }
            };
            // A pipe would be open for as long as something that the program leaves running is there.
            let mut said = tempfile::tempfile().map_err(kept)?;
            command.stdout(said.try_clone().map_err(kept)?).stderr(said.try_clone().map_err(kept)?);
            let status = command.status().map_err(|source| self.spawn(program, source))?;
            diagnostics = end_of(&mut said).map_err(kept)?;
            if !status.success() {
                let separator = if diagnostics.is_empty() || diagnostics.ends_with('\n') { "" } else { "\n" };
                diagnostics = format!("{diagnostics}{separator}`{program}` ended with {status}\n");
                return Ok(Developed { module: None, diagnostics, sources: BTreeSet::new() });
            }
        }
        Ok(Developed { module: Some(self.made()?), diagnostics, sources: BTreeSet::new() })
    }

    /// The program, by its name in the file, and how it is run.
    fn command(&self) -> Option<(&str, Command)> {
        let (program, arguments) = self.build.split_first()?;
        // A path is the folder's; a name is looked for on the search path.
        let path = Path::new(program);
        let found = match std::path::absolute(self.plugin.root.join(path)) {
            Ok(file) if program.contains(std::path::is_separator) => file,
            _ => path.to_owned(),
        };
        let mut command = Command::new(found);
        command.current_dir(&self.plugin.root).args(arguments).envs(&self.env).stdin(Stdio::null());
        Some((program, command))
    }

    fn spawn(&self, program: &str, source: io::Error) -> ForeignError {
        ForeignError::Spawn { plugin: self.plugin.name.clone(), program: program.to_owned(), source }
    }

    /// The module, once it has been made.
    fn made(&self) -> Result<PathBuf, ForeignError> {
        let (plugin, module) = (self.plugin.name.clone(), self.module.clone());
        if module.is_file() {
            Ok(module)
        } else {
            Err(ForeignError::NoModule { plugin, module, built: !self.build.is_empty() })
        }
    }
}

fn end_of(file: &mut File) -> io::Result<String> {
    let length = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(length.saturating_sub(MOST_SAID)))?;
    let mut text = Vec::new();
    file.take(MOST_SAID).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Finds the plugins with a `plugin.toml` for whoever stands in a folder: its own or that of the nearest folder above,
/// else all in the nearest `plugins/*` that has any. With them comes the folder that they are in or below, and whether it
/// is a single one's own.
///
/// The search ends where a repository does.
pub fn find_foreign(directory: &Path) -> Result<Option<Found>, ForeignError> {
    for folder in directory.ancestors() {
        if folder.join(FILE).is_file() {
            return Ok(Some(Found { root: folder.to_owned(), plugins: vec![Foreign::read(folder)?], is_own: true }));
        }
        let mut plugins = below(&folder.join("plugins"))?;
        if !plugins.is_empty() {
            plugins.sort_by(|a, b| a.plugin.name.cmp(&b.plugin.name));
            if let Some([first, second]) = plugins.array_windows().find(|[a, b]| a.plugin.name == b.plugin.name) {
                let name = first.plugin.name.clone();
                let (first, second) = (first.plugin.root.clone(), second.plugin.root.clone());
                return Err(ForeignError::Twice { name, first, second });
            }
            return Ok(Some(Found { root: folder.to_owned(), plugins, is_own: false }));
        }
        if folder.join(".git").exists() || folder.join("Cargo.toml").is_file() {
            break;
        }
    }
    Ok(None)
}

/// What [`find_foreign`] finds.
#[derive(Debug)]
pub struct Found {
    /// The folder that they are in or below.
    pub root: PathBuf,
    /// The plugins, by name.
    pub plugins: Vec<Foreign>,
    /// The folder is the plugin's own.
    pub is_own: bool,
}

fn below(folder: &Path) -> Result<Vec<Foreign>, ForeignError> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(Vec::new()) };
    let folders = entries.filter_map(Result::ok).map(|entry| entry.path());
    folders.filter(|folder| folder.join(FILE).is_file()).map(|folder| Foreign::read(&folder)).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{Foreign, ForeignError, find_foreign};

    const PLAIN: &str = "name = \"x\"\nmodule = \"x.wasm\"\n";

    fn read(text: &str) -> Result<Foreign, String> {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("plugin.toml"), text).unwrap();
        let root = folder.path().display().to_string();
        Foreign::read(folder.path()).map_err(|error| error.to_string().replace(&root, ""))
    }

    #[test]
    fn a_file_says_what_the_table_of_a_crate_says() {
        let text = format!(
            "{PLAIN}version = \"1.2.3\"\nroot-ids = [\"a\"]\nphase = \"AUTHN\"\npriority = -1\nbuild = [\"go\", \"build\"]\n"
        );
        let foreign = read(&text).unwrap();
        let plugin = foreign.plugin;
        assert_eq!((plugin.name.as_str(), plugin.version.as_str(), plugin.priority), ("x", "1.2.3", Some(-1)));
        assert_eq!((plugin.phase.as_deref(), plugin.root_ids), (Some("AUTHN"), vec!["a".to_owned()]));
        assert_eq!(foreign.build, ["go", "build"]);
        assert_eq!(read(PLAIN).unwrap().plugin.version, "0.0.0");
    }

    #[test]
    fn what_is_wrong_is_named_by_its_line() {
        for (text, line, reason) in [
            ("name = \"x\"\n", 1, "missing field `module`"),
            ("name = \"x\"\nmodule = \"x\"\nphaze = \"AUTHN\"\n", 3, "unknown field `phaze`"),
            ("name = \"x\"\nmodule = \"x\"\nphase = \"AUTHX\"\n", 3, "unknown variant `AUTHX`"),
            ("module = \"x\"\nname = \"X/..\"\n", 2, "`name` is not a plugin's name"),
            ("name = \"x\"\nmodule = \"x\"\nbuild = []\n", 3, "`build` names no program"),
            ("name = \"x\"\nmodule = \"x\"\nbuild = \"make\"\n", 3, "invalid type: string"),
            ("name = \n", 1, ""),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.starts_with(&format!("/plugin.toml:{line}: ")) && error.contains(reason), "{error}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_program_runs_in_the_folder_and_through_no_shell() {
        let folder = tempfile::tempdir().unwrap();
        let text = format!("{PLAIN}build = [\"cp\", \"$HOME; in put\", \"x.wasm\"]\n");
        fs::write(folder.path().join("plugin.toml"), text).unwrap();
        let foreign = Foreign::read(folder.path()).unwrap();
        assert!(matches!(foreign.build(), Err(ForeignError::Failed { .. })));
        fs::write(folder.path().join("$HOME; in put"), "module").unwrap();
        assert_eq!(fs::read(foreign.build().unwrap().module).unwrap(), b"module");
    }

    #[cfg(unix)]
    #[test]
    fn a_program_that_is_not_there_or_makes_nothing_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let built = |build: &str| {
            fs::write(folder.path().join("plugin.toml"), format!("{PLAIN}{build}")).unwrap();
            Foreign::read(folder.path()).unwrap().build().unwrap_err()
        };
        assert!(
            matches!(built("build = [\"./nowhere\"]"), ForeignError::Spawn { program, .. } if program == "./nowhere")
        );
        assert!(matches!(built("build = [\"true\"]"), ForeignError::NoModule { built: true, .. }));
        assert!(matches!(built(""), ForeignError::NoModule { built: false, .. }));
    }

    #[cfg(unix)]
    #[test]
    fn somebody_who_works_on_it_is_told_what_the_program_said_and_how_it_ended() {
        let folder = tempfile::tempdir().unwrap();
        let developed = |script: &str| {
            fs::write(folder.path().join("make.sh"), script).unwrap();
            fs::write(folder.path().join("plugin.toml"), format!("{PLAIN}build = [\"sh\", \"make.sh\"]\n")).unwrap();
            Foreign::read(folder.path()).unwrap().develop()
        };
        let failed = developed("echo one; echo two >&2; printf three; exit 4").unwrap();
        assert_eq!(
            (failed.module, failed.diagnostics.as_str()),
            (None, "one\ntwo\nthree\n`sh` ended with exit status: 4\n")
        );
        assert!(matches!(developed("true"), Err(ForeignError::NoModule { built: true, .. })));
        // What it leaves running is not waited for, whatever that may still say.
        let fine = developed("echo made; touch x.wasm; sleep 600 & echo $! > pid").unwrap();
        assert_eq!((fine.module, fine.diagnostics.as_str()), (Some(folder.path().join("x.wasm")), "made\n"));
        let pid = fs::read_to_string(folder.path().join("pid")).unwrap();
        assert!(std::process::Command::new("kill").arg(pid.trim()).status().unwrap().success());
        let long = developed("touch x.wasm; yes 0123456 | head -n 100000; echo end").unwrap();
        assert!(long.diagnostics.len() <= 256 << 10 && long.diagnostics.ends_with("end\n"));
    }

    #[test]
    fn the_nearest_file_counts_and_then_the_nearest_plugins() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for name in ["a", "b"] {
            let plugin = root.join("plugins").join(name);
            fs::create_dir_all(plugin.join("src")).unwrap();
            fs::write(plugin.join("plugin.toml"), PLAIN.replace('x', name)).unwrap();
        }
        let found = find_foreign(&root.join("plugins/a/src")).unwrap().unwrap();
        assert_eq!((found.plugins.len(), found.is_own), (1, true));
        let found = find_foreign(root).unwrap().unwrap();
        assert_eq!((found.plugins.len(), found.is_own, found.root.as_path()), (2, false, root));
        fs::write(root.join("plugins/b/plugin.toml"), PLAIN.replace('x', "a")).unwrap();
        assert!(matches!(find_foreign(root), Err(ForeignError::Twice { .. })));
    }
}

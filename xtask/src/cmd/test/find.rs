//! Which suites there are, and what each runs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use packager::build::Plugin;
use suites::job::{Kind, Task};
use suites::plugin;
use suites::tree::{self, Format};

use super::coverage::Builds;
use super::{Args, chain, warn};
use crate::cmd::build;
use crate::report::Failure;

/// A suite as it was read; which module it runs is another question.
struct Found {
    file: PathBuf,
    read: Result<plugin::Suite, Kind>,
    /// The plugin in whose folder it is.
    plugin: Option<Plugin>,
}

/// Everything that the arguments name.
pub(super) fn find(args: &Args, builds: &Builds<'_>) -> Result<Vec<Task>, Failure> {
    let targets: Vec<&String> = args.targets.iter().chain(&args.proto).chain(&args.yaml).collect();
    let mut known = None;
    let (paths, plugins): (Vec<&String>, Vec<&String>) = targets.iter().copied().partition(|name| {
        is_path(name) || args.proto.contains(name) || args.yaml.contains(name) || is_folder(args, name, &mut known)
    });
    let mut found = Vec::new();
    for path in paths {
        let path = Path::new(path);
        if path.is_dir() {
            let files = suites_in((args, builds), &suites_folder(path), None)?;
            if files.is_empty() {
                return Err(Failure::usage(format!("no suite in {}", path.display())));
            }
            found.extend(files);
        } else {
            found.extend(read((args, builds), path, None, true)?);
        }
    }
    if targets.is_empty() || !plugins.is_empty() {
        let names: Vec<String> = plugins.into_iter().cloned().collect();
        let plugins = build::plugins(&names, &args.toolchain)?;
        let mut looked = Vec::new();
        for plugin in &plugins {
            let folder = plugin.root.join("tests");
            let before = found.len();
            if folder.is_dir() {
                found.extend(suites_in((args, builds), &folder, Some(plugin))?);
            }
            if found.len() == before {
                looked.push(folder.display().to_string());
            }
        }
        if found.is_empty() || (!names.is_empty() && !looked.is_empty()) {
            let formats = Format::EXTENSIONS.join(", ");
            return Err(Failure::usage(format!("no suites in {} (looked for {formats})", looked.join(", ")))
                .hint("docs/testing.md says what a suite is; a file in another place can be named"));
        }
        known = Some(plugins);
    }
    tasks(args, builds, found, known)
}

/// The folder whose suites are meant: a plugin's own has them in `tests`.
fn suites_folder(folder: &Path) -> PathBuf {
    let tests = folder.join("tests");
    if !has_suites(folder) && tests.is_dir() { tests } else { folder.to_owned() }
}

/// Whether a word that could be a plugin's name is none, and the name of a folder of suites.
fn is_folder(args: &Args, name: &str, known: &mut Option<Vec<Plugin>>) -> bool {
    has_suites(&suites_folder(Path::new(name))) && plugins(args, known).iter().all(|plugin| plugin.name != name)
}

/// Something that is there, and could not be a plugin's name.
fn is_path(name: &str) -> bool {
    let path = Path::new(name);
    path.is_file()
        || matches!(name, "." | "..")
        || name.contains('/')
        || path.extension().is_some_and(|kind| format(kind.to_str()).is_some())
}

fn format(extension: Option<&str>) -> Option<Format> {
    extension.and_then(Format::of_extension)
}

/// A folder's suites, by name.
fn suites_in(args: (&Args, &Builds<'_>), folder: &Path, plugin: Option<&Plugin>) -> Result<Vec<Found>, Failure> {
    let failed = |error: std::io::Error| Failure::environment(format!("failed to read {}: {error}", folder.display()));
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_file() && format(path.extension().and_then(|kind| kind.to_str())).is_some() {
            files.push(path);
        }
    }
    files.sort();
    let mut found = Vec::new();
    for file in files {
        found.extend(read(args, &file, plugin, false)?);
    }
    Ok(found)
}

/// Whether a folder has a suite, or something that cannot be read as one.
pub(crate) fn has_suites(folder: &Path) -> bool {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let of_a_format = |file: PathBuf| Some((format(file.extension()?.to_str())?, file));
    files.filter_map(of_a_format).any(|(format, file)| {
        let Ok(text) = std::fs::read_to_string(&file) else { return file.is_file() };
        let source = mesh::Source { file: file.display().to_string(), text };
        (format == Format::Yaml && suites::chain::is_chain_suite(&source))
            || tree::read(&source.text, format).map_or(true, |tree| plugin::is_suite(&tree))
    })
}

/// Reads a file, which is nothing when it is no suite: an error for one that was named. Of chain suites a file may have
/// several.
fn read(
    (args, builds): (&Args, &Builds<'_>),
    file: &Path,
    plugin: Option<&Plugin>,
    named: bool,
) -> Result<Vec<Found>, Failure> {
    let bytes =
        std::fs::read(file).map_err(|error| Failure::usage(format!("failed to read {}: {error}", file.display())))?;
    let found = |read| vec![Found { file: shown(file), read, plugin: plugin.cloned() }];
    let broken = |problems: Vec<String>| found(Err(Kind::Broken(problems)));
    let Ok(text) = String::from_utf8(bytes) else {
        return Ok(broken(vec!["it is not text in UTF-8".to_owned()]));
    };
    let place = |problem: &dyn std::fmt::Display| format!("{}:{problem}", shown(file).display());
    // The tester takes whatever it is given for its own format, so that a name need not say.
    let format = format(file.extension().and_then(|kind| kind.to_str())).unwrap_or(Format::Textproto);
    if format == Format::Yaml {
        let source = mesh::Source { file: shown(file).display().to_string(), text: text.clone() };
        if let Some(read) = chain::read(&source) {
            return match read {
                Ok(suites) => suites
                    .into_iter()
                    .map(|suite| {
                        let kind = Kind::Chain(Box::new(chain::task(suite, file, args, builds)?));
                        Ok(Found { file: shown(file), read: Err(kind), plugin: plugin.cloned() })
                    })
                    .collect(),
                Err(mistakes) => Ok(broken(mistakes)),
            };
        }
    }
    let tree = match tree::read(&text, format) {
        Ok(tree) => tree,
        Err(problem) => return Ok(broken(vec![place(&problem)])),
    };
    if !plugin::is_suite(&tree) && (format == Format::Yaml || !named) {
        if named {
            let what = "it is no suite: a plugin suite has `test` at its top, a chain suite `kind: ChainTest`";
            return Ok(broken(vec![what.to_owned()]));
        }
        return Ok(Vec::new());
    }
    let reading = plugin::read(&tree, format);
    for warning in &reading.warnings {
        warn(place(warning));
    }
    if reading.problems.is_empty() {
        return Ok(found(Ok(reading.suite)));
    }
    Ok(broken(reading.problems.iter().map(|problem| place(problem)).collect()))
}

/// As it is seen from the current folder.
fn shown(file: &Path) -> PathBuf {
    let current = std::env::current_dir().unwrap_or_default();
    file.strip_prefix(&current).unwrap_or(file).to_owned()
}

/// Gives each suite its module: the one on the command line, its own, or that of the plugin in whose folder it is.
fn tasks(
    args: &Args,
    builds: &Builds<'_>,
    found: Vec<Found>,
    mut known: Option<Vec<Plugin>>,
) -> Result<Vec<Task>, Failure> {
    let mut owners = Vec::new();
    for found in &found {
        let needs = args.plugin.is_none() && found.read.as_ref().is_ok_and(|suite| suite.env.wasm_path.is_none());
        let owner = match &found.plugin {
            _ if !needs => None,
            Some(plugin) => Some(plugin.clone()),
            None => owner(args, &found.file, &mut known),
        };
        owners.push(owner);
    }
    let mut names: Vec<String> = owners.iter().flatten().map(|plugin| plugin.name.clone()).collect();
    names.sort();
    names.dedup();
    let built = if names.is_empty() { Vec::new() } else { builds.build(&names)? };
    let modules: BTreeMap<&str, &PathBuf> =
        built.iter().map(|built| (built.plugin.name.as_str(), &built.module)).collect();
    let task = |(found, owner): (Found, Option<Plugin>)| {
        let Found { file, read, .. } = found;
        let mut suite = match read {
            Ok(suite) => suite,
            Err(kind) => return Task { file, kind },
        };
        let folder = file.parent().map(Path::to_owned).unwrap_or_default();
        let own = suite.env.wasm_path.as_deref().map(|path| beside(path, &folder));
        let built = owner.as_ref().and_then(|owner| modules.get(owner.name.as_str())).map(|path| (*path).clone());
        let module = args.plugin.clone().or(own).or(built).ok_or_else(|| {
            "there is no module: give `env.wasm_path` or --plugin, or put the suite into a plugin's folder `tests`"
                .to_owned()
        });
        let configuration = suite.env.config_path.as_deref().map(|path| beside(path, &folder));
        let configuration = args.config.clone().or(configuration);
        suite.env.log_level = args.loglevel.or(suite.env.log_level);
        if let Some(streams) = args.num_additional_streams {
            suite.env.num_additional_streams = streams;
        }
        let schema = owner.and_then(|owner| owner.config_schema);
        let task = plugin::Task { suite, folder, module, configuration, schema };
        Task { file, kind: Kind::Plugin(Box::new(task)) }
    };
    Ok(found.into_iter().zip(owners).map(task).collect())
}

/// The tester's paths are relative to the current folder; what is not there is looked for beside the suite.
fn beside(path: &str, folder: &Path) -> PathBuf {
    let (here, there) = (PathBuf::from(path), folder.join(path));
    if !here.exists() && there.exists() { there } else { here }
}

/// The plugin in whose folder a suite is, if there is a workspace around it.
fn owner(args: &Args, file: &Path, known: &mut Option<Vec<Plugin>>) -> Option<Plugin> {
    let file = file.canonicalize().ok()?;
    let is_in = |plugin: &&Plugin| plugin.root.canonicalize().is_ok_and(|root| file.starts_with(root));
    plugins(args, known).iter().rfind(is_in).cloned()
}

/// The project's plugins. Outside of any, there are none: a suite brings its own module.
fn plugins<'k>(args: &Args, known: &'k mut Option<Vec<Plugin>>) -> &'k [Plugin] {
    known.get_or_insert_with(|| build::plugins(&[], &args.toolchain).unwrap_or_default())
}

/// The Cargo.toml of the project in which the named suites are, for who is in no project.
pub(super) fn project(args: &Args) -> Option<PathBuf> {
    let manifest = |folder: &Path| Some(folder.join("Cargo.toml")).filter(|file| file.is_file());
    let current = std::env::current_dir().ok()?;
    if current.ancestors().any(|folder| manifest(folder).is_some() || folder.join("plugin.toml").is_file()) {
        return None;
    }
    let named = args.targets.iter().chain(&args.proto).chain(&args.yaml).find_map(|name| {
        let path = Path::new(name).canonicalize().ok()?;
        path.ancestors().take_while(|folder| !folder.join("plugin.toml").is_file()).find_map(manifest)
    })?;
    Some(named.strip_prefix(&current).map(Path::to_owned).unwrap_or(named))
}

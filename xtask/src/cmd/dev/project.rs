//! The plugin that is worked on: what it is built from, its module, and the chain that it is in.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use mesh::model::Extension;
use mesh::plan::{Module, Plan};
use mesh::{Resources, Source};
use packager::build::{self, Developed, Foreign, Installer, Plugin, Toolchain, Workspace};
use packager::reference::Reference;
use serde_json::{Value, json};

use super::super::build::{
    Asked, announce, compile_failure, discover_failure, foreign_failure, of_a_folder, toolchain_failure,
};
use super::super::images::with_scheme;
use super::super::requests::UnknownRootId;
use super::super::run::plan_of;
use super::super::watch::Watched;
use super::{Args, manifest};
use crate::report::{Failure, note};
use crate::{environment, input};

pub(super) struct Project {
    pub(super) plugin: Plugin,
    /// Where tests run, and what files are named from.
    pub(super) root: PathBuf,
    made_by: MadeBy,
    /// What the compiler read the last time.
    sources: RefCell<BTreeSet<PathBuf>>,
    /// What it said the last time.
    pub(super) diagnostics: RefCell<String>,
    /// What was said of the files beside the plugin, which need not be said again with each save.
    pub(super) told: RefCell<BTreeSet<String>>,
}

/// What makes the module.
enum MadeBy {
    Cargo {
        cargo: PathBuf,
        workspace: Workspace,
        toolchain: Toolchain,
    },
    /// What `plugin.toml` names.
    Program(Foreign),
}

impl Project {
    pub(super) fn open(args: &Args) -> Result<Self, Failure> {
        let directory = std::env::current_dir().map_err(|e| Failure::environment(format!("no current folder: {e}")))?;
        let asked = Asked::new(std::slice::from_ref(&args.plugin), &directory, &args.toolchain)?;
        let (plugin, root, made_by) = match asked.foreign.into_iter().next() {
            Some(foreign) => {
                // The harness is told of files by their names.
                let foreign =
                    foreign.absolute().map_err(|error| Failure::environment(format!("no current folder: {error}")))?;
                (foreign.plugin.clone(), asked.root, MadeBy::Program(foreign))
            }
            None => Self::of_a_crate(args, &directory)?,
        };
        let (sources, diagnostics, told) = Default::default();
        Ok(Self { plugin, root, made_by, sources, diagnostics, told })
    }

    fn of_a_crate(args: &Args, directory: &Path) -> Result<(Plugin, PathBuf, MadeBy), Failure> {
        let (cargo, flags) = (environment::cargo(), &args.toolchain);
        let failed = |error| of_a_folder(discover_failure(error), &args.plugin);
        let workspace = build::discover(&cargo, directory, flags.manifest_path.as_deref()).map_err(failed)?;
        let mut plugins = workspace.select(std::slice::from_ref(&args.plugin)).map_err(failed)?;
        let Some(plugin) = plugins.pop() else { return Err(Failure::usage("no plugin is named")) };
        let tools = environment::tools(&workspace.root);
        let mut talk = |sentence: &str| note(sentence);
        let mut installer = Installer { allowed: !flags.no_install, talk: &mut talk };
        let toolchain = build::prepare(&tools, flags.toolchain.into(), &mut installer).map_err(toolchain_failure)?;
        Ok((plugin, workspace.root.clone(), MadeBy::Cargo { cargo, workspace, toolchain }))
    }

    /// Shows which program is going to be run again and again, unless that is the compiler.
    pub(super) fn announce(&self) {
        if let MadeBy::Program(foreign) = &self.made_by {
            announce(foreign);
        }
    }

    /// Reads its manifest again if that is among these files.
    pub(super) fn renew(&mut self, args: &Args, files: &[PathBuf]) -> Result<(), Failure> {
        let name = match self.made_by {
            MadeBy::Cargo { .. } => "Cargo.toml",
            MadeBy::Program(_) => "plugin.toml",
        };
        if !files.iter().any(|file| file.file_name().is_some_and(|file| file == name)) {
            return Ok(());
        }
        let before = std::mem::replace(self, Self::open(args)?);
        (self.sources, self.told) = (before.sources, before.told);
        match (&self.made_by, &before.made_by) {
            (MadeBy::Program(now), MadeBy::Program(then)) if (&now.build, &now.env) != (&then.build, &then.env) => {
                announce(now);
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) fn module(&self) -> PathBuf {
        match &self.made_by {
            MadeBy::Cargo { workspace, .. } => {
                workspace.target.join("plugins/dev").join(format!("{}.wasm", self.plugin.name))
            }
            MadeBy::Program(foreign) => foreign.module.clone(),
        }
    }

    /// Whether cargo has tests of it.
    pub(super) fn is_crate(&self) -> bool {
        matches!(self.made_by, MadeBy::Cargo { .. })
    }

    /// Everything that a build, a plan or a test is made from, as it is now.
    pub(super) fn inputs(&self, args: &Args) -> Watched {
        let mut watched = Watched::default();
        note_all(&self.plugin.root, &mut watched);
        for file in &args.files {
            watched.note(file);
        }
        match &self.made_by {
            MadeBy::Cargo { workspace, .. } => {
                for name in ["Cargo.toml", "Cargo.lock"] {
                    watched.note_alone(&workspace.root.join(name));
                }
            }
            // What somebody else makes is followed like any source.
            MadeBy::Program(foreign) if foreign.build.is_empty() => watched.note_alone(&foreign.module),
            MadeBy::Program(foreign) => watched = watched.without(&foreign.module),
        }
        for path in self.sources.borrow().iter().chain(&self.plugin.config_schema) {
            watched.note_alone(path);
        }
        watched
    }

    /// Builds it: how large the module is, or nothing when it does not compile, which has been said.
    pub(super) fn build(&self, watched: &mut Watched) -> Result<Option<u64>, Failure> {
        let Developed { module, diagnostics, sources: read } = match &self.made_by {
            MadeBy::Cargo { cargo, workspace, toolchain } => {
                let colour = std::io::stderr().is_terminal();
                build::develop(cargo, workspace, &self.plugin, toolchain, colour).map_err(compile_failure)?
            }
            MadeBy::Program(foreign) => foreign.develop().map_err(foreign_failure)?,
        };
        if !diagnostics.is_empty() {
            // The compiler's own words, with its own colours. There is nobody to tell when it is closed.
            let _ = std::io::stderr().lock().write_all(diagnostics.as_bytes());
        }
        *self.diagnostics.borrow_mut() = without_colours(&diagnostics);
        let Some(module) = module else { return Ok(None) };
        let mut sources = Watched::default();
        for source in &read {
            sources.note_alone(source);
        }
        watched.add(sources);
        *self.sources.borrow_mut() = read;
        let failed = |error| Failure::environment(format!("failed to read {}: {error}", module.display()));
        std::fs::metadata(&module).map(|file| Some(file.len())).map_err(failed)
    }

    /// The chain with the module as it is now.
    pub(super) fn plan(&self, args: &Args, watched: &mut Watched) -> Result<Plan, Failure> {
        let resources = if args.files.is_empty() { self.own()? } else { input::read(&args.files)? };
        let urls = self.urls(args, &resources)?;
        let module = Reference::File(self.module());
        let modules = urls.into_iter().map(|url| (url, module.clone())).collect::<BTreeMap<_, _>>();
        let mut noted = Watched::default();
        let ours = resources.extensions.iter().filter_map(|extension| Some((extension, Extension::wasm(extension)?)));
        for (extension, wasm) in ours.filter(|(_, wasm)| modules.contains_key(&with_scheme(&wasm.url))) {
            if let Some(unknown) = UnknownRootId::of(extension, wasm, &self.plugin.root_ids) {
                let UnknownRootId { path, what, .. } = unknown;
                self.tell(format!("warning: {}: `{path}`: {what}", extension.id()));
            }
        }
        let plan = plan_of(&resources, modules, &args.chain, &mut noted)?;
        watched.add(noted.without(&self.module()));
        Ok(plan)
    }

    /// Says something once.
    fn tell(&self, line: String) {
        if self.told.borrow_mut().insert(line.clone()) {
            note(line);
        }
    }

    /// The manifest in the plugin's folder, or one that is made.
    fn own(&self) -> Result<Resources, Failure> {
        if let Some(found) = manifest::find(&self.plugin, &|line| self.tell(line))? {
            return Ok(found);
        }
        let example = self.plugin.root.join("tests/config.example.json");
        let config = match std::fs::read(&example) {
            Ok(text) => serde_json::from_slice(&text)
                .map_err(|error| Failure::bad(format!("{}: not JSON: {error}", example.display())))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Value::Null,
            Err(error) => return Err(Failure::environment(format!("failed to read {}: {error}", example.display()))),
        };
        let manifest = json!({
            "apiVersion": "extensions.istio.io/v1alpha1",
            "kind": "WasmPlugin",
            "metadata": {"name": resource_name(&self.plugin.name), "namespace": "default"},
            "spec": self.spec(&config),
        });
        let manifest_name = if self.is_crate() { "Cargo.toml" } else { "plugin.toml" };
        let file = self.plugin.root.join(manifest_name).display().to_string();
        input::checked(&[Source { file, text: manifest.to_string() }])
    }

    fn spec(&self, config: &Value) -> Value {
        let Plugin { phase, priority, root_ids, .. } = &self.plugin;
        let mut spec = json!({"url": format!("file://{}", self.module().display())});
        let fields = [
            ("phase", phase.as_ref().map(|phase| json!(phase))),
            ("priority", priority.map(|priority| json!(priority))),
            ("pluginName", root_ids.first().map(|id| json!(id))),
            ("pluginConfig", Some(config.clone()).filter(|config| !config.is_null())),
        ];
        for (name, value) in fields {
            if let (Value::Object(spec), Some(value)) = (&mut spec, value) {
                spec.insert(name.to_owned(), value);
            }
        }
        spec
    }

    /// Whether an extension of a plan runs this plugin's module.
    pub(super) fn is_in(&self, plan: &Plan, extension: &Extension) -> bool {
        matches!(plan.modules.get(&extension.id()), Some(Module::File { path, .. }) if *path == self.module())
            || extension.wasm().is_some_and(|wasm| is_of(&self.plugin, &wasm.url))
    }

    /// The urls of the resources that are this plugin's.
    fn urls(&self, args: &Args, resources: &Resources) -> Result<Vec<String>, Failure> {
        let all: BTreeSet<String> =
            resources.extensions.iter().filter_map(Extension::wasm).map(|wasm| with_scheme(&wasm.url)).collect();
        let known = || all.iter().cloned().collect::<Vec<_>>().join(", ");
        if let Some(url) = &args.url {
            let url = with_scheme(url);
            return if all.contains(&url) {
                Ok(vec![url])
            } else {
                Err(Failure::usage(format!("--as: no resource has the url `{url}`; they have {}", known())))
            };
        }
        let found: Vec<String> = all.iter().filter(|url| is_of(&self.plugin, url)).cloned().collect();
        match found.as_slice() {
            [] if all.len() == 1 => Ok(all.into_iter().collect()),
            [] => Err(Failure::usage(format!(
                "no resource is the plugin `{}`'s: they have {}",
                self.plugin.name,
                known()
            ))
            .hint("`--as URL` says which one is")),
            _ => Ok(found),
        }
    }
}

/// Whether a url names a plugin's image, by its repository or by its name.
pub(super) fn is_of(plugin: &Plugin, url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let repository = rest.split_once('@').map_or(rest, |(name, _)| name);
    let last = repository.rsplit('/').next().unwrap_or(repository);
    let name = last.split_once(':').map_or(last, |(name, _)| name);
    let repository = repository.strip_suffix(last).map_or_else(|| name.to_owned(), |folder| format!("{folder}{name}"));
    let plain = |name: &str| name.trim_end_matches(".wasm").replace('_', "-");
    plugin.image.as_deref() == Some(repository.as_str()) || plain(name) == plain(&plugin.name)
}

/// A crate's name as Kubernetes has names.
pub(super) fn resource_name(name: &str) -> String {
    name.replace('_', "-").to_ascii_lowercase()
}

/// Every file beneath a folder but what is built or hidden.
fn note_all(folder: &Path, watched: &mut Watched) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        let scratch = name.starts_with('.') || name.ends_with('~') || name == "target" || name == "node_modules";
        match entry.file_type() {
            Ok(_) if scratch => {}
            Ok(kind) if kind.is_dir() => note_all(&path, watched),
            _ => watched.note_alone(&path),
        }
    }
}

/// Text for a page, of text for a terminal.
pub(super) fn without_colours(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut pieces = text.split("\u{1b}[");
    plain.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        let end = piece.find(|c: char| c.is_ascii_alphabetic()).map_or(piece.len(), |at| at + 1);
        plain.push_str(piece.get(end..).unwrap_or_default());
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plugin(image: Option<&str>) -> Plugin {
        Plugin {
            name: "basic-auth".to_owned(),
            version: "0.1.0".to_owned(),
            description: None,
            license: None,
            source: None,
            root: PathBuf::new(),
            root_ids: Vec::new(),
            phase: None,
            priority: None,
            image: image.map(str::to_owned),
            config_schema: None,
        }
    }

    #[test]
    fn a_url_is_a_plugins_by_its_repository_or_its_name() {
        let ours = plugin(Some("ghcr.io/acme/auth"));
        for url in ["oci://ghcr.io/acme/auth:1", "oci://ghcr.io/acme/auth@sha256:0", "oci://x:5000/y/basic_auth:1.12.0"]
        {
            assert!(is_of(&ours, url), "{url}");
        }
        assert!(is_of(&ours, "file:///a/basic-auth.wasm"));
        for url in ["oci://ghcr.io/acme/other:1", "oci://x/auth", "oci://x:5000/basic-auth-2"] {
            assert!(!is_of(&ours, url), "{url}");
        }
    }

    #[test]
    fn a_page_has_no_use_for_a_terminals_colours() {
        assert_eq!(without_colours("\u{1b}[1m\u{1b}[38;5;9merror\u{1b}[0m: x\n"), "error: x\n");
        assert_eq!(without_colours("plain [x]"), "plain [x]");
    }
}

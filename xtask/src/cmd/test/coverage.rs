//! `--coverage`: gives the runner modules that take notes, and says of whose code the notes are.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use mesh::plan;
use packager::build::{Built, Plugin};
use packager::coverage::{self, Detail, Instrumented, Lines, Probe};
use packager::digest::Digest;
use suites::chain::Planned;
use suites::coverage::{Count, Coverage, File, Function, Group};
use suites::job::{Job, Kind};
use tempfile::TempDir;

use crate::cmd::build::{Purpose, ToolchainFlags, build_for};
use crate::report::Failure;

/// Folders of others, as builds name them.
const LIBRARIES: [&str; 3] = ["/rustc/", "/registry/", "/source/"];

/// Builds the plugins that suites need, each once.
pub(crate) struct Builds<'a> {
    flags: &'a ToolchainFlags,
    purpose: Purpose,
    built: RefCell<Vec<Built>>,
}

impl<'a> Builds<'a> {
    pub(super) fn new(flags: &'a ToolchainFlags, coverage: bool) -> Self {
        let purpose = if coverage { Purpose::Coverage } else { Purpose::Package };
        Self { flags, purpose, built: RefCell::default() }
    }

    /// The plugins with these names.
    pub(super) fn build(&self, names: &[String]) -> Result<Vec<Built>, Failure> {
        let find = |known: &[Built], name: &String| known.iter().find(|built| built.plugin.name == *name).cloned();
        let missing = |name: &&String| find(&self.built.borrow(), name).is_none();
        let missing: Vec<String> = names.iter().filter(missing).cloned().collect();
        if !missing.is_empty() {
            let built = build_for(self.purpose, &missing, self.flags)?.1;
            self.built.borrow_mut().extend(built);
        }
        let known = self.built.borrow();
        Ok(names.iter().filter_map(|name| find(&known, name)).collect())
    }

    /// One that was built already.
    pub(super) fn plugin(&self, name: &str) -> Option<Plugin> {
        let known = self.built.borrow();
        known.iter().find(|built| built.plugin.name == name).map(|built| built.plugin.clone())
    }

    /// Whose module has these bytes.
    fn owner(&self, digest: &Digest) -> Option<Plugin> {
        let known = self.built.borrow();
        let is_it = |built: &&Built| std::fs::read(&built.module).is_ok_and(|bytes| Digest::of(&bytes) == *digest);
        known.iter().find(is_it).map(|built| built.plugin.clone())
    }
}

/// The modules of a job that take notes.
pub(super) struct Notes {
    /// Where they are, as long as they are needed.
    folder: TempDir,
    modules: Vec<Noted>,
    /// The modules of each suite, in the job's order.
    of_suites: Vec<BTreeSet<usize>>,
}

/// A module, and the one that takes notes in its place.
struct Noted {
    digest: Digest,
    bytes: Vec<u8>,
    shown: String,
    owner: Option<Plugin>,
    made: Result<Made, String>,
}

struct Made {
    path: PathBuf,
    digest: Digest,
    probes: Vec<Probe>,
}

impl Notes {
    /// Puts modules that take notes in the place of the job's. A module that cannot take any, or cannot be read, stays:
    /// whatever is wrong with it is for its tests to say.
    pub(super) fn taken_by(job: &mut Job, builds: &Builds<'_>, lines: bool) -> Result<Self, Failure> {
        let failed = |error| Failure::environment(error).context("failed to make a temporary folder");
        let mut notes =
            Self { folder: tempfile::tempdir().map_err(failed)?, modules: Vec::new(), of_suites: Vec::new() };
        let detail = if lines { Detail::Regions } else { Detail::Functions };
        for task in &mut job.suites {
            notes.of_suites.push(BTreeSet::new());
            match &mut task.kind {
                Kind::Plugin(task) => {
                    if let Ok(module) = &mut task.module
                        && let Some(made) = notes.made(module, builds, detail)?
                    {
                        module.clone_from(&made.path);
                    }
                }
                Kind::Chain(task) => {
                    for planned in &mut task.plans {
                        let Planned::Ready(plan) = planned else { continue };
                        for module in plan.modules.values_mut() {
                            if let plan::Module::File { path, sha256 } = module
                                && let Some(made) = notes.made(path, builds, detail)?
                            {
                                path.clone_from(&made.path);
                                made.digest.hex().clone_into(sha256);
                            }
                        }
                    }
                }
                Kind::Broken(_) => {}
            }
        }
        Ok(notes)
    }

    fn made(&mut self, module: &Path, builds: &Builds<'_>, detail: Detail) -> Result<Option<&Made>, Failure> {
        let Ok(bytes) = std::fs::read(module) else { return Ok(None) };
        let digest = Digest::of(&bytes);
        let at = match self.modules.iter().position(|known| known.digest == digest) {
            Some(known) => known,
            None => {
                let owner = builds.owner(&digest);
                let shown = owner.as_ref().map_or_else(|| module.display().to_string(), |owner| owner.name.clone());
                let made = match coverage::instrument(&bytes, detail) {
                    Ok(instrumented) => Ok(self.keep(instrumented)?),
                    Err(error) => Err(crate::report::chain(&error)),
                };
                self.modules.push(Noted { digest, bytes, shown, owner, made });
                self.modules.len() - 1
            }
        };
        if let Some(suite) = self.of_suites.last_mut() {
            suite.insert(at);
        }
        Ok(self.modules.get(at).and_then(|noted| noted.made.as_ref().ok()))
    }

    fn keep(&self, Instrumented { module, probes }: Instrumented) -> Result<Made, Failure> {
        let path = self.folder.path().join(format!("{}.wasm", self.modules.len()));
        std::fs::write(&path, &module).map_err(|error| {
            Failure::environment(error).context(&format!("failed to write the module {}", path.display()))
        })?;
        Ok(Made { path, digest: Digest::of(&module), probes })
    }

    /// What the notes say, by module in the order of the suites.
    pub(super) fn coverage(&self, reached: &BTreeMap<String, Vec<u64>>, all: bool) -> Vec<Coverage> {
        self.modules.iter().map(|noted| noted.coverage(reached, all)).collect()
    }

    /// Which of these each suite has had a part in.
    pub(super) fn by_suite<'c>(&self, coverage: &'c [Coverage]) -> Vec<Vec<&'c Coverage>> {
        let of = |suite: &BTreeSet<usize>| suite.iter().filter_map(|at| coverage.get(*at)).collect();
        self.of_suites.iter().map(of).collect()
    }
}

impl Noted {
    fn coverage(&self, reached: &BTreeMap<String, Vec<u64>>, all: bool) -> Coverage {
        let none =
            |problem: String| Coverage { plugin: self.shown.clone(), problem: Some(problem), ..Coverage::default() };
        let made = match &self.made {
            Ok(made) => made,
            Err(why) => return none(why.clone()),
        };
        let Some(words) = reached.get(made.digest.hex()) else { return none("no test has run it".to_owned()) };
        let is_set = |flag: usize| words.get(flag / 64).is_some_and(|word| word >> (flag % 64) & 1 == 1);
        let lines = Lines::of(&self.bytes);
        let functions = coverage::functions(&self.bytes, &lines);
        // A function is entered by its first region.
        let mut entered = vec![None; functions.all.len()];
        for (flag, probe) in made.probes.iter().enumerate() {
            if let Some(entered) = entered.get_mut(usize::try_from(probe.function).unwrap_or(usize::MAX)) {
                entered.get_or_insert_with(|| is_set(flag));
            }
        }
        let crate_name = self.owner.as_ref().map(|owner| owner.name.as_str());
        let crate_name = crate_name.or_else(|| Path::new(&self.shown).file_stem()?.to_str());
        let crate_name = crate_name.map(|name| name.replace('-', "_"));
        let own = functions.own(crate_name.as_deref(), self.go_module().as_deref());
        let (mut listed, mut others) = (BTreeMap::new(), BTreeMap::new());
        for (function, entered) in functions.all.iter().zip(&entered) {
            let reached = *entered == Some(true);
            let origin = function.origin.clone();
            if all || own.has(function) {
                // What is generic is in the module once for each use, and in the source once.
                let place = function.place.as_ref().map(|(file, line)| (shown(file), *line));
                let key = (origin, place, function.name.clone());
                listed.entry(key).or_insert((function.index, false)).1 |= reached;
            } else {
                let count: &mut Count = others.entry(origin).or_default();
                *count = Count { total: count.total + 1, reached: count.reached + usize::from(reached) };
            }
        }
        let listed = listed.into_iter().map(|((origin, place, name), (index, reached))| Function {
            origin,
            place,
            name,
            index,
            reached,
        });
        let others = others.into_iter().map(|(origin, count)| Group { origin, count });
        Coverage {
            plugin: self.shown.clone(),
            own: own.to_string(),
            named: functions.named,
            problem: None,
            functions: listed.collect(),
            others: others.collect(),
            files: files(made, &functions, &lines, &|function| all || own.has(function), &is_set),
        }
    }

    /// The path in the `go.mod` beside a plugin in Go.
    fn go_module(&self) -> Option<String> {
        let text = std::fs::read_to_string(self.owner.as_ref()?.root.join("go.mod")).ok()?;
        text.lines().find_map(|line| line.trim().strip_prefix("module ")).map(|path| path.trim().to_owned())
    }
}

/// The lines of the functions that are asked for. Of a line that is of several regions, one is enough.
fn files(
    made: &Made,
    functions: &coverage::Functions,
    lines: &Lines,
    wanted: &dyn Fn(&coverage::Function) -> bool,
    is_set: &dyn Fn(usize) -> bool,
) -> Vec<File> {
    // With one probe for each function, nothing is known of its lines.
    if made.probes.len() <= functions.all.len() {
        return Vec::new();
    }
    let mut files: BTreeMap<String, BTreeMap<u32, bool>> = BTreeMap::new();
    for (flag, probe) in made.probes.iter().enumerate() {
        let function = usize::try_from(probe.function).ok().and_then(|at| functions.all.get(at));
        if !function.is_some_and(wanted) {
            continue;
        }
        for line in lines.within(&probe.code) {
            // What was inlined from a library is in the library's files.
            if !LIBRARIES.iter().any(|folder| line.file.starts_with(folder)) {
                *files.entry(shown(&line.file)).or_default().entry(line.line).or_default() |= is_set(flag);
            }
        }
    }
    files.into_iter().map(|(path, lines)| File { path, lines: lines.into_iter().collect() }).collect()
}

/// Without the name that builds give the workspace's folder.
fn shown(file: &str) -> String {
    file.strip_prefix("/workspace/").unwrap_or(file).to_owned()
}

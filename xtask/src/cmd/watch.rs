//! `run --reload`: a process beside the harness that makes a plan again whenever something changes that it is made from.
//!
//! The harness takes the place of the first process, as it always does, so that signals and exit code are its own. Its
//! standard input is one end of a socket. The other end is this process's standard input and output: it writes plans, a
//! line each, and reads nothing, which ends when the harness does.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::{BufRead, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant, UNIX_EPOCH};

use mesh::plan::{Answer, Line, Plan};
use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use serde::{Deserialize, Serialize};

use crate::report::{Failure, note};
use crate::{handover, input};

/// Whoever writes several files, or one in pieces, is waited for this long after the last change.
pub(super) const QUIET: Duration = Duration::from_millis(100);
/// But no longer than this after the first.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// The files that a plan is made from, each as it was just before it was read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Watched(BTreeMap<PathBuf, Option<Stamp>>);

/// What tells a file from the one that was there before: modification time, size, number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp(u64, u32, u64, u64);

impl Stamp {
    /// `None`: there is no such file.
    fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        let modified =
            metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        Some(Self(modified.as_secs(), modified.subsec_nanos(), metadata.len(), number(&metadata)))
    }
}

#[cfg(unix)]
fn number(metadata: &std::fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

#[cfg(not(unix))]
fn number(_: &std::fs::Metadata) -> u64 {
    0
}

impl Watched {
    /// A file, or a folder of resources, is about to be read.
    pub(crate) fn note(&mut self, path: &Path) {
        self.0.insert(path.to_owned(), Stamp::of(path));
        if path.is_dir() {
            for file in input::resource_files(path).unwrap_or_default() {
                self.0.insert(file.clone(), Stamp::of(&file));
            }
        }
    }

    /// Whether all of it is as it was.
    pub(super) fn is_current(&self) -> bool {
        self.0.iter().all(|(path, stamp)| Stamp::of(path) == *stamp)
    }

    /// Those that are not as they were.
    pub(super) fn changed(&self) -> Vec<&Path> {
        let changed = self.0.iter().filter(|(path, stamp)| Stamp::of(path) != **stamp);
        changed.map(|(path, _)| path.as_path()).collect()
    }

    /// Those of another one that this one has not.
    pub(super) fn unknown<'w>(&self, other: &'w Self) -> Vec<&'w Path> {
        other.0.keys().filter(|path| !self.0.contains_key(*path)).map(PathBuf::as_path).collect()
    }

    /// A file, or a folder as such, and nothing beneath.
    pub(super) fn note_alone(&mut self, path: &Path) {
        self.0.insert(path.to_owned(), Stamp::of(path));
    }

    /// The same files as they are now.
    pub(super) fn renewed(&self) -> Self {
        Self(self.0.keys().map(|path| (path.clone(), Stamp::of(path))).collect())
    }

    /// The others.
    pub(super) fn without(mut self, path: &Path) -> Self {
        self.0.remove(path);
        self
    }

    /// Everything that another one has and this one has not.
    pub(super) fn add(&mut self, other: Self) {
        for (path, stamp) in other.0 {
            self.0.entry(path).or_insert(stamp);
        }
    }

    /// The folders in which something happens when it changes. A link's target is somewhere else.
    fn folders(&self) -> BTreeSet<PathBuf> {
        let mut folders = BTreeSet::new();
        for path in self.0.keys() {
            let target = path.canonicalize().ok();
            for path in [Some(path.as_path()), target.as_deref()].into_iter().flatten() {
                folders.extend(existing(path));
            }
        }
        folders
    }
}

/// The folder itself, else the nearest that exists above it.
fn existing(path: &Path) -> Option<PathBuf> {
    let here = |folder: &Path| if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder.to_owned() };
    path.ancestors().map(here).find(|folder| folder.is_dir())
}

/// What the watching process starts with.
#[derive(Serialize, Deserialize)]
pub(super) struct First {
    pub(super) plan: Plan,
    pub(super) watched: Watched,
}

/// What happened.
pub(super) enum Happened {
    /// Something in a folder.
    Change,
    /// The harness has ended.
    End,
    /// What the harness said of a plan.
    Answer(Answer),
    /// What else goes on has come to its end: what is to be shown, under a name.
    Known(u64, &'static str, serde_json::Value),
}

/// Start the watching process, and become the harness. Returns only when that fails.
///
/// `group`: whatever the watching process starts is in a process group with it, which a key that interrupts does not
/// reach. It ends when the harness does, and all of its group with it.
#[cfg(unix)]
pub(super) fn exec(first: &impl Serialize, arguments: Vec<OsString>, group: bool) -> Failure {
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    let failed = |error: std::io::Error| Failure::environment(format!("failed to start watching: {error}"));
    let program = match handover::locate("harness", "plugwright-harness") {
        Ok(program) => program,
        Err(failure) => return failure,
    };
    let started = || -> std::io::Result<UnixStream> {
        let first = serde_json::to_vec(first)?;
        let (mut ours, theirs) = UnixStream::pair()?;
        let output = OwnedFd::from(theirs.try_clone()?);
        let mut watching = std::process::Command::new(std::env::current_exe()?);
        watching.args(std::env::args_os().skip(1)).arg("--watching");
        if group {
            std::os::unix::process::CommandExt::process_group(&mut watching, 0);
        }
        watching.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::from(output)).spawn()?;
        ours.write_all(&first)?;
        ours.write_all(b"\n")?;
        Ok(ours)
    };
    match started() {
        Ok(socket) => handover::replace_by(&program, arguments, Some(OwnedFd::from(socket).into())),
        Err(error) => failed(error),
    }
}

/// There is no way to do so.
#[cfg(not(unix))]
pub(super) fn exec(_: &impl Serialize, _: Vec<OsString>, _: bool) -> Failure {
    Failure::usage("following changes needs a Unix")
}

/// Give the harness the first plan, then another one after each change. Returns when the harness has ended.
pub(crate) fn watch(mut plan: impl FnMut(&mut Watched) -> Result<Plan, Failure>) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::environment(format!("failed to watch: {error}"));
    let mut line = Vec::new();
    std::io::stdin().lock().read_until(b'\n', &mut line).map_err(failed)?;
    let First { plan: first, mut watched } = serde_json::from_slice(&line).map_err(|error| failed(error.into()))?;
    if send(&first).is_err() {
        return Ok(());
    }
    let (sender, happened) = channel();
    let mut folders =
        Folders::new(sender.clone()).map_err(|error| Failure::environment(error).context("failed to watch"))?;
    std::thread::spawn(move || {
        // Nothing comes, but its end.
        let _ = std::io::stdin().lock().read_to_end(&mut Vec::new());
        let _ = sender.send(Happened::End);
    });
    loop {
        folders.watch(&watched);
        // What changed before the folders were watched is seen here.
        if watched.is_current() {
            match next(&happened) {
                Happened::End => return Ok(()),
                _ => continue,
            }
        }
        let mut again = Watched::default();
        match plan(&mut again) {
            Ok(plan) => {
                if send(&Line::Plan(Box::new(plan))).is_err() {
                    return Ok(());
                }
                watched = again;
            }
            Err(failure) => {
                note("not reloaded, what was served before still is:");
                failure.report();
                // What could not be read does not make the rest unimportant.
                let modules = std::mem::take(&mut watched.0).into_keys().filter(|path| !again.0.contains_key(path));
                let modules: Vec<_> = modules.map(|path| (Stamp::of(&path), path)).collect();
                again.0.extend(modules.into_iter().map(|(stamp, path)| (path, stamp)));
                watched = again;
            }
        }
    }
}

/// Something on a line of its own.
pub(super) fn send(what: &impl Serialize) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    let mut out = std::io::stdout().lock();
    out.write_all(&line)?;
    out.flush()
}

/// Waits until something has happened, and then until it is quiet.
fn next(happened: &Receiver<Happened>) -> Happened {
    let Ok(Happened::Change) = happened.recv() else { return Happened::End };
    let since = Instant::now();
    while since.elapsed() < PATIENCE {
        match happened.recv_timeout(QUIET) {
            Ok(Happened::End) => return Happened::End,
            Ok(_) => {}
            Err(_) => break,
        }
    }
    Happened::Change
}

/// The folders that are watched.
pub(super) struct Folders {
    watcher: RecommendedWatcher,
    watched: BTreeSet<PathBuf>,
}

impl Folders {
    pub(super) fn new(sender: Sender<Happened>) -> notify::Result<Self> {
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading is no change, and what could not be told may be one.
            let read = |event: &notify::Event| match event.kind {
                EventKind::Access(AccessKind::Close(AccessMode::Write)) => false,
                EventKind::Access(_) => true,
                _ => false,
            };
            if !event.as_ref().is_ok_and(read) {
                let _ = sender.send(Happened::Change);
            }
        })?;
        Ok(Self { watcher, watched: BTreeSet::new() })
    }

    /// Watches these files' folders, and no others.
    pub(super) fn watch(&mut self, files: &Watched) {
        let wanted = files.folders();
        for gone in self.watched.difference(&wanted) {
            // A folder that is gone is not watched any more.
            let _ = self.watcher.unwatch(gone);
        }
        for folder in &wanted {
            // Again too: a folder may have been replaced by another of the same name.
            if let Err(error) = self.watcher.watch(folder, RecursiveMode::NonRecursive) {
                note(format!("warning: {} cannot be watched: {error}", folder.display()));
            }
        }
        self.watched = wanted;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_written_replaced_added_or_removed_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("a.yaml"), "a").unwrap();
        let noted = || {
            let mut watched = Watched::default();
            watched.note(folder.path());
            watched.note(&at("module.wasm"));
            watched
        };
        let watched = noted();
        assert!(watched.is_current());
        fs::write(at("a.yaml"), "longer").unwrap();
        assert!(!watched.is_current());
        let watched = noted();
        fs::write(at("b"), "longer").unwrap();
        fs::rename(at("b"), at("a.yaml")).unwrap();
        assert!(!watched.is_current());
        let watched = noted();
        fs::write(at("b.yaml"), "").unwrap();
        assert!(!watched.is_current());
        let watched = noted();
        fs::write(at("module.wasm"), "").unwrap();
        assert!(!watched.is_current());
        let watched = noted();
        fs::remove_file(at("module.wasm")).unwrap();
        assert!(!watched.is_current());
    }

    #[test]
    fn a_file_that_is_not_there_is_waited_for_where_it_would_be() {
        let folder = tempfile::tempdir().unwrap();
        let mut watched = Watched::default();
        watched.note(&folder.path().join("dist/index.json"));
        assert_eq!(watched.folders(), BTreeSet::from([folder.path().to_owned()]));
    }
}

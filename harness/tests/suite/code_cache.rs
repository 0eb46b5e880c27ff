//! The folder of compiled modules: what is taken from it, what is not, and how large it gets.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use harness::code_cache::{CacheError, CodeCache};
use harness::engine::{Engine, Limits};
use harness::module::Module;

use crate::support::Guest;

fn compile(cache: CodeCache, bytes: &[u8]) -> Module {
    let engine = Engine::new(Limits::default()).unwrap().with_code_cache(Arc::new(cache));
    Module::compile(&engine, bytes).unwrap()
}

fn open(folder: &Path) -> CodeCache {
    CodeCache::open(folder).unwrap()
}

fn guest(name: &str) -> Vec<u8> {
    Guest::recorder(name).build()
}

/// Everything but the key, oldest names first.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.retain(|path| path.file_name().unwrap() != "key");
    entries.sort();
    entries
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[track_caller]
fn check(folder: &Path, bytes: &[u8], from_cache: bool) {
    assert_eq!(compile(open(folder), bytes).from_cache(), from_cache);
}

#[test]
fn a_module_is_compiled_once() {
    let (folder, a, b) = (tempfile::tempdir().unwrap(), guest("a"), guest("b"));
    let folder = folder.path().join("made/here");
    check(&folder, &a, false);
    check(&folder, &a, true);
    check(&folder, &b, false);
    check(&folder, &a, true);
    assert_eq!(entries(&folder).len(), 2);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    assert!(entries(&folder).iter().all(|path| mode(path) == 0o600));
    assert_eq!(mode(&folder.join("key")), 0o600);
}

#[test]
fn a_damaged_entry_is_compiled_again() {
    let (folder, bytes) = (tempfile::tempdir().unwrap(), guest("a"));
    let folder = folder.path().join("code");
    check(&folder, &bytes, false);
    let entry = entries(&folder).remove(0);
    let good = fs::read(&entry).unwrap();
    let flipped = |at: usize| {
        let mut bad = good.clone();
        bad[at] ^= 1;
        bad
    };
    let middle = good.len() / 2;
    let cases = [
        Vec::new(),
        good[..31].to_vec(),
        good[..32].to_vec(),
        good[..middle].to_vec(),
        good[..good.len() - 1].to_vec(),
        [&good[..], b"x"].concat(),
        flipped(0),
        flipped(32),
        flipped(middle),
        flipped(good.len() - 1),
    ];
    for bad in cases {
        fs::write(&entry, bad).unwrap();
        check(&folder, &bytes, false);
        assert_eq!(entries(&folder), std::slice::from_ref(&entry));
        check(&folder, &bytes, true);
    }
}

#[test]
fn an_entry_counts_for_its_own_module_only() {
    let (folder, a, b) = (tempfile::tempdir().unwrap(), guest("a"), guest("b"));
    let folder = folder.path().join("code");
    check(&folder, &a, false);
    let of_a = entries(&folder).remove(0);
    check(&folder, &b, false);
    let of_b = entries(&folder).into_iter().find(|path| *path != of_a).unwrap();
    fs::copy(&of_b, &of_a).unwrap();
    check(&folder, &a, false);
}

#[test]
fn an_entry_counts_with_its_folders_key_only() {
    let (folders, bytes) = (tempfile::tempdir().unwrap(), guest("a"));
    let [one, other] = ["one", "other"].map(|name| folders.path().join(name));
    check(&one, &bytes, false);
    check(&other, &bytes, false);
    fs::copy(&entries(&one)[0], &entries(&other)[0]).unwrap();
    check(&other, &bytes, false);
    for key in [&b"short"[..], &[0; 33]] {
        fs::write(other.join("key"), key).unwrap();
        check(&other, &bytes, false);
        check(&other, &bytes, true);
    }
}

#[test]
fn what_others_could_have_written_is_not_executed() {
    let (folder, bytes) = (tempfile::tempdir().unwrap(), guest("a"));
    let folder = folder.path().join("code");
    check(&folder, &bytes, false);
    let entry = entries(&folder).remove(0);
    set_mode(&entry, 0o620);
    check(&folder, &bytes, false);
    let elsewhere = folder.with_file_name("elsewhere");
    fs::rename(&entry, &elsewhere).unwrap();
    symlink(&elsewhere, &entry).unwrap();
    check(&folder, &bytes, false);
    set_mode(&folder.join("key"), 0o640);
    check(&folder, &bytes, false);
    check(&folder, &bytes, true);
}

#[track_caller]
fn check_refused(folder: &Path, message: &str) {
    let error = CodeCache::open(folder).unwrap_err();
    assert!(matches!(error, CacheError::NotOurs { .. }), "{error}");
    assert!(error.to_string().contains(message), "{error}");
}

#[test]
fn a_folder_that_is_open_to_others_is_refused() {
    let folders = tempfile::tempdir().unwrap();
    let folder = folders.path().join("code");
    open(&folder);
    for mode in [0o750, 0o701, 0o720, 0o777] {
        set_mode(&folder, mode);
        check_refused(&folder, "is open to other users");
    }
    set_mode(&folder, 0o700);
    open(&folder);
    let link = folders.path().join("link");
    symlink(&folder, &link).unwrap();
    check_refused(&link, "is no folder");
}

#[test]
fn a_folder_that_cannot_be_made_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let error = CodeCache::open(&file.join("code")).unwrap_err();
    assert!(error.to_string().contains("create the folder") && error.to_string().contains("file/code"), "{error}");
}

#[test]
fn what_was_not_used_for_longest_makes_room() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("code");
    let [a, b, c] = ["a", "b", "c"].map(guest);
    check(&folder, &a, false);
    let size = fs::metadata(&entries(&folder)[0]).unwrap().len();
    let limited = || open(&folder).limited_to(size * 5 / 2);
    compile(limited(), &b);
    fs::write(folder.join(".tmpleft"), vec![0; 10]).unwrap();
    // The order of use, whatever the clock's resolution is.
    for (age, bytes) in [(30, &b), (20, &a)] {
        let before = entries(&folder);
        assert!(compile(limited(), bytes).from_cache());
        let used = before.iter().max_by_key(|path| fs::metadata(path).unwrap().modified().unwrap()).unwrap();
        let then = std::time::SystemTime::now() - std::time::Duration::from_secs(age);
        fs::File::options().write(true).open(used).unwrap().set_modified(then).unwrap();
    }
    compile(limited(), &c);
    for (bytes, kept) in [(&a, true), (&c, true), (&b, false)] {
        assert_eq!(compile(open(&folder), bytes).from_cache(), kept);
    }
}

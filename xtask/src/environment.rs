//! What the process environment says: the one place that reads it.

use std::path::{Path, PathBuf};

use packager::build::Tools;

/// A program on `$PATH`.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// The cargo that runs us, else the one on the path.
pub(crate) fn cargo() -> PathBuf {
    std::env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from)
}

/// Where to look for compilers, for a build in `directory`.
pub(crate) fn tools(directory: &Path) -> Tools {
    Tools {
        rustc: std::env::var_os("RUSTC").map_or_else(|| PathBuf::from("rustc"), PathBuf::from),
        rustup: on_path("rustup"),
        system_rustc: PathBuf::from("/usr/bin/rustc"),
        system_libc: PathBuf::from("/usr/lib/wasm32-wasi"),
        wasm_ld: on_path("wasm-ld"),
        apt_get: on_path("apt-get"),
        root: is_root(),
        directory: directory.to_owned(),
    }
}

/// `SOURCE_DATE_EPOCH` in seconds (reproducible-builds.org), when set; a value that is not a number is an error.
pub(crate) fn source_date_epoch() -> Result<Option<u64>, crate::report::Failure> {
    let Some(value) = std::env::var_os("SOURCE_DATE_EPOCH") else { return Ok(None) };
    let seconds = value.to_str().and_then(|text| text.parse().ok());
    seconds.map(Some).ok_or_else(|| {
        let message = format!("SOURCE_DATE_EPOCH is `{}`: expected whole seconds since 1970", value.to_string_lossy());
        crate::report::Failure::usage(message)
    })
}

/// The folder for what can be fetched or made again: `$XDG_CACHE_HOME/plugwright`, else `~/.cache/plugwright`.
pub(crate) fn cache() -> Result<PathBuf, crate::report::Failure> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
    base.map(|base| base.join("plugwright")).ok_or_else(|| {
        crate::report::Failure::environment("no folder for the cache: neither XDG_CACHE_HOME nor HOME is set")
    })
}

/// Where registry credentials are kept when no folder is named: podman's `$REGISTRY_AUTH_FILE` if that is set, then
/// `config.json` in `$DOCKER_CONFIG`, else in `~/.docker`.
pub(crate) fn registry_credentials() -> Vec<PathBuf> {
    let named = std::env::var_os("REGISTRY_AUTH_FILE").filter(|path| !path.is_empty()).map(PathBuf::from);
    let docker = std::env::var_os("DOCKER_CONFIG")
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".docker")));
    named.into_iter().chain(docker.map(|folder| packager::credentials::config_file(&folder))).collect()
}

/// `$PATH`.
pub(crate) fn search_path() -> std::ffi::OsString {
    std::env::var_os("PATH").unwrap_or_default()
}

#[cfg(unix)]
fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

#[cfg(not(unix))]
fn is_root() -> bool {
    false
}

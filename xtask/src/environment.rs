//! What the process environment says: the one place that reads it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use packager::build::Tools;
use packager::registry::{NoProxy, Proxies, Proxy};

use crate::report::Failure;

/// A program on `$PATH`.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// The Envoy that `$ENVOY` names, else the one on the path.
pub(crate) fn envoy() -> Option<PathBuf> {
    std::env::var_os("ENVOY").filter(|path| !path.is_empty()).map(PathBuf::from).or_else(|| on_path("envoy"))
}

/// The cargo that runs us, else the one on the path.
pub(crate) fn cargo() -> PathBuf {
    std::env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from)
}

/// Whether cargo runs or tests this program in the checkout that it was compiled from: it sets this variable then only.
pub(crate) fn runs_from_checkout() -> bool {
    std::env::var_os("CARGO_MANIFEST_DIR").is_some_and(|folder| folder == env!("CARGO_MANIFEST_DIR"))
}

/// Where cargo puts what it builds of the workspace at `root`, as far as variables say so.
pub(crate) fn target(root: &Path) -> PathBuf {
    root.join(std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from))
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

/// Everything, for what has to know whether anything of it has changed. What is not text is left out.
pub(crate) fn variables() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// `SOURCE_DATE_EPOCH` in seconds (reproducible-builds.org), when set; a value that is not a number is an error.
pub(crate) fn source_date_epoch() -> Result<Option<u64>, Failure> {
    let Some(value) = std::env::var_os("SOURCE_DATE_EPOCH") else { return Ok(None) };
    let seconds = value.to_str().and_then(|text| text.parse().ok());
    seconds.map(Some).ok_or_else(|| {
        let message = format!("SOURCE_DATE_EPOCH is `{}`: expected whole seconds since 1970", value.to_string_lossy());
        Failure::usage(message)
    })
}

/// The folder for what can be fetched or made again: `$XDG_CACHE_HOME/plugwright`, else `~/.cache/plugwright`.
pub(crate) fn cache() -> Result<PathBuf, Failure> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
    base.map(|base| base.join("plugwright"))
        .ok_or_else(|| Failure::environment("no folder for the cache: neither XDG_CACHE_HOME nor HOME is set"))
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

/// What is met through a proxy: `HTTPS_PROXY` and `HTTP_PROXY` by the URL's scheme, else `ALL_PROXY`, but not what
/// `NO_PROXY` names; each in lower case too. A proxy that cannot be used is an error: going around it is not what was
/// asked for.
pub(crate) fn proxies() -> Result<Proxies, Failure> {
    let all = proxy("ALL_PROXY")?;
    let except = variable("NO_PROXY").map(|(_, list)| NoProxy::parse(&list.to_string_lossy())).unwrap_or_default();
    Ok(Proxies { https: proxy("HTTPS_PROXY")?.or_else(|| all.clone()), http: proxy("HTTP_PROXY")?.or(all), except })
}

fn proxy(name: &str) -> Result<Option<Proxy>, Failure> {
    let Some((name, value)) = variable(name) else { return Ok(None) };
    // The value may hold a password, and is not repeated.
    let proxy = value.to_string_lossy().parse::<Proxy>();
    proxy.map(Some).map_err(|error| Failure::environment(error).context(&format!("{name} is unusable")))
}

/// A variable in upper or lower case that is set and not empty, with the name it was found under.
fn variable(name: &str) -> Option<(String, std::ffi::OsString)> {
    [name.to_owned(), name.to_ascii_lowercase()].into_iter().find_map(|name| {
        let value = std::env::var_os(&name).filter(|value| !value.is_empty())?;
        Some((name, value))
    })
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

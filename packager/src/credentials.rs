//! Registry credentials from docker config files and credential helpers, by docker's and containers-auth.json's rules.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::reference::ImageReference;

mod file;
mod helper;

/// Docker Hub's key in every file and helper.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// A text that never shows: neither in `Debug` nor in an error.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keep a text from being shown.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, to be put into a request and nowhere else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

/// What a registry is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// User name and password.
    Basic {
        /// User name.
        username: String,
        /// Password.
        password: Secret,
    },
    /// An `OAuth2` refresh token (`identitytoken`), to be exchanged at the token endpoint.
    IdentityToken(Secret),
    /// A bearer token (`registrytoken`), to be sent as it is.
    RegistryToken(Secret),
}

/// Why credentials could not be read. Having none is not an error.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The file is there and cannot be read.
    #[error("failed to read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not the JSON of a docker config file. The reason never quotes the file, which holds secrets.
    #[error("{}:{line}:{column}: not a docker config file: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// One-based line.
        line: usize,
        /// One-based column.
        column: usize,
        /// What is wrong there.
        reason: String,
    },
    /// An entry that cannot be decoded.
    #[error("{}: credentials for `{key}` are unusable: {reason}", path.display())]
    Entry {
        /// The file.
        path: PathBuf,
        /// The entry's key.
        key: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The helper that a config file names is not installed.
    #[error("credential helper `{program}`, which {} asks for, is not on the PATH", path.display())]
    HelperMissing {
        /// The program looked for.
        program: String,
        /// The file that names it.
        path: PathBuf,
    },
    /// The name cannot be part of a program's name.
    #[error("{}: `{name}` is not a credential helper's name", path.display())]
    HelperName {
        /// The name as given.
        name: String,
        /// The file that names it.
        path: PathBuf,
    },
    /// A docker config that was not found on this machine names a helper.
    #[error("{name}: it names a credential helper, which only a config file of this machine may do")]
    HelperInSecret {
        /// Which one.
        name: String,
    },
    /// The helper could not be started or talked to.
    #[error("failed to run credential helper `{program}`")]
    HelperRun {
        /// The program.
        program: String,
        /// Why.
        source: std::io::Error,
    },
    /// The helper said no.
    #[error("credential helper `{program}` failed for `{server}` ({status}): {message}")]
    HelperFailed {
        /// The program.
        program: String,
        /// What it was asked for.
        server: String,
        /// How it ended.
        status: String,
        /// What it said, bounded.
        message: String,
    },
    /// The helper did not answer in time.
    #[error("credential helper `{program}` did not answer within {} s", limit.as_secs())]
    HelperTimeout {
        /// The program.
        program: String,
        /// How long it was given.
        limit: Duration,
    },
    /// The helper's answer is not the protocol's JSON. It is not quoted, since it may hold secrets.
    #[error("credential helper `{program}` gave an answer that is not JSON with `Username` and `Secret`")]
    HelperAnswer {
        /// The program.
        program: String,
    },
}

/// The credentials that a set of config files gives, looked up per repository.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    files: Vec<ConfigFile>,
    helper_path: OsString,
    fixed: BTreeMap<String, Credential>,
}

#[derive(Debug, Clone)]
struct ConfigFile {
    path: PathBuf,
    auths: BTreeMap<String, file::Entry>,
    helpers: BTreeMap<String, String>,
    store: Option<String>,
}

impl Credentials {
    /// None at all: every registry is met anonymously.
    pub fn none() -> Self {
        Self::default()
    }

    /// Read config files, the first having precedence. A file that does not exist is left out; one that cannot be
    /// read or parsed is an error, since going on without it would mean going on anonymously.
    ///
    /// `helper_path` is where `docker-credential-…` programs are looked for, in the form of the variable `PATH`.
    pub fn load(paths: &[PathBuf], helper_path: impl Into<OsString>) -> Result<Self, CredentialsError> {
        let mut files = Vec::new();
        for path in paths {
            match std::fs::read(path) {
                Ok(text) => files.push(file::parse(path, &text)?),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(source) => return Err(CredentialsError::Read { path: path.clone(), source }),
            }
        }
        Ok(Self { files, helper_path: helper_path.into(), fixed: BTreeMap::new() })
    }

    /// The credentials in a docker config that is not a file of this machine, but for example a Kubernetes Secret; `name`
    /// says which. It may not name a credential helper: a program of that name here is none of the resource's business.
    pub fn from_docker_config(name: &str, text: &[u8]) -> Result<Self, CredentialsError> {
        let parsed = file::parse(Path::new(name), text)?;
        if parsed.store.is_some() || !parsed.helpers.is_empty() {
            return Err(CredentialsError::HelperInSecret { name: name.to_owned() });
        }
        Ok(Self { files: vec![parsed], ..Self::default() })
    }

    /// Use this credential for a registry (`host:port`), before any file.
    #[must_use]
    pub fn with(mut self, registry: &str, credential: Credential) -> Self {
        self.fixed.insert(registry.to_owned(), credential);
        self
    }

    /// What to show the registry of this image. Files are asked in order; in one file, the helper for the most
    /// specific key, then the most specific entry, then the default store.
    pub fn lookup(&self, image: &ImageReference) -> Result<Option<Credential>, CredentialsError> {
        if let Some(credential) = self.fixed.get(image.registry()) {
            return Ok(Some(credential.clone()));
        }
        let keys = keys(image);
        for file in &self.files {
            if let Some(found) = self.lookup_in(file, &keys, image)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn lookup_in(
        &self,
        file: &ConfigFile,
        keys: &[String],
        image: &ImageReference,
    ) -> Result<Option<Credential>, CredentialsError> {
        let server = if image.registry() == "docker.io" { DOCKER_HUB_KEY } else { image.registry() };
        for key in keys {
            let helper = file.helpers.iter().find(|(name, _)| normalised(name) == *key);
            if let Some((name, helper)) = helper {
                let asked = if image.registry() == "docker.io" { DOCKER_HUB_KEY } else { name };
                let credential = helper::get(helper, asked, &self.helper_path, &file.path)?;
                return Ok(credential);
            }
            let entries = file.auths.iter().filter(|(name, _)| normalised(name) == *key);
            for (name, entry) in entries {
                if let Some(credential) = entry.credential(&file.path, name)? {
                    return Ok(Some(credential));
                }
            }
        }
        match &file.store {
            Some(store) => helper::get(store, server, &self.helper_path, &file.path),
            None => Ok(None),
        }
    }
}

/// Where docker keeps its configuration in a folder such as `~/.docker`.
pub fn config_file(directory: &Path) -> PathBuf {
    directory.join("config.json")
}

/// Keys that fit an image, the most specific first: `ghcr.io/org/repo`, `ghcr.io/org`, `ghcr.io`.
fn keys(image: &ImageReference) -> Vec<String> {
    let mut key = image.name();
    let mut keys = vec![key.clone()];
    while let Some(end) = key.rfind('/') {
        key.truncate(end);
        keys.push(key.clone());
    }
    keys
}

/// A key as docker writes it, without scheme and API path; Docker Hub's several names become one.
fn normalised(key: &str) -> String {
    let key = key.trim_start_matches("https://").trim_start_matches("http://");
    let key = key.trim_end_matches('/');
    let key = key.strip_suffix("/v1").or_else(|| key.strip_suffix("/v2")).unwrap_or(key);
    match key.split_once('/') {
        None if matches!(key, "index.docker.io" | "registry-1.docker.io") => "docker.io".to_owned(),
        Some(("index.docker.io" | "registry-1.docker.io", rest)) => format!("docker.io/{rest}"),
        _ => key.to_owned(),
    }
}

#[cfg(test)]
mod tests;

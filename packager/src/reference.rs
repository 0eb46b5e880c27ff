//! References: which image or module is meant, as written on a command line or in a resource.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::digest::Digest;

mod grammar;

use grammar::{check_registry, check_repository, check_tag, is_host};

/// Docker Hub's name in references.
const DOCKER_HUB: &str = "docker.io";
/// Where Docker Hub really answers.
const DOCKER_HUB_API: &str = "registry-1.docker.io";

/// Anything a module can be read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// `oci:DIR:NAME`: an image in an OCI image layout.
    Layout(LayoutReference),
    /// `registry/repository:tag@digest`, with or without `oci://` before it.
    Image(ImageReference),
    /// `file:x.wasm`, `file:///abs/x.wasm`, or a path that ends in `.wasm`.
    File(PathBuf),
    /// `http://…` or `https://…`: a plain module.
    Url(String),
}

/// An image in an OCI image layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayoutReference {
    /// The layout's folder.
    pub directory: PathBuf,
    /// `org.opencontainers.image.ref.name` in its index.
    pub name: String,
}

/// An image in a registry.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ImageReference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is not a reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Nothing was given.
    #[error("the reference is empty")]
    Empty,
    /// `oci:` without both parts.
    #[error("`{text}` names no image in the layout: expected `oci:DIR:NAME`")]
    LayoutName {
        /// The reference as given.
        text: String,
    },
    /// The part before the first slash cannot be a registry.
    #[error("`{registry}` is not a registry: expected HOST or HOST:PORT")]
    Registry {
        /// The offending part.
        registry: String,
    },
    /// Upper case in a repository.
    #[error("repository `{repository}` has upper-case letters: the distribution specification allows lower case only")]
    UpperCase {
        /// The offending part.
        repository: String,
    },
    /// Any other offence against the repository grammar.
    #[error(
        "`{repository}` is not a repository: expected lower-case letters and digits, separated by `/`, `.`, `-` or `_`"
    )]
    Repository {
        /// The offending part.
        repository: String,
    },
    /// Registry and repository together are too long.
    #[error("the repository's name has {length} characters: at most 255 are allowed")]
    TooLong {
        /// Its length.
        length: usize,
    },
    /// An offence against the tag grammar.
    #[error(
        "`{tag}` is not a tag: expected at most 128 letters, digits, `_`, `.` and `-`, not starting with `.` or `-`"
    )]
    Tag {
        /// The offending part.
        tag: String,
    },
    /// Not a digest after `@`.
    #[error("`{digest}` is not a digest: expected `sha256:` and 64 lower-case hexadecimal digits")]
    Digest {
        /// The offending part.
        digest: String,
    },
    /// A URL with a user or password: it would end up in logs and resources.
    #[error("the URL for host `{host}` carries credentials: give them in a docker config file instead")]
    Credentials {
        /// The URL's host.
        host: String,
    },
    /// A URL without a host.
    #[error("`{url}` has no host")]
    NoHost {
        /// The URL as given.
        url: String,
    },
    /// A file URL with a host other than localhost, or without a path.
    #[error("`{url}` is not a local file: expected `file:PATH` or `file:///PATH`")]
    FileUrl {
        /// The URL as given.
        url: String,
    },
    /// A scheme that nothing here reads. Istio takes `registry:5000/x` for this too.
    #[error("`{scheme}` is not a scheme that Istio reads: expected oci, file, http or https")]
    Scheme {
        /// What stands before the colon.
        scheme: String,
        /// The same text with `oci://` before it, where that would be a reference.
        suggestion: Option<String>,
    },
}

impl ReferenceError {
    /// What to write instead, where that can be said.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::UpperCase { repository } => Some(format!("write `{}`", repository.to_lowercase())),
            Self::Scheme { suggestion: Some(reference), .. } => Some(format!("write `{reference}`")),
            _ => None,
        }
    }
}

/// The part of a URL that may be shown: a query may be a signature that works like a password, and before the host may
/// stand one.
pub(crate) fn without_secrets(url: &str) -> String {
    let place = url.split(['?', '#']).next().unwrap_or_default();
    let (scheme, rest) = place.split_at(place.find("://").map_or(0, |at| at + 3));
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    match authority.rsplit_once('@') {
        // What stands there of an image is its digest.
        Some((_, host)) if !host.starts_with("sha256:") => format!("{scheme}<redacted>@{host}{path}"),
        _ => place.to_owned(),
    }
}

impl Reference {
    /// The reference as it may be shown in messages and reports: a URL goes without its query.
    pub fn shown(&self) -> String {
        match self {
            Self::Url(url) => without_secrets(url),
            other => other.to_string(),
        }
    }

    /// Parse what a person writes on a command line. A reference without a registry is Docker Hub's, as everywhere.
    ///
    /// ```
    /// use packager::reference::Reference;
    /// let reference = Reference::parse("localhost:5000/plugins/auth:v1")?;
    /// assert_eq!(reference.to_string(), "localhost:5000/plugins/auth:v1");
    /// # Ok::<(), packager::reference::ReferenceError>(())
    /// ```
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if text.is_empty() {
            return Err(ReferenceError::Empty);
        }
        if let Some(image) = text.strip_prefix("oci://") {
            return Ok(Self::Image(image.parse()?));
        }
        if let Some(layout) = text.strip_prefix("oci:") {
            return match layout.split_once(':') {
                Some((directory, name)) if !directory.is_empty() && !name.is_empty() => {
                    Ok(Self::Layout(LayoutReference { directory: directory.into(), name: name.to_owned() }))
                }
                _ => Err(ReferenceError::LayoutName { text: text.to_owned() }),
            };
        }
        if let Some(path) = text.strip_prefix("file:") {
            return file(text, path);
        }
        if text.starts_with("http://") || text.starts_with("https://") {
            return url(text);
        }
        let a_path = text.starts_with(['/', '.']) || !text.contains(['@', ':']);
        if a_path && std::path::Path::new(text).extension().is_some_and(|end| end == "wasm") {
            return Ok(Self::File(text.into()));
        }
        Ok(Self::Image(text.parse()?))
    }

    /// Parse the `url` of a resource by Istio's rules: without a scheme it is an image, and whatever stands before a
    /// colon in the first path segment has to be a scheme, so that `registry:5000/x` and `alpine:3` are refused.
    pub fn parse_istio(text: &str) -> Result<Self, ReferenceError> {
        if ["oci://", "file://", "http://", "https://"].iter().any(|scheme| text.starts_with(scheme)) {
            return Self::parse(text);
        }
        let segment = text.split('/').next().unwrap_or_default();
        if let Some((scheme, _)) = segment.split_once(':') {
            let suggestion = text.parse::<ImageReference>().ok().map(|_| format!("oci://{text}"));
            return Err(ReferenceError::Scheme { scheme: scheme.to_owned(), suggestion });
        }
        Ok(Self::Image(text.parse()?))
    }
}

fn file(text: &str, path: &str) -> Result<Reference, ReferenceError> {
    let path = match path.strip_prefix("//") {
        Some(rest) => rest.strip_prefix("localhost").unwrap_or(rest),
        None => path,
    };
    let has_host = text.starts_with("file://") && !path.starts_with('/');
    if path.is_empty() || has_host {
        return Err(ReferenceError::FileUrl { url: text.to_owned() });
    }
    Ok(Reference::File(path.into()))
}

fn url(text: &str) -> Result<Reference, ReferenceError> {
    let rest = text.split_once("://").map_or("", |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if let Some((_, host)) = authority.rsplit_once('@') {
        return Err(ReferenceError::Credentials { host: host.to_owned() });
    }
    if authority.is_empty() || authority.starts_with(':') {
        return Err(ReferenceError::NoHost { url: text.to_owned() });
    }
    Ok(Reference::Url(text.to_owned()))
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        Self::parse(text)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Layout(layout) => write!(f, "oci:{}:{}", layout.directory.display(), layout.name),
            Self::Image(image) => image.fmt(f),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Url(url) => f.write_str(url),
        }
    }
}

impl ImageReference {
    /// Host and port as written; Docker Hub is `docker.io`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Host and port to talk to.
    pub fn api_host(&self) -> &str {
        if self.registry == DOCKER_HUB { DOCKER_HUB_API } else { &self.registry }
    }

    /// The repository's name in its registry, for example `library/alpine`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, where one was written.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, where one was written.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// What the distribution API is asked for: the digest, else the tag, else `latest`.
    pub fn identifier(&self) -> &str {
        self.digest.as_ref().map_or_else(|| self.tag().unwrap_or("latest"), Digest::as_str)
    }

    /// `registry/repository`, without tag and digest.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The same repository, with this tag and no digest.
    pub fn with_tag(&self, tag: &str) -> Result<Self, ReferenceError> {
        check_tag(tag)?;
        Ok(Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// The same repository and tag, pinned to this digest.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { digest: Some(digest), ..self.clone() }
    }
}

impl FromStr for ImageReference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let text = text.strip_prefix("oci://").unwrap_or(text);
        if text.is_empty() {
            return Err(ReferenceError::Empty);
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => {
                let parsed = digest.parse().map_err(|_| ReferenceError::Digest { digest: digest.to_owned() })?;
                (name, Some(parsed))
            }
            None => (text, None),
        };
        let (registry, rest) = match name.split_once('/') {
            Some((host, rest)) if is_host(host) => (host, rest),
            _ => (DOCKER_HUB, name),
        };
        let (repository, tag) = match rest.split_once(':') {
            Some((repository, tag)) => (repository, Some(tag)),
            None => (rest, None),
        };
        let registry = match registry {
            "index.docker.io" | DOCKER_HUB_API => DOCKER_HUB,
            registry => registry,
        };
        check_registry(registry)?;
        if let Some(tag) = tag {
            check_tag(tag)?;
        }
        check_repository(repository)?;
        let repository = if registry == DOCKER_HUB && !repository.contains('/') {
            format!("library/{repository}")
        } else {
            repository.to_owned()
        };
        let length = registry.len() + 1 + repository.len();
        if length > 255 {
            return Err(ReferenceError::TooLong { length });
        }
        Ok(Self { registry: registry.to_owned(), repository, tag: tag.map(str::to_owned), digest })
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;

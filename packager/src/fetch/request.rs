//! What a resource asks for, and the key under which a cache has it.

use std::fmt;

use crate::credentials::Credentials;
use crate::digest::Digest;
use crate::reference::{ImageReference, Reference, without_secrets};

use super::{FetchError, pin};

/// `imagePullPolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PullPolicy {
    /// `IfNotPresent`, except for an image whose URL ends in `:latest`.
    #[default]
    Unspecified,
    /// Use what was pulled before.
    IfNotPresent,
    /// Ask again when the resource's version is another one.
    Always,
}

impl fmt::Display for PullPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unspecified => "unspecified",
            Self::IfNotPresent => "IfNotPresent",
            Self::Always => "Always",
        })
    }
}

/// What a resource says about its module.
#[derive(Debug, Clone, Default)]
pub struct ModuleRequest {
    /// `url` as written.
    pub url: String,
    /// `sha256`; the empty text is as good as none.
    pub sha256: Option<String>,
    /// `imagePullPolicy`.
    pub pull_policy: PullPolicy,
    /// Which resource asks; each has a version of its own.
    pub resource: String,
    /// `metadata.resourceVersion`, or what stands for it: it has to change when the resource does.
    pub resource_version: String,
    /// `imagePullSecret`, read. It takes the place of all other credentials, and only images are pulled with it.
    pub credentials: Option<Credentials>,
}

/// A request understood.
pub(super) struct Understood {
    pub(super) reference: Reference,
    pub(super) key: Key,
}

/// Under what a module is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    /// Hash of the image's name without tag and digest, or of the whole URL: the folder that Istio's cache uses too.
    pub(super) name: String,
    /// The name for people, without a URL's query.
    pub(super) shown: String,
    /// Hash of the URL as Istio's control plane hands it to the agent.
    pub(super) url: String,
    /// `sha256`, else the digest in an image's URL.
    pub(super) pin: Option<Digest>,
    /// Whether the URL may give something else tomorrow.
    pub(super) may_move: bool,
    pub(super) resource: String,
    pub(super) version: String,
    is_image: bool,
    is_latest: bool,
}

impl ModuleRequest {
    /// Read the URL and the pin by Istio's rules.
    pub(super) fn understand(&self) -> Result<Understood, FetchError> {
        let url = normalised(&self.url);
        let reference = Reference::parse_istio(&url)?;
        let field = self.sha256.as_deref().filter(|text| !text.is_empty()).map(pin).transpose()?;
        let in_url = match &reference {
            Reference::Image(image) => image.digest(),
            _ => None,
        };
        if let (Some(in_url), Some(field)) = (in_url, &field)
            && in_url != field
        {
            let (url, sha256) = (in_url.clone(), field.clone());
            return Err(FetchError::PinsDiffer { reference: reference.to_string(), url, sha256 });
        }
        let name = match &reference {
            Reference::Image(image) => format!("oci://{}", full_name(image)),
            _ => url.clone(),
        };
        let shown = if let Reference::Url(url) = &reference { without_secrets(url) } else { name.clone() };
        let key = Key {
            name: hash(&name),
            shown,
            url: hash(&url),
            pin: field.or_else(|| in_url.cloned()),
            may_move: in_url.is_none(),
            resource: self.resource.clone(),
            version: self.resource_version.clone(),
            is_image: matches!(reference, Reference::Image(_)),
            // Literally: an image without a tag is not meant.
            is_latest: url.ends_with(":latest"),
        };
        Ok(Understood { reference, key })
    }
}

impl Key {
    /// What a cached module is called: folder and file name.
    pub(super) fn module(&self, checksum: &Digest) -> String {
        Self::module_of(&self.name, checksum)
    }

    pub(super) fn module_of(name: &str, checksum: &Digest) -> String {
        format!("{name}/{}.wasm", checksum.hex())
    }

    /// Whether what was pulled before does, whatever became of the resource.
    pub(super) fn ignores_version(&self, policy: PullPolicy) -> bool {
        match policy {
            PullPolicy::Always => false,
            PullPolicy::IfNotPresent => true,
            PullPolicy::Unspecified => !(self.is_image && self.is_latest),
        }
    }

    /// The key of something that is not asked for by a resource.
    pub(super) fn of_local(reference: &Reference) -> Self {
        let name = reference.to_string();
        let shown = if let Reference::Url(url) = reference { without_secrets(url) } else { name.clone() };
        Self {
            name: hash(&name),
            url: hash(&name),
            shown,
            pin: None,
            may_move: false,
            resource: String::new(),
            version: String::new(),
            is_image: false,
            is_latest: false,
        }
    }
}

fn hash(text: &str) -> String {
    Digest::of(text.as_bytes()).hex().to_owned()
}

/// The URL as the control plane passes it on: with a scheme, in lower case.
fn normalised(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => format!("{}://{rest}", scheme.to_ascii_lowercase()),
        None if url.split('/').next().is_some_and(|first| first.contains(':')) => url.to_owned(),
        None => format!("oci://{url}"),
    }
}

/// go-containerregistry's name of a repository, in which Docker Hub is `index.docker.io`.
fn full_name(image: &ImageReference) -> String {
    let host = if image.registry() == "docker.io" { "index.docker.io" } else { image.registry() };
    format!("{host}/{}", image.repository())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(url: &str) -> Key {
        ModuleRequest { url: url.to_owned(), ..ModuleRequest::default() }.understand().unwrap().key
    }

    #[test]
    fn tags_and_digests_of_an_image_share_a_name() {
        let digest = Digest::of(b"x");
        let name = key("oci://ghcr.io/example/x").name;
        assert_eq!(name, hash("oci://ghcr.io/example/x"));
        for url in ["ghcr.io/example/x:1", "OCI://ghcr.io/example/x:2", &format!("oci://ghcr.io/example/x@{digest}")] {
            assert_eq!(key(url).name, name, "{url}");
        }
        assert_eq!(key("oci://alpine:3").shown, "oci://index.docker.io/library/alpine");
        assert_eq!(key(&format!("ghcr.io/example/x@{digest}")).pin, Some(digest));
    }

    #[test]
    fn of_a_url_the_query_counts_and_is_not_shown() {
        let (one, other) = (key("https://example.com/x.wasm?token=a"), key("https://example.com/x.wasm?token=b"));
        assert_ne!(one.name, other.name);
        assert!(!format!("{one:?}").contains("token"));
    }

    #[test]
    fn only_a_literal_latest_of_an_image_is_asked_for_again() {
        use PullPolicy::{Always, IfNotPresent, Unspecified};
        for (url, policy, ignores) in [
            ("oci://ghcr.io/x:latest", Unspecified, false),
            ("ghcr.io/x:latest", Unspecified, false),
            ("oci://ghcr.io/x", Unspecified, true),
            ("oci://ghcr.io/x:1", Unspecified, true),
            ("oci://ghcr.io/x:latest", IfNotPresent, true),
            ("oci://ghcr.io/x:1", Always, false),
            ("https://example.com/x:latest", Unspecified, true),
            ("https://example.com/x", Always, false),
        ] {
            assert_eq!(key(url).ignores_version(policy), ignores, "{url} {policy}");
        }
    }

    #[test]
    fn what_istio_would_not_read_is_refused() {
        for url in ["registry:5000/x", "localhost:5000/a/b:1", "ftp://example.com/x", ""] {
            let request = ModuleRequest { url: url.to_owned(), ..ModuleRequest::default() };
            assert!(request.understand().is_err(), "{url}");
        }
    }
}

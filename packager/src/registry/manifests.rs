//! Manifests: fetched, checked against their digest, told apart, and put.

use std::sync::Arc;

use oci_spec::image::{Arch, Descriptor, ImageIndex, Os};
use serde::Deserialize;
use serde::de::IgnoredAny;
use ureq::http::Method;

use crate::blob::{Content, Image};
use crate::digest::Digest;
use crate::image::{self, MAX_MANIFEST_SIZE, ManifestError, media_type};
use crate::reference::ImageReference;

use super::session::{Actions, Session};
use super::transport::{Answer, Body};
use super::{Client, RegistryError, printable};

/// A manifest or an index as the registry has it.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// Its exact bytes.
    pub bytes: Arc<[u8]>,
    /// Its media type.
    pub media_type: String,
    /// Its digest, computed from the bytes.
    pub digest: Digest,
}

/// What tells the two kinds apart.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Claim {
    media_type: Option<String>,
    manifests: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
    config: Option<IgnoredAny>,
}

impl Manifest {
    /// Tell a manifest from an index. A document that could be taken for both is refused: the media type is not part
    /// of what a digest covers, so two readers could see two images (CVE-2021-41190).
    pub fn parse(bytes: impl Into<Arc<[u8]>>, content_type: Option<&str>) -> Result<Self, ManifestError> {
        let bytes = bytes.into();
        let claim: Claim = serde_json::from_slice(&bytes).map_err(ManifestError::Json)?;
        let given = content_type.map(|text| text.split(';').next().unwrap_or_default().trim());
        // Servers of plain files give any of these.
        let given =
            given.filter(|text| !matches!(*text, "" | "application/json" | "application/octet-stream" | "text/plain"));
        let media_type = match (claim.media_type.as_deref(), given) {
            (Some(actual), Some(expected)) if actual != expected => {
                let (expected, actual) = (printable(expected, 100), printable(actual, 100));
                return Err(ManifestError::Mismatch { expected, actual });
            }
            (Some(media_type), _) | (None, Some(media_type)) => media_type,
            (None, None) if claim.manifests.is_some() => media_type::INDEX,
            (None, None) => media_type::MANIFEST,
        };
        let foreign = match media_type {
            _ if media_type::is_manifest(media_type) => claim.manifests.is_some(),
            _ if media_type::is_index(media_type) => claim.layers.is_some() || claim.config.is_some(),
            other => return Err(ManifestError::MediaType { media_type: printable(other, 100) }),
        };
        if foreign {
            return Err(ManifestError::Ambiguous);
        }
        let (media_type, digest) = (media_type.to_owned(), Digest::of(&bytes));
        Ok(Self { bytes, media_type, digest })
    }

    /// Whether this is an index of manifests rather than an image's.
    pub fn is_index(&self) -> bool {
        media_type::is_index(&self.media_type)
    }

    /// The image that this manifest describes; `content` says where each blob is or will be.
    pub fn image(&self, content: impl Fn(&Digest) -> Content) -> Result<Image, ManifestError> {
        image::parse(Arc::clone(&self.bytes), &self.media_type, content)
    }

    /// What go-containerregistry, and with it Istio, takes from an index: the first entry for linux/amd64, or without
    /// a platform.
    pub(crate) fn platform(&self) -> Result<Option<Descriptor>, ManifestError> {
        let index: ImageIndex = serde_json::from_slice(&self.bytes).map_err(ManifestError::Json)?;
        let fits = |descriptor: &&Descriptor| {
            descriptor
                .platform()
                .as_ref()
                .is_none_or(|platform| *platform.os() == Os::Linux && *platform.architecture() == Arch::Amd64)
        };
        Ok(index.manifests().iter().find(fits).cloned())
    }
}

/// A manifest's failure with its causes, bounded: the texts quote what the registry sent.
pub(super) fn unusable(reference: &ImageReference, error: &ManifestError) -> RegistryError {
    let mut reason = error.to_string();
    if let Some(cause) = std::error::Error::source(error) {
        reason = format!("{reason}: {cause}");
    }
    RegistryError::Manifest { reference: reference.to_string(), reason: printable(&reason, 300) }
}

impl Client {
    /// Fetch the manifest or index that a reference names. Its digest is checked against the reference's, where it has
    /// one, and against `Docker-Content-Digest`, where the registry sends it.
    pub fn manifest(&self, reference: &ImageReference) -> Result<Manifest, RegistryError> {
        manifest(&Session::open(self, reference, Actions::Pull)?, reference.identifier())
    }

    /// What digest a reference stands for right now.
    pub fn resolve(&self, reference: &ImageReference) -> Result<Digest, RegistryError> {
        Ok(self.manifest(reference)?.digest)
    }

    /// Put a manifest whose blobs are there. Repeated with other tags, it tags.
    pub fn put_manifest(
        &self,
        reference: &ImageReference,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Digest, RegistryError> {
        put(&Session::open(self, reference, Actions::Push)?, media_type, bytes)
    }
}

/// How much is expected to come, which decides how long it may take; much larger ones have to come faster.
pub(super) const MANIFEST_EXPECTED: u64 = 16 * 1024;

/// What is asked for. Without it, some registries deny having an OCI manifest.
fn accept() -> String {
    [media_type::MANIFEST, media_type::INDEX, media_type::DOCKER_MANIFEST, media_type::DOCKER_INDEX].join(", ")
}

/// Whether there is such a manifest.
pub(super) fn exists(session: &Session<'_>, digest: &Digest) -> Result<bool, RegistryError> {
    let request = session.request(Method::HEAD, &format!("manifests/{digest}"))?.header("Accept", accept());
    match session.call(&request, &[200]) {
        Ok(_) => Ok(true),
        Err(RegistryError::NotFound { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

pub(super) fn manifest(session: &Session<'_>, identifier: &str) -> Result<Manifest, RegistryError> {
    let reference = session.image;
    let what = format!("the manifest of {reference}");
    let request = session
        .request(Method::GET, &format!("manifests/{identifier}"))?
        .header("Accept", accept())
        .expect(MANIFEST_EXPECTED);
    let client = session.client;
    let (answer, bytes) = client.options.retry.run(client.progress(), || {
        let mut answer = session.once(&request, &[200])?;
        let bytes = answer.read(&what, MAX_MANIFEST_SIZE)?;
        Ok((answer, bytes))
    })?;
    let actual = Digest::of(&bytes);
    if let Ok(expected) = identifier.parse::<Digest>()
        && expected != actual
    {
        return Err(RegistryError::DigestMismatch { what, expected, actual });
    }
    check_header(&answer, &actual)?;
    Manifest::parse(bytes, answer.header("content-type")).map_err(|error| unusable(reference, &error))
}

pub(super) fn put(session: &Session<'_>, media_type: &str, bytes: &[u8]) -> Result<Digest, RegistryError> {
    let reference = session.image;
    let digest = Digest::of(bytes);
    if let Some(expected) = reference.digest().filter(|expected| **expected != digest) {
        let what = format!("the manifest for {reference}");
        return Err(RegistryError::DigestMismatch { what, expected: expected.clone(), actual: digest });
    }
    put_as(session, reference.tag().unwrap_or(reference.identifier()), media_type, bytes).map(|(digest, _)| digest)
}

/// Put a manifest under a tag or its digest; the answer may say what the registry made of its subject.
pub(super) fn put_as(
    session: &Session<'_>,
    identifier: &str,
    media_type: &str,
    bytes: &[u8],
) -> Result<(Digest, Answer), RegistryError> {
    if bytes.len() as u64 > MAX_MANIFEST_SIZE {
        let what = format!("the manifest of {}", session.image);
        return Err(RegistryError::TooLarge { what, limit: MAX_MANIFEST_SIZE });
    }
    let digest = Digest::of(bytes);
    let request = session
        .request(Method::PUT, &format!("manifests/{identifier}"))?
        .header("Content-Type", media_type)
        .body(Body::Bytes(bytes));
    let answer = session.call(&request, &[201, 200, 202])?;
    check_header(&answer, &digest)?;
    Ok((digest, answer))
}

/// A registry that says it has something else than what was sent or came is not to be believed in anything.
fn check_header(answer: &Answer, content: &Digest) -> Result<(), RegistryError> {
    match answer.headers.get("docker-content-digest") {
        Some(header) if header.as_bytes() != content.as_str().as_bytes() => {
            // Another algorithm is no contradiction.
            if header.to_str().is_ok_and(|text| text.starts_with("sha512:")) {
                return Ok(());
            }
            Err(RegistryError::LyingDigestHeader {
                method: answer.place.method,
                url: answer.place.url.clone(),
                header: printable(&String::from_utf8_lossy(header.as_bytes()), 100),
                content: content.clone(),
            })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"{"mediaType":"application/vnd.oci.image.config.v1+json","size":0,"digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}"#;

    #[track_caller]
    fn check(json: &str, content_type: Option<&str>, expected: Result<&str, &str>) {
        match (Manifest::parse(json.as_bytes(), content_type), expected) {
            (Ok(manifest), Ok(expected)) => assert_eq!(manifest.media_type, expected),
            (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{error}"),
            (outcome, _) => panic!("{json}: {outcome:?}"),
        }
    }

    #[test]
    fn manifest_and_index_are_told_apart_and_ambiguity_is_refused() {
        use media_type::{DOCKER_MANIFEST, INDEX, MANIFEST};
        let manifest = format!(r#"{{"schemaVersion":2,"config":{CONFIG},"layers":[]}}"#);
        check(&manifest, None, Ok(MANIFEST));
        check(&manifest, Some("application/json; charset=utf-8"), Ok(MANIFEST));
        check(&manifest, Some(DOCKER_MANIFEST), Ok(DOCKER_MANIFEST));
        check(&manifest, Some(INDEX), Err("both"));
        let index = r#"{"schemaVersion":2,"manifests":[]}"#;
        check(index, None, Ok(INDEX));
        check(index, Some(MANIFEST), Err("both"));
        check(&format!(r#"{{"schemaVersion":2,"config":{CONFIG},"layers":[],"manifests":[]}}"#), None, Err("both"));
        let typed = format!(r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{CONFIG},"layers":[]}}"#);
        check(&typed, Some(DOCKER_MANIFEST), Err("its source said"));
        check(&typed, Some("text/html"), Err("its source said"));
        check(&manifest, Some("text/html"), Err("text/html"));
    }

    #[test]
    fn nonsense_is_not_a_manifest() {
        for json in ["", "[1]", "null", "\u{0}", "{", "7"] {
            assert!(Manifest::parse(json.as_bytes(), None).is_err(), "{json}");
        }
    }
}

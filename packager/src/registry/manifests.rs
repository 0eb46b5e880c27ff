//! Manifests: fetched, checked against their digest, told apart, and put.

use std::sync::Arc;

use oci_spec::image::{ImageIndex, ImageManifest};
use ureq::http::Method;

use crate::digest::Digest;
use crate::reference::ImageReference;

use super::session::{Actions, Session};
use super::transport::{Answer, Body};
use super::{Client, MANIFEST_LIMIT, RegistryError, printable};

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// A manifest or an index as the registry has it.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// Its exact bytes.
    pub bytes: Arc<[u8]>,
    /// Its media type.
    pub media_type: String,
    /// Its digest, computed from the bytes.
    pub digest: Digest,
    /// What the bytes say.
    pub document: Document,
}

/// The two kinds of documents that a registry serves as manifests.
#[derive(Debug, Clone)]
pub enum Document {
    /// An image manifest, OCI's or Docker's.
    Image(Box<ImageManifest>),
    /// An image index or a Docker manifest list.
    Index(Box<ImageIndex>),
}

impl Manifest {
    /// Tell a manifest from an index. A document that could be taken for both is refused: the media type is not part
    /// of what a digest covers, so two readers could see two images (CVE-2021-41190).
    pub fn parse(bytes: impl Into<Arc<[u8]>>, media_type: Option<&str>) -> Result<Self, String> {
        let bytes = bytes.into();
        let fields: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(&bytes).map_err(|error| format!("not a JSON object: {error}"))?;
        let inside = fields.get("mediaType").and_then(serde_json::Value::as_str);
        let given = media_type.map(|text| text.split(';').next().unwrap_or_default().trim());
        // Servers of plain files give any of these.
        let given =
            given.filter(|text| !matches!(*text, "" | "application/json" | "application/octet-stream" | "text/plain"));
        let media_type = match (inside, given) {
            (Some(inside), Some(given)) if inside != given => {
                let (inside, given) = (printable(inside, 100), printable(given, 100));
                return Err(format!("it says it is `{inside}`, and the registry says it is `{given}`"));
            }
            (Some(media_type), _) | (None, Some(media_type)) => media_type,
            (None, None) if fields.contains_key("manifests") => OCI_INDEX,
            (None, None) => OCI_MANIFEST,
        };
        let foreign =
            |field: &str| fields.contains_key(field).then(|| format!("a `{media_type}` with `{field}` is ambiguous"));
        let document = match media_type {
            OCI_MANIFEST | DOCKER_MANIFEST => {
                if let Some(reason) = foreign("manifests") {
                    return Err(reason);
                }
                let manifest: ImageManifest = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
                Document::Image(Box::new(manifest))
            }
            OCI_INDEX | DOCKER_LIST => {
                if let Some(reason) = foreign("layers").or_else(|| foreign("config")) {
                    return Err(reason);
                }
                let index: ImageIndex = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
                Document::Index(Box::new(index))
            }
            other => {
                return Err(format!("media type `{}` is neither a manifest's nor an index's", printable(other, 100)));
            }
        };
        if fields.get("schemaVersion") != Some(&serde_json::Value::from(2)) {
            return Err("schemaVersion is not 2".to_owned());
        }
        let (media_type, digest) = (media_type.to_owned(), Digest::of(&bytes));
        Ok(Self { bytes, media_type, digest, document })
    }
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

pub(super) fn manifest(session: &Session<'_>, identifier: &str) -> Result<Manifest, RegistryError> {
    let reference = session.image;
    let what = format!("the manifest of {reference}");
    let accept = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST].join(", ");
    let request = session
        .request(Method::GET, &format!("manifests/{identifier}"))?
        .header("Accept", accept)
        .expect(MANIFEST_LIMIT);
    let client = session.client;
    let (answer, bytes) = client.options.retry.run(client.progress(), || {
        let mut answer = session.once(&request, &[200])?;
        let bytes = answer.read(&what, MANIFEST_LIMIT)?;
        Ok((answer, bytes))
    })?;
    let actual = Digest::of(&bytes);
    if let Ok(expected) = identifier.parse::<Digest>()
        && expected != actual
    {
        return Err(RegistryError::DigestMismatch { what, expected, actual });
    }
    check_header(&answer, &actual)?;
    Manifest::parse(bytes, answer.header("content-type"))
        .map_err(|reason| RegistryError::Manifest { reference: reference.to_string(), reason })
}

pub(super) fn put(session: &Session<'_>, media_type: &str, bytes: &[u8]) -> Result<Digest, RegistryError> {
    let digest = Digest::of(bytes);
    let reference = session.image;
    if bytes.len() as u64 > MANIFEST_LIMIT {
        return Err(RegistryError::TooLarge { what: format!("the manifest of {reference}"), limit: MANIFEST_LIMIT });
    }
    if let Some(expected) = reference.digest().filter(|expected| **expected != digest) {
        let what = format!("the manifest for {reference}");
        return Err(RegistryError::DigestMismatch { what, expected: expected.clone(), actual: digest });
    }
    let identifier = match reference.tag() {
        Some(tag) => tag,
        None => reference.identifier(),
    };
    let request = session
        .request(Method::PUT, &format!("manifests/{identifier}"))?
        .header("Content-Type", media_type)
        .body(Body::Bytes(bytes));
    let answer = session.call(&request, &[201, 200, 202])?;
    check_header(&answer, &digest)?;
    Ok(digest)
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
    fn check(json: &str, media_type: Option<&str>, expected: Result<&str, &str>) {
        match (Manifest::parse(json.as_bytes(), media_type), expected) {
            (Ok(manifest), Ok(expected)) => assert_eq!(manifest.media_type, expected),
            (Err(reason), Err(expected)) => assert!(reason.contains(expected), "{reason}"),
            (outcome, _) => panic!("{json}: {outcome:?}"),
        }
    }

    #[test]
    fn manifest_and_index_are_told_apart_and_ambiguity_is_refused() {
        let manifest = format!(r#"{{"schemaVersion":2,"config":{CONFIG},"layers":[]}}"#);
        check(&manifest, None, Ok(OCI_MANIFEST));
        check(&manifest, Some("application/json; charset=utf-8"), Ok(OCI_MANIFEST));
        check(&manifest, Some(DOCKER_MANIFEST), Ok(DOCKER_MANIFEST));
        check(&manifest, Some(OCI_INDEX), Err("ambiguous"));
        let index = r#"{"schemaVersion":2,"manifests":[]}"#;
        check(index, None, Ok(OCI_INDEX));
        check(index, Some(OCI_MANIFEST), Err("ambiguous"));
        check(
            &format!(r#"{{"schemaVersion":2,"config":{CONFIG},"layers":[],"manifests":[]}}"#),
            None,
            Err("ambiguous"),
        );
        let typed = format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","config":{CONFIG},"layers":[]}}"#);
        check(&typed, Some(DOCKER_MANIFEST), Err("the registry says"));
        check(&typed, Some("text/html"), Err("the registry says"));
    }

    #[test]
    fn nonsense_is_not_a_manifest() {
        for json in ["", "[]", "{}", "null", "{\"schemaVersion\":1}", "\u{0}"] {
            assert!(Manifest::parse(json.as_bytes(), None).is_err(), "{json}");
        }
        let versions = format!(r#"{{"schemaVersion":1,"config":{CONFIG},"layers":[]}}"#);
        check(&versions, None, Err("schemaVersion"));
    }
}

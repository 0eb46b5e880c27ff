//! What refers to an image: signatures, bills of materials and other manifests whose `subject` it is (OCI distribution
//! specification 1.1, "Listing Referrers" and "Pushing Manifests with Subject").

use std::collections::BTreeMap;
use std::sync::PoisonError;

use oci_spec::image::{Descriptor, ImageIndex};
use serde_json::{Value, json};
use ureq::http::Method;

use crate::blob::Blob;
use crate::digest::Digest;
use crate::image::{MAX_MANIFEST_SIZE, media_type};
use crate::reference::ImageReference;

use super::manifests::{self, unusable};
use super::session::{Actions, Session};
use super::url::encoded;
use super::{Client, RegistryError, printable, push};

const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// A list that goes on for longer is there to keep us busy.
const PAGE_LIMIT: usize = 32;
/// How often the index behind the fallback tag is written before others who do so at the same time have won.
const ATTEMPTS: usize = 5;

/// Something to be attached to an image.
#[derive(Debug, Clone)]
pub struct Artifact {
    /// What it is, as a media type.
    pub artifact_type: String,
    /// Its content; may be empty.
    pub layers: Vec<Blob>,
    /// Annotations of its manifest.
    pub annotations: BTreeMap<String, String>,
}

impl Artifact {
    /// Its manifest, the same bytes for the same input, and the configuration that the manifest names.
    fn manifest(&self, subject: &manifests::Manifest) -> (Vec<u8>, Blob) {
        let config = Blob::from_bytes(EMPTY, b"{}".as_slice());
        let descriptor = |blob: &Blob| json!(blob.descriptor);
        // An artifact without content has the empty configuration as its layer ("Guidance for an Empty Descriptor").
        let layers: Vec<Value> = self.layers.iter().map(descriptor).collect();
        let layers = if layers.is_empty() { vec![descriptor(&config)] } else { layers };
        let mut manifest = json!({
            "schemaVersion": 2,
            "mediaType": media_type::MANIFEST,
            "artifactType": self.artifact_type,
            "config": descriptor(&config),
            "layers": layers,
            "subject": {"mediaType": subject.media_type, "digest": subject.digest, "size": subject.bytes.len()},
        });
        if !self.annotations.is_empty() {
            manifest["annotations"] = json!(self.annotations);
        }
        (manifest.to_string().into_bytes(), config)
    }
}

impl Client {
    /// List what refers to an image: descriptors of manifests in the same repository, with artifact types and
    /// annotations, all or those of one type. Nothing that they name is checked yet. A tag stands for what it points at
    /// now. Registries without the API are asked for the tag `sha256-<hex>`.
    pub fn referrers(
        &self,
        subject: &ImageReference,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Descriptor>, RegistryError> {
        let session = Session::open(self, subject, Actions::Pull)?;
        let digest = match subject.digest() {
            Some(digest) => digest.clone(),
            None => manifests::manifest(&session, subject.identifier())?.digest,
        };
        let found = match listed(&session, &digest, artifact_type)? {
            Some(found) => found,
            None => tagged(&session, &digest)?.map_or_else(Vec::new, |index| index.manifests().clone()),
        };
        // A registry filters or does not.
        let wanted = |descriptor: &Descriptor| {
            artifact_type
                .is_none_or(|wanted| descriptor.artifact_type().as_ref().is_some_and(|found| found.as_ref() == wanted))
        };
        Ok(found.into_iter().filter(wanted).collect())
    }

    /// Attach an artifact to an image and give the digest of its manifest. The image has to be there. Where the registry
    /// does not keep referrers itself, the artifact is added to the index tagged `sha256-<hex>`; entries of that index
    /// which are not there any more are left out, since a registry would refuse it with them.
    pub fn attach(&self, subject: &ImageReference, artifact: &Artifact) -> Result<Digest, RegistryError> {
        let session = Session::open(self, subject, Actions::Push)?;
        let image = manifests::manifest(&session, subject.identifier())?;
        let (bytes, config) = artifact.manifest(&image);
        push::blobs(&session, std::iter::once(&config).chain(&artifact.layers), None)?;
        let digest = Digest::of(&bytes);
        let (digest, answer) = manifests::put_as(&session, digest.as_str(), media_type::MANIFEST, &bytes)?;
        if answer.header("oci-subject").is_none_or(|subject| subject.trim() != image.digest.as_str()) {
            let mut entry = json!({"mediaType": media_type::MANIFEST, "digest": digest, "size": bytes.len(),
                "artifactType": artifact.artifact_type});
            if !artifact.annotations.is_empty() {
                entry["annotations"] = json!(artifact.annotations);
            }
            add(&session, &image.digest, &entry)?;
        }
        Ok(digest)
    }
}

/// What the API lists; `None` where there is none.
fn listed(
    session: &Session<'_>,
    subject: &Digest,
    artifact_type: Option<&str>,
) -> Result<Option<Vec<Descriptor>>, RegistryError> {
    let query = artifact_type.map(|wanted| format!("?artifactType={}", encoded(wanted))).unwrap_or_default();
    let mut request = session
        .request(Method::GET, &format!("referrers/{subject}{query}"))?
        .header("Accept", media_type::INDEX)
        .expect(manifests::MANIFEST_EXPECTED);
    let mut found = Vec::new();
    for _ in 0..PAGE_LIMIT {
        let what = format!("the referrers of {}@{subject}", session.image.name());
        let page = session.client.options.retry.run(session.client.progress(), || {
            let mut answer = session.once(&request, &[200])?;
            let bytes = answer.read(&what, MAX_MANIFEST_SIZE)?;
            Ok((answer, bytes))
        });
        let (answer, bytes) = match page {
            Ok(page) => page,
            Err(RegistryError::NotFound { .. }) if found.is_empty() => return Ok(None),
            Err(error) => return Err(error),
        };
        let given = answer.header("content-type").unwrap_or_default();
        if given.split(';').next().is_none_or(|given| given.trim() != media_type::INDEX) {
            let reason = format!("the list of referrers is `{}`, not an image index", printable(given, 100));
            return Err(answer.place.protocol(reason));
        }
        let page: ImageIndex = serde_json::from_slice(&bytes)
            .map_err(|_| answer.place.clone().protocol("the list of referrers is not an image index"))?;
        found.extend(page.manifests().iter().cloned());
        let Some(next) = answer.header("link").and_then(next) else { return Ok(Some(found)) };
        let url = answer.url.join(next).map_err(|error| {
            answer.place.clone().protocol(format!("the link to more referrers is unusable: {error}"))
        })?;
        if !url.same_origin(&session.base) {
            return Err(answer.place.protocol("the link to more referrers leads to another server"));
        }
        request.url = url;
    }
    let reason = format!("the list of referrers does not end after {PAGE_LIMIT} pages");
    Err(request.place().protocol(reason))
}

/// The target of `Link: <target>; rel="next"` (RFC 8288).
fn next(link: &str) -> Option<&str> {
    let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
    let is_next = parameters.split(';').any(|parameter| {
        parameter.trim().strip_prefix("rel=").is_some_and(|relation| relation.trim_matches('"') == "next")
    });
    is_next.then_some(target)
}

/// The tag under which referrers are indexed where there is no API.
fn tag(subject: &Digest) -> String {
    subject.as_str().replacen(':', "-", 1)
}

fn index(session: &Session<'_>, subject: &Digest) -> Result<Option<manifests::Manifest>, RegistryError> {
    match manifests::manifest(session, &tag(subject)) {
        Ok(found) if found.is_index() => Ok(Some(found)),
        Ok(_) => {
            let reason = format!("the tag `{}` should be an index of referrers, and is an image", tag(subject));
            Err(RegistryError::Manifest { reference: session.image.name(), reason })
        }
        Err(RegistryError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn tagged(session: &Session<'_>, subject: &Digest) -> Result<Option<ImageIndex>, RegistryError> {
    let parse = |found: manifests::Manifest| {
        let error = |error| unusable(session.image, &crate::image::ManifestError::Json(error));
        serde_json::from_slice(&found.bytes).map_err(error)
    };
    index(session, subject)?.map(parse).transpose()
}

/// The index is read, changed and written, which registries do not let us do in one: a client does it once at a time,
/// and looks afterwards; another program that writes between the two wins.
fn add(session: &Session<'_>, subject: &Digest, entry: &Value) -> Result<(), RegistryError> {
    let _turn = session.client.attaching.lock().unwrap_or_else(PoisonError::into_inner);
    for attempt in 0..=ATTEMPTS {
        let found = index(session, subject)?;
        // As a value, so that what is not known here is kept.
        let mut document: Value = match &found {
            Some(found) => serde_json::from_slice(&found.bytes)
                .map_err(|error| unusable(session.image, &crate::image::ManifestError::Json(error)))?,
            None => json!({"schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": []}),
        };
        let media_type = found.as_ref().map_or(media_type::INDEX, |found| &found.media_type);
        let entries = document["manifests"].as_array().cloned().unwrap_or_default();
        if entries.iter().any(|known| known["digest"] == entry["digest"]) {
            return Ok(());
        }
        if attempt == ATTEMPTS {
            break;
        }
        let mut kept = Vec::new();
        for known in entries {
            if let Some(digest) = known["digest"].as_str().and_then(|text| text.parse::<Digest>().ok())
                && manifests::exists(session, &digest)?
            {
                kept.push(known);
            }
        }
        kept.push(entry.clone());
        document["manifests"] = Value::Array(kept);
        manifests::put_as(session, &tag(subject), media_type, document.to_string().as_bytes())?;
    }
    let reason = format!("others write the tag `{}` at the same time; the artifact is not listed there", tag(subject));
    Err(RegistryError::Manifest { reference: session.image.name(), reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found_in_a_link() {
        assert_eq!(next("</v2/x?last=1>; rel=\"next\""), Some("/v2/x?last=1"));
        assert_eq!(next(" <https://r.io/y>; title=a; rel=next"), Some("https://r.io/y"));
        for none in ["", "<x>", "<x>; rel=prev", "x; rel=next", "<x; rel=next"] {
            assert_eq!(next(none), None, "{none}");
        }
    }

    #[test]
    fn an_artifact_without_content_has_the_empty_layer() {
        let subject = manifests::Manifest::parse(br#"{"schemaVersion":2,"manifests":[]}"#.as_slice(), None).unwrap();
        let artifact = Artifact { artifact_type: "a/b".to_owned(), layers: Vec::new(), annotations: BTreeMap::new() };
        let (bytes, config) = artifact.manifest(&subject);
        let manifest: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(manifest["layers"], json!([config.descriptor]));
        assert_eq!(manifest["subject"]["digest"], json!(subject.digest));
        assert_eq!(manifest.get("annotations"), None);
    }
}

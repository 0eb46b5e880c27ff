//! Manifests by tag and digest, tags, and referrers.

use std::io;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use crate::blobs::{blob_key, link_key};
use crate::body::Incomplete;
use crate::digest;
use crate::reply::{self, Reply, error, reply};
use crate::route::{Route, is_tag};
use crate::server::{Shared, query};

const LIMIT: usize = 4 * 1024 * 1024;
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const INDEXES: [&str; 2] = [OCI_INDEX, "application/vnd.docker.distribution.manifest.list.v2+json"];
const MANIFESTS: [&str; 2] =
    ["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"];

/// Holds the media type under which a manifest was put.
fn manifest_key(name: &str, hex: &str) -> String {
    format!("repositories/{name}/_manifests/{hex}")
}

fn tag_key(name: &str, tag: &str) -> String {
    format!("repositories/{name}/_tags/{tag}")
}

fn referrer_folder(name: &str, subject: &str) -> String {
    format!("repositories/{name}/_referrers/{subject}")
}

fn unknown() -> Reply {
    error(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", "manifest unknown")
}

fn invalid(message: &str) -> Reply {
    error(StatusCode::BAD_REQUEST, "MANIFEST_INVALID", message)
}

/// The digest that a tag or digest stands for.
fn resolve(shared: &Shared, name: &str, reference: &str) -> io::Result<Option<String>> {
    if digest::hex(reference).is_some() {
        return Ok(Some(reference.to_owned()));
    }
    if !is_tag(reference) {
        return Ok(None);
    }
    let digest = shared.store.get(&tag_key(name, reference))?;
    Ok(digest.and_then(|bytes| String::from_utf8(bytes.to_vec()).ok()))
}

pub(crate) fn get(shared: &Shared, route: &Route<'_>) -> io::Result<Reply> {
    let Some(digest) = resolve(shared, route.name, route.last)? else {
        return Ok(unknown());
    };
    let hex = digest::hex(&digest).unwrap_or_default();
    let (Some(media_type), Some(bytes)) =
        (shared.store.get(&manifest_key(route.name, hex))?, shared.store.get(&blob_key(hex))?)
    else {
        return Ok(unknown());
    };
    let media_type = String::from_utf8_lossy(&media_type);
    Ok(reply(StatusCode::OK, &[("content-type", &media_type), ("docker-content-digest", &digest)], bytes))
}

pub(crate) async fn put(
    shared: &Shared,
    route: &Route<'_>,
    headers: &HeaderMap,
    body: Incomplete,
) -> io::Result<Reply> {
    let Ok(bytes) = Limited::new(body, LIMIT).collect().await.map(http_body_util::Collected::to_bytes) else {
        return Ok(error(StatusCode::PAYLOAD_TOO_LARGE, "MANIFEST_INVALID", "larger than 4 MiB, or broken off"));
    };
    let media_type = headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let digest = digest::of(&bytes);
    let by_digest = digest::hex(route.last).is_some();
    if by_digest && route.last != digest {
        return Ok(error(StatusCode::BAD_REQUEST, "DIGEST_INVALID", "the manifest has another digest"));
    }
    if !by_digest && !is_tag(route.last) {
        return Ok(error(StatusCode::BAD_REQUEST, "TAG_INVALID", "neither a tag nor a sha256 digest"));
    }
    let Ok(document) = serde_json::from_slice::<Value>(&bytes) else {
        return Ok(invalid("not JSON"));
    };
    if let Some(refusal) = check(shared, route.name, media_type, &document)? {
        return Ok(refusal);
    }
    let hex = digest::hex(&digest).unwrap_or_default();
    shared.store.put(&blob_key(hex), &bytes)?;
    shared.store.put(&manifest_key(route.name, hex), media_type.as_bytes())?;
    let subject = document["subject"]["digest"].as_str().filter(|_| shared.options.referrers);
    if let Some(subject) = subject.and_then(digest::hex) {
        let descriptor = referrer(&document, media_type, &digest, &bytes);
        let key = format!("{}/{hex}", referrer_folder(route.name, subject));
        shared.store.put(&key, descriptor.to_string().as_bytes())?;
    }
    if !by_digest {
        shared.store.put(&tag_key(route.name, route.last), digest.as_bytes())?;
    }
    let location = format!("/v2/{}/manifests/{digest}", route.name);
    let mut fields = vec![("location", location.as_str()), ("docker-content-digest", &digest)];
    fields.extend(subject.map(|subject| ("oci-subject", subject)));
    Ok(reply(StatusCode::CREATED, &fields, ""))
}

/// A refusal for a manifest that is not what it says, or names what the repository does not have.
fn check(shared: &Shared, name: &str, media_type: &str, document: &Value) -> io::Result<Option<Reply>> {
    if document["schemaVersion"] != json!(2) {
        return Ok(Some(invalid("schemaVersion is not 2")));
    }
    if document["mediaType"].as_str().is_some_and(|inside| inside != media_type) {
        return Ok(Some(invalid("mediaType is not the Content-Type")));
    }
    let (descriptors, are_manifests): (Vec<&Value>, bool) = if INDEXES.contains(&media_type) {
        let Some(manifests) = document["manifests"].as_array() else {
            return Ok(Some(invalid("an index without manifests")));
        };
        (manifests.iter().collect(), true)
    } else if MANIFESTS.contains(&media_type) {
        let Some(layers) = document["layers"].as_array() else {
            return Ok(Some(invalid("a manifest without layers")));
        };
        (std::iter::once(&document["config"]).chain(layers).collect(), false)
    } else {
        return Ok(Some(invalid("neither a manifest's nor an index's media type")));
    };
    for descriptor in descriptors {
        let digest = descriptor["digest"].as_str().unwrap_or_default();
        let Some(hex) = digest::hex(digest) else {
            return Ok(Some(invalid("a descriptor without a sha256 digest")));
        };
        let key = if are_manifests { manifest_key(name, hex) } else { link_key(name, hex) };
        let size =
            shared.store.size(&blob_key(hex))?.filter(|_| shared.store.size(&key).is_ok_and(|link| link.is_some()));
        match size {
            None => {
                let message = format!("{digest} is unknown to the repository");
                return Ok(Some(error(StatusCode::BAD_REQUEST, "MANIFEST_BLOB_UNKNOWN", &message)));
            }
            Some(size) if descriptor["size"].as_u64() != Some(size) => {
                return Ok(Some(invalid(&format!("{digest} has {size} bytes"))));
            }
            Some(_) => {}
        }
    }
    Ok(None)
}

/// The descriptor that the referrers API lists.
fn referrer(document: &Value, media_type: &str, digest: &str, bytes: &Bytes) -> Value {
    let mut descriptor = json!({"mediaType": media_type, "digest": digest, "size": bytes.len()});
    let artifact_type =
        [&document["artifactType"], &document["config"]["mediaType"]].into_iter().find(|v| v.is_string());
    if let Some(artifact_type) = artifact_type {
        descriptor["artifactType"] = artifact_type.clone();
    }
    if document["annotations"].is_object() {
        descriptor["annotations"] = document["annotations"].clone();
    }
    descriptor
}

pub(crate) fn delete(shared: &Shared, route: &Route<'_>) -> io::Result<Reply> {
    let known = if let Some(hex) = digest::hex(route.last) {
        let known = shared.store.delete(&manifest_key(route.name, hex))?;
        for tag in shared.store.list(&format!("repositories/{}/_tags", route.name))? {
            let key = tag_key(route.name, &tag);
            if shared.store.get(&key)?.as_deref() == Some(route.last.as_bytes()) {
                shared.store.delete(&key)?;
            }
        }
        known
    } else {
        is_tag(route.last) && shared.store.delete(&tag_key(route.name, route.last))?
    };
    Ok(if known { reply(StatusCode::ACCEPTED, &[], "") } else { unknown() })
}

pub(crate) fn tags(shared: &Shared, route: &Route<'_>, parameters: &str) -> io::Result<Reply> {
    let mut tags = shared.store.list(&format!("repositories/{}/_tags", route.name))?;
    let known = !tags.is_empty() || !shared.store.list(&format!("repositories/{}/_manifests", route.name))?.is_empty();
    if !known {
        return Ok(error(StatusCode::NOT_FOUND, "NAME_UNKNOWN", "repository name not known to registry"));
    }
    if let Some(last) = query(parameters, "last") {
        tags.retain(|tag| *tag > last);
    }
    let limit = query(parameters, "n").and_then(|n| n.parse().ok()).unwrap_or(usize::MAX);
    let more = tags.len() > limit;
    tags.truncate(limit);
    let next = tags
        .last()
        .filter(|_| more)
        .map(|last| format!("</v2/{}/tags/list?n={limit}&last={last}>; rel=\"next\"", route.name));
    let link = next.as_deref().map(|next| ("link", next));
    Ok(reply::json(link.as_slice(), &json!({"name": route.name, "tags": tags})))
}

pub(crate) fn referrers(shared: &Shared, route: &Route<'_>, parameters: &str) -> io::Result<Reply> {
    if !shared.options.referrers {
        return Ok(reply(StatusCode::NOT_FOUND, &[("content-type", "text/plain")], "404 page not found\n"));
    }
    let Some(hex) = digest::hex(route.last) else {
        return Ok(error(StatusCode::BAD_REQUEST, "DIGEST_INVALID", "not a sha256 digest"));
    };
    let folder = referrer_folder(route.name, hex);
    let wanted = query(parameters, "artifactType");
    let mut manifests = Vec::new();
    for name in shared.store.list(&folder)? {
        // A referrer may have been deleted since.
        if shared.store.size(&manifest_key(route.name, &name))?.is_none() {
            continue;
        }
        let descriptor = shared.store.get(&format!("{folder}/{name}"))?.unwrap_or_default();
        let descriptor: Value = serde_json::from_slice(&descriptor).unwrap_or_default();
        if wanted.is_none() || descriptor["artifactType"].as_str() == wanted.as_deref() {
            manifests.push(descriptor);
        }
    }
    let first: usize = query(parameters, "from").and_then(|first| first.parse().ok()).unwrap_or(0);
    let mut page: Vec<Value> = manifests.split_off(first.min(manifests.len()));
    let more = page.len() > shared.options.referrers_page;
    page.truncate(shared.options.referrers_page);
    let manifests = page;
    let kind =
        wanted.as_ref().map(|wanted| format!("&artifactType={}", wanted.replace('+', "%2B"))).unwrap_or_default();
    let next = first + manifests.len();
    let next = format!("</v2/{}/referrers/{}?from={next}{kind}>; rel=\"next\"", route.name, route.last);
    let mut fields = Vec::new();
    fields.extend(wanted.map(|_| ("oci-filters-applied", "artifactType")));
    fields.extend(more.then_some(("link", next.as_str())));
    let mut reply = reply::json(&fields, &json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}));
    reply.headers_mut().insert("content-type", hyper::header::HeaderValue::from_static(OCI_INDEX));
    Ok(reply)
}

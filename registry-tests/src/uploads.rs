//! Upload sessions: POST, PATCH, PUT, and their shortcuts.

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::sync::Mutex;

use http_body_util::BodyExt as _;
use hyper::{HeaderMap, StatusCode};
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use crate::blobs::{blob_key, link_key};
use crate::body::Incomplete;
use crate::digest;
use crate::reply::{Reply, error, reply};
use crate::route::Route;
use crate::server::{Shared, query};
use crate::store::lock;

const BLOB_LIMIT: u64 = 4 * 1024 * 1024 * 1024;

#[derive(Default)]
pub(crate) struct Uploads(Mutex<HashMap<String, Upload>>);

struct Upload {
    repository: String,
    file: NamedTempFile,
    hasher: Sha256,
    size: u64,
}

pub(crate) async fn start(shared: &Shared, route: &Route<'_>, parameters: &str, body: Incomplete) -> io::Result<Reply> {
    if let (Some(digest), Some(from)) = (query(parameters, "mount"), query(parameters, "from")) {
        let mounted = digest::hex(&digest).filter(|_| crate::route::is_name(&from));
        if let Some(hex) = mounted
            && shared.options.mounts
            && shared.store.size(&link_key(&from, hex))?.is_some()
        {
            shared.store.put(&link_key(route.name, hex), b"")?;
            return Ok(created(shared, route.name, &digest));
        }
    }
    let upload =
        Upload { repository: route.name.to_owned(), file: shared.store.temporary()?, hasher: Sha256::new(), size: 0 };
    let id = format!("{:016x}{:016x}", crate::server::random(), crate::server::random());
    if let Some(digest) = query(parameters, "digest") {
        return finish_upload(shared, route.name, &id, upload, &digest, body).await;
    }
    lock(&shared.uploads.0).insert(id.clone(), upload);
    Ok(progress(shared, StatusCode::ACCEPTED, route.name, &id, 0))
}

pub(crate) async fn patch(
    shared: &Shared,
    route: &Route<'_>,
    headers: &HeaderMap,
    body: Incomplete,
) -> io::Result<Reply> {
    let Some(mut upload) = take(shared, route) else {
        return Ok(unknown());
    };
    if out_of_order(headers, upload.size) {
        let size = upload.size;
        lock(&shared.uploads.0).insert(route.last.to_owned(), upload);
        return Ok(progress(shared, StatusCode::RANGE_NOT_SATISFIABLE, route.name, route.last, size));
    }
    let received = receive(shared, &mut upload, body).await?;
    let size = upload.size;
    // What came before a connection broke is kept, so that the client can go on from there.
    lock(&shared.uploads.0).insert(route.last.to_owned(), upload);
    if let Err(refusal) = received {
        return Ok(refusal);
    }
    Ok(progress(shared, StatusCode::ACCEPTED, route.name, route.last, size))
}

pub(crate) async fn finish(
    shared: &Shared,
    route: &Route<'_>,
    headers: &HeaderMap,
    parameters: &str,
    body: Incomplete,
) -> io::Result<Reply> {
    let Some(upload) = take(shared, route) else {
        return Ok(unknown());
    };
    if out_of_order(headers, upload.size) {
        let size = upload.size;
        lock(&shared.uploads.0).insert(route.last.to_owned(), upload);
        return Ok(progress(shared, StatusCode::RANGE_NOT_SATISFIABLE, route.name, route.last, size));
    }
    let digest = query(parameters, "digest").unwrap_or_default();
    finish_upload(shared, route.name, route.last, upload, &digest, body).await
}

pub(crate) fn status(shared: &Shared, route: &Route<'_>) -> Reply {
    let size = lock(&shared.uploads.0)
        .get(route.last)
        .filter(|upload| upload.repository == route.name)
        .map(|upload| upload.size);
    size.map_or_else(unknown, |size| progress(shared, StatusCode::NO_CONTENT, route.name, route.last, size))
}

pub(crate) fn cancel(shared: &Shared, route: &Route<'_>) -> Reply {
    take(shared, route).map_or_else(unknown, |_| reply(StatusCode::NO_CONTENT, &[], ""))
}

/// An upload is out of the table while it is written to, so that nobody else writes to it.
fn take(shared: &Shared, route: &Route<'_>) -> Option<Upload> {
    let mut uploads = lock(&shared.uploads.0);
    if uploads.get(route.last)?.repository != route.name {
        return None;
    }
    uploads.remove(route.last)
}

async fn finish_upload(
    shared: &Shared,
    name: &str,
    id: &str,
    mut upload: Upload,
    digest: &str,
    body: Incomplete,
) -> io::Result<Reply> {
    let Some(hex) = digest::hex(digest) else {
        return Ok(error(StatusCode::BAD_REQUEST, "DIGEST_INVALID", "`digest` is missing or not a sha256 digest"));
    };
    if let Err(refusal) = receive(shared, &mut upload, body).await? {
        lock(&shared.uploads.0).insert(id.to_owned(), upload);
        return Ok(refusal);
    }
    let actual = digest::text(upload.hasher);
    if actual != digest {
        let message = format!("the content's digest is {actual}");
        return Ok(error(StatusCode::BAD_REQUEST, "DIGEST_INVALID", &message));
    }
    shared.store.put_file(&blob_key(hex), upload.file)?;
    shared.store.put(&link_key(name, hex), b"")?;
    Ok(created(shared, name, digest))
}

async fn receive(shared: &Shared, upload: &mut Upload, mut body: Incomplete) -> io::Result<Result<(), Reply>> {
    let mut came = 0;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return Ok(Err(error(StatusCode::BAD_REQUEST, "SIZE_INVALID", "the body broke off")));
        };
        if let Ok(data) = frame.into_data() {
            came += data.len() as u64;
            if shared.options.body_limit.is_some_and(|limit| came > limit) {
                // Read to its end, as a proxy does that wants its answer to be heard.
                while let Some(Ok(_)) = body.frame().await {}
                return Ok(Err(error(StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID", "too large a request")));
            }
            upload.size += data.len() as u64;
            if upload.size > BLOB_LIMIT {
                return Ok(Err(error(StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID", "the blob is too large")));
            }
            upload.hasher.update(&data);
            upload.file.write_all(&data)?;
        }
    }
    Ok(Ok(()))
}

/// `Content-Range: <start>-<end>`, where given, has to go on where the last chunk ended.
fn out_of_order(headers: &HeaderMap, size: u64) -> bool {
    let Some(range) = headers.get("content-range").and_then(|range| range.to_str().ok()) else {
        return false;
    };
    let start = range.trim_start_matches("bytes ").split('-').next().and_then(|start| start.trim().parse().ok());
    start != Some(size)
}

fn location(shared: &Shared, path: &str) -> String {
    if shared.options.absolute_locations { format!("http://{}{path}", shared.address) } else { path.to_owned() }
}

fn progress(shared: &Shared, status: StatusCode, name: &str, id: &str, size: u64) -> Reply {
    // A query in it is what many registries keep their state in.
    let location = location(shared, &format!("/v2/{name}/blobs/uploads/{id}?_state={}", &id[..8]));
    let range = format!("0-{}", size.saturating_sub(1));
    reply(status, &[("location", &location), ("range", &range), ("docker-upload-uuid", id)], "")
}

fn created(shared: &Shared, name: &str, digest: &str) -> Reply {
    let location = location(shared, &format!("/v2/{name}/blobs/{digest}"));
    reply(StatusCode::CREATED, &[("location", &location), ("docker-content-digest", digest)], "")
}

fn unknown() -> Reply {
    error(StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
}

//! Blobs: looked for, uploaded through a session, downloaded into a file.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use oci_spec::image::Descriptor;
use ureq::http::Method;
use ureq::http::header::LOCATION;

use crate::blob::{Blob, digest_of};
use crate::digest::Digest;

use super::RegistryError;
use super::error::Place;
use super::manifests::unusable;
use super::progress::Moved;
use super::session::Session;
use super::transport::{Answer, Body};
use super::verified::Check;

/// Upload a blob unless the registry has it. The whole is repeated after a failure: an upload session may be lost.
pub(super) fn upload(session: &Session<'_>, blob: &Blob) -> Result<(), RegistryError> {
    let client = session.client;
    let progress = client.progress();
    let digest = known_digest(session, &blob.descriptor)?;
    client.options.retry.run(progress, || {
        if exists(session, &digest)? {
            progress.finish(&digest, Moved::AlreadyThere);
            return Ok(());
        }
        let start = session.request(Method::POST, "blobs/uploads/")?.body(Body::Bytes(&[]));
        let started = session.once(&start, &[202, 201])?;
        let put = |reason: &str| started.place.clone().protocol(format!("the upload's Location {reason}"));
        let location = started.header(LOCATION.as_str()).ok_or_else(|| put("is missing"))?;
        let url = started
            .url
            .join(location)
            .and_then(|url| url.with_query(&[("digest", digest.as_str())]))
            .map_err(|error| put(&format!("is unusable: {error}")))?;
        if !client.transport.may_lead(&started.url, &url) {
            return Err(put("would be plain HTTP"));
        }
        progress.start(&digest, blob.descriptor.size(), 0);
        let mut finish = session.request(Method::PUT, "")?;
        finish.url = url;
        let finish = finish.header("Content-Type", "application/octet-stream").body(Body::Blob(blob, progress));
        session.once(&finish, &[201, 204])?;
        progress.finish(&digest, Moved::Uploaded);
        Ok(())
    })
}

fn exists(session: &Session<'_>, digest: &Digest) -> Result<bool, RegistryError> {
    let head = session.request(Method::HEAD, &format!("blobs/{digest}"))?;
    match session.once(&head, &[200]) {
        Ok(_) => Ok(true),
        Err(RegistryError::NotFound { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

fn known_digest(session: &Session<'_>, descriptor: &Descriptor) -> Result<Digest, RegistryError> {
    digest_of(descriptor).map_err(|error| unusable(session.image, &error.into()))
}

/// Download a blob into `directory`, under its digest's hexadecimal digits; only what has been checked gets that name.
/// After an interruption it goes on where it stopped, if the registry can.
pub(super) fn download(session: &Session<'_>, descriptor: &Descriptor, directory: &Path) -> Result<(), RegistryError> {
    let client = session.client;
    let progress = client.progress();
    let digest = known_digest(session, descriptor)?;
    let path = directory.join(digest.hex());
    if path.exists() {
        return Ok(());
    }
    let local = |action: &str| {
        let action = format!("{action} {}", path.display());
        move |source| RegistryError::Local { action, source }
    };
    let temporary = tempfile::Builder::new()
        .prefix(".download-")
        .tempfile_in(directory)
        .map_err(local("create a temporary file for"))?
        .into_temp_path();
    let mut file =
        OpenOptions::new().write(true).truncate(true).open(&temporary).map_err(local("open a temporary file for"))?;
    let mut check = Check::new(digest.clone(), descriptor.size());
    client.options.retry.run(progress, || receive(session, descriptor, &digest, &mut check, &mut file))?;
    check.finish().map_err(|mismatch| mismatch.into_error(what(session, &digest)))?;
    file.sync_all().map_err(local("write"))?;
    temporary.persist(&path).map_err(|error| local("write")(error.error))?;
    progress.finish(&digest, Moved::Downloaded);
    Ok(())
}

fn what(session: &Session<'_>, digest: &Digest) -> String {
    format!("blob {digest} of {}", session.image.name())
}

fn receive(
    session: &Session<'_>,
    descriptor: &Descriptor,
    digest: &Digest,
    check: &mut Check,
    file: &mut File,
) -> Result<(), RegistryError> {
    let progress = session.client.progress();
    let write = |source| RegistryError::Local { action: format!("write blob {digest}"), source };
    let mut request = session.request(Method::GET, &format!("blobs/{digest}"))?.expect(descriptor.size());
    if check.seen() > 0 {
        request = request.header("Range", format!("bytes={}-", check.seen()));
    }
    let mut answer = session.once(&request, &[200, 206])?;
    if !resumes(&answer, check.seen()) {
        *check = Check::new(digest.clone(), descriptor.size());
        file.set_len(0).map_err(write)?;
        file.seek(SeekFrom::Start(0)).map_err(write)?;
    }
    progress.start(digest, descriptor.size(), check.seen());
    let Place { method, url } = answer.place.clone();
    let mut reader = answer.body.as_reader();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = match reader.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(source) => return Err(RegistryError::Interrupted { method, url, received: check.seen(), source }),
        };
        check.feed(&buffer[..read]).map_err(|mismatch| mismatch.into_error(what(session, digest)))?;
        file.write_all(&buffer[..read]).map_err(write)?;
        progress.advance(digest, read as u64);
    }
}

/// Whether a 206 goes on exactly where the last answer stopped.
fn resumes(answer: &Answer, seen: u64) -> bool {
    answer.status == 206
        && answer.header("content-range").is_some_and(|range| range.starts_with(&format!("bytes {seen}-")))
}

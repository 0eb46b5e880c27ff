//! Blobs on their way from a registry into files.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use oci_spec::image::Descriptor;
use ureq::http::Method;

use crate::digest::Digest;

use super::RegistryError;
use super::error::Place;
use super::progress::Moved;
use super::session::Session;
use super::transport::Answer;
use super::upload::known_digest;
use super::verified::Check;

/// Download a blob into `directory`, under its digest's hexadecimal digits; only what has been checked gets that name.
/// After an interruption it goes on where it stopped, if the registry can. The file is not flushed to the disk: whoever
/// keeps it does that.
pub(super) fn download(
    session: &Session<'_>,
    descriptor: &Descriptor,
    directory: &Path,
    provide: &(dyn Fn(&Descriptor, &Path) -> bool + Sync),
) -> Result<(), RegistryError> {
    let client = session.client;
    let progress = client.progress();
    let digest = known_digest(session, descriptor)?;
    let path = directory.join(digest.hex());
    if path.exists() || provide(descriptor, &path) {
        progress.finish(&digest, Moved::AlreadyThere);
        return Ok(());
    }
    let local = |action: &str| {
        let action = format!("{action} {}", path.display());
        move |source| RegistryError::Local { action, source }
    };
    let mut builder = tempfile::Builder::new();
    // As readable as any file; a temporary file is its owner's only.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644));
    let temporary =
        builder.prefix(".download-").tempfile_in(directory).map_err(local("create a temporary file for"))?;
    let (mut file, temporary) = temporary.into_parts();
    let mut check = Check::new(digest.clone(), descriptor.size());
    client.options.retry.run(progress, || receive(session, descriptor, &digest, &mut check, &mut file))?;
    check.finish().map_err(|mismatch| mismatch.into_error(what(session, &digest)))?;
    drop(file);
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
    // Only where there is something to forget: a file that was ever truncated is flushed to the disk when it is closed.
    if check.seen() > 0 && !resumes(&answer, check.seen()) {
        *check = Check::new(digest.clone(), descriptor.size());
        file.set_len(0).map_err(write)?;
        file.seek(SeekFrom::Start(0)).map_err(write)?;
    }
    progress.start(digest, descriptor.size(), check.seen());
    let Place { method, url } = answer.place.clone();
    let mut reader = answer.body.as_reader();
    let mut received = check.seen();
    let (read, checked) = check.beside(|feeder| {
        while let Some(mut buffer) = feeder.take() {
            let read = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => 0,
                Err(source) => return Err(RegistryError::Interrupted { method, url, received, source }),
            };
            file.write_all(&buffer[..read]).map_err(write)?;
            received += read as u64;
            progress.advance(digest, read as u64);
            feeder.give(buffer, read);
        }
        Ok(())
    });
    checked.map_err(|mismatch| mismatch.into_error(what(session, digest)))?;
    read
}

/// Whether a 206 goes on exactly where the last answer stopped.
fn resumes(answer: &Answer, seen: u64) -> bool {
    answer.status == 206
        && answer.header("content-range").is_some_and(|range| range.starts_with(&format!("bytes {seen}-")))
}

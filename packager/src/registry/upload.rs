//! Blobs on their way to a registry: looked for, mounted, sent in one piece, or in several that can be gone on with.
//!
//! One piece is the fastest and understood by all. A blob goes in pieces once it did not get through in one: because
//! the connection broke off in the middle, or because something on the way does not let so much through at a time.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

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
use super::url::{Url, encoded};
use super::verified::Upload;

/// How often a registry may put us back in one upload before it counts as confused.
const CORRECTIONS: u32 = 8;

/// How often an upload may vanish.
const LOSSES: u32 = 3;

/// In which repository of which registry blobs have been seen.
#[derive(Default)]
pub(super) struct Places(Mutex<HashMap<(String, Digest), String>>);

impl Places {
    fn note(&self, session: &Session<'_>, digest: &Digest) {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        places.insert((session.base.to_string(), digest.clone()), session.image.repository().to_owned());
    }

    fn of(&self, session: &Session<'_>, digest: &Digest) -> Option<String> {
        let places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        places.get(&(session.base.to_string(), digest.clone())).cloned()
    }
}

/// Upload a blob unless the registry has it, or can take it over from `source` or where this client has seen it.
pub(super) fn upload(session: &Session<'_>, blob: &Blob, source: Option<&str>) -> Result<(), RegistryError> {
    let client = session.client;
    let digest = known_digest(session, &blob.descriptor)?;
    let source = source.map(str::to_owned).or_else(|| client.places.of(session, &digest));
    let source = source.filter(|source| source != session.image.repository());
    let mut sending = Sending { session, blob, digest, source, left: None, in_pieces: false, lost: 0 };
    let moved = client.options.retry.run(client.progress(), || sending.attempt())?;
    client.places.note(session, &sending.digest);
    client.progress().finish(&sending.digest, moved);
    Ok(())
}

pub(super) fn known_digest(session: &Session<'_>, descriptor: &Descriptor) -> Result<Digest, RegistryError> {
    digest_of(descriptor).map_err(|error| unusable(session.image, &error.into()))
}

struct Sending<'a> {
    session: &'a Session<'a>,
    blob: &'a Blob,
    digest: Digest,
    source: Option<String>,
    /// Where an upload that broke off may be gone on with.
    left: Option<Url>,
    in_pieces: bool,
    /// How often the registry did not know the upload any more.
    lost: u32,
}

/// How an upload begins.
enum Begun {
    Mounted,
    At(Url),
}

impl Sending<'_> {
    fn size(&self) -> u64 {
        self.blob.descriptor.size()
    }

    fn attempt(&mut self) -> Result<Moved, RegistryError> {
        let (url, position) = match self.left.take().and_then(|left| self.status(&left)) {
            Some(place) => place,
            None if exists(self.session, &self.digest)? => return Ok(Moved::AlreadyThere),
            None => match self.begin()? {
                Begun::Mounted => return Ok(Moved::Mounted),
                Begun::At(url) => (url, 0),
            },
        };
        self.session.client.progress().start(&self.digest, self.size(), position);
        let sent = if self.in_pieces { self.pieces(url, position) } else { self.whole(&url) };
        match sent {
            Err(RegistryError::Status { status: 413, .. }) if !self.in_pieces && self.size() > self.piece() => {
                self.in_pieces = true;
                self.attempt()
            }
            Err(RegistryError::NotFound { .. }) if self.lost < LOSSES => {
                self.lost += 1;
                self.left = None;
                self.attempt()
            }
            Err(error) => Err(error),
            Ok(()) => Ok(Moved::Uploaded),
        }
    }

    fn begin(&mut self) -> Result<Begun, RegistryError> {
        // Once: whatever the reason, what cannot be mounted is uploaded.
        if let Some(source) = self.source.take() {
            let path = format!("blobs/uploads/?mount={}&from={}", encoded(self.digest.as_str()), encoded(&source));
            let mount = self.session.request(Method::POST, &path)?.body(Body::Bytes(&[]));
            let more = [format!("repository:{source}:pull")];
            match self.session.scoped(&mount, &[201, 202], &more) {
                Ok(answer) if answer.status == 201 => return Ok(Begun::Mounted),
                Ok(answer) => return location(self.session, &answer).map(Begun::At),
                Err(error) if error.is_transient() => return Err(error),
                Err(_) => {}
            }
        }
        let start = self.session.request(Method::POST, "blobs/uploads/")?.body(Body::Bytes(&[]));
        let started = self.session.once(&start, &[202, 201])?;
        location(self.session, &started).map(Begun::At)
    }

    fn whole(&mut self, url: &Url) -> Result<(), RegistryError> {
        let body = Body::Blob(self.blob, self.session.client.progress());
        let sent = self.finish(url, body);
        if sent.as_ref().is_err_and(RegistryError::is_transient) && self.size() > self.piece() {
            self.in_pieces = true;
            self.left = Some(url.clone());
        }
        sent
    }

    fn finish(&self, url: &Url, body: Body<'_>) -> Result<(), RegistryError> {
        let url = url
            .with_query(&[("digest", self.digest.as_str())])
            .map_err(|error| Place::new("PUT", url).protocol(format!("the upload's Location is unusable: {error}")))?;
        let mut request = self.session.request(Method::PUT, "")?;
        request.url = url;
        let request = request.header("Content-Type", "application/octet-stream").body(body);
        self.session.once(&request, &[201, 204]).map(drop)
    }

    fn piece(&self) -> u64 {
        self.session.client.options.chunk.max(1)
    }

    fn pieces(&mut self, mut url: Url, mut position: u64) -> Result<(), RegistryError> {
        let progress = self.session.client.progress();
        let upload = RefCell::new(Upload::open(self.blob, position, progress)?);
        let mut corrections = 0;
        while position < self.size() {
            self.left = Some(url.clone());
            let end = position.saturating_add(self.piece()).min(self.size());
            let mut request = self.session.request(Method::PATCH, "")?;
            request.url = url.clone();
            let request = request
                .header("Content-Type", "application/octet-stream")
                .header("Content-Range", format!("{position}-{}", end - 1))
                .body(Body::Part(&upload, position, end - position));
            let answer = self.session.once(&request, &[202, 201, 204, 416])?;
            let reached = match (answer.status, received(&answer)) {
                (416, None) => None,
                (416, Some(reached)) => Some(reached),
                (_, reached) => Some(reached.unwrap_or(end)),
            };
            let reached = reached.filter(|reached| *reached <= self.size());
            if reached != Some(end) {
                corrections += 1;
            }
            if answer.status != 416 || answer.header(LOCATION.as_str()).is_some() {
                url = location(self.session, &answer)?;
            }
            match reached {
                Some(reached) if corrections <= CORRECTIONS => {
                    if reached != end {
                        progress.start(&self.digest, self.size(), reached);
                    }
                    position = reached;
                }
                _ => {
                    self.left = None;
                    let reason = "the registry does not say how much of the upload it has, or not twice the same";
                    return Err(answer.place.protocol(reason));
                }
            }
        }
        self.left = Some(url.clone());
        self.finish(&url, Body::Bytes(&[]))
    }

    /// Where to go on with an upload that broke off, and from which byte; nothing where the registry does not say: then
    /// it is begun again.
    fn status(&self, left: &Url) -> Option<(Url, u64)> {
        let mut request = self.session.request(Method::GET, "").ok()?;
        request.url = left.clone();
        request.follow = false;
        let answer = self.session.once(&request, &[204, 200, 202]).ok()?;
        let position = received(&answer).filter(|position| *position <= self.size())?;
        let url = answer.header(LOCATION.as_str()).map_or(Some(left.clone()), |_| location(self.session, &answer).ok());
        Some((url?, position))
    }
}

/// `Range: 0-<last byte>`. Nothing and one byte look alike; nothing is the likelier one, and a registry corrects us.
fn received(answer: &Answer) -> Option<u64> {
    let range = answer.header("range")?.trim();
    let last: u64 = range.trim_start_matches("bytes=").strip_prefix("0-")?.parse().ok()?;
    if last == 0 { Some(0) } else { last.checked_add(1) }
}

/// Where the next request about an upload goes: the registry's choice, but never from TLS to plain HTTP.
fn location(session: &Session<'_>, answer: &Answer) -> Result<Url, RegistryError> {
    let error = |reason: &str| answer.place.clone().protocol(format!("the upload's Location {reason}"));
    let location = answer.header(LOCATION.as_str()).ok_or_else(|| error("is missing"))?;
    let url = answer.url.join(location).map_err(|reason| error(&format!("is unusable: {reason}")))?;
    if session.client.transport.may_lead(&answer.url, &url) { Ok(url) } else { Err(error("would be plain HTTP")) }
}

fn exists(session: &Session<'_>, digest: &Digest) -> Result<bool, RegistryError> {
    let head = session.request(Method::HEAD, &format!("blobs/{digest}"))?;
    match session.once(&head, &[200]) {
        Ok(_) => Ok(true),
        Err(RegistryError::NotFound { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

//! What the suites share: images to move about, and clients that do not wait between attempts.

use oci_spec::image::{Descriptor, Digest as SpecDigest};
use packager::blob::{Blob, Content, Image};
use packager::credentials::{Credential, Credentials, Secret};
use packager::digest::Digest;
use packager::reference::ImageReference;
use packager::registry::{Client, Options, Retry};

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

pub(crate) fn blob(media_type: &str, bytes: &[u8]) -> Blob {
    let digest: SpecDigest = Digest::of(bytes).as_str().parse().unwrap();
    let descriptor = Descriptor::new(media_type.into(), bytes.len() as u64, digest);
    Blob { descriptor, content: Content::Bytes(bytes.into()) }
}

pub(crate) fn image_of(layers: Vec<Blob>) -> Image {
    let config = blob(CONFIG, br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#);
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config.descriptor,
        "layers": layers.iter().map(|layer| &layer.descriptor).collect::<Vec<_>>(),
    });
    Image { manifest: manifest.to_string().into_bytes().into(), media_type: MANIFEST.to_owned(), config, layers }
}

/// An image with one layer of some size, which no other seed gives.
pub(crate) fn image(seed: u64, size: usize) -> Image {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let bytes: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    })
    .take(size)
    .collect();
    image_of(vec![blob(LAYER, &bytes)])
}

pub(crate) fn reference(host: &str, rest: &str) -> ImageReference {
    format!("{host}/{rest}").parse().unwrap()
}

pub(crate) fn options() -> Options {
    Options { retry: Retry::at_once(), ..Options::default() }
}

pub(crate) fn client() -> Client {
    Client::new(options()).unwrap()
}

pub(crate) fn basic(host: &str, username: &str, password: &str) -> Credentials {
    let password = Secret::new(password);
    Credentials::none().with(host, Credential::Basic { username: username.to_owned(), password })
}

#[track_caller]
pub(crate) fn same(one: &Image, other: &Image) {
    assert_eq!(one.manifest, other.manifest);
    assert_eq!(one.media_type, other.media_type);
    let bytes = |blob: &Blob| {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut blob.content.open().unwrap(), &mut bytes).unwrap();
        bytes
    };
    let all = |image: &Image| std::iter::once(&image.config).chain(&image.layers).map(bytes).collect::<Vec<_>>();
    assert!(all(one) == all(other), "the blobs differ");
}

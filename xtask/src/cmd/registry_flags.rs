//! The flags of every command that talks to a registry, and what is made of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use packager::blob::Image;
use packager::credentials::{Credentials, config_file};
use packager::fetch::{FetchError, FetchOptions};
use packager::layout::{Layout, LayoutError};
use packager::reference::{ImageReference, Reference, ReferenceError};
use packager::registry::{Client, Options, PlainHttp, RegistryError};

use crate::environment;
use crate::progress::Bars;
use crate::report::Failure;

/// How to talk to registries.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Registry")]
pub(crate) struct RegistryFlags {
    /// Talk plain HTTP to any registry; without this, only to registries on this machine.
    #[arg(long, conflicts_with = "ca_file")]
    plain_http: bool,
    /// Talk plain HTTP to this registry too; may be given several times.
    #[arg(long, value_name = "HOST[:PORT]", conflicts_with = "ca_file")]
    insecure_registry: Vec<String>,
    /// Trust the certificates in this PEM file too, and talk TLS to registries on this machine as well.
    #[arg(long, value_name = "PEM")]
    ca_file: Option<PathBuf>,
    /// Take credentials from DIR/config.json [default: $REGISTRY_AUTH_FILE, then $DOCKER_CONFIG or ~/.docker].
    #[arg(long, value_name = "DIR")]
    docker_config: Option<PathBuf>,
    /// Let a registry name a token realm on a private address, as some behind a firewall do.
    #[arg(long)]
    private_realm: bool,
}

impl RegistryFlags {
    /// A client that does what the flags say.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        let progress = Arc::new(Bars::new());
        let proxies = environment::proxies()?;
        let mut options = Options { private_realms: self.private_realm, progress, proxies, ..Options::default() };
        if self.plain_http {
            options.plain_http = PlainHttp::Always;
        } else if !self.insecure_registry.is_empty() {
            options.plain_http = PlainHttp::Hosts(self.insecure_registry.clone());
        }
        if let Some(path) = &self.ca_file {
            let pem = std::fs::read(path)
                .map_err(|error| Failure::environment(error).context(&format!("failed to read {}", path.display())))?;
            options.ca_certificates.push(pem);
            options.plain_http = PlainHttp::Never;
        }
        let files = match &self.docker_config {
            Some(folder) => {
                let file = config_file(folder);
                // A folder that was named and holds nothing is a mistake; going on anonymously would hide it.
                if !file.is_file() {
                    return Err(Failure::environment(format!("--docker-config: there is no {}", file.display())));
                }
                vec![file]
            }
            None => environment::registry_credentials(),
        };
        options.credentials = Credentials::load(&files, environment::search_path()).map_err(Failure::environment)?;
        Client::new(options).map_err(registry_failure)
    }

    /// How modules are fetched.
    pub(crate) fn fetch_options(&self) -> Result<FetchOptions, Failure> {
        Ok(FetchOptions::new(self.client()?))
    }

    /// Where images go whose references start with `prefix`.
    pub(crate) fn destination(&self, prefix: &str) -> Result<Destination, Failure> {
        let prefix = prefix.strip_prefix("oci://").unwrap_or(prefix).trim_end_matches('/').to_owned();
        // Any name will do to see whether the prefix is one.
        image(&format!("{prefix}/name:tag"))?;
        Ok(Destination { client: self.client()?, prefix })
    }
}

/// Where several images are pushed to.
pub(crate) struct Destination {
    client: Client,
    prefix: String,
}

impl Destination {
    /// Push an image of a layout to `PREFIX/NAME:VERSION`; gives that reference with the digest.
    pub(crate) fn push(&self, layout: &Layout, name: &str, version: &str) -> Result<ImageReference, Failure> {
        // A tag has no `+`, which semantic versions put before build metadata.
        let reference = image(&format!("{}/{name}:{}", self.prefix, version.replace('+', "_")))?;
        let found = layout.image(name).map_err(layout_failure)?;
        push(&self.client, &found, &reference, None)
    }
}

/// Push one image; gives the reference with the digest.
pub(crate) fn push(
    client: &Client,
    image: &Image,
    reference: &ImageReference,
    mount: Option<&str>,
) -> Result<ImageReference, Failure> {
    let digest = client.push_mounting(image, reference, mount).map_err(registry_failure)?;
    Ok(reference.with_digest(digest))
}

/// An image in a registry, as written on the command line.
pub(crate) fn image(text: &str) -> Result<ImageReference, Failure> {
    match reference(text)? {
        Reference::Image(image) => Ok(image),
        _ => Err(Failure::usage(format!("`{text}` is not an image in a registry: expected REGISTRY/REPOSITORY[:TAG]"))),
    }
}

/// A reference, as written on the command line.
pub(crate) fn reference(text: &str) -> Result<Reference, Failure> {
    Reference::parse(text).map_err(|error: ReferenceError| {
        let hint = error.hint();
        Failure::usage(error).hints(hint)
    })
}

/// The same, where a file is taken for one whatever its name, and a folder for a layout whose images have to be named.
pub(crate) fn here_or_there(text: &str) -> Result<Reference, Failure> {
    let path = Path::new(text);
    if path.is_file() {
        return Ok(Reference::File(path.to_owned()));
    }
    if path.join("oci-layout").is_file() {
        return Err(Failure::usage(format!("`{text}` is a layout: name an image in it"))
            .hint(format!("`oci:{text}:NAME`; index.json has the names")));
    }
    // No registry is asked for what is here, and is something else.
    if path.is_dir() {
        let in_it = path.join("dist");
        return Err(Failure::usage(format!("`{text}` is a folder, and no layout")).hint(
            if in_it.join("oci-layout").is_file() {
                format!("its layout's images are oci:{}:NAME", in_it.display())
            } else {
                "name a module's file, or an image: oci:DIR:NAME or REGISTRY/REPOSITORY[:TAG]".to_owned()
            },
        ));
    }
    // No registry's name begins so.
    if text.starts_with(['/', '.']) { Ok(Reference::File(path.to_owned())) } else { reference(text) }
}

/// The failure that a fetch ends in.
pub(crate) fn fetch_failure(error: FetchError) -> Failure {
    let hint = error.hint();
    if error.is_bad_content() { Failure::bad(error) } else { Failure::environment(error) }.hints(hint)
}

pub(crate) fn registry_failure(error: RegistryError) -> Failure {
    let hint = error.hint();
    if error.is_bad_content() { Failure::bad(error) } else { Failure::environment(error) }.hints(hint)
}

pub(crate) fn layout_failure(error: LayoutError) -> Failure {
    let hint = error.hint();
    let here = matches!(error, LayoutError::Io { .. } | LayoutError::NotALayout { .. } | LayoutError::Occupied { .. });
    if here { Failure::environment(error) } else { Failure::bad(error) }.hints(hint)
}

//! `cargo xtask push`.

use std::io::ErrorKind;

use packager::layout::Layout;
use packager::reference::{ImageReference, LayoutReference, Reference};
use packager::registry::RegistryError;

use super::registry_flags::{self, RegistryFlags, layout_failure, registry_failure};
use crate::report::{Failure, data};

/// Push an image from a layout to a registry.
///
/// Prints REPOSITORY@DIGEST, which is what a resource should name.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The image: oci:DIR:NAME, or NAME for oci:dist:NAME.
    #[arg(value_name = "SRC")]
    source: String,
    /// Where to: REGISTRY/REPOSITORY[:TAG].
    #[arg(value_name = "DEST")]
    destination: String,
    /// Give it this tag too; may be repeated.
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Take blobs over from this repository of the same registry where it has them, instead of sending them.
    #[arg(long, value_name = "REPOSITORY")]
    mount_from: Option<String>,
    #[command(flatten)]
    registry: RegistryFlags,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let source = layout(&args.source)?;
    let destination = registry_flags::image(&args.destination)?;
    let tagged = |tag: &String| destination.with_tag(tag).map_err(Failure::usage);
    let mut references = args.tags.iter().map(tagged).collect::<Result<Vec<_>, _>>()?;
    if destination.tag().is_some() || destination.digest().is_some() || references.is_empty() {
        references.insert(0, destination.clone());
    }
    let mount = args.mount_from.as_deref().map(|from| mount(&destination, from)).transpose()?;
    let client = args.registry.client()?;
    let image =
        Layout::open(&source.directory).and_then(|layout| layout.image(&source.name)).map_err(layout_failure)?;
    for (position, reference) in references.iter().enumerate() {
        if position == 0 {
            client.push_mounting(&image, reference, mount.as_deref()).map_err(|error| not_whole(error, &source))?;
        } else {
            client.put_manifest(reference, &image.media_type, &image.manifest).map_err(registry_failure)?;
        }
    }
    data(format!("{}@{}", destination.name(), image.digest()));
    Ok(())
}

/// A layout that lacks a blob is bad, whatever the system says of the file.
fn not_whole(error: RegistryError, source: &LayoutReference) -> Failure {
    let is_missing = matches!(&error, RegistryError::Local { source, .. } if source.kind() == ErrorKind::NotFound);
    if is_missing {
        let layout = source.directory.display();
        let hint = format!("the layout {layout} is not whole: remove it, and package or pull the image again");
        return Failure::bad(error).hint(hint);
    }
    registry_failure(error)
}

/// The repository's name in the destination's registry.
fn mount(destination: &ImageReference, from: &str) -> Result<String, Failure> {
    let registry = destination.name();
    let registry = registry.strip_suffix(destination.repository()).unwrap_or_default();
    let repository = from.strip_prefix(registry).unwrap_or(from);
    let found = registry_flags::image(&format!("{registry}{repository}:any"))
        .map_err(|failure| failure.context("--mount-from"))?;
    Ok(found.repository().to_owned())
}

fn layout(source: &str) -> Result<LayoutReference, Failure> {
    let is_name = !source.contains(['/', ':']);
    let text = if is_name { format!("oci:dist:{source}") } else { source.to_owned() };
    match registry_flags::reference(&text)? {
        Reference::Layout(layout) => Ok(layout),
        _ => Err(Failure::usage(format!("`{source}` is not an image in a layout: expected oci:DIR:NAME or NAME"))),
    }
}

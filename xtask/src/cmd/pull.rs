//! `cargo xtask pull`.

use std::path::{Path, PathBuf};

use packager::fetch::fetch_module_to;
use packager::layout::Layout;
use packager::reference::Reference;

use super::registry_flags::{self, RegistryFlags, fetch_failure, layout_failure, registry_failure};
use crate::report::{Failure, data, note};

/// Pull an image into a layout, or the module out of it into a file.
///
/// Prints the reference with its digest. Without --output and --layout, the image goes into the layout `dist`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What to pull: REGISTRY/REPOSITORY[:TAG][@DIGEST]; with --output also oci:DIR:NAME or a URL.
    #[arg(value_name = "REF")]
    reference: String,
    /// Write the module to this file.
    #[arg(long, short, value_name = "FILE.wasm", conflicts_with = "layout")]
    output: Option<PathBuf>,
    /// Put the image into this layout; NAME is by default the repository's last part.
    #[arg(long, value_name = "DIR[:NAME]")]
    layout: Option<String>,
    #[command(flatten)]
    registry: RegistryFlags,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let reference = registry_flags::reference(&args.reference)?;
    match &args.output {
        Some(output) => module(args, &reference, output),
        None => image(args, &reference),
    }
}

fn module(args: &Args, reference: &Reference, output: &Path) -> Result<(), Failure> {
    let (source, size) =
        fetch_module_to(output, reference, None, &args.registry.fetch_options()?).map_err(fetch_failure)?;
    note(format!("{}: {size} bytes", output.display()));
    data(source.to_string());
    Ok(())
}

fn image(args: &Args, reference: &Reference) -> Result<(), Failure> {
    let Reference::Image(image) = reference else {
        return Err(Failure::usage(format!("`{}` is not an image in a registry", args.reference))
            .hint("`--output FILE.wasm` takes modules out of layouts and URLs too"));
    };
    let last = image.repository().rsplit('/').next().unwrap_or_default();
    let (directory, name) = match args.layout.as_deref() {
        Some(layout) => layout.split_once(':').unwrap_or((layout, last)),
        None => ("dist", last),
    };
    if directory.is_empty() || name.is_empty() {
        return Err(Failure::usage("--layout: expected DIR or DIR:NAME"));
    }
    let client = args.registry.client()?;
    let layout = Layout::open_or_create(Path::new(directory)).map_err(layout_failure)?;
    let staging = layout.staging().map_err(layout_failure)?;
    let provide = |descriptor: &_, path: &_| layout.stage(descriptor, path);
    let pulled = client.pull_missing(image, staging.path(), &provide).map_err(registry_failure)?;
    let put = layout.put_staged(&pulled, name, &staging).map_err(layout_failure)?;
    note(format!("oci:{directory}:{name}"));
    if let Err(refusal) = packager::image::variant(&pulled) {
        let hint = refusal.hint().map(|hint| format!("; {}", hint.replace("REF", &format!("oci:{directory}:{name}"))));
        note(format!("Istio does not read it: {refusal}{}", hint.unwrap_or_default()));
    }
    data(format!("{}@{}", image.name(), put.digest));
    Ok(())
}

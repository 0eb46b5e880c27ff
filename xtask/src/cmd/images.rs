//! `--image URL=REF`: another place for the module of a url.

use std::collections::{BTreeMap, BTreeSet};

use mesh::Resources;
use mesh::model::Extension;
use packager::reference::Reference;

use crate::report::Failure;

/// What the flags say, by URL with its scheme. A URL that no resource has is a typing error.
pub(crate) fn images(flags: &[String], resources: &Resources) -> Result<BTreeMap<String, Reference>, Failure> {
    let wasm = resources.extensions.iter().filter_map(Extension::wasm);
    let known: BTreeSet<String> = wasm.map(|wasm| with_scheme(&wasm.url)).collect();
    let mut images = BTreeMap::new();
    for flag in flags {
        // A query in the URL may have a `=` too; references have none.
        let (url, reference) =
            flag.rsplit_once('=').ok_or_else(|| Failure::usage(format!("--image `{flag}`: expected URL=REF")))?;
        let url = with_scheme(url);
        if !known.contains(&url) {
            let known = known.iter().cloned().collect::<Vec<_>>().join(", ");
            let known = if known.is_empty() { "none has any".to_owned() } else { format!("they have {known}") };
            return Err(Failure::usage(format!("--image: no resource has the url `{url}`; {known}")));
        }
        let reference =
            Reference::parse(reference).map_err(|error| Failure::usage(error).context(&format!("--image `{flag}`")))?;
        if images.insert(url.clone(), reference).is_some() {
            return Err(Failure::usage(format!("--image: `{url}` is given twice")));
        }
    }
    Ok(images)
}

/// A url as Istio reads it.
pub(crate) fn with_scheme(url: &str) -> String {
    if url.contains("://") { url.to_owned() } else { format!("oci://{url}") }
}

//! The flags that say what a module is that was not built here.

use packager::image::Metadata;

/// What is known of a module.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "About the module, with --module or --from")]
pub(crate) struct MetadataFlags {
    /// The image's name; with --from by default what the image is called there.
    #[arg(long, value_name = "NAME", requires = "foreign")]
    pub(crate) name: Option<String>,
    /// Its version; --push makes a tag of it.
    #[arg(long, value_name = "VERSION", requires = "foreign")]
    module_version: Option<String>,
    /// One line on what it does.
    #[arg(long, value_name = "TEXT", requires = "foreign")]
    description: Option<String>,
    /// A root id that it answers to; may be repeated. None means any.
    #[arg(long = "root-id", value_name = "ID", requires = "foreign")]
    root_ids: Vec<String>,
    /// The phase it is meant for.
    #[arg(long, value_parser = ["AUTHN", "AUTHZ", "STATS"], requires = "foreign")]
    phase: Option<String>,
    /// The priority it is meant for.
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, requires = "foreign")]
    priority: Option<i32>,
    /// Its licence, an SPDX expression.
    #[arg(long, value_name = "SPDX", requires = "foreign")]
    license: Option<String>,
    /// URL of its source repository.
    #[arg(long, value_name = "URL", requires = "foreign")]
    source: Option<String>,
}

impl MetadataFlags {
    /// Put what was given over what is known.
    pub(crate) fn apply(&self, metadata: &mut Metadata) {
        let over = |known: &mut Option<String>, given: &Option<String>| {
            if given.is_some() {
                known.clone_from(given);
            }
        };
        if let Some(name) = &self.name {
            metadata.name.clone_from(name);
        }
        over(&mut metadata.version, &self.module_version);
        over(&mut metadata.description, &self.description);
        over(&mut metadata.phase, &self.phase);
        over(&mut metadata.license, &self.license);
        over(&mut metadata.source, &self.source);
        metadata.priority = self.priority.or(metadata.priority);
        if !self.root_ids.is_empty() {
            metadata.root_ids.clone_from(&self.root_ids);
        }
    }
}

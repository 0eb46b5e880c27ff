//! One file per subcommand: its flags and its `run`. Printing and exit codes live here only.

pub(crate) mod bench;
pub(crate) mod build;
pub(crate) mod chain_test;
pub(crate) mod ci;
pub(crate) mod envoy;
pub(crate) mod explain;
pub(crate) mod images;
pub(crate) mod inspect;
pub(crate) mod lint;
pub(crate) mod metadata_flags;
pub(crate) mod migrate;
pub(crate) mod new;
pub(crate) mod package;
pub(crate) mod pull;
pub(crate) mod push;
pub(crate) mod registry;
pub(crate) mod registry_flags;
pub(crate) mod requests;
pub(crate) mod run;
pub(crate) mod surroundings;
pub(crate) mod test_host;
pub(crate) mod toolchain;
pub(crate) mod verify;
mod watch;

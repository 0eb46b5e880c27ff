//! An OCI distribution registry in this process: correct by default, lying, failing or stalling where told to.
//!
//! It shares no type with the client that it tests: what it knows of the formats is here and comes from the
//! distribution specification.

mod auth;
mod blobs;
mod body;
mod digest;
mod fault;
mod manifests;
mod reply;
mod route;
mod server;
mod store;
mod uploads;

use std::net::SocketAddr;
use std::path::PathBuf;

pub use auth::Auth;
pub use fault::{Does, Fault};
pub use route::Operation;
pub use server::{Registry, Seen};

/// How a registry is started.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Keep everything in this folder instead of in memory.
    pub directory: Option<PathBuf>,
    /// What clients have to show.
    pub auth: Auth,
    /// What goes wrong; the first that fits a request and is not used up happens.
    pub faults: Vec<Fault>,
    /// Answer `GET /v2/<name>/referrers/<digest>`; older registries do not.
    pub referrers: bool,
    /// Take over blobs from other repositories; some registries do not.
    pub mounts: bool,
    /// How many seconds a token is said to be good for.
    pub token_lifetime: u64,
    /// The largest request body, as a proxy in front of a registry has it; more is answered with 413.
    pub body_limit: Option<u64>,
    /// How many referrers are listed at a time.
    pub referrers_page: usize,
    /// Give absolute upload locations instead of relative ones.
    pub absolute_locations: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            directory: None,
            auth: Auth::Open,
            faults: Vec::new(),
            referrers: true,
            mounts: true,
            token_lifetime: 300,
            body_limit: None,
            referrers_page: usize::MAX,
            absolute_locations: false,
        }
    }
}

impl Options {
    /// A registry in memory with these faults.
    pub fn faulty(faults: impl IntoIterator<Item = Fault>) -> Self {
        Self { faults: faults.into_iter().collect(), ..Self::default() }
    }
}

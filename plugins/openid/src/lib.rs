//! Signs users in at an OpenID provider and gives their requests the token that it issued.
//!
//! Every request needs a session, however its path is written; only the plugin's own paths do not, and none of them
//! leads to the upstream. A session is in the browser's cookies, sealed, so that any proxy with the same keys takes it.

mod asked;
mod background;
mod callback;
mod config;
mod cookie;
mod flow;
mod id_token;
mod login;
mod page;
mod provider;
mod random;
mod refresh;
mod renewal;
mod seal;
mod session;
mod settings;
mod tokens;
mod url;
mod workers;

pub use self::config::Config;
pub use self::flow::OpenId;

plugwright_sdk::register!(async OpenId);

//! What `new` makes: names that hold everywhere, a place for the project, and its files from a template.

pub(crate) mod name;
pub(crate) mod place;
pub(crate) mod render;
mod template;

pub(crate) use template::Template;

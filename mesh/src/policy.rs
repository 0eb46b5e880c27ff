//! Policies: which requests a proxy's own filters let pass, read from `RequestAuthentication` and
//! `AuthorizationPolicy`.
//!
//! [`Policies`] is what a [`FilterChain`](crate::model::FilterChain) carries for its filters
//! `envoy.filters.http.jwt_authn` and `envoy.filters.http.rbac`.

mod applied;
mod authorization;
mod fault;
mod jwt;
mod model;
mod read;

pub(crate) use applied::applied;
pub use fault::PolicyFault;
pub use model::{
    Action, AuthorizationPolicy, ClaimHeader, Condition, JwtHeader, JwtRule, Key, Policies, PolicySpec, Rule,
};
pub(crate) use read::read;

#[cfg(test)]
mod tests;

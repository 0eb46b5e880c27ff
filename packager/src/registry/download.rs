//! Plain downloads over HTTP, for modules that are not in a registry.

use ureq::http::Method;

use super::session::refused;
use super::transport::Request;
use super::url::Url;
use super::{Client, RegistryError};

impl Client {
    /// Download what a URL names, at most `limit` bytes, without credentials. An `http` URL is spoken to without TLS,
    /// since it is its writer's choice; a redirect from `https` never leads to one.
    pub fn download(&self, url: &str, limit: u64) -> Result<Vec<u8>, RegistryError> {
        let parsed = Url::parse(url).map_err(|source| RegistryError::Registry {
            registry: url.split('?').next().unwrap_or_default().to_owned(),
            source,
        })?;
        let what = parsed.to_string();
        let mut request = Request::new(Method::GET, parsed).expect(limit);
        request.plain = true;
        self.options.retry.run(self.progress(), || {
            let mut answer = self.transport.send(&request)?;
            if answer.status != 200 {
                return Err(refused(&mut answer, None, None));
            }
            answer.read(&what, limit)
        })
    }
}

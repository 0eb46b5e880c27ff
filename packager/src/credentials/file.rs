//! The docker config file: `auths`, `credHelpers`, `credsStore`.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde::Deserialize;

use super::{ConfigFile, Credential, CredentialsError, Secret};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    #[serde(default)]
    auths: Option<BTreeMap<String, Entry>>,
    #[serde(default)]
    cred_helpers: Option<BTreeMap<String, String>>,
    #[serde(default)]
    creds_store: Option<String>,
}

/// One entry of `auths`; empty where a helper holds the credential.
#[derive(Clone, Default, Deserialize)]
pub(super) struct Entry {
    #[serde(default)]
    auth: Option<String>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<String>,
    #[serde(default)]
    identitytoken: Option<String>,
    #[serde(default)]
    registrytoken: Option<String>,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("<redacted>")
    }
}

pub(super) fn parse(path: &Path, text: &[u8]) -> Result<ConfigFile, CredentialsError> {
    let document: Document = serde_json::from_slice(text).map_err(|error| CredentialsError::Malformed {
        path: path.to_owned(),
        line: error.line(),
        column: error.column(),
        reason: reason(&error).to_owned(),
    })?;
    Ok(ConfigFile {
        path: path.to_owned(),
        auths: document.auths.unwrap_or_default(),
        helpers: document.cred_helpers.unwrap_or_default(),
        store: document.creds_store.filter(|store| !store.is_empty()),
    })
}

/// Serde's own message quotes the value it stumbled over, and that may be a password.
fn reason(error: &serde_json::Error) -> &'static str {
    match error.classify() {
        serde_json::error::Category::Eof => "the JSON ends too early",
        serde_json::error::Category::Data => "a value has the wrong type",
        serde_json::error::Category::Syntax | serde_json::error::Category::Io => "the JSON is malformed",
    }
}

impl Entry {
    pub(super) fn credential(&self, path: &Path, key: &str) -> Result<Option<Credential>, CredentialsError> {
        let given = |field: &Option<String>| field.clone().filter(|text| !text.is_empty());
        if let Some(token) = given(&self.registrytoken) {
            return Ok(Some(Credential::RegistryToken(Secret::new(token))));
        }
        if let Some(token) = given(&self.identitytoken) {
            return Ok(Some(Credential::IdentityToken(Secret::new(token))));
        }
        let error =
            |reason| CredentialsError::Entry { path: path.to_owned(), key: super::helper::bounded(key), reason };
        if let Some(auth) = given(&self.auth) {
            let bytes = STANDARD
                .decode(auth.trim())
                .or_else(|_| STANDARD_NO_PAD.decode(auth.trim()))
                .map_err(|_| error("`auth` is not base64"))?;
            let text = String::from_utf8(bytes).map_err(|_| error("`auth` is not UTF-8"))?;
            let (username, password) = text.split_once(':').ok_or_else(|| error("`auth` is not USER:PASSWORD"))?;
            // Docker pads what it writes with NUL.
            let password = Secret::new(password.trim_end_matches('\0'));
            return Ok(Some(Credential::Basic { username: username.to_owned(), password }));
        }
        match (given(&self.username), given(&self.password)) {
            (Some(username), Some(password)) => {
                Ok(Some(Credential::Basic { username, password: Secret::new(password) }))
            }
            (None, None) => Ok(None),
            (Some(_), None) => Err(error("`username` stands without `password`")),
            (None, Some(_)) => Err(error("`password` stands without `username`")),
        }
    }
}

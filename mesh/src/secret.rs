//! Pull secrets: Kubernetes Secrets of type `kubernetes.io/dockerconfigjson`, the only type that Istio takes.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::fault::Fault;
use crate::fields::{Object, Report};

pub(crate) const TYPE: &str = "kubernetes.io/dockerconfigjson";
const KEY: &str = ".dockerconfigjson";

/// A Secret that holds registry credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullSecret {
    /// `metadata.namespace`, `default` when left out.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// What it holds.
    pub docker_config: DockerConfig,
}

/// The text of a docker config file. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct DockerConfig(Vec<u8>);

impl DockerConfig {
    /// The text itself, to be parsed and never shown.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for DockerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

/// Reads a Secret of [`TYPE`]. `stringData` overrides `data`, as the API server merges them.
pub(crate) fn read(
    object: &Object<'_>,
    namespace: String,
    name: String,
    report: &mut Report<'_>,
) -> Option<PullSecret> {
    let bytes = if let Some(field) = object.at(&["stringData", KEY]) {
        field.text(report)?.as_bytes().to_vec()
    } else {
        let data = object.required("data", report)?.object(report)?;
        let field = data.required(KEY, report)?;
        // Go's decoder skips line ends.
        let text: String = field.text(report)?.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
        match STANDARD.decode(text) {
            Ok(bytes) => bytes,
            Err(_) => {
                field.error(report, Fault::NotBase64);
                return None;
            }
        }
    };
    Some(PullSecret { namespace, name, docker_config: DockerConfig(bytes) })
}

#[cfg(test)]
mod tests {
    use crate::{Source, read};

    #[track_caller]
    fn check(body: &str, expected: Result<&[u8], &str>) {
        let text = format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: s, namespace: shop}}\n{body}\n");
        let reading = read(&[Source { file: "f".to_owned(), text }]);
        match expected {
            Ok(config) => {
                assert_eq!(reading.errors, []);
                let secret = &reading.resources.pull_secrets[0];
                assert_eq!((secret.namespace.as_str(), secret.name.as_str()), ("shop", "s"));
                assert_eq!(secret.docker_config.expose(), config);
                assert!(!format!("{reading:?}").contains("auths"));
            }
            Err(message) => {
                assert_eq!(reading.errors.iter().map(ToString::to_string).collect::<Vec<_>>(), [message]);
                assert_eq!(reading.resources.pull_secrets, []);
            }
        }
    }

    const TYPED: &str = "type: kubernetes.io/dockerconfigjson\n";

    #[test]
    fn pull_secrets_are_read_decoded_and_never_shown() {
        let config = br#"{"auths":{}}"#;
        check(&format!("{TYPED}data: {{.dockerconfigjson: eyJhdXRocyI6e319}}"), Ok(config));
        check(&format!("{TYPED}data:\n  .dockerconfigjson: |\n    eyJhdXRo\n    cyI6e319"), Ok(config));
        let both = "data: {.dockerconfigjson: AAAA}\nstringData: {.dockerconfigjson: '{\"auths\":{}}'}";
        check(&format!("{TYPED}{both}"), Ok(config));
    }

    #[test]
    fn what_cannot_be_decoded_is_an_error_that_does_not_quote_it() {
        let typed = |body: &str| format!("{TYPED}{body}");
        check(
            &typed("data: {.dockerconfigjson: 'hunter2!'}"),
            Err("f:5:27: `data[\".dockerconfigjson\"]`: is not base64"),
        );
        check(&typed("data: {}"), Err("f:5:7: `data[\".dockerconfigjson\"]`: required, but missing"));
        check(&typed(""), Err("f:1:1: `data`: required, but missing"));
    }

    #[test]
    fn other_secrets_stay_unread() {
        let text = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ntype: Opaque\ndata: {a: b}\n".to_owned();
        let reading = read(&[Source { file: "f".to_owned(), text }]);
        assert_eq!((reading.resources.skipped["Secret"], reading.resources.pull_secrets.len()), (1, 0));
    }
}

//! Clusters that filters may call: a map from their names to URLs, as a file or as `NAME=URL`.

use std::collections::BTreeMap;

use crate::envoy::is_server;
use crate::fault::{Fault, Place, Problem};
use crate::resources::Source;
use crate::url::shown_url;
use crate::yaml::{self, Mark, Value};

/// Reads a file of clusters: one mapping, in YAML or JSON, from each cluster's name to its `http://HOST:PORT`.
///
/// ```
/// let text = "outbound|80||auth.ns.svc.cluster.local: http://127.0.0.1:9000\n".to_owned();
/// let clusters = mesh::clusters(&mesh::Source { file: "clusters.yaml".to_owned(), text }).unwrap();
/// assert_eq!(clusters["outbound|80||auth.ns.svc.cluster.local"], "http://127.0.0.1:9000");
/// ```
pub fn clusters(source: &Source) -> Result<BTreeMap<String, String>, Box<Problem>> {
    let mut clusters = BTreeMap::new();
    for document in yaml::documents(&source.text) {
        let problem = |at: Mark, path: &str, fault: Fault| {
            let Mark { line, column } = at;
            let place = Place { file: source.file.clone(), document: document.number, line, column };
            Box::new(Problem { place, path: path.to_owned(), fault })
        };
        if let Some((at, fault)) = document.faults.into_iter().next() {
            return Err(problem(at, "", fault));
        }
        let node = document.root.map_err(|(at, fault)| problem(at, "", fault))?;
        let entries = match node.value {
            Value::Null => continue,
            Value::Map(entries) => entries,
            other => {
                let fault = Fault::WrongType { expected: "a mapping from names to URLs", actual: other.type_name() };
                return Err(problem(node.at, "", fault));
            }
        };
        for entry in entries {
            let Value::String(url) = entry.value.value else {
                let actual = entry.value.value.type_name();
                let fault = Fault::WrongType { expected: "a URL, http://HOST:PORT", actual };
                return Err(problem(entry.value.at, &entry.key, fault));
            };
            if !is_server(&url) {
                let fault = Fault::ServerUrl { url: shown_url(&url) };
                return Err(problem(entry.value.at, &entry.key, fault));
            }
            clusters.insert(entry.key, url);
        }
    }
    Ok(clusters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<&[(&str, &str)], &str>) {
        let read = clusters(&Source { file: "c.yaml".to_owned(), text: text.to_owned() });
        let expected = expected.map(|pairs| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect());
        assert_eq!(read.map_err(|problem| problem.to_string()), expected.map_err(str::to_owned));
    }

    #[test]
    fn names_map_to_urls_in_yaml_and_json() {
        check(
            "a: http://x:1\noutbound|80||h: http://y:2\n",
            Ok(&[("a", "http://x:1"), ("outbound|80||h", "http://y:2")]),
        );
        check("{\"a\": \"http://x:1\"}", Ok(&[("a", "http://x:1")]));
        check("", Ok(&[]));
    }

    #[test]
    fn everything_else_is_an_error_with_its_place() {
        check("- a", Err("c.yaml:1:1: must be a mapping from names to URLs, is a list"));
        check("a: 1", Err("c.yaml:1:4: `a`: must be a URL, http://HOST:PORT, is a number"));
        check(
            "a: http://x\nb: ftp://ann:pw@y",
            Err("c.yaml:2:4: `b`: `ftp://<redacted>@y` is not of the form http://HOST:PORT, https://HOST:PORT, \
                 h2c://HOST:PORT or tcp://HOST:PORT"),
        );
        check("a: x\na: y", Err("c.yaml:2:1: the key `a` is given twice, first on line 1"));
    }
}

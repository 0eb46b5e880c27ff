//! Reads a block that is shown as an excerpt, as what it is an excerpt of.

use mesh::Source;
use suites::tree::Format;

/// Whether the block is a resource of a mesh, which `lint` and `explain` can be asked about.
pub(crate) fn is_resource(yaml: &str) -> bool {
    yaml.lines().any(|line| {
        ["extensions.istio.io", "extensions.tetrate.io", "maistra.io"]
            .iter()
            .any(|group| line.strip_prefix("apiVersion: ").is_some_and(|version| version.starts_with(group)))
    })
}

/// Reads it, or panics.
pub(crate) fn read(language: &str, text: &str) {
    match language {
        "json" => drop(serde_json::from_str::<serde_json::Value>(text).unwrap_or_else(|error| panic!("{error}"))),
        "toml" => drop(text.parse::<toml::Table>().unwrap_or_else(|error| panic!("{error}"))),
        "yaml" => {
            let tree = suites::tree::read(text, Format::Yaml).unwrap_or_else(|error| panic!("{error:?}"));
            if text.lines().any(|line| line == "kind: ChainTest") {
                let source = Source { file: "excerpt.yaml".to_owned(), text: text.to_owned() };
                suites::chain::read(&source).unwrap_or_else(|problems| panic!("{problems:?}"));
            } else if text.lines().any(|line| line == "test:") {
                let reading = suites::plugin::read(&tree, Format::Yaml);
                assert!(reading.problems.is_empty(), "{:?}", reading.problems);
            }
        }
        other => panic!("nobody reads an excerpt in `{other}`"),
    }
}

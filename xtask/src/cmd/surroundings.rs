//! What `run` gives a proxy beside its chain: clusters that filters may call, its node, its administration endpoint.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};

use crate::input;
use crate::report::Failure;

/// Flags for the surroundings of a proxy.
#[derive(clap::Args)]
pub(crate) struct Surroundings {
    /// A cluster that filters may call, such as `outbound|80||auth.ns.svc.cluster.local=http://127.0.0.1:9000`.
    #[arg(long = "cluster", value_name = "NAME=URL")]
    clusters: Vec<String>,
    /// A file of clusters: a YAML or JSON mapping from names to URLs. `--cluster` goes before it.
    #[arg(long = "clusters", value_name = "FILE")]
    clusters_file: Option<PathBuf>,
    /// The proxy's node as JSON, in Envoy's form: what plugins read as `xds.node`.
    #[arg(long, value_name = "FILE")]
    node: Option<PathBuf>,
    /// Address of the administration endpoint, which has the metrics at /stats/prometheus.
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    pub(crate) admin: Option<String>,
}

/// Where to listen: which of it is an address of this machine is found out there.
pub(crate) fn address(text: &str) -> Result<String, String> {
    let (host, port) = text.rsplit_once(':').unwrap_or_default();
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let has_host = bracketed.map_or(!host.is_empty() && !host.contains(':'), |host| host.parse::<Ipv6Addr>().is_ok());
    if has_host && port.parse::<u16>().is_ok() {
        Ok(text.to_owned())
    } else {
        Err("expected HOST:PORT, for example 127.0.0.1:8080 or [::1]:0".to_owned())
    }
}

impl Surroundings {
    /// All clusters, by name.
    pub(crate) fn clusters(&self) -> Result<BTreeMap<String, String>, Failure> {
        let mut clusters = match &self.clusters_file {
            Some(file) => mesh::clusters(&input::source(file)?).map_err(Failure::bad)?,
            None => BTreeMap::new(),
        };
        let mut given = BTreeMap::new();
        for flag in &self.clusters {
            // A name has no `=`, a URL may.
            let (name, url) = flag
                .split_once('=')
                .filter(|(name, _)| !name.is_empty())
                .ok_or_else(|| Failure::usage(format!("--cluster `{flag}`: expected NAME=URL")))?;
            if given.insert(name.to_owned(), url.to_owned()).is_some() {
                return Err(Failure::usage(format!("--cluster: `{name}` is given twice")));
            }
        }
        clusters.append(&mut given);
        Ok(clusters)
    }

    /// The files among them.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Path> {
        self.clusters_file.iter().chain(&self.node).map(PathBuf::as_path)
    }

    /// The node, if one was given.
    pub(crate) fn node(&self) -> Result<Option<serde_json::Value>, Failure> {
        let Some(file) = &self.node else { return Ok(None) };
        let source = input::source(file)?;
        let node: serde_json::Value = serde_json::from_str(&source.text)
            .map_err(|error| Failure::bad(format!("{}: not JSON: {error}", source.file)))?;
        if node.is_object() {
            Ok(Some(node))
        } else {
            Err(Failure::bad(format!("{}: a node is a JSON object", source.file)))
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        surroundings: Surroundings,
    }

    fn parse(arguments: &[&str]) -> Surroundings {
        Command::try_parse_from([&["run"], arguments].concat()).unwrap().surroundings
    }

    #[test]
    fn flags_go_before_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("clusters.yaml");
        std::fs::write(&file, "a: http://file:1\nb: http://file:2\n").unwrap();
        let given = parse(&[
            "--clusters",
            file.to_str().unwrap(),
            "--cluster",
            "outbound|80||h=http://x:1",
            "--cluster",
            "a=http://x:2",
        ]);
        let clusters: Vec<_> = given.clusters().unwrap().into_iter().collect();
        let expected = [("a", "http://x:2"), ("b", "http://file:2"), ("outbound|80||h", "http://x:1")];
        assert_eq!(clusters, expected.map(|(name, url)| (name.to_owned(), url.to_owned())));
    }

    #[test]
    fn an_address_has_a_host_and_a_port() {
        for text in ["127.0.0.1:8080", "localhost:0", "[::1]:65535", "0.0.0.0:80", "a.example:1"] {
            assert_eq!(address(text).as_deref(), Ok(text));
        }
        for text in
            ["", "8080", ":8080", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "::1:80", "[::1]", "[x]:1", "a:b:1"]
        {
            assert!(address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_flag_without_a_name_or_given_twice_is_refused() {
        assert!(parse(&["--cluster", "http://x"]).clusters().is_err());
        assert!(parse(&["--cluster", "=http://x"]).clusters().is_err());
        assert!(parse(&["--cluster", "a=b", "--cluster", "a=c"]).clusters().is_err());
    }

    #[test]
    fn a_node_is_an_object() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("node.json");
        let given = parse(&["--node", file.to_str().unwrap()]);
        assert!(given.node().is_err());
        for (text, fine) in [("{\"id\": \"n\"}", true), ("[]", false), ("{", false)] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(given.node().is_ok(), fine, "{text}");
        }
    }
}

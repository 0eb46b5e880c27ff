//! What holds for every migration, whatever the resources and however they are written.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::{Kind, Migration, Options, migrate};
use crate::chain::resolve;
use crate::model::{Direction, FilterKind, Layer, Listener, Proxy, ProxyKind};
use crate::resources::{Resources, Source, read};
use crate::yaml::{documents, print};
use crate::{MeshOptions, Reading};

const NAMESPACES: [&str; 3] = ["istio-system", "shop", "bank"];

fn options(to: Kind) -> Options {
    Options {
        to,
        namespaces: BTreeMap::new(),
        keep_inbound: true,
        root_namespace: "istio-system".to_owned(),
        images: BTreeMap::new(),
    }
}

fn source(text: &str) -> Source {
    Source { file: "f".to_owned(), text: text.to_owned() }
}

#[track_caller]
fn migrated(text: &str, options: &Options) -> Migration {
    migrate(&[source(text)], options).unwrap()
}

/// How a resource is written.
#[derive(Debug, Clone, Copy)]
enum Style {
    Block,
    Flow,
    Json,
    List,
}

#[derive(Debug, Clone)]
struct Resource {
    maistra: bool,
    name: String,
    namespace: &'static str,
    /// Each entry of `spec` with its key.
    spec: Vec<String>,
    style: Style,
}

impl Resource {
    fn write(&self, number: usize) -> String {
        let (version, kind) = if self.maistra {
            ("maistra.io/v1", "ServiceMeshExtension")
        } else {
            ("extensions.istio.io/v1alpha1", "WasmPlugin")
        };
        let Self { name, namespace, .. } = self;
        let head = format!("apiVersion: {version}\nkind: {kind} # kind {number}\n");
        let comment = |index: usize, entry: &String| {
            format!("  # comment {number}.{index}\n  {entry} # behind {number}.{index}\n")
        };
        let spec: String = self.spec.iter().enumerate().map(|(index, entry)| comment(index, entry)).collect();
        let block = format!("{head}metadata:\n  name: {name}\n  namespace: {namespace}\nspec:\n{spec}");
        match self.style {
            Style::Block => block,
            Style::Flow => {
                format!(
                    "{head}metadata: {{name: {name}, namespace: {namespace}}}\nspec: {{{}}}\n",
                    self.spec.join(", ")
                )
            }
            Style::Json => {
                let documents = documents(&block);
                let text = print::document(documents[0].root.as_ref().unwrap());
                let value: serde_json::Value = as_json(&text);
                format!("{value}\n")
            }
            Style::List => {
                let indented = block.replace('\n', "\n  ");
                format!("apiVersion: v1\nkind: List\nitems:\n- {}\n", indented.trim_end())
            }
        }
    }
}

fn as_json(text: &str) -> serde_json::Value {
    use crate::fields::{Field, Report};
    let documents = documents(text);
    let field = Field::root(documents[0].root.as_ref().unwrap());
    let json = crate::config::plugin_config(&field, &mut Report::new("f", 0)).unwrap();
    serde_json::from_str(&json).unwrap()
}

/// Resources with names that are different in each namespace; `distinct` gives each a priority of its own.
fn resources(maistra: bool, distinct: bool) -> impl Strategy<Value = Vec<Resource>> {
    let names = subsequence(vec!["a", "a-b", "a.b", "b", "foo", "foo-bar", "z"], 1..6);
    names.prop_flat_map(move |names| {
        let one = move |(index, name): (usize, &'static str)| {
            let phases = if !maistra {
                vec!["", "phase: UNSPECIFIED_PHASE", "phase: AUTHN", "phase: AUTHZ", "phase: STATS"]
            } else if distinct {
                vec!["phase: PreAuthN", "phase: PreAuthZ", "phase: PreStats", "phase: PostStats"]
            } else {
                vec!["phase: PreAuthN", "phase: PostAuthN", "phase: PreAuthZ", "phase: PostAuthZ", "phase: PostStats"]
            };
            let priorities = if distinct {
                vec![format!("priority: {index}")]
            } else {
                vec![String::new(), "priority: 0".to_owned(), "priority: -1".to_owned(), "priority: 7".to_owned()]
            };
            let selectors = if maistra {
                vec!["", "workloadSelector: {labels: {app: x}}", "workloadSelector: {}"]
            } else {
                vec![
                    "",
                    "selector: {matchLabels: {app: x}}",
                    "targetRef: {kind: Gateway, group: gateway.networking.k8s.io, name: gw}",
                ]
            };
            let configs: Vec<&str> = if maistra {
                vec!["", "config: {}", "config: {k: [1, {l: 'x # y'}], on: true}"]
            } else {
                vec![
                    "",
                    "pluginConfig: {k: 012}",
                    "vmConfig: {env: [{name: A, valueFrom: HOST}]}",
                    "match: [{mode: SERVER}]",
                ]
            };
            let url = if maistra { "image: 'h/x:1'" } else { "url: \"oci://h/x:1\"" };
            let style = select(vec![Style::Block, Style::Block, Style::Flow, Style::Json, Style::List]);
            let parts =
                (select(NAMESPACES.to_vec()), select(phases), select(priorities), select(selectors), select(configs));
            (parts, style).prop_flat_map(move |((namespace, phase, priority, selector, config), style)| {
                let parts = [url.to_owned(), phase.to_owned(), priority, selector.to_owned(), config.to_owned()];
                let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
                Just(parts).prop_shuffle().prop_map(move |spec| Resource {
                    maistra,
                    name: name.to_owned(),
                    namespace,
                    spec,
                    style,
                })
            })
        };
        names.into_iter().enumerate().map(one).collect::<Vec<_>>()
    })
}

fn text(resources: &[Resource]) -> String {
    let written = resources.iter().enumerate().map(|(number, resource)| resource.write(number));
    written.collect::<Vec<_>>().join("---\n")
}

/// The chain of each proxy that could tell a difference, extensions with their configuration.
fn chains(resources: &Resources) -> Vec<Vec<String>> {
    let pod = |namespace: &str, label: (&str, &str), kind| Proxy {
        name: "p".to_owned(),
        namespace: namespace.to_owned(),
        labels: [(label.0.to_owned(), label.1.to_owned())].into(),
        kind,
    };
    let proxies = NAMESPACES.iter().flat_map(|namespace| {
        [
            pod(namespace, ("app", "x"), ProxyKind::Sidecar),
            pod(namespace, ("app", "y"), ProxyKind::Sidecar),
            pod(namespace, ("gateway.networking.k8s.io/gateway-name", "gw"), ProxyKind::Gateway),
        ]
    });
    let mut chains = Vec::new();
    for proxy in proxies {
        for direction in [Direction::Inbound, Direction::Outbound] {
            // What Maistra had is not kept off gateways by `mode: SERVER`, which is said and not tested here.
            if proxy.kind == ProxyKind::Gateway && resources.extensions.iter().any(|one| !one.traffic.is_empty()) {
                continue;
            }
            let listener = Listener { direction: Some(direction), port: None, layer: Layer::Http, protocol: None };
            let chain = resolve(resources, &proxy, &listener, &MeshOptions::default());
            let label = |kind: &FilterKind| match kind {
                FilterKind::BuiltIn(name) => name.clone(),
                FilterKind::Extension(extension) => {
                    let config = extension.wasm().and_then(|wasm| wasm.plugin_config.clone());
                    format!("{}/{} {config:?}", extension.namespace, extension.name)
                }
            };
            chains.push(chain.filters.iter().map(|filter| label(&filter.kind)).collect());
        }
    }
    chains
}

fn read_all(text: &str) -> Reading {
    let reading = read(&[source(text)]);
    assert_eq!(reading.errors, [], "{text}");
    reading
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn with_priorities_of_their_own_plugins_keep_their_chains(resources in resources(false, true)) {
        let text = text(&resources);
        let migration = migrated(&text, &options(Kind::TrafficExtension));
        prop_assert_eq!(migration.migrated, resources.len());
        prop_assert_eq!(&migration.differences, &[], "{}", text);
        let after = read_all(&migration.text).resources;
        prop_assert!(after.extensions.iter().all(|extension| extension.origin.kind == "TrafficExtension"));
        prop_assert_eq!(chains(&read_all(&text).resources), chains(&after), "{}", text);
    }

    #[test]
    fn sidecars_keep_the_chains_that_maistra_gave_them(resources in resources(true, true)) {
        let text = text(&resources);
        for to in [Kind::WasmPlugin, Kind::TrafficExtension] {
            let migration = migrated(&text, &options(to));
            prop_assert_eq!(migration.migrated, resources.len());
            let after = read_all(&migration.text).resources;
            let mut before = read_all(&text).resources;
            // Gateways are left out of the comparison, as in `after`.
            let server = crate::model::TrafficSelector { mode: crate::model::WorkloadMode::ClientAndServer, ports: vec![] };
            before.extensions.iter_mut().for_each(|extension| extension.traffic = vec![server.clone()]);
            prop_assert_eq!(chains(&before), chains(&after), "{}", text);
        }
    }

    #[test]
    fn every_difference_is_said(maistra in any::<bool>(), plugins in resources(false, false), older in resources(true, false)) {
        let (resources, to) = if maistra { (older, Kind::WasmPlugin) } else { (plugins, Kind::TrafficExtension) };
        let text = text(&resources);
        let migration = migrated(&text, &Options { keep_inbound: false, ..options(to) });
        let differ = chains(&read_all(&text).resources) != chains(&read_all(&migration.text).resources);
        prop_assert!(!differ || !migration.differences.is_empty(), "{}", text);
    }

    #[test]
    fn comments_stay_with_what_stays(maistra in any::<bool>(), plugins in resources(false, true), older in resources(true, true)) {
        let (resources, to) = if maistra { (older, Kind::WasmPlugin) } else { (plugins, Kind::TrafficExtension) };
        let text = migrated(&text(&resources), &options(to)).text;
        let written = resources.iter().enumerate().filter(|(_, one)| matches!(one.style, Style::Block | Style::List));
        for (number, resource) in written {
            prop_assert!(text.contains(&format!("# kind {number}")), "{}", text);
            for (index, entry) in resource.spec.iter().enumerate() {
                let removed = ["workloadSelector: {}", "config: {}", "phase: PostStats"].contains(&entry.as_str());
                prop_assert_eq!(text.contains(&format!("# comment {number}.{index}\n")), !removed, "{}", text);
            }
        }
    }

    #[test]
    fn what_has_nothing_to_migrate_is_printed_as_it_was(resources in resources(false, false)) {
        let text = text(&resources);
        let migration = migrated(&text, &options(Kind::WasmPlugin));
        prop_assert_eq!((migration.migrated, migration.text), (0, text));
    }
}

/// A golden input with one part replaced by something that YAML has a meaning for.
fn damaged() -> impl Strategy<Value = String> {
    let whole = select(vec![
        include_str!("../../tests/golden/migrate/comments-and-order.in.yaml"),
        include_str!("../../tests/golden/migrate/tetrate.in.yaml"),
        include_str!("../../tests/golden/migrate/traffic-extension.in.yaml"),
        include_str!("../../tests/golden/migrate/kubectl-list.in.yaml"),
        include_str!("../../tests/golden/migrate/anchors.in.yaml"),
    ]);
    let token = select(vec![
        "\n",
        "  ",
        "\n  ",
        "# c\n",
        ": ",
        "- ",
        "&x ",
        "*x",
        "{",
        "}",
        "[]",
        "|\n",
        "\"",
        "'",
        "---\n",
        "...\n",
        "? ",
        "<<: ",
        "\t",
        "\r\n",
        "é",
        "null",
        "!!str ",
        "\u{feff}",
        "spec:\n",
        "image: h/y\n",
        "\u{2028}",
        "%YAML 1.2\n",
    ]);
    let with = prop::collection::vec(token, 0..3).prop_map(|tokens| tokens.concat());
    (whole, any::<prop::sample::Index>(), 0..12_usize, with).prop_map(|(whole, start, length, with)| {
        let chars: Vec<char> = whole.chars().collect();
        let start = start.index(chars.len());
        let end = (start + length).min(chars.len());
        let text = |chars: &[char]| chars.iter().collect::<String>();
        format!("{}{with}{}", text(&chars[..start]), text(&chars[end..]))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn damaged_input_is_refused_or_migrated_and_never_panics(text in damaged()) {
        for to in [Kind::WasmPlugin, Kind::TrafficExtension] {
            match migrate(&[source(&text)], &options(to)) {
                Ok(migration) => {
                    let again = migrated(&migration.text, &options(to));
                    prop_assert_eq!((again.migrated, again.text), (0, migration.text));
                }
                Err(problems) => prop_assert!(!problems.is_empty()),
            }
        }
    }
}

#[test]
fn new_objects_are_younger_than_those_that_stay() {
    let plugin = |kind: &str, name: &str, spec: &str| {
        format!(
            "---\napiVersion: extensions.istio.io/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}, namespace: shop, \
             creationTimestamp: \"2024-01-0{}T00:00:00Z\"}}\nspec: {{{spec}}}\n",
            if name == "old" { 1 } else { 2 }
        )
    };
    let text =
        [plugin("WasmPlugin", "old", "url: h/x"), plugin("TrafficExtension", "new", "wasm: {url: h/x}")].concat();
    let migration = migrated(&text, &options(Kind::TrafficExtension));
    assert_eq!(migration.differences[0].before, ["shop/old", "shop/new"]);
    assert_eq!(migration.differences[0].after, ["shop/new", "shop/old"]);
}

#[test]
fn network_chains_are_compared_too() {
    let plugin = |name: &str| {
        format!(
            "---\napiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata: {{name: {name}}}\n\
             spec: {{url: h/x, type: NETWORK}}\n"
        )
    };
    let migration = migrated(&(plugin("foo") + &plugin("foo-bar")), &options(Kind::TrafficExtension));
    let places: Vec<&str> = migration.differences.iter().map(|difference| difference.place.as_str()).collect();
    assert_eq!(places.len(), 2);
    assert!(places[0].ends_with("inbound connections"), "{places:?}");
}

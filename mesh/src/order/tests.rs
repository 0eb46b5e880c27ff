//! The order is total, and the same whatever order the input has.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use proptest::prelude::*;

use super::ordered;
use crate::model::Extension;
use crate::resources::{Source, read};

const NAMESPACES: [&str; 3] = ["apps", "istio-system", "shop"];

/// Extensions that differ in as little as they can: no two have kind, namespace and name in common.
fn extensions() -> impl Strategy<Value = Vec<Extension>> {
    let one = (
        prop::sample::select(vec!["WasmPlugin", "TrafficExtension", "ServiceMeshExtension"]),
        prop::sample::select(NAMESPACES.to_vec()),
        prop::sample::select(vec!["a", "a-b", "a.b", "b"]),
        prop::sample::select(vec!["AUTHN", "STATS", ""]),
        prop::option::of(-1..=1),
        prop::option::of(1..=2),
    );
    prop::collection::vec(one, 0..16).prop_map(|briefs| {
        let mut seen = BTreeSet::new();
        let mut text = String::new();
        for (kind, namespace, name, phase, priority, day) in briefs {
            if !seen.insert((kind, namespace, name)) {
                continue;
            }
            let created = day.map(|day| format!(", creationTimestamp: 2024-01-0{day}T00:00:00Z")).unwrap_or_default();
            let priority = priority.map(|priority| format!(", priority: {priority}")).unwrap_or_default();
            let (version, filter) = match kind {
                "WasmPlugin" => ("extensions.istio.io/v1alpha1", "url: h/x"),
                "TrafficExtension" => ("extensions.istio.io/v1alpha1", "wasm: {url: h/x}"),
                _ => ("maistra.io/v1", "image: h/x:1"),
            };
            let phase = match (kind, phase) {
                (_, "") => String::new(),
                ("ServiceMeshExtension", "AUTHN") => ", phase: PreAuthN".to_owned(),
                ("ServiceMeshExtension", _) => ", phase: PostAuthZ".to_owned(),
                (_, phase) => format!(", phase: {phase}"),
            };
            _ = write!(
                text,
                "---\n{{apiVersion: {version}, kind: {kind}, metadata: {{name: {name}, namespace: {namespace}{created}}}, \
                 spec: {{{filter}{phase}{priority}}}}}\n"
            );
        }
        let reading = read(&[Source { file: "f".to_owned(), text }]);
        assert_eq!(reading.errors, []);
        reading.resources.extensions
    })
}

fn order(extensions: &[Extension]) -> Vec<String> {
    let items = extensions.iter().map(|extension| (extension, ())).collect();
    ordered(items, &NAMESPACES).into_iter().map(|(extension, ())| extension.id()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn shuffling_the_input_changes_nothing(
        (given, shuffled) in extensions().prop_flat_map(|given| (Just(given.clone()), Just(given).prop_shuffle()))
    ) {
        prop_assert_eq!(order(&given), order(&shuffled));
    }

    #[test]
    fn any_two_have_an_order_and_all_others_keep_to_it(given in extensions()) {
        let all = order(&given);
        prop_assert_eq!(all.len(), given.len());
        for (index, one) in given.iter().enumerate() {
            for other in &given[index + 1..] {
                let pair = order(&[one.clone(), other.clone()]);
                prop_assert_eq!(&pair, &order(&[other.clone(), one.clone()]));
                let place = |id: &String| all.iter().position(|known| known == id);
                prop_assert!(place(&pair[0]) < place(&pair[1]), "{:?} in {:?}", pair, all);
            }
        }
    }
}

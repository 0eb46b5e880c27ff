//! The fuzzer's corpus, replayed: whatever it holds is read, resolved and warned of without a panic, and places are
//! in the text.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use mesh::model::{Layer, Listener, ProxyKind};
use mesh::{MeshOptions, Source, diff, read_located, resolve, stated, warnings};

#[test]
fn the_fuzzers_corpus_is_survived() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/read");
    let mut extensions = 0;
    let mut broken = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        // What is not text does not get as far as the reader.
        let Ok(text) = fs::read_to_string(&path) else { continue };
        // A carriage return alone ends a line as well, in YAML.
        let lines = text.matches(['\n', '\r']).count() + 1;
        let (reading, locator) = read_located(&[Source { file: "f".to_owned(), text }]);
        let mesh = MeshOptions::default();
        let mut found = warnings::all(&reading.resources, &mesh);
        warnings::locate(&mut found, &locator);
        for place in found.iter().map(|warning| &warning.place).chain(reading.errors.iter().map(|error| &error.place)) {
            assert!((1..=lines).contains(&place.line), "{}: {place}", path.display());
        }
        for kind in [ProxyKind::Sidecar, ProxyKind::Gateway, ProxyKind::Waypoint] {
            for layer in [Layer::Http, Layer::Network] {
                let proxy = stated(&reading.resources, "default", BTreeMap::new(), kind);
                let listener = Listener { direction: None, port: None, layer, protocol: None };
                let chain = resolve(&reading.resources, &proxy, &listener, &mesh);
                assert!(chain.filters.len() + chain.left_out.len() > reading.resources.extensions.len());
                assert_eq!(diff(&chain, &chain), []);
                let _ = warnings::of_chain(&reading.resources, &chain, &mesh);
            }
        }
        extensions += reading.resources.extensions.len();
        broken += usize::from(!reading.errors.is_empty());
    }
    assert!(extensions > 20 && broken > 0, "{extensions} extensions, {broken} broken texts");
}

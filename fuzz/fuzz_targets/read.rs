//! Any text, read as resources: `cargo fuzz run read`. Whatever is read is also resolved, warned of and compared.

#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use mesh::model::{Direction, Layer, Listener, ProxyKind};
use mesh::{MeshOptions, Source, diff, protocol, read_located, resolve, services_of, stated, warnings};

fuzz_target!(|text: &str| {
    // A carriage return alone ends a line as well, in YAML.
    let lines = text.matches(['\n', '\r']).count() + 1;
    let (reading, locator) = read_located(&[Source { file: "f".to_owned(), text: text.to_owned() }]);
    for problem in reading.errors.iter().chain(&reading.warnings) {
        let shown = format!("{problem} {:?} {} {:?}", problem.hint(), problem.rule(), locator.resource(&problem.place));
        assert!((1..=lines).contains(&problem.place.line) && !shown.is_empty());
    }
    let resources = &reading.resources;
    let mut mesh = MeshOptions::default();
    let mut found = warnings::all(resources, &mesh);
    warnings::locate(&mut found, &locator);
    assert!(found.iter().all(|warning| (1..=lines).contains(&warning.place.line)));
    let mut before = None;
    for kind in [ProxyKind::Sidecar, ProxyKind::Gateway, ProxyKind::Waypoint] {
        let proxy = stated(resources, "default", BTreeMap::new(), kind);
        mesh.services = services_of(resources, &proxy);
        for layer in [Layer::Http, Layer::Network] {
            let mut listener = Listener { direction: Some(Direction::Inbound), port: Some(80), layer, protocol: None };
            listener.protocol = protocol(resources, &proxy, listener);
            let chain = resolve(resources, &proxy, &listener, &mesh);
            let places = chain.left_out.len() + chain.filters.len();
            assert!(places > resources.extensions.len());
            let _ = (warnings::of_chain(resources, &chain, &mesh), chain.brief());
            assert_eq!(diff(&chain, &chain), []);
            if let Some(before) = before.replace(chain.clone()) {
                let _ = diff(&before, &chain);
            }
        }
    }
});

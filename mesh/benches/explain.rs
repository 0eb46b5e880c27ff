//! What explaining a chain costs in a large mesh, and that it grows with the mesh and no faster:
//! `cargo bench -p mesh`.

#![expect(clippy::print_stdout, clippy::expect_used, reason = "a benchmark prints, or fails")]

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::{Duration, Instant};

use mesh::model::{Direction, Layer, Listener};
use mesh::{Locator, MeshOptions, Resources, Source, warnings};

const ROUNDS: usize = 5;
/// Each namespace has as many extensions as there are in a hundredth of the mesh.
const NAMESPACES: usize = 100;

/// A mesh as `kubectl get -A -o yaml` prints it: extensions of every shape, a tenth as many pods, Services and policies.
fn mesh(extensions: usize) -> String {
    let mut text = "apiVersion: v1\nkind: List\nitems:\n".to_owned();
    for number in 0..extensions {
        // The root namespace's extensions are for every proxy.
        let namespace =
            if number % 500 == 0 { "istio-system".to_owned() } else { format!("ns-{}", number % NAMESPACES) };
        let phase = ["AUTHN", "AUTHZ", "STATS", "UNSPECIFIED_PHASE"][number % 4];
        let attach = match number % 5 {
            0 => String::new(),
            1..4 => format!("    selector:\n      matchLabels:\n        app: app-{}\n", number % 97),
            _ => format!(
                "    targetRefs:\n    - group: gateway.networking.k8s.io\n      kind: Gateway\n      name: gw-{}\n",
                number % 13
            ),
        };
        let priority = if number % 3 == 0 { String::new() } else { format!("    priority: {}\n", number % 40) };
        _ = write!(
            text,
            "- apiVersion: extensions.istio.io/v1alpha1\n  kind: WasmPlugin\n  metadata:\n    \
             creationTimestamp: \"2024-05-01T10:{:02}:{:02}Z\"\n    name: plugin-{number}\n    namespace: {namespace}\n    \
             resourceVersion: \"{number}\"\n    uid: 0e0e0e0e-0000-0000-0000-{number:012}\n  spec:\n    \
             url: oci://registry.example:5000/plugins/p-{}:1.{}\n    imagePullPolicy: IfNotPresent\n    phase: {phase}\n\
             {priority}{attach}    match:\n    - mode: SERVER\n      ports:\n      - number: 8080\n    - mode: CLIENT\n    \
             pluginConfig:\n      rules:\n      - prefix: /path-{number}\n        methods: [GET, POST]\n        limit: 100\n",
            number / 60 % 60,
            number % 60,
            number % 50,
            number % 7,
        );
    }
    for number in 0..extensions / 10 {
        let namespace = number % NAMESPACES;
        _ = write!(
            text,
            "- apiVersion: v1\n  kind: Pod\n  metadata:\n    name: pod-{number}\n    namespace: ns-{namespace}\n    labels:\n      \
             app: app-{}\n      version: v{}\n      pod-template-hash: {number:08x}a\n\
             - apiVersion: v1\n  kind: Service\n  metadata:\n    name: svc-{number}\n    namespace: ns-{namespace}\n  spec:\n    \
             selector:\n      app: app-{}\n    ports:\n    - name: http\n      port: 80\n      targetPort: 8080\n\
             - apiVersion: security.istio.io/v1\n  kind: AuthorizationPolicy\n  metadata:\n    name: policy-{number}\n    \
             namespace: ns-{namespace}\n  spec:\n    selector:\n      matchLabels:\n        app: app-{}\n",
            number % 97,
            number % 3,
            number % 97,
            number % 97,
        );
    }
    text
}

fn median(mut work: impl FnMut()) -> Duration {
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let started = Instant::now();
            work();
            started.elapsed()
        })
        .collect();
    times.sort();
    times[ROUNDS / 2]
}

/// What `explain --workload` does with what it has read.
fn explain(resources: &Resources, locator: &Locator) -> usize {
    let options = MeshOptions::default();
    let proxy = mesh::workload(resources, "ns-7/pod-7").expect("the pod is there");
    let mut listener =
        Listener { direction: Some(Direction::Inbound), port: Some(8080), layer: Layer::Http, protocol: None };
    listener.protocol = mesh::protocol(resources, &proxy, listener);
    let chain = mesh::resolve(resources, &proxy, &listener, &options);
    let mut found = warnings::of_chain(resources, &chain, &options);
    warnings::locate(&mut found, locator);
    chain.filters.len() + found.len()
}

fn main() {
    println!("median of {ROUNDS}; ms");
    println!(
        "{:>10} {:>6} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}",
        "extensions", "pods", "MB", "read", "explain", "both", "lint", "growth"
    );
    let mut before: Option<Duration> = None;
    for extensions in [5_000, 10_000, 20_000, 40_000] {
        let sources = [Source { file: "mesh.yaml".to_owned(), text: mesh(extensions) }];
        let (reading, locator) = mesh::read_located(&sources);
        assert_eq!(reading.errors, []);
        assert_eq!(reading.resources.extensions.len(), extensions);
        let read = median(|| drop(black_box(mesh::read_located(&sources))));
        let explained = median(|| _ = black_box(explain(&reading.resources, &locator)));
        let linted = median(|| drop(black_box(warnings::all(&reading.resources, &MeshOptions::default()))));
        let both = read + explained;
        let growth =
            before.map_or("-".to_owned(), |before| format!("{:.2}", both.as_secs_f64() / before.as_secs_f64()));
        before = Some(both);
        let [read, explained, both, linted] = [read, explained, both, linted].map(|time| time.as_secs_f64() * 1e3);
        let megabytes = sources[0].text.len() / 1_000_000;
        println!(
            "{extensions:>10} {:>6} {megabytes:>8} {read:>8.0} {explained:>8.0} {both:>8.0} {linted:>8.0} {growth:>8}",
            extensions / 10
        );
    }
}

//! The hostcall boundary under any input: a guest that does what the input says, in a chain that the input chooses.
//!
//! The fuzz target `fuzz/fuzz_targets/hostcalls.rs` and the suite's property test both call [`run`]. It panics when the
//! host breaks one of its promises; that it panics anywhere else is what both look for.

#![expect(clippy::format_push_string, reason = "short texts, put together once")]

mod guest;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use harness::abi::LogLevel;
use harness::chain::Chain;
use harness::engine::{Engine, Limits};
use harness::exercise::{Exercise, Message};
use harness::log::Silent;
use mesh::model::{Direction, Layer, Listener, Proxy, ProxyKind};
use mesh::{MeshOptions, Source};

/// The chains an input can choose from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Choice {
    abi: &'static str,
    filters: usize,
    /// They share a VM.
    shared: bool,
    strategy: &'static str,
    network: bool,
}

thread_local! {
    static EXERCISES: RefCell<HashMap<Choice, Exercise>> = RefCell::default();
}

/// Bytes in turn; zeros when there are no more.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn choice(&mut self) -> Choice {
        let bits = self.byte();
        Choice {
            abi: ["0.2.1", "0.2.0", "0.1.0", "0.2.1"][usize::from(bits & 3)],
            filters: 1 + usize::from(bits >> 2 & 1),
            shared: bits & 8 != 0,
            strategy: ["FAIL_CLOSE", "FAIL_OPEN", "FAIL_RELOAD", "FAIL_CLOSE"][usize::from(bits >> 4 & 3)],
            network: bits & 0xc0 == 0xc0,
        }
    }

    fn chunks(&mut self) -> Vec<Vec<u8>> {
        let shape = self.byte();
        let chunk = |at: u8| vec![b'a' + at; usize::from(shape >> 2) * if shape & 0x80 == 0 { 1 } else { 30_000 }];
        (0..shape & 3).map(chunk).collect()
    }

    fn message(&mut self, pseudo: &[(&str, &str)]) -> Message {
        let shape = self.byte();
        let mut fields = pseudo.to_vec();
        fields.extend([("x-a", "1"), ("x-a", "2"), ("cookie", "session=0123456789"), ("content-type", "text/plain")]);
        if shape & 1 != 0 {
            fields.push(("content-length", "3"));
        }
        if shape & 2 != 0 {
            fields.retain(|(name, _)| *name != "content-type");
            fields.push(("content-type", "application/grpc"));
        }
        let owned = |fields: &[(&str, &str)]| -> Vec<(Vec<u8>, Vec<u8>)> {
            fields.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
        };
        let trailers = (shape & 4 != 0).then(|| owned(&[("x-t", "1"), ("grpc-status", "0")]));
        Message { headers: owned(&fields), body: self.chunks(), trailers }
    }
}

/// Does what `bytes` say.
pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input(bytes);
    let choice = input.choice();
    let method = ["GET", "POST", "HEAD", "OPTIONS"][usize::from(input.byte() & 3)];
    let request = [
        (":authority", "example.com"),
        (":path", "/a?b=c"),
        (":method", method),
        (":scheme", "http"),
        ("x-forwarded-proto", "http"),
    ];
    let request = input.message(&request);
    let response = input.message(&[(":status", "200"), ("x-envoy-upstream-service-time", "1")]);
    EXERCISES.with_borrow_mut(|exercises| {
        let exercise = exercises.entry(choice).or_insert_with(|| exercise(choice));
        // The guest looks for its program there; one that refuses to start has been run all the same.
        if exercise.restart(&[(b"tape", input.0)]).is_err() {
            return;
        }
        if choice.network {
            let sent = request.body.iter().map(Vec::len).sum::<usize>();
            let (passed, _) = exercise.connection(&request.body, &response.body);
            // What a guest adds to a buffer is bounded, too.
            assert!(passed <= sent + (64 << 20) * (request.body.len() + 1));
            return;
        }
        for _ in 0..2 {
            let outcome = exercise.request(&request, &response);
            assert!(outcome.ended, "the stream has no end: {outcome:?}");
            assert!(outcome.status.is_none_or(|status| (200..=999).contains(&status)), "{outcome:?}");
        }
        exercise.tick();
        exercise.stop();
    });
}

fn exercise(choice: Choice) -> Exercise {
    let mut manifests = String::new();
    let mut modules = BTreeMap::new();
    for at in 0..choice.filters {
        let (name, strategy) = (format!("guest{at}"), choice.strategy);
        let layer = if choice.network { "NETWORK" } else { "HTTP" };
        manifests += &format!(
            "---\n{{apiVersion: extensions.istio.io/v1alpha1, kind: WasmPlugin, metadata: {{name: {name}, namespace: fuzz}}, \
             spec: {{url: 'oci://example.com/guest', failStrategy: {strategy}, type: {layer}, pluginName: {name}}}}}\n"
        );
        modules.insert(
            format!("WasmPlugin fuzz/{name}"),
            guest::module(choice.abi, if choice.shared { "" } else { &name }),
        );
    }
    let reading = mesh::read(&[Source { file: "fuzz".to_owned(), text: manifests }]);
    assert_eq!(reading.errors, []);
    let (namespace, labels) = ("fuzz".to_owned(), BTreeMap::new());
    let proxy = Proxy { name: "web".to_owned(), namespace, labels, kind: ProxyKind::Sidecar };
    let layer = if choice.network { Layer::Network } else { Layer::Http };
    let listener = Listener { direction: Some(Direction::Inbound), port: Some(80), layer, protocol: None };
    let chain = mesh::resolve(&reading.resources, &proxy, &listener, &MeshOptions::default());
    let engine = Engine::new(Limits::default()).unwrap();
    let chain = Chain::load(&engine, &chain, &modules, &BTreeMap::new(), Arc::new(Silent), LogLevel::Trace).unwrap();
    // Nobody listens there: calls fail, at once.
    let clusters = BTreeMap::from([("backend".to_owned(), "http://127.77.77.77:1".to_owned())]);
    Exercise::new(chain, &clusters).unwrap()
}

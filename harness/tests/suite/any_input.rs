//! Whatever a guest does, the host keeps its promises; `cargo fuzz run hostcalls` looks for what these do not find.

use std::path::Path;

use proptest::prelude::{ProptestConfig, any, proptest};

use crate::boundary;

#[test]
fn every_input_of_the_corpus_is_survived() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/hostcalls");
    let files: Vec<_> = std::fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(!files.is_empty());
    for file in files {
        boundary::run(&std::fs::read(&file).unwrap());
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 512,
        // What was found goes into the corpus.
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn random_hostcalls_in_any_order_are_survived(bytes in proptest::collection::vec(any::<u8>(), 4..400)) {
        boundary::run(&bytes);
    }
}

//! Everything the client does, against everything that may go wrong, wherever it may: it ends in time, in the right
//! result or in an error that shows no secret, and nothing is left that was not checked.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use packager::digest::Digest;
use packager::fetch::{FetchOptions, fetch_module};
use packager::module::EnvoyVersion;
use packager::reference::{ImageReference, Reference};
use packager::registry::{Artifact, Client, Options, PlainHttp, Retry};
use packager::verify::verify;
use registry_tests::{Auth, Does, Fault, Operation, Registry};

use crate::support::{basic, blob, image, options, reference, same};

const PASSWORD: &str = "hunter2-very-secret";
/// Far above what any of it takes, far below for ever.
const PATIENCE: Duration = Duration::from_secs(20);

fn faults() -> Vec<Does> {
    let status = |status, name, value: &str| Does::StatusWith(status, name, value.to_owned());
    let realm = "Bearer realm=\"http://10.0.0.1/token\",service=\"s\"";
    vec![
        Does::Status(401),
        Does::Status(403),
        Does::Status(404),
        Does::Status(500),
        Does::Status(418),
        status(429, "retry-after", "1"),
        status(429, "retry-after", "Sun, 06 Nov 1994 08:49:37 GMT"),
        status(401, "www-authenticate", "Basic realm=\"x\""),
        status(401, "www-authenticate", realm),
        status(416, "range", "0-99999999"),
        Does::StatusBody(200, String::new()),
        Does::StatusBody(200, "<html>\u{1b}[31m</html>".to_owned()),
        Does::StatusBody(202, "{}".to_owned()),
        Does::WrongContent,
        Does::Truncate(10),
        Does::StallAfter(10),
        Does::Short(10),
        Does::Oversize(5 << 20),
        Does::LyingDigest,
        Does::ContentType("text/html"),
        Does::ContentType("application/vnd.oci.image.index.v1+json"),
        Does::Header("location", "http://169.254.169.254/x".to_owned()),
        Does::Header("location", "ftp://ann:very-secret@example.com/".to_owned()),
        Does::Header("range", "0-99999999999999999999".to_owned()),
        Does::Drip(30),
        Does::BreakUpload(10),
        Does::ForgetUpload,
        Does::Redirect("http://127.0.0.1:1/elsewhere?very-secret".to_owned()),
        Does::Redirect("http://169.254.169.254/latest/meta-data".to_owned()),
        Does::Redirect("?again".to_owned()),
        Does::Echo,
        Does::Stall,
        Does::Hangup,
    ]
}

const OPERATIONS: [Operation; 10] = [
    Operation::Token,
    Operation::BlobHead,
    Operation::BlobGet,
    Operation::UploadStart,
    Operation::UploadFinish,
    Operation::UploadPatch,
    Operation::ManifestHead,
    Operation::ManifestGet,
    Operation::ManifestPut,
    Operation::Referrers,
];

/// What the client is to do; whether what came of it is right.
type Action = fn(&Client, &ImageReference, &Path) -> Result<bool, Box<dyn std::error::Error>>;

fn module() -> Vec<u8> {
    wat::parse_str(
        "(module (memory (export \"memory\") 1) (func (export \"proxy_abi_version_0_2_1\"))
         (func (export \"_initialize\")) (func (export \"proxy_on_memory_allocate\") (param i32) (result i32)
         (i32.const 8)))",
    )
    .unwrap()
}

/// An image that Istio would load.
fn plugin() -> packager::blob::Image {
    let metadata = packager::image::Metadata { name: "matrix".to_owned(), ..packager::image::Metadata::default() };
    let variant = packager::image::Variant::Compat;
    packager::image::assemble(variant, &metadata, &module(), EnvoyVersion::NEWEST).unwrap()
}

fn artifact() -> Artifact {
    let layers = vec![blob("application/spdx+json", b"{}\n")];
    Artifact { artifact_type: "application/spdx+json".to_owned(), layers, annotations: BTreeMap::new() }
}

const ACTIONS: [(&str, &[Operation], Action); 7] = [
    ("resolve", &[Operation::ManifestGet], |client, place, _| Ok(client.resolve(place)? == plugin().digest())),
    (
        "push",
        &[Operation::BlobHead, Operation::UploadStart, Operation::UploadFinish, Operation::ManifestPut],
        |client, place, _| {
            let image = image(7, 5000);
            Ok(client.push(&image, &place.with_tag("new")?)? == image.digest())
        },
    ),
    ("push in pieces", &[Operation::BlobHead, Operation::UploadPatch, Operation::UploadFinish], |client, place, _| {
        let image = image(8, 60_000);
        Ok(client.push(&image, &place.with_tag("new")?)? == image.digest())
    }),
    ("pull", &[Operation::BlobGet, Operation::ManifestGet], |client, place, folder| {
        same(&client.pull(place, folder)?, &plugin());
        Ok(true)
    }),
    ("fetch", &[Operation::BlobGet, Operation::ManifestGet], |client, place, _| {
        let fetched = fetch_module(&Reference::Image(place.clone()), None, &FetchOptions::new(client.clone()))?;
        Ok(fetched.module == module() && fetched.digest == plugin().digest())
    }),
    ("verify", &[Operation::BlobGet, Operation::ManifestGet], |client, place, _| {
        let options = FetchOptions::new(client.clone());
        verify(&Reference::Image(place.clone()), None, &options, EnvoyVersion::NEWEST)?;
        Ok(true)
    }),
    (
        "attach",
        &[Operation::Referrers, Operation::ManifestHead, Operation::ManifestPut, Operation::ManifestGet],
        |client, place, _| {
            client.attach(place, &artifact())?;
            client.referrers(place, None)?;
            Ok(true)
        },
    ),
];

/// A name that is not this machine's by definition, so that the rules for strangers hold.
fn place(registry: &Registry) -> ImageReference {
    let port = registry.host().rsplit_once(':').unwrap().1.to_owned();
    reference(&format!("0.0.0.0:{port}"), "acme/x:t")
}

fn check(name: &str, action: Action, operation: Operation, does: &Does, times: Option<usize>) {
    let case = format!("{name}, {operation:?}: {does:?} {times:?}");
    let auth = Auth::Bearer {
        username: "ann".to_owned(),
        password: PASSWORD.to_owned(),
        identity_token: None,
        anonymous_pull: false,
        realm: None,
    };
    let registry = Registry::start(registry_tests::Options {
        auth,
        referrers: operation == Operation::Referrers,
        body_limit: (name == "push in pieces").then_some(30_000),
        ..registry_tests::Options::default()
    })
    .unwrap();
    let place = place(&registry);
    let host = place.registry().to_owned();
    let retry = Retry { attempts: 3, ..Retry::at_once() };
    // Only where it is needed, since a loaded machine is slow as well.
    let slow = matches!(does, Does::Stall | Does::StallAfter(_) | Does::Drip(_));
    let read_timeout = if slow { Duration::from_millis(150) } else { PATIENCE };
    let make = |options: Options| {
        let credentials = basic(&host, "ann", PASSWORD);
        let options = Options { credentials, plain_http: PlainHttp::Always, chunk: 20_000, ..options };
        Client::new(options).unwrap()
    };
    let good = make(options());
    good.push(&plugin(), &place).unwrap();
    let client = make(Options { retry, read_timeout, connect_timeout: read_timeout, ..options() });
    registry.set_faults([Fault { on: Some(operation), after: 0, times, does: does.clone() }]);
    let folder = tempfile::tempdir().unwrap();
    let started = Instant::now();
    let outcome = action(&client, &place, folder.path());
    assert!(started.elapsed() < PATIENCE, "{case}: {:?}", started.elapsed());
    match outcome {
        Ok(right) => assert!(right, "{case}: a wrong result"),
        Err(error) => {
            let mut text = format!("{error} {error:?}");
            let mut source = error.source();
            while let Some(error) = source {
                text = format!("{text} {error} {error:?}");
                source = error.source();
            }
            assert!(!text.contains("very-secret") && !text.contains('\u{1b}'), "{case}: {text}");
            assert!(text.len() < 4000, "{case}: {text}");
        }
    }
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        let content = Digest::of(&std::fs::read(entry.path()).unwrap());
        assert_eq!(content.hex(), entry.file_name().to_str().unwrap(), "{case}: a file that is not what it is named");
    }
    // Whatever happened, the registry works and still has what it had.
    registry.set_faults([]);
    let folder = tempfile::tempdir().unwrap();
    same(&good.pull(&place, folder.path()).unwrap(), &plugin());
    if times.is_some() && (matches!(does, Does::Status(500) | Does::Hangup | Does::Stall | Does::ForgetUpload)) {
        let client = if slow { &good } else { &client };
        assert!(matches!(action(client, &place, folder.path()), Ok(true)), "{case}: what has passed has passed");
    }
}

#[test]
fn everything_against_everything() {
    let mut cases = Vec::new();
    for (name, operations, action) in ACTIONS {
        for operation in OPERATIONS.into_iter().filter(|one| *one == Operation::Token || operations.contains(one)) {
            for does in faults() {
                cases.extend([None, Some(1)].map(|times| (name, action, operation, does.clone(), times)));
            }
        }
    }
    assert!(cases.len() > 1000);
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        // Most of the time is spent waiting for what never comes.
        for _ in 0..32 {
            scope.spawn(|| {
                while let Some((name, action, operation, does, times)) = cases.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    let run = || check(name, *action, *operation, does, *times);
                    if std::panic::catch_unwind(run).is_err() {
                        failures.lock().unwrap().push(format!("{name}, {operation:?}: {does:?} {times:?}"));
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} of {} failed:\n{}", failures.len(), cases.len(), failures.join("\n"));
}

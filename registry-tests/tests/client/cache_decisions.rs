//! The cache's decisions, each against the place in Istio's source that it comes from.

use packager::digest::Digest;
use packager::fetch::{Action, ModuleRequest, PullPolicy};
use registry_tests::{Does, Fault, Operation};

use crate::cache::{MODULE, World, get, image, options};

const OTHER_MODULE: &str = "\0asm\u{1}\0\0\0\0\u{1}\0";

/// One request of a row: url, policy, the resource's version, whether it is pinned, and who asks.
#[derive(Clone, Copy)]
struct Ask {
    url: Url,
    policy: PullPolicy,
    version: &'static str,
    pinned: bool,
    resource: &'static str,
}

#[derive(Clone, Copy, PartialEq)]
enum Url {
    Tag,
    Latest,
    Untagged,
    Digest,
    Http,
}

/// What comes before the last request.
#[derive(Clone, Copy, PartialEq)]
enum Then {
    Nothing,
    /// Something else is published under the same url.
    Moved,
    /// The registry fails at this one request, which is then repeated.
    FailedOnce,
}

const fn ask(url: Url, policy: PullPolicy, version: &'static str) -> Ask {
    Ask { url, policy, version, pinned: false, resource: "WasmPlugin ns/a" }
}

const fn pinned(ask: Ask) -> Ask {
    Ask { pinned: true, ..ask }
}

const fn other(ask: Ask) -> Ask {
    Ask { resource: "WasmPlugin ns/b", ..ask }
}

struct Row {
    /// Where in istio.io/istio it is written or tested, as of August 2026.
    source: &'static str,
    first: Option<Ask>,
    then: Then,
    last: Ask,
    does: Action,
    because: &'static str,
}

const fn row(
    source: &'static str,
    first: Option<Ask>,
    then: Then,
    last: Ask,
    does: Action,
    because: &'static str,
) -> Row {
    Row { source, first, then, last, does, because }
}

/// Each row is a decision of Istio's agent; `cache_test.go` names its cases.
const ROWS: &[Row] = {
    use Action::{FromCache, Pulled, Unchanged};
    use PullPolicy::{Always, IfNotPresent, Unspecified};
    use Then::{FailedOnce, Moved, Nothing};
    use Url::{Http, Latest, Tag, Untagged};
    &[
        row(
            "cache_test.go: fetch oci without digest",
            None,
            Nothing,
            ask(Tag, Unspecified, "1"),
            Pulled,
            "not pulled before",
        ),
        row(
            "cache_test.go: fetch oci with digest",
            None,
            Nothing,
            pinned(ask(Tag, Unspecified, "1")),
            Pulled,
            "pinned and not in the cache",
        ),
        row(
            "cache_test.go: cache miss (http)",
            None,
            Nothing,
            pinned(ask(Http, Unspecified, "1")),
            Pulled,
            "pinned and not in the cache",
        ),
        row(
            "cache_test.go: cache hit (http)",
            Some(pinned(ask(Http, Unspecified, "1"))),
            Moved,
            pinned(ask(Http, Always, "2")),
            FromCache,
            "pull policy does not count",
        ),
        row(
            "cache_test.go: cache hit for tagged oci url with digest",
            Some(ask(Tag, Unspecified, "1")),
            Moved,
            pinned(ask(Tag, Unspecified, "2")),
            FromCache,
            "pull policy does not count",
        ),
        row(
            "cache_test.go: cache hit for tagged oci url without digest",
            Some(ask(Tag, Unspecified, "1")),
            Moved,
            ask(Tag, Unspecified, "2"),
            FromCache,
            "pulled before",
        ),
        row(
            "cache_test.go: cache miss for tagged oci url without digest",
            Some(ask(Latest, Unspecified, "1")),
            Nothing,
            ask(Tag, Unspecified, "1"),
            Unchanged,
            "not pulled before",
        ),
        row(
            "cache_test.go: cache hit for oci url suffixed by digest",
            Some(ask(Tag, Unspecified, "1")),
            Moved,
            ask(Url::Digest, Always, "2"),
            FromCache,
            "pull policy does not count",
        ),
        row(
            "cache_test.go: pull due to pull-always policy when cache hit",
            Some(ask(Tag, Always, "1")),
            Nothing,
            ask(Tag, Always, "2"),
            Unchanged,
            "has version `2` and had `1`",
        ),
        row(
            "cache.go: getOrFetch, Always and a tag that moved",
            Some(ask(Tag, Always, "1")),
            Moved,
            ask(Tag, Always, "2"),
            Pulled,
            "has version `2` and had `1`",
        ),
        row(
            "cache_test.go: do not pull due to resourceVersion is the same",
            Some(ask(Tag, Always, "1")),
            Moved,
            ask(Tag, Always, "1"),
            FromCache,
            "still has version `1`",
        ),
        row(
            "cache_test.go: pull due to if-not-present policy when cache hit",
            Some(ask(Tag, IfNotPresent, "1")),
            Moved,
            ask(Tag, IfNotPresent, "2"),
            FromCache,
            "IfNotPresent that is enough",
        ),
        row(
            "cache_test.go: do not pull in spite of pull-always policy due to checksum",
            Some(ask(Tag, Always, "1")),
            Moved,
            pinned(ask(Tag, Always, "2")),
            FromCache,
            "pull policy does not count",
        ),
        row(
            "cache_test.go: pull due to latest tag",
            Some(ask(Latest, Unspecified, "1")),
            Nothing,
            ask(Latest, Unspecified, "2"),
            Unchanged,
            "has version `2`",
        ),
        row(
            "cache.go: shouldIgnoreResourceVersion, latest is Always",
            Some(ask(Latest, Unspecified, "1")),
            Moved,
            ask(Latest, Unspecified, "1"),
            FromCache,
            "still has version `1`",
        ),
        row(
            "cache.go: shouldIgnoreResourceVersion, no tag is not latest",
            Some(ask(Untagged, Unspecified, "1")),
            Moved,
            ask(Untagged, Unspecified, "2"),
            FromCache,
            "pulled before",
        ),
        row(
            "cache_test.go: do not pull in spite of latest tag due to checksum",
            Some(ask(Latest, Unspecified, "1")),
            Moved,
            pinned(ask(Latest, Unspecified, "2")),
            FromCache,
            "pull policy does not count",
        ),
        row(
            "cache_test.go: do not pull in spite of latest tag due to IfNotPresent policy",
            Some(ask(Latest, IfNotPresent, "1")),
            Moved,
            ask(Latest, IfNotPresent, "2"),
            FromCache,
            "IfNotPresent that is enough",
        ),
        row(
            "cache.go: checksumEntry.resourceVersionByResource, another resource",
            Some(ask(Tag, Always, "1")),
            Nothing,
            other(ask(Tag, Always, "1")),
            Unchanged,
            "not for this resource",
        ),
        row(
            "cache.go: getEntry, IfNotPresent of another resource",
            Some(ask(Tag, Always, "1")),
            Moved,
            other(ask(Tag, IfNotPresent, "7")),
            FromCache,
            "pulled before",
        ),
        row(
            "cache.go: getEntry keeps the version though the pull fails",
            Some(ask(Tag, Always, "1")),
            FailedOnce,
            ask(Tag, Always, "2"),
            FromCache,
            "still has version `2`",
        ),
        row(
            "cache.go: shouldIgnoreResourceVersion, http without a policy",
            Some(ask(Http, Unspecified, "1")),
            Moved,
            ask(Http, Unspecified, "2"),
            FromCache,
            "pulled before",
        ),
        row(
            "cache.go: shouldIgnoreResourceVersion, http with Always",
            Some(ask(Http, Always, "1")),
            Moved,
            ask(Http, Always, "2"),
            Pulled,
            "has version `2`",
        ),
        row(
            "cache.go: shouldIgnoreResourceVersion, http with Always, same version",
            Some(ask(Http, Always, "1")),
            Moved,
            ask(Http, Always, "1"),
            FromCache,
            "still has version `1`",
        ),
        row(
            "cache.go: updateChecksum on a hit by checksum",
            Some(pinned(ask(Tag, Unspecified, "1"))),
            Moved,
            ask(Tag, Unspecified, "1"),
            FromCache,
            "pulled before",
        ),
    ]
};

#[track_caller]
fn check(row: &Row) {
    let world = World::new();
    let serve = |module: &str| {
        world.registry.set_faults([Fault::always(Operation::Unknown, Does::StatusBody(200, module.to_owned()))]);
    };
    let tags = |name: &str| ["1", "latest"].map(|tag| world.publish(name, tag))[0].clone();
    let (first, cache) = (tags("first"), world.cache());
    serve(MODULE);
    let request = |ask: Ask| {
        let pin = if ask.url == Url::Http { Digest::of(MODULE.as_bytes()) } else { first.clone() };
        let url = match ask.url {
            Url::Tag => world.url(":1"),
            Url::Latest => world.url(":latest"),
            Url::Untagged => world.url(""),
            Url::Digest => world.url(&format!("@{first}")),
            Url::Http => format!("{}/x.wasm", world.registry.url()),
        };
        ModuleRequest {
            url,
            sha256: ask.pinned.then(|| pin.hex().to_owned()),
            pull_policy: ask.policy,
            resource: ask.resource.to_owned(),
            resource_version: ask.version.to_owned(),
            credentials: None,
        }
    };
    if let Some(first) = row.first {
        get(&cache, &request(first));
    }
    match row.then {
        Then::Nothing => {}
        Then::Moved => {
            tags("second");
            serve(OTHER_MODULE);
        }
        Then::FailedOnce => {
            world.registry.set_faults([Fault::always(Operation::ManifestGet, Does::Status(400))]);
            cache.fetch(&request(row.last), &options()).unwrap_err();
        }
    }
    let foreseen = cache.explain(&request(row.last)).unwrap();
    let (got, operations) = world.asked(|| get(&cache, &request(row.last)));
    let place = row.source;
    assert_eq!(got.explanation.action, row.does, "{place}: {}", got.explanation);
    assert!(got.explanation.reason.contains(row.because), "{place}: {}", got.explanation);
    let is_foreseen = if row.does == Action::FromCache { Action::FromCache } else { Action::WillAsk };
    assert_eq!((foreseen.action, &foreseen.reason), (is_foreseen, &got.explanation.reason), "{place}");
    match row.does {
        Action::FromCache => assert_eq!(operations, [], "{place}"),
        Action::Unchanged => assert_eq!(operations, [Operation::ManifestGet], "{place}"),
        _ if row.last.url == Url::Http => assert_eq!(operations, [Operation::Unknown], "{place}"),
        _ => assert!(operations.contains(&Operation::BlobGet), "{place}: {operations:?}"),
    }
    let current = if row.then == Then::Moved && row.does == Action::Pulled { "second" } else { "first" };
    let expected = match (row.last.url, current) {
        (Url::Http, "first") => Digest::of(MODULE.as_bytes()),
        (Url::Http, _) => Digest::of(OTHER_MODULE.as_bytes()),
        _ => image(current).digest(),
    };
    assert_eq!(got.source.digest, expected, "{place}");
    assert_eq!(Digest::of(&std::fs::read(&got.path).unwrap()), got.content, "{place}");
}

#[test]
fn each_decision_is_istios() {
    for row in ROWS {
        check(row);
    }
}

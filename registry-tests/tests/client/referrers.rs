//! What is attached to an image is found again, with the API and without it.

use std::collections::BTreeMap;

use packager::reference::ImageReference;
use packager::registry::{Artifact, RegistryError};
use registry_tests::{Does, Fault, Operation, Registry};

use crate::support::{blob, client, image, reference};

const SBOM: &str = "application/spdx+json";
const SIGNATURE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

fn start(referrers: bool) -> Registry {
    let options = registry_tests::Options { referrers, referrers_page: 2, ..registry_tests::Options::default() };
    Registry::start(options).unwrap()
}

fn artifact(artifact_type: &str, content: &str) -> Artifact {
    Artifact {
        artifact_type: artifact_type.to_owned(),
        layers: vec![blob(artifact_type, content.as_bytes())],
        annotations: BTreeMap::from([("org.opencontainers.image.title".to_owned(), content.to_owned())]),
    }
}

fn subject(registry: &Registry) -> ImageReference {
    let tagged = reference(&registry.host(), "acme/x:t");
    client().push(&image(1, 1000), &tagged).unwrap();
    tagged
}

#[test]
fn attached_artifacts_are_listed_by_type_with_the_api_and_without() {
    for api in [true, false] {
        let registry = start(api);
        let subject = subject(&registry);
        assert_eq!(client().referrers(&subject, None).unwrap(), []);
        let mut digests = Vec::new();
        for content in ["one", "two", "three", "four", "five"] {
            digests.push(client().attach(&subject, &artifact(SBOM, content)).unwrap());
        }
        let signature = client().attach(&subject, &artifact(SIGNATURE, "signed")).unwrap();
        let again = client().attach(&subject, &artifact(SIGNATURE, "signed")).unwrap();
        assert_eq!(again, signature, "the same artifact is the same manifest");

        let pinned = subject.with_digest(client().resolve(&subject).unwrap());
        for place in [&subject, &pinned] {
            let mut found: Vec<_> =
                client().referrers(place, Some(SBOM)).unwrap().iter().map(|one| one.digest().to_string()).collect();
            let mut expected: Vec<_> = digests.iter().map(ToString::to_string).collect();
            found.sort();
            expected.sort();
            assert_eq!(found, expected, "api: {api}");
            assert_eq!(client().referrers(place, None).unwrap().len(), 6);
        }
        let found = client().referrers(&pinned, Some(SIGNATURE)).unwrap();
        let [found] = &found[..] else { panic!("{found:?}") };
        assert_eq!(found.annotations().as_ref().unwrap()["org.opencontainers.image.title"], "signed");
        let pulled = client().pull(&pinned.with_digest(signature), tempfile::tempdir().unwrap().path()).unwrap();
        assert_eq!(pulled.layers.len(), 1);
        let tags = registry.seen().into_iter().filter(|seen| seen.path.contains("/manifests/sha256-")).count();
        assert_eq!(tags == 0, api, "the fallback tag is for registries that need it");
    }
}

#[test]
fn entries_of_the_fallback_tag_that_are_gone_are_left_out() {
    let registry = start(false);
    let subject = subject(&registry);
    let gone = client().attach(&subject, &artifact(SBOM, "gone")).unwrap();
    let kept = client().attach(&subject, &artifact(SBOM, "kept")).unwrap();
    let url = format!("{}/v2/acme/x/manifests/{gone}", registry.url());
    assert_eq!(ureq::delete(url).call().unwrap().status(), 202);
    let new = client().attach(&subject, &artifact(SBOM, "new")).unwrap();
    let found: Vec<_> =
        client().referrers(&subject, None).unwrap().iter().map(|one| one.digest().to_string()).collect();
    assert_eq!(found, [kept.to_string(), new.to_string()]);
}

#[test]
fn what_one_client_attaches_at_the_same_time_is_all_listed() {
    let (registry, client) = (start(false), client());
    let subject = subject(&registry);
    std::thread::scope(|scope| {
        for name in ["a", "b", "c"] {
            let (subject, client) = (&subject, client.clone());
            scope.spawn(move || client.attach(subject, &artifact(SBOM, name)).unwrap());
        }
    });
    assert_eq!(client.referrers(&subject, None).unwrap().len(), 3);
}

#[test]
fn an_image_that_is_not_there_has_nothing_attached() {
    let registry = start(true);
    let error = client().attach(&reference(&registry.host(), "acme/x:t"), &artifact(SBOM, "one")).unwrap_err();
    assert!(matches!(error, RegistryError::NotFound { .. }), "{error:?}");
    assert!(!registry.operations().contains(&Operation::ManifestPut));
}

#[test]
fn a_list_that_is_none_or_never_ends_is_an_error() {
    let registry = start(true);
    let subject = subject(&registry);
    let index = "application/vnd.oci.image.index.v1+json";
    for does in [
        Does::StatusBody(200, "{}".to_owned()),
        Does::ContentType("text/html"),
        Does::Oversize(5 << 20),
        Does::Truncate(10),
    ] {
        registry.set_faults([Fault::always(Operation::Referrers, does.clone())]);
        let error = client().referrers(&subject, None).unwrap_err();
        let expected = matches!(
            error,
            RegistryError::Protocol { .. } | RegistryError::TooLarge { .. } | RegistryError::Interrupted { .. }
        );
        assert!(expected, "{does:?}: {error:?}");
    }
    registry.set_faults([]);
    let artifacts: Vec<_> = (0..3).map(|number| artifact(SBOM, &number.to_string())).collect();
    for artifact in &artifacts {
        client().attach(&subject, artifact).unwrap();
    }
    for link in ["<?from=0>; rel=\"next\"", "<https://169.254.169.254/>; rel=\"next\"", "<http://u:p@x/>; rel=next"] {
        registry.set_faults([Fault::always(Operation::Referrers, Does::Header("link", link.to_owned()))]);
        let error = client().referrers(&subject, None).unwrap_err();
        assert!(matches!(error, RegistryError::Protocol { .. }), "{link}: {error:?}");
    }
    registry.set_faults([Fault::always(Operation::Referrers, Does::ContentType(index))]);
    assert_eq!(client().referrers(&subject, None).unwrap().len(), 3);
}

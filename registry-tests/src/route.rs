//! The distribution specification's endpoints.

use hyper::Method;

/// What a request asks for, without saying of what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// `GET /v2/`
    Ping,
    /// `GET|POST /token`
    Token,
    /// `HEAD …/blobs/<digest>`
    BlobHead,
    /// `GET …/blobs/<digest>`
    BlobGet,
    /// `DELETE …/blobs/<digest>`
    BlobDelete,
    /// `POST …/blobs/uploads/`
    UploadStart,
    /// `PATCH …/blobs/uploads/<id>`
    UploadPatch,
    /// `PUT …/blobs/uploads/<id>`
    UploadFinish,
    /// `GET …/blobs/uploads/<id>`
    UploadStatus,
    /// `DELETE …/blobs/uploads/<id>`
    UploadCancel,
    /// `HEAD …/manifests/<reference>`
    ManifestHead,
    /// `GET …/manifests/<reference>`
    ManifestGet,
    /// `PUT …/manifests/<reference>`
    ManifestPut,
    /// `DELETE …/manifests/<reference>`
    ManifestDelete,
    /// `GET …/tags/list`
    Tags,
    /// `GET …/referrers/<digest>`
    Referrers,
    /// Anything else.
    Unknown,
}

impl Operation {
    /// What a token must allow.
    pub(crate) fn action(self) -> Option<&'static str> {
        match self {
            Self::Ping | Self::Token | Self::Unknown => None,
            Self::BlobHead | Self::BlobGet | Self::ManifestHead | Self::ManifestGet | Self::Tags | Self::Referrers => {
                Some("pull")
            }
            Self::BlobDelete | Self::ManifestDelete => Some("delete"),
            _ => Some("push"),
        }
    }
}

/// An operation, the repository, and the last part of the path.
#[derive(Debug)]
pub(crate) struct Route<'a> {
    pub(crate) operation: Operation,
    pub(crate) name: &'a str,
    pub(crate) last: &'a str,
}

pub(crate) fn parse<'a>(method: &Method, path: &'a str) -> Route<'a> {
    use Operation as Op;
    let route = |operation, name, last| Route { operation, name, last };
    let unknown = route(Op::Unknown, "", "");
    if path == "/token" {
        return route(Op::Token, "", "");
    }
    let Some(rest) = path.strip_prefix("/v2/").or_else(|| (path == "/v2").then_some("")) else {
        return unknown;
    };
    if rest.is_empty() {
        return route(Op::Ping, "", "");
    }
    if let Some(name) = rest.strip_suffix("/tags/list") {
        return route(if *method == Method::GET { Op::Tags } else { Op::Unknown }, name, "");
    }
    let Some((front, last)) = rest.rsplit_once('/') else {
        return unknown;
    };
    if let Some(name) = front.strip_suffix("/blobs/uploads") {
        let operation = match (method, last) {
            (&Method::POST, "") => Op::UploadStart,
            (_, "") => Op::Unknown,
            (&Method::PATCH, _) => Op::UploadPatch,
            (&Method::PUT, _) => Op::UploadFinish,
            (&Method::GET, _) => Op::UploadStatus,
            (&Method::DELETE, _) => Op::UploadCancel,
            _ => Op::Unknown,
        };
        return route(operation, name, last);
    }
    let (name, operation) = if let Some(name) = front.strip_suffix("/blobs") {
        let operation = match *method {
            Method::HEAD => Op::BlobHead,
            Method::GET => Op::BlobGet,
            Method::DELETE => Op::BlobDelete,
            // Some clients leave the slash out.
            Method::POST if last == "uploads" => Op::UploadStart,
            _ => Op::Unknown,
        };
        (name, operation)
    } else if let Some(name) = front.strip_suffix("/manifests") {
        let operation = match *method {
            Method::HEAD => Op::ManifestHead,
            Method::GET => Op::ManifestGet,
            Method::PUT => Op::ManifestPut,
            Method::DELETE => Op::ManifestDelete,
            _ => Op::Unknown,
        };
        (name, operation)
    } else if let (Some(name), &Method::GET) = (front.strip_suffix("/referrers"), method) {
        (name, Op::Referrers)
    } else {
        return unknown;
    };
    route(operation, name, last)
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/…)*`, at most 255 characters.
pub(crate) fn is_name(name: &str) -> bool {
    let component = |component: &str| {
        let separators: Vec<&str> =
            component.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()).filter(|s| !s.is_empty()).collect();
        let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        ends(component.chars().next())
            && ends(component.chars().last())
            && separators.iter().all(|s| matches!(*s, "." | "_" | "__") || s.chars().all(|c| c == '-'))
    };
    name.len() <= 255 && name.split('/').all(component)
}

/// `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`
pub(crate) fn is_tag(tag: &str) -> bool {
    (1..=128).contains(&tag.len())
        && !tag.starts_with(['.', '-'])
        && tag.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_look_like_endpoints_are_still_names() {
        let route = parse(&Method::GET, "/v2/a/blobs/b/manifests/v1");
        assert_eq!((route.operation, route.name, route.last), (Operation::ManifestGet, "a/blobs/b", "v1"));
        let route = parse(&Method::PUT, "/v2/a/b/blobs/uploads/id");
        assert_eq!((route.operation, route.name, route.last), (Operation::UploadFinish, "a/b", "id"));
        assert_eq!(parse(&Method::GET, "/v2/").operation, Operation::Ping);
        assert_eq!(parse(&Method::GET, "/metrics").operation, Operation::Unknown);
    }

    #[test]
    fn names_cannot_leave_their_folder() {
        for bad in ["", "..", "a/../b", "a//b", "/a", "A", "_tags", "a/_tags", "a___b", "a."] {
            assert!(!is_name(bad), "{bad}");
        }
        for good in ["a", "a/b.c/d-e_f", "a--b", "library/alpine"] {
            assert!(is_name(good), "{good}");
        }
        assert!(!is_tag("..") && is_tag("v1.0"));
    }
}

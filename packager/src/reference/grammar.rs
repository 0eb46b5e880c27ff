//! The grammar of image references (distribution specification, "Pulling manifests", and docker's reference format).

use super::ReferenceError;

/// Docker's rule for whether the first component is a registry rather than part of a Docker Hub repository.
pub(super) fn is_host(component: &str) -> bool {
    component == "localhost"
        || component.contains(['.', ':', '['])
        || component.bytes().any(|byte| byte.is_ascii_uppercase())
}

pub(super) fn check_registry(registry: &str) -> Result<(), ReferenceError> {
    let error = || ReferenceError::Registry { registry: registry.to_owned() };
    let (host, port) = if let Some(rest) = registry.strip_prefix('[') {
        let (address, rest) = rest.split_once(']').ok_or_else(error)?;
        address.parse::<std::net::Ipv6Addr>().map_err(|_| error())?;
        ("", rest.strip_prefix(':').or_else(|| rest.is_empty().then_some("443")).ok_or_else(error)?)
    } else {
        let (host, port) = registry.split_once(':').unwrap_or((registry, "443"));
        let label = |label: &str| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        if !host.split('.').all(label) {
            return Err(error());
        }
        (host, port)
    };
    let port_is_fine = port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port != 0);
    if host.len() > 253 || !port_is_fine {
        return Err(error());
    }
    Ok(())
}

pub(super) fn check_repository(repository: &str) -> Result<(), ReferenceError> {
    if repository.split('/').all(is_component) {
        Ok(())
    } else if repository.bytes().any(|b| b.is_ascii_uppercase())
        && repository.to_lowercase().split('/').all(is_component)
    {
        Err(ReferenceError::UpperCase { repository: repository.to_owned() })
    } else {
        Err(ReferenceError::Repository { repository: repository.to_owned() })
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(component: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    alphanumeric(first)
        && alphanumeric(last)
        && bytes
            .split(|&b| alphanumeric(b))
            .all(|separator| matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|&b| b == b'-'))
}

/// `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`
pub(super) fn check_tag(tag: &str) -> Result<(), ReferenceError> {
    let fine = (1..=128).contains(&tag.len())
        && !tag.starts_with(['.', '-'])
        && tag.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    if fine { Ok(()) } else { Err(ReferenceError::Tag { tag: tag.to_owned() }) }
}

//! The cookies of a browser, as far as one site's tests need them.

/// Cookies by name and path. Domains are not looked at, as all requests are for one site.
#[derive(Debug, Default)]
pub(super) struct Jar(Vec<Cookie>);

#[derive(Debug)]
struct Cookie {
    name: String,
    path: String,
    value: String,
    /// In seconds since the Unix epoch; none: with the browser.
    expires: Option<u64>,
}

impl Jar {
    /// Keeps what a `set-cookie` header says, at a time in seconds since the Unix epoch. `Expires` is not read, but for
    /// `Max-Age`, which goes before it.
    pub(super) fn keep(&mut self, header: &str, now: u64) {
        let mut parts = header.split(';').map(str::trim);
        let Some((name, value)) = parts.next().and_then(|pair| pair.split_once('=')) else { return };
        let (mut path, mut expires) = ("/".to_owned(), None);
        for (attribute, setting) in parts.filter_map(|part| part.split_once('=')) {
            if attribute.eq_ignore_ascii_case("path") && setting.starts_with('/') {
                setting.clone_into(&mut path);
            } else if attribute.eq_ignore_ascii_case("max-age") {
                expires = setting.parse::<i64>().ok().map(|age| now.saturating_add_signed(age.max(0)));
            }
        }
        self.0.retain(|cookie| cookie.name != name || cookie.path != path);
        if expires != Some(now) {
            self.0.push(Cookie { name: name.to_owned(), path, value: value.to_owned(), expires });
        }
    }

    /// The `cookie` header of a request; none when there is nothing for it.
    pub(super) fn header(&self, path: &str, now: u64) -> Option<String> {
        let path = path.split('?').next().unwrap_or_default();
        let sent = self.0.iter().filter(|cookie| {
            let below = path.strip_prefix(cookie.path.as_str());
            let fits = below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || cookie.path.ends_with('/'));
            fits && cookie.expires.is_none_or(|expires| expires > now)
        });
        let pairs: Vec<String> = sent.map(|cookie| format!("{}={}", cookie.name, cookie.value)).collect();
        (!pairs.is_empty()).then(|| pairs.join("; "))
    }
}

/// The value of a cookie that a `set-cookie` header sets, if it is the one.
pub(super) fn value_of<'h>(header: &'h str, wanted: &str) -> Option<&'h str> {
    let (name, value) = header.split(';').next()?.trim().split_once('=')?;
    (name == wanted).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_are_kept_replaced_and_forgotten() {
        let mut jar = Jar::default();
        jar.keep("a=1; Path=/; HttpOnly", 100);
        jar.keep("b=2; Max-Age=10; Path=/app", 100);
        assert_eq!(jar.header("/", 100).as_deref(), Some("a=1"));
        assert_eq!(jar.header("/app/x?y", 109).as_deref(), Some("a=1; b=2"));
        assert_eq!(jar.header("/application", 100).as_deref(), Some("a=1"));
        assert_eq!(jar.header("/app", 110).as_deref(), Some("a=1"));
        jar.keep("a=3", 100);
        assert_eq!(jar.header("/", 100).as_deref(), Some("a=3"));
        jar.keep("a=; Max-Age=0", 100);
        assert_eq!(jar.header("/", 100), None);
        assert_eq!(value_of("a=3; Path=/", "a"), Some("3"));
    }
}

//! Function names: demangled, and grouped by the crate or package that they are from.

use std::fmt::{self, Write as _};

/// Longest name kept. Rust's second mangling can say more in a hundred bytes than anybody wants to read.
const LIMIT: usize = 400;

/// How the names of hosts that Go's packages are fetched from go on after a dot, where a linker has replaced slashes.
const HOSTS: [&str; 7] = ["com_", "org_", "net_", "io_", "dev_", "in_", "golang.org_"];

/// What a function's name says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Symbol {
    /// The name as its author wrote it.
    pub(crate) name: String,
    /// The crate, where it is Rust's; the package, where it is Go's.
    pub(crate) origin: Option<String>,
}

/// Read a name of the name section. `go` says that the module is Go's, whose names are not mangled.
pub(crate) fn symbol(raw: &str, go: bool) -> Symbol {
    if let Ok(demangled) = rustc_demangle::try_demangle(raw) {
        let mut name = Bounded(String::new());
        // An error is the limit reached; what is there by then is enough.
        let _ = write!(name, "{demangled:#}");
        let origin = crate_of(&name.0).map(str::to_owned);
        return Symbol { name: name.0, origin };
    }
    let name: String = raw.chars().take(LIMIT).collect();
    let origin = if go { package_of(&name).map(str::to_owned) } else { None };
    Symbol { name, origin }
}

struct Bounded(String);

impl fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let left = LIMIT - self.0.len();
        let end = (0..=left.min(text.len())).rfind(|end| text.is_char_boundary(*end)).unwrap_or(0);
        self.0.push_str(&text[..end]);
        if end == text.len() { Ok(()) } else { Err(fmt::Error) }
    }
}

/// The crate of a demangled path: `a` of `a::b`, of `<a::T as c::D>::e`, and of `<T as a::D>::e`.
fn crate_of(path: &str) -> Option<&str> {
    let Some(inner) = path.strip_prefix('<') else { return first(path) };
    first(of_type(inner)).or_else(|| first(of_type(after_as(inner)?)))
}

/// A type without what stands before its path: references, pointers, brackets.
fn of_type(mut text: &str) -> &str {
    loop {
        let rest = text.trim_start_matches(['&', '*', '(', '[', '<', ' ']);
        let rest = ["mut ", "const ", "dyn "].iter().find_map(|word| rest.strip_prefix(word)).unwrap_or(rest);
        if rest.len() == text.len() {
            return text;
        }
        text = rest;
    }
}

/// What follows ` as ` outside of inner brackets.
fn after_as(text: &str) -> Option<&str> {
    let mut depth = 0_usize;
    let mut before = ' ';
    for (position, character) in text.char_indices() {
        match character {
            '<' | '(' | '[' => depth += 1,
            // Not the end of an arrow.
            '>' if before == '-' => {}
            '>' | ')' | ']' => depth = depth.checked_sub(1)?,
            ' ' if depth == 0 => {
                if let Some(rest) = text[position..].strip_prefix(" as ") {
                    return Some(rest);
                }
            }
            _ => {}
        }
        before = character;
    }
    None
}

/// A path's first part, if there is a second.
fn first(path: &str) -> Option<&str> {
    let end = path.find(|c: char| !c.is_alphanumeric() && c != '_')?;
    (end > 0 && path[end..].starts_with("::")).then(|| &path[..end])
}

/// The package of a Go function: `net/http` of `net/http.(*Client).Do` and of `(*net/http.Client).Do`.
fn package_of(name: &str) -> Option<&str> {
    let name = name.trim_start_matches(['(', '*']);
    let path = name.find(['[', '(']).map_or(name, |end| &name[..end]);
    let slash = path.rfind('/').map_or(0, |slash| slash + 1);
    let mut dot = slash + path[slash..].find('.')?;
    // Go's own linker writes `github.com_a_b.F`: the first dot is a host's.
    while slash == 0 && HOSTS.iter().any(|host| path[dot + 1..].starts_with(host)) {
        dot += 1 + path[dot + 1..].find('.')?;
    }
    (dot > 0).then(|| &path[..dot])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rust_names_are_demangled_and_have_a_crate() {
        for (raw, name, origin) in [
            ("_ZN4core3fmt5write17h0123456789abcdefE", "core::fmt::write", "core"),
            (
                "_ZN66_$LT$basic_auth..Plugin$u20$as$u20$proxy_wasm..traits..Context$GT$7on_done17h0123456789abcdefE",
                "<basic_auth::Plugin as proxy_wasm::traits::Context>::on_done",
                "basic_auth",
            ),
            (
                "_ZN42_$LT$$RF$T$u20$as$u20$core..fmt..Debug$GT$3fmt17h0123456789abcdefE",
                "<&T as core::fmt::Debug>::fmt",
                "core",
            ),
            ("_RNvCs1234_7mycrate3foo", "mycrate::foo", "mycrate"),
        ] {
            assert_eq!(symbol(raw, false), Symbol { name: name.to_owned(), origin: Some(origin.to_owned()) });
        }
        assert_eq!(crate_of("<fn() -> a::B as core::ops::Fn>::call"), Some("core"));
        assert_eq!(crate_of("<str>::len"), None);
        assert_eq!(crate_of("<alloc::vec::Vec<T>>::push"), Some("alloc"));
        assert_eq!(crate_of("<[serde_json::Value] as alloc::slice::Concat>::concat"), Some("serde_json"));
    }

    #[test]
    fn other_names_stay_and_go_names_have_a_package() {
        let plain = |name: &str| Symbol { name: name.to_owned(), origin: None };
        assert_eq!(symbol("std::string::append(char const*)", false), plain("std::string::append(char const*)"));
        assert_eq!(symbol("malloc", true), plain("malloc"));
        for (name, package) in [
            ("main.main", "main"),
            ("github.com/x/y.(*Context).OnDone", "github.com/x/y"),
            ("(*net/http.Client).Do", "net/http"),
            ("slices.Sort[go.shape.int]", "slices"),
            ("github.com_x_y.__Context_.OnDone", "github.com_x_y"),
            ("google.golang.org_protobuf.F", "google.golang.org_protobuf"),
            ("main.my_function.func1", "main"),
        ] {
            assert_eq!(symbol(name, true).origin.as_deref(), Some(package), "{name}");
        }
    }

    #[test]
    fn no_name_is_longer_than_anybody_reads() {
        assert_eq!(symbol(&"é".repeat(10_000), false).name.chars().count(), LIMIT);
        let long = format!("_ZN9000{}17h0123456789abcdefE", "x".repeat(9000));
        assert_eq!(symbol(&long, false).name, "x".repeat(LIMIT));
        // Each back-reference doubles what comes out.
        let bomb = format!("_RIC1a{}E", "TB3_B3_E".repeat(40));
        assert!(symbol(&bomb, false).name.len() <= LIMIT);
    }
}

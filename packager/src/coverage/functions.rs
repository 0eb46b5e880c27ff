//! What the functions of a module are called, whose they are, and where they were written.

use std::collections::HashMap;

use wasmparser::{BinaryReader, CodeSectionReader, ImportSectionReader, TypeRef};

use super::lines::Lines;
use crate::inspect::sections::sections;
use crate::inspect::size::{Names, is_go};
use crate::inspect::symbols::symbol;

/// The functions of a module that have a body, in its order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Functions {
    /// Each of them.
    pub all: Vec<Function>,
    /// Whether the module has names for them.
    pub named: bool,
    /// Whether they are a Go program's.
    is_go: bool,
}

/// A function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// Its index in the module.
    pub index: u32,
    /// Its name, demangled; the name that it is exported by where it has none; else `function INDEX`.
    pub name: String,
    /// The crate, the package, or the library's folder that it is from.
    pub origin: Option<String>,
    /// File and line of its first instruction, where the module says so.
    pub place: Option<(String, u32)>,
}

/// How the plugin's own functions are told from those of libraries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Own {
    /// They are of this crate.
    Crate(String),
    /// They are of `main`, or of packages of this Go module.
    Go(Option<String>),
    /// They are not in `~lib`, where `AssemblyScript` has its libraries.
    OutsideOfLibraries,
    /// They are not told.
    Everything,
}

/// Code that a derive macro writes into an unnamed constant is nobody's to test.
const DERIVED: &str = "::_::";
/// Where `AssemblyScript` has its libraries.
const LIBRARIES: &str = "~lib/";

/// Names the functions of a module, which is valid.
pub fn functions(bytes: &[u8], lines: &Lines) -> Functions {
    let (mut imported, mut starts) = (0, Vec::new());
    for section in sections(bytes) {
        let content = section.content;
        let reader = || BinaryReader::new(&bytes[content.clone()], content.start as u64);
        if section.id == 2
            && let Ok(imports) = ImportSectionReader::new(reader())
        {
            let functions = imports.into_imports().map_while(Result::ok);
            imported +=
                functions.filter(|import| matches!(import.ty, TypeRef::Func(_) | TypeRef::FuncExact(_))).count();
        } else if section.id == 10
            && let Ok(code) = CodeSectionReader::new(reader())
        {
            starts.extend(code.into_iter().map_while(Result::ok).map(|body| {
                let start = body.get_operators_reader().map_or(body.range().start, |code| code.original_position());
                start.saturating_sub(content.start as u64)..body.range().end.saturating_sub(content.start as u64)
            }));
        }
    }
    let names = Names::of(bytes);
    let is_go = is_go(names.functions.iter().map(|(_, name)| *name));
    let by_index: HashMap<usize, &str> = names.functions.iter().copied().collect();
    let function = |(local, code): (usize, std::ops::Range<u64>)| {
        let index = imported + local;
        let place = lines.first(&code).map(|line| (line.file.clone(), line.line));
        let raw = by_index.get(&index).or_else(|| names.exports.get(&index));
        let (name, mut origin) = match raw {
            Some(raw) => {
                let symbol = symbol(raw, is_go);
                (symbol.name, symbol.origin)
            }
            None => (format!("function {index}"), None),
        };
        origin = origin.or_else(|| library(&name));
        Function { index: u32::try_from(index).unwrap_or(u32::MAX), name, origin, place }
    };
    Functions { all: starts.into_iter().enumerate().map(function).collect(), named: !by_index.is_empty(), is_go }
}

/// `~lib/rt` of `~lib/rt/itcms/__new`, `~lib/@a/b` of `~lib/@a/b/assembly/index/f`.
fn library(name: &str) -> Option<String> {
    let path = name.strip_prefix(LIBRARIES)?;
    let parts = if path.starts_with('@') { 2 } else { 1 };
    let parts: Vec<&str> = path.split('/').take(parts).collect();
    Some(format!("{LIBRARIES}{}", parts.join("/")))
}

impl Functions {
    /// How the plugin's own functions are told: by the crate, if there is such a one, by what the compiler left, or not
    /// at all. `go_module` is the path that a `go.mod` has.
    pub fn own(&self, crate_name: Option<&str>, go_module: Option<&str>) -> Own {
        if self.is_go {
            return Own::Go(go_module.map(str::to_owned));
        }
        if self.all.iter().any(|function| function.name.starts_with(LIBRARIES)) {
            return Own::OutsideOfLibraries;
        }
        let is_there = |name: &&str| self.all.iter().any(|function| function.origin.as_deref() == Some(*name));
        crate_name.filter(is_there).map_or(Own::Everything, |name| Own::Crate(name.to_owned()))
    }
}

impl Own {
    /// Whether a function is the plugin's own. What derive macros have written is not.
    pub fn has(&self, function: &Function) -> bool {
        let origin = function.origin.as_deref();
        match self {
            Self::Crate(name) => origin == Some(name) && !function.name.contains(DERIVED),
            Self::Go(module) => {
                let below = |module: &str| {
                    let rest = origin.and_then(|origin| origin.strip_prefix(module));
                    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '_']))
                };
                // Go's own linker has no characters but these in names.
                let linked = |module: &str| module.replace(|c: char| !c.is_alphanumeric() && c != '.', "_");
                origin == Some("main")
                    || module.as_deref().is_some_and(|module| below(module) || below(&linked(module)))
            }
            Self::OutsideOfLibraries => origin.is_none(),
            Self::Everything => true,
        }
    }
}

impl std::fmt::Display for Own {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Crate(name) => write!(f, "crate {name}"),
            Self::Go(None) => f.write_str("package main"),
            Self::Go(Some(module)) => write!(f, "packages main and {module}"),
            Self::OutsideOfLibraries => f.write_str("outside of ~lib"),
            Self::Everything => f.write_str("all functions: nothing tells the plugin's own"),
        }
    }
}

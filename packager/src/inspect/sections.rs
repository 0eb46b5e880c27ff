//! The sections of a WebAssembly binary, core module or component, as far as they go.

use std::ops::Range;

use crate::module::is_component;

/// A section: its id, and where it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Section {
    pub(crate) id: u8,
    /// From the id to the last byte.
    pub(crate) whole: Range<usize>,
    /// Without id and size.
    pub(crate) content: Range<usize>,
}

/// Every section in order. One that is cut off ends where the file does, and is the last.
pub(crate) fn sections(bytes: &[u8]) -> impl Iterator<Item = Section> {
    let mut at = 8;
    std::iter::from_fn(move || {
        let start = at;
        let id = *bytes.get(start)?;
        let (size, length) = leb(bytes.get(start + 1..)?)?;
        let begin = start + 1 + length;
        let end = begin.checked_add(size).map_or(bytes.len(), |end| end.min(bytes.len()));
        at = end;
        Some(Section { id, whole: start..end, content: begin..end })
    })
}

/// An unsigned LEB128 number of at most 32 bits, and how many bytes it takes.
pub(crate) fn leb(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0_u64;
    for (position, byte) in bytes.iter().take(5).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * position);
        if byte & 0x80 == 0 {
            return Some((usize::try_from(value).ok()?, position + 1));
        }
    }
    None
}

/// A custom section's name and what follows it.
pub(crate) fn custom(content: &[u8]) -> Option<(&str, &[u8])> {
    let (size, length) = leb(content)?;
    let end = length.checked_add(size)?;
    let name = std::str::from_utf8(content.get(length..end)?).ok()?;
    Some((name, content.get(end..)?))
}

/// What a section id stands for (core specification, "Modules"; component model, "Binary format").
pub(crate) fn name(bytes: &[u8], id: u8) -> &'static str {
    const CORE: [&str; 14] = [
        "custom",
        "type",
        "import",
        "function",
        "table",
        "memory",
        "global",
        "export",
        "start",
        "element",
        "code",
        "data",
        "data count",
        "tag",
    ];
    const COMPONENT: [&str; 13] = [
        "custom",
        "core module",
        "core instance",
        "core type",
        "component",
        "instance",
        "alias",
        "type",
        "canon",
        "start",
        "import",
        "export",
        "value",
    ];
    let names = if is_component(bytes) { &COMPONENT[..] } else { &CORE[..] };
    names.get(usize::from(id)).copied().unwrap_or("unknown")
}

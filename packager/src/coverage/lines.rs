//! Source lines of a module's code, where it has DWARF.

use std::ops::Range;

use addr2line::Context;
use gimli::{EndianSlice, LittleEndian};

use crate::inspect::sections::{custom, sections};

/// The lines of a module's code, by its place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lines(Vec<Line>);

/// A piece of code, and the line that it is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its bytes, counted from the beginning of the code section's content.
    pub code: Range<u64>,
    /// The file, as the compiler wrote it down.
    pub file: String,
    /// Its number, from 1.
    pub line: u32,
}

impl Lines {
    /// Reads the lines of a module. A module that has none, or has something else in their place, has no lines.
    pub fn of(bytes: &[u8]) -> Self {
        let mut debug = Vec::new();
        let mut end = 0;
        for section in sections(bytes) {
            let content = &bytes[section.content.clone()];
            match section.id {
                0 => debug.extend(custom(content).filter(|(name, _)| name.starts_with(".debug_"))),
                10 => end = content.len() as u64,
                _ => {}
            }
        }
        if debug.is_empty() {
            return Self::default();
        }
        let section = |name: &str| {
            let found = debug.iter().find(|(known, _)| *known == name);
            EndianSlice::new(found.map_or(&[][..], |(_, data)| data), LittleEndian)
        };
        let dwarf = gimli::Dwarf::load(|id| Ok::<_, gimli::Error>(section(id.name())));
        let Ok(context) = dwarf.and_then(Context::from_dwarf) else { return Self::default() };
        let Ok(found) = context.find_location_range(0, end) else { return Self::default() };
        let line = |(start, length, location): (u64, u64, addr2line::Location<'_>)| {
            // Line 0 is what the compiler wrote itself.
            let line = location.line.filter(|line| *line > 0)?;
            Some(Line { code: start..start.saturating_add(length), file: location.file?.to_owned(), line })
        };
        let mut lines: Vec<Line> = found.filter_map(line).collect();
        lines.sort_by_key(|line| (line.code.start, line.code.end));
        Self(lines)
    }

    /// The first line of a piece of code.
    pub fn first(&self, code: &Range<u64>) -> Option<&Line> {
        self.within(code).next()
    }

    /// All lines that begin in a piece of code, or run into it, in its order.
    pub fn within<'l>(&'l self, code: &Range<u64>) -> impl Iterator<Item = &'l Line> + use<'l> {
        let (start, end) = (code.start, code.end);
        let first = self.0.partition_point(|line| line.code.end <= start);
        self.0.iter().skip(first).take_while(move |line| line.code.start < end)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

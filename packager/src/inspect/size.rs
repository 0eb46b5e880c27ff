//! Where a module's bytes are: in whose code, in which data, in which custom sections.

use std::collections::HashMap;
use std::ops::Range;

use serde::Serialize;
use wasmparser::{BinaryReader, DataSectionReader, ExportSectionReader, Name, NameSectionReader};

use super::sections::{Section, custom, leb, name, sections};
use super::symbols::symbol;
use crate::module::is_component;

/// How many of the largest are listed.
const LISTED: usize = 10;

/// Engines take no more functions than this; a section that claims more is not worth the memory.
const MAX_FUNCTIONS: usize = 1_000_000;

/// A module's size, taken apart. All numbers are bytes unless they are named otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Size {
    /// The whole file. The four following make it up.
    pub total_bytes: u64,
    /// The code section.
    pub code_bytes: u64,
    /// The data section.
    pub data_bytes: u64,
    /// Custom sections: names, debug information, producers.
    pub custom_bytes: u64,
    /// All other sections, and the header.
    pub other_bytes: u64,
    /// How many functions have a body.
    pub functions: u64,
    /// How many of them have a name.
    pub named_functions: u64,
    /// The largest contributors, at most ten, largest first.
    pub largest: Vec<Contributor>,
    /// The largest single functions, at most ten, largest first.
    pub largest_functions: Vec<Contributor>,
}

/// Something that takes up room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Contributor {
    /// What it is.
    pub kind: Part,
    /// Its name; of a function without one, its index.
    pub name: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// Of a crate or package, how many functions it has here.
    pub functions: Option<u64>,
}

/// What a [`Contributor`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// All functions of a Rust crate.
    Crate,
    /// All functions of a Go package.
    Package,
    /// One function.
    Function,
    /// A data segment.
    DataSegment,
    /// A custom section.
    CustomSection,
    /// Any other section, or a part of a component.
    Section,
}

/// The largest, largest first; of equals, those that came first.
#[derive(Default)]
struct Largest(Vec<Contributor>);

impl Largest {
    fn add(&mut self, kind: Part, bytes: u64, functions: Option<u64>, name: impl FnOnce() -> String) {
        let place = self.0.partition_point(|other| other.bytes >= bytes);
        if bytes > 0 && place < LISTED {
            self.0.truncate(LISTED - 1);
            self.0.insert(place, Contributor { kind, name: name(), bytes, functions });
        }
    }
}

/// Take a module apart; `imported` is how many functions it imports. Of a file that is cut off, what is there counts.
pub(super) fn size(bytes: &[u8], imported: usize) -> Size {
    let mut size = Size {
        total_bytes: bytes.len() as u64,
        code_bytes: 0,
        data_bytes: 0,
        custom_bytes: 0,
        other_bytes: 0,
        functions: 0,
        named_functions: 0,
        largest: Vec::new(),
        largest_functions: Vec::new(),
    };
    let mut largest = Largest::default();
    let mut names = Names::default();
    let mut functions = Functions { imported, sizes: Vec::new() };
    let mut segments = Vec::new();
    let mut others = [0; 256];
    let mut nested = 0;
    for section in sections(bytes) {
        let length = section.whole.len() as u64;
        let content = &bytes[section.content.clone()];
        match section.id {
            0 => {
                size.custom_bytes += length;
                let (name, data) = custom(content).unwrap_or(("", &[]));
                largest.add(Part::CustomSection, length, None, || shortened(name));
                if name == "name" {
                    names.read(data);
                }
            }
            7 if !is_component(bytes) => {
                names.exports(content);
                others[7] += length;
            }
            10 if !is_component(bytes) => {
                size.code_bytes += length;
                functions.read(content);
            }
            11 if !is_component(bytes) => {
                size.data_bytes += length;
                segments.extend(data_segments(bytes, &section));
            }
            id => {
                // Whole modules and components each for themselves; of the rest a component has several of a kind.
                if is_component(bytes) && matches!(id, 1 | 4) {
                    largest.add(Part::Section, length, None, || format!("{} {nested}", name(bytes, id)));
                    nested += 1;
                } else {
                    others[usize::from(id)] += length;
                }
            }
        }
    }
    for (id, length) in (0..=u8::MAX).zip(others) {
        largest.add(Part::Section, length, None, || name(bytes, id).to_owned());
    }
    for (index, segment) in segments.into_iter().enumerate() {
        largest.add(Part::DataSegment, segment.end - segment.start, None, || match names.data.get(&index) {
            Some(name) => format!("{index} ({})", shortened(name)),
            None => index.to_string(),
        });
    }
    size.functions = functions.sizes.len() as u64;
    functions.attribute(&names, &mut size, &mut largest);
    size.largest = largest.0;
    size.other_bytes = size.total_bytes - size.code_bytes - size.data_bytes - size.custom_bytes;
    size
}

fn shortened(name: &str) -> String {
    name.chars().take(100).collect()
}

fn data_segments(bytes: &[u8], section: &Section) -> Vec<Range<u64>> {
    let reader = BinaryReader::new(&bytes[section.content.clone()], section.content.start as u64);
    let Ok(reader) = DataSectionReader::new(reader) else { return Vec::new() };
    reader.into_iter().map_while(Result::ok).map(|segment| segment.range).collect()
}

/// Names of functions and data segments.
#[derive(Default)]
pub(crate) struct Names<'a> {
    /// In the order of the name section.
    pub(crate) functions: Vec<(usize, &'a str)>,
    pub(crate) exports: HashMap<usize, &'a str>,
    data: HashMap<usize, &'a str>,
}

impl<'a> Names<'a> {
    /// The names that are in a module.
    pub(crate) fn of(bytes: &'a [u8]) -> Self {
        let mut names = Self::default();
        for section in sections(bytes) {
            let content = &bytes[section.content];
            match (section.id, custom(content)) {
                (0, Some(("name", data))) => names.read(data),
                (7, _) if !is_component(bytes) => names.exports(content),
                _ => {}
            }
        }
        names
    }

    /// The name section; whatever of it cannot be read is left out.
    fn read(&mut self, section: &'a [u8]) {
        for part in NameSectionReader::new(BinaryReader::new(section, 0)).map_while(Result::ok) {
            match part {
                Name::Function(map) => {
                    let names = map.into_iter().map_while(Result::ok).take(2 * MAX_FUNCTIONS);
                    self.functions.extend(names.map(|naming| (naming.index as usize, naming.name)));
                }
                Name::Data(map) => {
                    let names = map.into_iter().map_while(Result::ok).take(MAX_FUNCTIONS);
                    self.data.extend(names.map(|naming| (naming.index as usize, naming.name)));
                }
                _ => {}
            }
        }
    }

    fn exports(&mut self, section: &'a [u8]) {
        let Ok(reader) = ExportSectionReader::new(BinaryReader::new(section, 0)) else { return };
        for export in reader.into_iter().map_while(Result::ok) {
            if export.kind == wasmparser::ExternalKind::Func {
                self.exports.entry(export.index as usize).or_insert(export.name);
            }
        }
    }
}

/// Whether these are the names of a Go program: its runtime is always in it.
pub(crate) fn is_go<'a>(mut names: impl Iterator<Item = &'a str>) -> bool {
    names.any(|name| matches!(name, "runtime.alloc" | "runtime.main" | "runtime.run" | "runtime.mallocgc"))
}

/// The names in a module's name section.
pub(super) fn function_names(bytes: &[u8]) -> Vec<&str> {
    Names::of(bytes).functions.into_iter().map(|(_, name)| name).collect()
}

struct Functions {
    imported: usize,
    /// Of each function with a body, its size; 0 once it has been attributed.
    sizes: Vec<u32>,
}

impl Functions {
    fn read(&mut self, section: &[u8]) {
        let Some((count, mut at)) = leb(section) else { return };
        for _ in 0..count.min(MAX_FUNCTIONS) {
            let Some((size, length)) = section.get(at..).and_then(leb) else { return };
            let end = at.saturating_add(length).saturating_add(size).min(section.len());
            self.sizes.push(u32::try_from(end - at).unwrap_or(u32::MAX));
            at = end;
        }
    }

    fn attribute(mut self, names: &Names<'_>, size: &mut Size, largest: &mut Largest) {
        let go = is_go(names.functions.iter().map(|(_, name)| *name));
        let mut single = Largest::default();
        let mut groups: HashMap<String, (u64, u64)> = HashMap::new();
        for (index, raw) in &names.functions {
            let local = index.checked_sub(self.imported).and_then(|local| self.sizes.get_mut(local));
            let bytes = local.map_or(0, std::mem::take);
            if bytes == 0 {
                continue;
            }
            size.named_functions += 1;
            let bytes = u64::from(bytes);
            let symbol = symbol(raw, go);
            single.add(Part::Function, bytes, None, || symbol.name.clone());
            match symbol.origin {
                Some(origin) => {
                    let group = groups.entry(origin).or_default();
                    *group = (group.0 + bytes, group.1 + 1);
                }
                None => largest.add(Part::Function, bytes, None, || symbol.name),
            }
        }
        for (local, bytes) in self.sizes.iter().enumerate().filter(|(_, bytes)| **bytes > 0) {
            let index = self.imported + local;
            let name = || match names.exports.get(&index) {
                Some(export) => format!("{index} (export {})", shortened(export)),
                None => index.to_string(),
            };
            single.add(Part::Function, u64::from(*bytes), None, name);
            largest.add(Part::Function, u64::from(*bytes), None, name);
        }
        // A map has no order of its own, and equals are listed as they come.
        let mut groups: Vec<_> = groups.into_iter().collect();
        groups.sort();
        for (origin, (bytes, functions)) in groups {
            largest.add(if go { Part::Package } else { Part::Crate }, bytes, Some(functions), || origin);
        }
        size.largest_functions = single.0;
    }
}

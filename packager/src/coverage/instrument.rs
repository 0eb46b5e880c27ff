//! Adds flags to a module, which its functions or the regions of their code set as they are entered.
//!
//! A flag is a bit of a global. Branches of WebAssembly are relative to blocks, and not to bytes, so that code can be put
//! between two instructions without a look at any other: only sizes change.

use std::ops::Range;

use wasm_encoder::{ConstExpr, Encode, GlobalType, Instruction, ValType};
use wasmparser::{
    BinaryReader, CodeSectionReader, FunctionBody, ImportSectionReader, Operator, TypeRef, Validator, WasmFeatures,
};

use crate::inspect::sections::{Section, custom, leb, sections};
use crate::module::is_component;

/// The start of the names that the globals with flags are exported by; their number follows, from 0. Each has 64 flags,
/// the lowest bit first.
pub const FLAGS: &str = "plugwright.reached.";

/// How much is noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Which functions were entered.
    Functions,
    /// Which regions were, too: pieces of code that run from their first instruction to their last.
    Regions,
}

/// A module that takes notes.
#[derive(Debug, Clone)]
pub struct Instrumented {
    /// Its bytes.
    pub module: Vec<u8>,
    /// What each flag stands for.
    pub probes: Vec<Probe>,
}

/// What a flag stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// The function, by its place among those with a body.
    pub function: u32,
    /// The region's bytes in the original module, counted from the beginning of the code section's content, as DWARF
    /// does; the first region of a function begins with its first instruction.
    pub code: Range<u64>,
}

/// Why a module could not be made to take notes.
#[derive(Debug, thiserror::Error)]
pub enum InstrumentError {
    /// There is nothing to add to.
    #[error("the file is a WebAssembly component, not a core module")]
    Component,
    /// The module is not valid to begin with.
    #[error("the module is not valid")]
    Invalid(#[source] wasmparser::Error),
    /// It exports what flags are exported by.
    #[error("the module exports `{0}`: it takes notes already")]
    Already(String),
    /// With what was added, it is none that engines take.
    #[error("with its {flags} flags, the module is not one that engines take")]
    Limit {
        /// How many flags there would be.
        flags: usize,
        /// What is too much.
        #[source]
        source: wasmparser::Error,
    },
}

/// Makes a module take notes. What does not validate is refused, and so is what would not validate any more.
pub fn instrument(bytes: &[u8], detail: Detail) -> Result<Instrumented, InstrumentError> {
    if is_component(bytes) {
        return Err(InstrumentError::Component);
    }
    validate(bytes).map_err(InstrumentError::Invalid)?;
    let layout = Layout::of(bytes).map_err(InstrumentError::Invalid)?;
    if let Some(name) = layout.exported_flags(bytes).map_err(InstrumentError::Invalid)? {
        return Err(InstrumentError::Already(name));
    }
    let mut code = Code { first_global: layout.globals, probes: Vec::new() };
    let bodies = match &layout.code {
        Some(section) => code.section(bytes, section, detail).map_err(InstrumentError::Invalid)?,
        None => Vec::new(),
    };
    let module = layout.rewritten(bytes, &bodies, code.probes.len().div_ceil(64));
    validate(&module).map_err(|source| InstrumentError::Limit { flags: code.probes.len(), source })?;
    Ok(Instrumented { module, probes: code.probes })
}

fn validate(bytes: &[u8]) -> wasmparser::Result<()> {
    Validator::new_with_features(WasmFeatures::all()).validate_all(bytes).map(drop)
}

/// Ids of sections that take part.
const CUSTOM: u8 = 0;
const IMPORT: u8 = 2;
const GLOBAL: u8 = 6;
const EXPORT: u8 = 7;
const CODE: u8 = 10;

/// Where a section's place is among those of a module (core specification, "Modules"); of custom sections there is none.
fn rank(id: u8) -> Option<u8> {
    const ORDER: [u8; 13] = [1, 2, 3, 4, 5, 13, GLOBAL, EXPORT, 8, 9, 12, CODE, 11];
    ORDER.iter().zip(0..).find(|(known, _)| **known == id).map(|(_, rank)| rank)
}

/// What of a module has to be known to add to it.
struct Layout {
    /// How many globals it has, imported ones included.
    globals: u32,
    exports: Option<Range<usize>>,
    code: Option<Range<usize>>,
}

impl Layout {
    fn of(bytes: &[u8]) -> wasmparser::Result<Self> {
        let mut layout = Self { globals: 0, exports: None, code: None };
        for Section { id, content, .. } in sections(bytes) {
            match id {
                IMPORT => {
                    for import in ImportSectionReader::new(reader(bytes, &content))?.into_imports() {
                        layout.globals += u32::from(matches!(import?.ty, TypeRef::Global(_)));
                    }
                }
                GLOBAL => layout.globals += count(&bytes[content]).0,
                EXPORT => layout.exports = Some(content),
                CODE => layout.code = Some(content),
                _ => {}
            }
        }
        Ok(layout)
    }

    /// A name that is in the flags' way.
    fn exported_flags(&self, bytes: &[u8]) -> wasmparser::Result<Option<String>> {
        let Some(content) = &self.exports else { return Ok(None) };
        for export in wasmparser::ExportSectionReader::new(reader(bytes, content))? {
            let name = export?.name;
            if name.starts_with(FLAGS) {
                return Ok(Some(name.to_owned()));
            }
        }
        Ok(None)
    }

    /// The module with these bodies, and so many globals more.
    fn rewritten(&self, bytes: &[u8], bodies: &[u8], words: usize) -> Vec<u8> {
        let words = u32::try_from(words).unwrap_or(u32::MAX);
        let mut module = bytes.get(..8).unwrap_or_default().to_vec();
        let add = |module: &mut Vec<u8>, id: u8, content: &[u8]| {
            let (old, rest) = count(content);
            let mut data = Vec::with_capacity(content.len() + 16);
            old.saturating_add(words).encode(&mut data);
            data.extend_from_slice(rest);
            for word in 0..words {
                if id == GLOBAL {
                    GlobalType { val_type: ValType::I64, mutable: true, shared: false }.encode(&mut data);
                    ConstExpr::i64_const(0).encode(&mut data);
                } else {
                    format!("{FLAGS}{word}").as_str().encode(&mut data);
                    data.push(3);
                    (self.globals + word).encode(&mut data);
                }
            }
            write(module, id, &data);
        };
        let mut done = [false; 2];
        for Section { id, whole, content } in sections(bytes) {
            for (id_of_new, done) in [GLOBAL, EXPORT].into_iter().zip(&mut done) {
                if !*done && rank(id).zip(rank(id_of_new)).is_some_and(|(this, new)| this >= new) {
                    *done = true;
                    let old = if id == id_of_new { &bytes[content.clone()] } else { &[0][..] };
                    add(&mut module, id_of_new, old);
                }
            }
            match id {
                GLOBAL | EXPORT => {}
                CODE => write(&mut module, id, bodies),
                CUSTOM if custom(&bytes[content.clone()]).is_none_or(|(name, _)| is_of_offsets(name)) => {}
                _ => module.extend_from_slice(&bytes[whole]),
            }
        }
        module
    }
}

/// Custom sections that say something of places in the code, which are other ones now.
fn is_of_offsets(name: &str) -> bool {
    let starts = [".debug_", "metadata.code.", "reloc.", "linking", "sourceMappingURL", "external_debug_info"];
    starts.iter().any(|start| name.starts_with(start))
}

fn write(module: &mut Vec<u8>, id: u8, data: &[u8]) {
    module.push(id);
    data.encode(module);
}

fn reader<'a>(bytes: &'a [u8], content: &Range<usize>) -> BinaryReader<'a> {
    BinaryReader::new(&bytes[content.clone()], content.start as u64)
}

/// A vector's length, and its items. The module is valid.
fn count(content: &[u8]) -> (u32, &[u8]) {
    let (count, length) = leb(content).unwrap_or_default();
    (u32::try_from(count).unwrap_or(u32::MAX), content.get(length..).unwrap_or_default())
}

struct Code {
    first_global: u32,
    probes: Vec<Probe>,
}

impl Code {
    /// The code section's content with flags.
    fn section(&mut self, bytes: &[u8], content: &Range<usize>, detail: Detail) -> wasmparser::Result<Vec<u8>> {
        let section = CodeSectionReader::new(reader(bytes, content))?;
        let mut data = Vec::with_capacity(content.len() * 2);
        section.count().encode(&mut data);
        let mut new = Vec::new();
        for (function, body) in (0..).zip(section) {
            new.clear();
            self.body(&body?, (function, content.start as u64), detail, &mut new)?;
            new.as_slice().encode(&mut data);
        }
        Ok(data)
    }

    fn body(
        &mut self,
        body: &FunctionBody<'_>,
        (function, base): (u32, u64),
        detail: Detail,
        into: &mut Vec<u8>,
    ) -> wasmparser::Result<()> {
        let start = body.range().start;
        let mut copied = start;
        let mut copy = |into: &mut Vec<u8>, to: u64| {
            let range = usize::try_from(copied - start).ok().zip(usize::try_from(to - start).ok());
            into.extend_from_slice(range.and_then(|(from, to)| body.as_bytes().get(from..to)).unwrap_or_default());
            copied = to;
        };
        let mut operators = body.get_operators_reader()?;
        let mut begin = operators.original_position();
        copy(into, begin);
        self.flag(into);
        while detail == Detail::Regions && !operators.eof() {
            if !begins_region(&operators.read()?) {
                continue;
            }
            let next = operators.original_position();
            // A region of nothing but its end is none; the function's last is not either.
            if operators.eof() || operators.clone().read().is_ok_and(|next| ends_block(&next)) {
                continue;
            }
            self.probes.push(Probe { function, code: begin - base..next - base });
            copy(into, next);
            self.flag(into);
            begin = next;
        }
        let end = body.range().end;
        self.probes.push(Probe { function, code: begin - base..end - base });
        copy(into, end);
        Ok(())
    }

    /// Sets the flag of the probe that comes next.
    fn flag(&self, into: &mut Vec<u8>) {
        let flag = self.probes.len();
        let global = self.first_global + u32::try_from(flag / 64).unwrap_or(u32::MAX);
        Instruction::GlobalGet(global).encode(into);
        Instruction::I64Const(1 << (flag % 64)).encode(into);
        Instruction::I64Or.encode(into);
        Instruction::GlobalSet(global).encode(into);
    }
}

/// Whether what follows an instruction may be reached without it, or not be reached after it.
fn begins_region(operator: &Operator<'_>) -> bool {
    matches!(
        operator,
        Operator::If { .. }
            | Operator::Else
            | Operator::End
            | Operator::BrIf { .. }
            | Operator::BrOnNull { .. }
            | Operator::BrOnNonNull { .. }
            | Operator::BrOnCast { .. }
            | Operator::BrOnCastFail { .. }
            | Operator::BrOnCastDescEq { .. }
            | Operator::BrOnCastDescEqFail { .. }
            | Operator::Catch { .. }
            | Operator::CatchAll
            | Operator::Delegate { .. }
    )
}

fn ends_block(operator: &Operator<'_>) -> bool {
    matches!(
        operator,
        Operator::End | Operator::Else | Operator::Catch { .. } | Operator::CatchAll | Operator::Delegate { .. }
    )
}

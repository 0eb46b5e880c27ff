//! A module read from beginning to end in one go, holding a section at a time, and of the largest ones only what counts.

use std::io;

use wasmparser::{
    BinaryReader, Chunk, ConstExpr, FuncValidatorAllocations, Parser, ValidPayload, Validator, WasmFeatures,
};

use super::info::{InspectError, ModuleInfo, Outline, decode_error, header};
use super::source::Checksum;
use super::window::{Input, Window};

/// Sections of data and custom sections that are larger are not held: the former's contents mean nothing to anyone
/// here, nor do the latter's, but for `producers`, which is a few lines.
const LARGE: usize = 1 << 20;

/// The longest name of a section, as the decoder has it, and its length.
const LONGEST_NAME: usize = 100_000 + 5;

/// What one pass has found.
pub(super) struct Scan {
    pub(super) info: ModuleInfo,
    /// Why the outline ends before the module does.
    pub(super) broken: Option<InspectError>,
    /// The first thing that validation has against the module.
    pub(super) invalid: Option<Invalid>,
    /// Of what was looked at.
    pub(super) checksum: Checksum,
}

/// What validation has against a module.
pub(super) struct Invalid {
    /// The feature without which it would not be, where it is one.
    pub(super) missing: Option<WasmFeatures>,
    /// Where, and what.
    pub(super) offset: u64,
    pub(super) error: InspectError,
}

/// Read a module of so many bytes, and validate it where features are given. Reading fails where `source` does, and not
/// on what it gives.
pub(super) fn scan(source: &mut dyn Input, size: u64, features: Option<WasmFeatures>) -> io::Result<Scan> {
    let mut window = Window::new(source, size);
    let mut outline = Outline::default();
    let mut validation = features.map(Validation::new);
    window.fill(8)?;
    let outcome = match header(&window.data()[..window.data().len().min(8)]) {
        Ok(()) => Ok(sections(&mut window, &mut outline, &mut validation)?),
        Err(error) => Err(error),
    };
    let broken = match outcome {
        Ok(read) => read.err().map(|stop| stop.error(size)),
        Err(error) => Some(error),
    };
    let invalid = validation.and_then(|validation| validation.failure).map(|stop| Invalid {
        missing: stop.error.missing_wasm_feature(),
        offset: stop.error.offset().saturating_add(stop.lag),
        error: stop.error(size),
    });
    Ok(Scan { info: outline.finish(size), broken, invalid, checksum: window.checksum() })
}

/// An error of the decoder's, and how far its offsets are behind the module's.
struct Stop {
    error: wasmparser::Error,
    lag: u64,
}

impl Stop {
    fn error(&self, end: u64) -> InspectError {
        decode_error(end, self.lag, &self.error)
    }
}

fn sections(
    window: &mut Window<'_>,
    outline: &mut Outline,
    validation: &mut Option<Validation>,
) -> io::Result<Result<(), Stop>> {
    let mut parser = Parser::new(0);
    // How much was left out of what the decoder has been shown.
    let mut lag = 0;
    let mut bodies = 0_u32;
    loop {
        if bodies == 0
            && parser.offset() > 0
            && let Some(Condensed { section, left_out }) = condensed(window)?
        {
            let mut shown = section.as_slice();
            while !shown.is_empty() {
                match step(&mut parser, shown, true, lag, outline, validation) {
                    Ok(Step::On { consumed, .. }) => shown = &shown[consumed.min(shown.len())..],
                    Ok(Step::More(_) | Step::End) => break,
                    Err(stop) => return Ok(Err(stop)),
                }
            }
            lag += left_out;
            continue;
        }
        match step(&mut parser, window.data(), window.at_end(), lag, outline, validation) {
            Ok(Step::More(more)) => window.fill(window.data().len().saturating_add(more))?,
            Ok(Step::On { consumed, begun }) => {
                window.consume(consumed);
                bodies = begun.unwrap_or(bodies.saturating_sub(1));
            }
            Ok(Step::End) => return Ok(Ok(())),
            Err(stop) => return Ok(Err(stop)),
        }
    }
}

enum Step {
    /// So many bytes more are needed.
    More(usize),
    /// So many bytes are done with; where the code section has begun, so many bodies follow.
    On {
        consumed: usize,
        begun: Option<u32>,
    },
    End,
}

fn step(
    parser: &mut Parser,
    data: &[u8],
    at_end: bool,
    lag: u64,
    outline: &mut Outline,
    validation: &mut Option<Validation>,
) -> Result<Step, Stop> {
    let failed = |error| Stop { error, lag };
    let (consumed, payload) = match parser.parse(data, at_end).map_err(failed)? {
        Chunk::NeedMoreData(more) => return Ok(Step::More(more)),
        Chunk::Parsed { consumed, payload } => (consumed, payload),
    };
    outline.section(&payload).map_err(failed)?;
    if let Some(validation) = validation {
        validation.step(data, at_end, lag);
    }
    Ok(match payload {
        wasmparser::Payload::End(_) => Step::End,
        wasmparser::Payload::CodeSectionStart { count, .. } => Step::On { consumed, begun: Some(count) },
        _ => Step::On { consumed, begun: None },
    })
}

/// Validation, which is shown the same bytes as the outline: what they mean may depend on the features.
struct Validation {
    parser: Parser,
    validator: Validator,
    allocations: FuncValidatorAllocations,
    failure: Option<Stop>,
}

impl Validation {
    fn new(features: WasmFeatures) -> Self {
        let mut parser = Parser::new(0);
        parser.set_features(features);
        let (validator, allocations) = (Validator::new_with_features(features), FuncValidatorAllocations::default());
        Self { parser, validator, allocations, failure: None }
    }

    fn step(&mut self, data: &[u8], at_end: bool, lag: u64) {
        if self.failure.is_none()
            && let Err(error) = self.validate(data, at_end)
        {
            self.failure = Some(Stop { error, lag });
        }
    }

    fn validate(&mut self, data: &[u8], at_end: bool) -> wasmparser::Result<()> {
        let payload = match self.parser.parse(data, at_end)? {
            Chunk::Parsed { payload, .. } => payload,
            // What is enough with all features is enough with fewer, or is an error with them.
            Chunk::NeedMoreData(_) => return self.parser.parse(data, true).map(drop),
        };
        if let ValidPayload::Func(function, body) = self.validator.payload(&payload)? {
            let mut validator = function.into_validator(std::mem::take(&mut self.allocations));
            validator.validate(&body)?;
            self.allocations = validator.into_allocations();
        }
        Ok(())
    }
}

/// What stands for a large section.
struct Condensed {
    section: Vec<u8>,
    /// How many bytes shorter it is.
    left_out: u64,
}

/// The section that begins here without what means nothing, if it is a large one of data or a custom one; the window is
/// then behind it. What is wrong with it is wrong with what stands for it.
fn condensed(window: &mut Window<'_>) -> io::Result<Option<Condensed>> {
    window.fill(6)?;
    let mut reader = BinaryReader::new(window.data(), 0);
    let (Ok(id), Ok(size)) = (reader.read_u8(), reader.read_var_u32()) else { return Ok(None) };
    let (size, head) = (size as usize, reader.current_position());
    if size <= LARGE {
        return Ok(None);
    }
    let begin = window.position();
    let content = match id {
        0 => {
            window.fill(head + size.min(LONGEST_NAME))?;
            let end = window.data().len().min(head + size);
            let mut reader = BinaryReader::new(window.data().get(head..end).unwrap_or_default(), 0);
            // One that cannot be read is the decoder's to tell.
            let Ok(_) = reader.read_string() else { return Ok(None) };
            let name = window.data()[head..head + reader.current_position()].to_vec();
            window.consume(head);
            if window.skip(size)? { name } else { return Ok(Some(cut_off(id, size))) }
        }
        11 => {
            window.consume(head);
            let mut segments = Vec::new();
            if !data(window, size, &mut segments)? {
                return Ok(Some(cut_off(id, size)));
            }
            segments
        }
        _ => return Ok(None),
    };
    let mut section = vec![id];
    leb(&mut section, content.len());
    section.extend(content);
    let left_out = window.position().saturating_sub(begin).saturating_sub(section.len() as u64);
    Ok(Some(Condensed { section, left_out }))
}

/// A section that ends before its size says.
fn cut_off(id: u8, size: usize) -> Condensed {
    let mut section = vec![id];
    leb(&mut section, size);
    Condensed { section, left_out: 0 }
}

/// A data section's segments, each without its bytes; false where the module ends before the section does.
fn data(window: &mut Window<'_>, size: usize, into: &mut Vec<u8>) -> io::Result<bool> {
    let mut left = size;
    window.fill(left.min(5))?;
    let mut reader = BinaryReader::new(window.data(), 0);
    let count = reader.read_var_u32().unwrap_or_default();
    let head = reader.current_position().min(left);
    into.extend(&window.data()[..head]);
    window.consume(head);
    left -= head;
    for _ in 0..count {
        window.fill(left.min(LARGE))?;
        let begin = &window.data()[..window.data().len().min(left)];
        match segment(begin) {
            Ok((head, whole)) if head.saturating_add(whole.1) <= left => {
                into.extend(&begin[..whole.0]);
                into.push(0);
                window.consume(head);
                if !window.skip(whole.1)? {
                    return Ok(false);
                }
                left -= head + whole.1;
            }
            // It is shown as it begins, which is where the mistake is.
            _ => {
                into.extend(begin.iter().take(LARGE));
                return window.skip(left);
            }
        }
    }
    // More than the segments is a mistake, and one byte is enough for it.
    window.fill(left.min(1))?;
    into.extend(window.data().iter().take(left.min(1)));
    window.skip(left)
}

/// How long a segment's beginning is, with the size of its bytes; how long it is without, and that size.
fn segment(bytes: &[u8]) -> wasmparser::Result<(usize, (usize, usize))> {
    let mut reader = BinaryReader::new(bytes, 0);
    let flags = reader.read_var_u32()?;
    if flags == 2 {
        reader.read_var_u32()?;
    }
    if flags != 1 {
        reader.read::<ConstExpr<'_>>()?;
    }
    let without = reader.current_position();
    let size = reader.read_var_u32()? as usize;
    Ok((reader.current_position(), (without, size)))
}

/// LEB128 of a section's size.
fn leb(into: &mut Vec<u8>, size: usize) {
    let mut rest = u32::try_from(size).unwrap_or(u32::MAX);
    loop {
        let [low, ..] = (rest & 0x7f).to_le_bytes();
        rest >>= 7;
        if rest == 0 {
            return into.push(low);
        }
        into.push(low | 0x80);
    }
}

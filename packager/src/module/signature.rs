//! Function signatures, written as Envoy writes them.

use std::fmt;

/// A WebAssembly value type, as far as hostcalls tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ValueType {
    /// `i32`.
    I32,
    /// `i64`.
    I64,
    /// `f32`.
    F32,
    /// `f64`.
    F64,
    /// `v128`.
    V128,
    /// Any reference type.
    Ref,
}

impl From<wasmparser::ValType> for ValueType {
    fn from(value: wasmparser::ValType) -> Self {
        match value {
            wasmparser::ValType::I32 => Self::I32,
            wasmparser::ValType::I64 => Self::I64,
            wasmparser::ValType::F32 => Self::F32,
            wasmparser::ValType::F64 => Self::F64,
            wasmparser::ValType::V128 => Self::V128,
            wasmparser::ValType::Ref(_) => Self::Ref,
        }
    }
}

/// Parameters and results. Displayed as Envoy does: `i32 i32 -> i32`, with `void` for none.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Signature {
    /// Parameters.
    pub params: Vec<ValueType>,
    /// Results.
    pub results: Vec<ValueType>,
}

impl Signature {
    /// From a shorthand such as `iIi:i`: `i` for i32, `I` for i64.
    pub(crate) fn shorthand(text: &str) -> Self {
        let types = |part: &str| {
            part.bytes().map(|letter| if letter == b'I' { ValueType::I64 } else { ValueType::I32 }).collect()
        };
        let (params, results) = text.split_once(':').unwrap_or((text, ""));
        Self { params: types(params), results: types(results) }
    }
}

impl From<&wasmparser::FuncType> for Signature {
    fn from(function: &wasmparser::FuncType) -> Self {
        let types = |values: &[wasmparser::ValType]| values.iter().copied().map(ValueType::from).collect();
        Self { params: types(function.params()), results: types(function.results()) }
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::I32 => "i32",
            Self::I64 => "i64",
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::V128 => "v128",
            Self::Ref => "ref",
        })
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_types(f, &self.params)?;
        f.write_str(" -> ")?;
        write_types(f, &self.results)
    }
}

fn write_types(f: &mut fmt::Formatter<'_>, types: &[ValueType]) -> fmt::Result {
    if types.is_empty() {
        return f.write_str("void");
    }
    for (position, value) in types.iter().enumerate() {
        if position > 0 {
            f.write_str(" ")?;
        }
        write!(f, "{value}")?;
    }
    Ok(())
}

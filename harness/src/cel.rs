//! Expressions that plugins evaluate: the part of CEL without macros, over the properties of the calling context.
//!
//! Literals, lists, maps, selection and indexing, arithmetic, comparison, `in`, logic, the conditional, `has`, the
//! conversions, `size`, `contains`, `startsWith`, `endsWith`, `matches`. What is left out is refused by name when an
//! expression is created: above all the macros, which would let an expression run for as long as it likes.

mod eval;
mod lexer;
mod parser;

use std::collections::BTreeMap;

pub(crate) use eval::evaluate;
pub(crate) use parser::Expression;

/// A longer expression is refused: evaluating one takes time that nothing interrupts.
const MAX_LENGTH: usize = 4096;
const MAX_EXPRESSIONS: usize = 1024;

/// Why an expression is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CelError {
    #[error("the expression is longer than {MAX_LENGTH} bytes or not UTF-8")]
    TooLong,
    #[error("the expression is nested too deeply")]
    TooDeep,
    #[error("at byte {at}: {what}")]
    Syntax { at: usize, what: String },
    #[error("`{0}` is not supported")]
    Unsupported(String),
}

/// The expressions of one root context, by token.
#[derive(Debug, Default)]
pub(crate) struct Expressions {
    next: u32,
    expressions: BTreeMap<u32, Expression>,
}

impl Expressions {
    /// Keeps an expression; `None` when there are too many.
    pub(crate) fn insert(&mut self, expression: Expression) -> Option<u32> {
        if self.expressions.len() >= MAX_EXPRESSIONS {
            return None;
        }
        while self.expressions.contains_key(&self.next) {
            self.next = self.next.wrapping_add(1);
        }
        let token = self.next;
        self.next = self.next.wrapping_add(1);
        self.expressions.insert(token, expression);
        Some(token)
    }

    pub(crate) fn get(&self, token: u32) -> Option<&Expression> {
        self.expressions.get(&token)
    }

    pub(crate) fn remove(&mut self, token: u32) {
        self.expressions.remove(&token);
    }
}

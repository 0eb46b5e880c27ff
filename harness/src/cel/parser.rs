//! From tokens to a tree.

use super::lexer::{Token, syntax, tokens};
use super::{CelError, MAX_LENGTH};
use crate::properties::Value;

/// Trees are not deeper than this.
const MAX_DEPTH: usize = 48;

/// An expression that may be evaluated.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Expression(pub(super) Expr);

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Expr {
    Literal(Value),
    Name(String),
    Select(Box<Expr>, String),
    Index(Box<Expr>, Box<Expr>),
    List(Vec<Expr>),
    Map(Vec<(Expr, Expr)>),
    Has(Box<Expr>),
    Unary(&'static str, Box<Expr>),
    Binary(&'static str, Box<Expr>, Box<Expr>),
    Conditional(Box<Expr>, Box<Expr>, Box<Expr>),
    Call(&'static str, Vec<Expr>),
}

/// Functions and methods with the number of their arguments, a method's own object among them.
const FUNCTIONS: &[(&str, usize, bool)] = &[
    ("size", 1, false),
    ("int", 1, false),
    ("uint", 1, false),
    ("double", 1, false),
    ("string", 1, false),
    ("bytes", 1, false),
    ("bool", 1, false),
    ("dyn", 1, false),
    ("duration", 1, false),
    ("timestamp", 1, false),
    ("matches", 2, false),
    ("size", 1, true),
    ("contains", 2, true),
    ("startsWith", 2, true),
    ("endsWith", 2, true),
    ("matches", 2, true),
];

/// Binary operators, weakest first.
const LEVELS: &[&[&str]] =
    &[&["||"], &["&&"], &["==", "!=", "<=", ">=", "<", ">", "in"], &["+", "-"], &["*", "/", "%"]];

impl Expression {
    pub(crate) fn parse(source: &[u8]) -> Result<Self, CelError> {
        let source = std::str::from_utf8(source).ok().filter(|source| source.len() <= MAX_LENGTH);
        let source = source.ok_or(CelError::TooLong)?;
        let mut parser = Parser { tokens: tokens(source)?, next: 0, end: source.len(), depth: 0 };
        let expression = parser.conditional()?;
        match parser.tokens.get(parser.next) {
            None => Ok(Self(expression)),
            Some((at, _)) => Err(syntax(*at, "nothing more was expected")),
        }
    }
}

struct Parser {
    tokens: Vec<(usize, Token)>,
    next: usize,
    end: usize,
    depth: usize,
}

impl Parser {
    fn at(&self) -> usize {
        self.tokens.get(self.next).map_or(self.end, |(at, _)| *at)
    }

    fn symbol(&mut self, wanted: &[&'static str]) -> Option<&'static str> {
        let found = match self.tokens.get(self.next)? {
            (_, Token::Symbol(symbol)) => *symbol,
            (_, Token::Name(name)) if name == "in" => "in",
            _ => return None,
        };
        let found = wanted.iter().find(|symbol| **symbol == found)?;
        self.next += 1;
        Some(found)
    }

    fn expect(&mut self, wanted: &'static str) -> Result<(), CelError> {
        let at = self.at();
        self.symbol(&[wanted]).map(drop).ok_or_else(|| syntax(at, format!("`{wanted}` was expected")))
    }

    /// Goes one level down.
    fn nested<T>(&mut self, f: impl FnOnce(&mut Self) -> Result<T, CelError>) -> Result<T, CelError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(CelError::TooDeep);
        }
        let result = f(self);
        self.depth -= 1;
        result
    }

    fn conditional(&mut self) -> Result<Expr, CelError> {
        self.nested(|parser| {
            let condition = parser.binary(0)?;
            if parser.symbol(&["?"]).is_none() {
                return Ok(condition);
            }
            let yes = parser.nested(|parser| parser.binary(0))?;
            parser.expect(":")?;
            let no = parser.conditional()?;
            Ok(Expr::Conditional(condition.into(), yes.into(), no.into()))
        })
    }

    fn binary(&mut self, level: usize) -> Result<Expr, CelError> {
        let Some(operators) = LEVELS.get(level) else { return self.unary() };
        let mut left = self.binary(level + 1)?;
        let mut chained = 0;
        while let Some(operator) = self.symbol(operators) {
            // A chain is a tree that leans to the left, and evaluated as one.
            chained += 1;
            if chained > MAX_DEPTH {
                return Err(CelError::TooDeep);
            }
            let right = self.binary(level + 1)?;
            left = Expr::Binary(operator, left.into(), right.into());
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<Expr, CelError> {
        match self.symbol(&["!", "-"]) {
            Some(operator) => {
                let operand = self.nested(Self::unary)?;
                Ok(Expr::Unary(operator, operand.into()))
            }
            None => self.member(),
        }
    }

    fn member(&mut self) -> Result<Expr, CelError> {
        let mut object = self.primary()?;
        let mut chained = 0;
        while let Some(symbol) = self.symbol(&[".", "["]) {
            chained += 1;
            if chained > MAX_DEPTH {
                return Err(CelError::TooDeep);
            }
            if symbol == "[" {
                let index = self.conditional()?;
                self.expect("]")?;
                object = Expr::Index(object.into(), index.into());
                continue;
            }
            let at = self.at();
            let Some((_, Token::Name(name))) = self.tokens.get(self.next).cloned() else {
                return Err(syntax(at, "a field's name was expected"));
            };
            self.next += 1;
            object = if self.symbol(&["("]).is_some() {
                let function = function(&name, true)?;
                let mut arguments = vec![object];
                arguments.extend(self.list(")")?);
                call(at, function, arguments)?
            } else {
                Expr::Select(object.into(), name)
            };
        }
        Ok(object)
    }

    fn list(&mut self, end: &'static str) -> Result<Vec<Expr>, CelError> {
        let mut items = Vec::new();
        loop {
            if self.symbol(&[end]).is_some() {
                return Ok(items);
            }
            items.push(self.conditional()?);
            if self.symbol(&[","]).is_none() {
                self.expect(end)?;
                return Ok(items);
            }
        }
    }

    fn map(&mut self) -> Result<Expr, CelError> {
        let mut fields = Vec::new();
        while self.symbol(&["}"]).is_none() {
            let key = self.conditional()?;
            self.expect(":")?;
            fields.push((key, self.conditional()?));
            if self.symbol(&[","]).is_none() {
                self.expect("}")?;
                break;
            }
        }
        Ok(Expr::Map(fields))
    }

    fn primary(&mut self) -> Result<Expr, CelError> {
        let at = self.at();
        if let Some(symbol) = self.symbol(&["(", "[", "{"]) {
            return match symbol {
                "(" => {
                    let inner = self.conditional()?;
                    self.expect(")")?;
                    Ok(inner)
                }
                "[" => self.list("]").map(Expr::List),
                _ => self.nested(Self::map),
            };
        }
        let token = self.tokens.get(self.next).map(|(_, token)| token.clone());
        self.next += 1;
        Ok(Expr::Literal(match token {
            Some(Token::Int(value)) => Value::Int(value),
            Some(Token::Uint(value)) => Value::Uint(value),
            Some(Token::Double(value)) => Value::Double(value),
            Some(Token::Text(text)) => Value::text(text),
            Some(Token::Bytes(bytes)) => Value::Bytes(bytes),
            Some(Token::Name(name)) => match name.as_str() {
                "true" => Value::Bool(true),
                "false" => Value::Bool(false),
                "null" => Value::Null,
                _ if self.symbol(&["("]).is_none() => return Ok(Expr::Name(name)),
                "has" => {
                    let field = self.list(")")?;
                    return match <[Expr; 1]>::try_from(field) {
                        Ok([field @ Expr::Select(..)]) => Ok(Expr::Has(field.into())),
                        _ => Err(syntax(at, "has() takes a field")),
                    };
                }
                _ => {
                    let function = function(&name, false)?;
                    let arguments = self.list(")")?;
                    return call(at, function, arguments);
                }
            },
            Some(Token::Symbol(_)) | None => return Err(syntax(at, "a value was expected")),
        }))
    }
}

type Function = &'static (&'static str, usize, bool);

fn function(name: &str, method: bool) -> Result<Function, CelError> {
    let found = FUNCTIONS.iter().find(|(known, _, of_object)| *known == name && *of_object == method);
    found.ok_or_else(|| CelError::Unsupported(format!("{name}()")))
}

fn call(at: usize, (name, count, _): Function, arguments: Vec<Expr>) -> Result<Expr, CelError> {
    if arguments.len() == *count {
        Ok(Expr::Call(name, arguments))
    } else {
        Err(syntax(at, format!("{name}() has another number of arguments")))
    }
}

//! The tokens of an expression.

use super::CelError;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    Name(String),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(String),
    Bytes(Vec<u8>),
    Symbol(&'static str),
}

/// The longer ones first.
const SYMBOLS: &[&str] = &[
    "||", "&&", "==", "!=", "<=", ">=", "<", ">", "(", ")", "[", "]", "{", "}", ".", ",", ":", "?", "+", "-", "*", "/",
    "%", "!",
];

/// Each token with the byte at which it begins.
pub(super) fn tokens(source: &str) -> Result<Vec<(usize, Token)>, CelError> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(c) = source[at..].chars().next() {
        let rest = &source[at..];
        let start = at;
        if c.is_ascii_whitespace() {
            at += 1;
            continue;
        }
        if rest.starts_with("//") {
            at += rest.find('\n').unwrap_or(rest.len());
            continue;
        }
        let (token, len) = if let Some((prefix, quote)) = string_start(rest) {
            string(rest, prefix, quote).map_err(|what| syntax(start, what))?
        } else if c.is_ascii_digit() || (c == '.' && rest[1..].starts_with(|c: char| c.is_ascii_digit())) {
            number(rest).ok_or_else(|| syntax(start, "a number out of range"))?
        } else if c.is_ascii_alphabetic() || c == '_' {
            let len = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            (Token::Name(rest[..len].to_owned()), len)
        } else {
            let symbol = SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol));
            let symbol = symbol.ok_or_else(|| syntax(start, format!("unexpected `{c}`")))?;
            (Token::Symbol(symbol), symbol.len())
        };
        tokens.push((start, token));
        at += len;
    }
    Ok(tokens)
}

pub(super) fn syntax(at: usize, what: impl Into<String>) -> CelError {
    CelError::Syntax { at, what: what.into() }
}

/// The length of a literal's prefix and its quote, if a string begins here.
fn string_start(rest: &str) -> Option<(usize, char)> {
    let prefix = rest.find(|c: char| !"rRbB".contains(c))?;
    let quote = rest[prefix..].chars().next().filter(|c| *c == '"' || *c == '\'')?;
    (prefix <= 2).then_some((prefix, quote))
}

fn string(rest: &str, prefix: usize, quote: char) -> Result<(Token, usize), String> {
    let raw = rest[..prefix].contains(['r', 'R']);
    let bytes = rest[..prefix].contains(['b', 'B']);
    let mut out = Vec::new();
    let mut chars = rest[prefix + 1..].char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            c if c == quote => {
                let len = prefix + 1 + at + 1;
                let token = if bytes {
                    Token::Bytes(out)
                } else {
                    Token::Text(String::from_utf8(out).map_err(|_| "a string that is not UTF-8")?)
                };
                return Ok((token, len));
            }
            '\\' if !raw => escape(&mut chars, bytes, &mut out)?,
            '\n' => break,
            c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Err("a string without its end".to_owned())
}

fn escape(chars: &mut std::str::CharIndices<'_>, bytes: bool, out: &mut Vec<u8>) -> Result<(), String> {
    let (_, c) = chars.next().ok_or("a string without its end")?;
    let mut hex = |digits: usize| {
        let text: String = chars.by_ref().take(digits).map(|(_, c)| c).collect();
        (text.len() == digits).then(|| u32::from_str_radix(&text, 16).ok()).flatten().ok_or("a bad escape")
    };
    let code = match c {
        'n' => u32::from('\n'),
        'r' => u32::from('\r'),
        't' => u32::from('\t'),
        '\\' | '\'' | '"' | '`' | '?' => u32::from(c),
        'x' | 'X' => {
            let code = hex(2)?;
            if let (true, Ok(byte)) = (bytes, u8::try_from(code)) {
                out.push(byte);
                return Ok(());
            }
            code
        }
        'u' => hex(4)?,
        'U' => hex(8)?,
        other => return Err(format!("the escape `\\{other}`")),
    };
    let decoded = char::from_u32(code).ok_or("a bad escape")?;
    out.extend_from_slice(decoded.encode_utf8(&mut [0; 4]).as_bytes());
    Ok(())
}

fn number(rest: &str) -> Option<(Token, usize)> {
    if let Some(hex) = rest.strip_prefix("0x").or_else(|| rest.strip_prefix("0X")) {
        let len = hex.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(hex.len());
        if hex[len..].starts_with(['u', 'U']) {
            return Some((Token::Uint(u64::from_str_radix(&hex[..len], 16).ok()?), len + 3));
        }
        return Some((Token::Int(i64::from_str_radix(&hex[..len], 16).ok()?), len + 2));
    }
    let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let mut len = digits(rest);
    let mut double = false;
    if rest[len..].starts_with('.') && rest[len + 1..].starts_with(|c: char| c.is_ascii_digit()) {
        double = true;
        len += 1 + digits(&rest[len + 1..]);
    }
    if let Some(exponent) = rest[len..].strip_prefix(['e', 'E']) {
        let sign = usize::from(exponent.starts_with(['+', '-']));
        let more = digits(&exponent[sign..]);
        if more > 0 {
            double = true;
            len += 1 + sign + more;
        }
    }
    if double {
        return Some((Token::Double(rest[..len].parse().ok()?), len));
    }
    if rest[len..].starts_with(['u', 'U']) {
        return Some((Token::Uint(rest[..len].parse().ok()?), len + 1));
    }
    Some((Token::Int(rest[..len].parse().ok()?), len))
}

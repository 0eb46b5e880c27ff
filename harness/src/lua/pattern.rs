//! Lua patterns (Lua 5.1 manual, 5.4.1), matched within a time limit: a pattern can take exponential time, and the
//! interpreter's own matcher never looks at the clock.

/// Lua's `LUA_MAXCAPTURES`.
const MAX_CAPTURES: usize = 32;
/// How deep alternatives nest before the pattern is too complex, as in LuaJIT.
const MAX_DEPTH: usize = 200;
/// Steps between two looks at the clock.
const STEPS: u32 = 4096;

/// Why a pattern was not matched to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum PatternError {
    #[error("malformed pattern (ends with '%')")]
    EndsWithEscape,
    #[error("malformed pattern (missing ']')")]
    OpenSet,
    #[error("missing '[' after '%f' in pattern")]
    Frontier,
    #[error("unbalanced pattern")]
    Unbalanced,
    #[error("invalid pattern capture")]
    InvalidCapture,
    #[error("invalid capture index")]
    InvalidIndex,
    #[error("unfinished capture")]
    Unfinished,
    #[error("too many captures")]
    TooManyCaptures,
    #[error("pattern too complex")]
    TooComplex,
    #[error("the time for the script is up")]
    OutOfTime,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Capture {
    Open(usize),
    Range(usize, usize),
    Position(usize),
}

/// What a capture is worth to a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Captured<'a> {
    Text(&'a [u8]),
    /// Of `()`: counted from 1.
    Position(usize),
}

/// A match: where, and what was captured.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Match<'a> {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) captures: Vec<Captured<'a>>,
}

/// A pattern over a subject.
pub(super) struct Matcher<'a, 'c> {
    subject: &'a [u8],
    pattern: &'a [u8],
    captures: Vec<Capture>,
    depth: usize,
    steps: u32,
    in_time: &'c dyn Fn() -> bool,
}

impl<'a, 'c> Matcher<'a, 'c> {
    /// `in_time` is asked now and then, and a no ends the matching.
    pub(super) fn new(subject: &'a [u8], pattern: &'a [u8], in_time: &'c dyn Fn() -> bool) -> Self {
        Self { subject, pattern, captures: Vec::new(), depth: 0, steps: 0, in_time }
    }

    /// The first match at or after `from`; only there when `anchors` and the pattern begins with `^`.
    pub(super) fn find(&mut self, from: usize, anchors: bool) -> Result<Option<Match<'a>>, PatternError> {
        let anchored = anchors && self.pattern.first() == Some(&b'^');
        for start in from..=self.subject.len() {
            self.captures.clear();
            self.depth = 0;
            if let Some(end) = self.run(start, usize::from(anchored))? {
                return Ok(Some(Match { start, end, captures: self.captured()? }));
            }
            if anchored {
                break;
            }
        }
        Ok(None)
    }

    fn captured(&self) -> Result<Vec<Captured<'a>>, PatternError> {
        self.captures
            .iter()
            .map(|capture| match *capture {
                Capture::Open(_) => Err(PatternError::Unfinished),
                Capture::Range(start, end) => Ok(Captured::Text(&self.subject[start..end])),
                Capture::Position(at) => Ok(Captured::Position(at + 1)),
            })
            .collect()
    }

    fn tick(&mut self) -> Result<(), PatternError> {
        self.steps += 1;
        if self.steps < STEPS {
            return Ok(());
        }
        self.steps = 0;
        if (self.in_time)() { Ok(()) } else { Err(PatternError::OutOfTime) }
    }

    fn byte(&self, p: usize) -> Option<u8> {
        self.pattern.get(p).copied()
    }

    /// Matches the pattern from `p` at `s`: the end of the match.
    fn run(&mut self, s: usize, p: usize) -> Result<Option<usize>, PatternError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(PatternError::TooComplex);
        }
        let matched = self.step(s, p);
        self.depth -= 1;
        matched
    }

    fn step(&mut self, mut s: usize, mut p: usize) -> Result<Option<usize>, PatternError> {
        loop {
            self.tick()?;
            let Some(first) = self.byte(p) else { return Ok(Some(s)) };
            match (first, self.byte(p + 1)) {
                (b'(', Some(b')')) => return self.capturing(Capture::Position(s), s, p + 2),
                (b'(', _) => return self.capturing(Capture::Open(s), s, p + 1),
                (b')', _) => return self.close(s, p + 1),
                (b'$', None) => return Ok((s == self.subject.len()).then_some(s)),
                (b'%', Some(b'b')) => match self.balance(s, p + 2)? {
                    Some(end) => {
                        s = end;
                        p += 4;
                        continue;
                    }
                    None => return Ok(None),
                },
                (b'%', Some(b'f')) => {
                    p += 2;
                    if self.byte(p) != Some(b'[') {
                        return Err(PatternError::Frontier);
                    }
                    let after = self.item_end(p)?;
                    let before = s.checked_sub(1).map_or(0, |at| self.subject[at]);
                    let here = self.subject.get(s).copied().unwrap_or(0);
                    if self.in_set(before, p, after - 1) || !self.in_set(here, p, after - 1) {
                        return Ok(None);
                    }
                    p = after;
                    continue;
                }
                (b'%', Some(digit @ b'0'..=b'9')) => match self.back_reference(s, digit)? {
                    Some(end) => {
                        s = end;
                        p += 2;
                        continue;
                    }
                    None => return Ok(None),
                },
                _ => {}
            }
            let after = self.item_end(p)?;
            let one = self.matches_one(s, p, after);
            match self.byte(after) {
                Some(b'?') => {
                    if one && let Some(end) = self.run(s + 1, after + 1)? {
                        return Ok(Some(end));
                    }
                    p = after + 1;
                }
                Some(b'*') => return self.longest(s, p, after),
                Some(b'+') if one => return self.longest(s + 1, p, after),
                Some(b'+') => return Ok(None),
                Some(b'-') => return self.shortest(s, p, after),
                _ if one => {
                    s += 1;
                    p = after;
                }
                _ => return Ok(None),
            }
        }
    }

    fn longest(&mut self, s: usize, p: usize, after: usize) -> Result<Option<usize>, PatternError> {
        let mut count = 0;
        while self.matches_one(s + count, p, after) {
            self.tick()?;
            count += 1;
        }
        loop {
            if let Some(end) = self.run(s + count, after + 1)? {
                return Ok(Some(end));
            }
            if count == 0 {
                return Ok(None);
            }
            count -= 1;
        }
    }

    fn shortest(&mut self, mut s: usize, p: usize, after: usize) -> Result<Option<usize>, PatternError> {
        loop {
            if let Some(end) = self.run(s, after + 1)? {
                return Ok(Some(end));
            }
            if !self.matches_one(s, p, after) {
                return Ok(None);
            }
            s += 1;
        }
    }

    fn capturing(&mut self, capture: Capture, s: usize, p: usize) -> Result<Option<usize>, PatternError> {
        if self.captures.len() >= MAX_CAPTURES {
            return Err(PatternError::TooManyCaptures);
        }
        let level = self.captures.len();
        self.captures.push(capture);
        let matched = self.run(s, p)?;
        if matched.is_none() {
            self.captures.truncate(level);
        }
        Ok(matched)
    }

    fn close(&mut self, s: usize, p: usize) -> Result<Option<usize>, PatternError> {
        let open = self.captures.iter().rposition(|capture| matches!(capture, Capture::Open(_)));
        let Some(level) = open else { return Err(PatternError::InvalidCapture) };
        let was = self.captures[level];
        if let Capture::Open(start) = was {
            self.captures[level] = Capture::Range(start, s);
        }
        let matched = self.run(s, p)?;
        if matched.is_none() {
            self.captures[level] = was;
        }
        Ok(matched)
    }

    /// `%bxy`: from an x to the y that balances it.
    fn balance(&mut self, s: usize, p: usize) -> Result<Option<usize>, PatternError> {
        let (Some(open), Some(close)) = (self.byte(p), self.byte(p + 1)) else { return Err(PatternError::Unbalanced) };
        if self.subject.get(s) != Some(&open) {
            return Ok(None);
        }
        let mut depth = 1_usize;
        for at in s + 1..self.subject.len() {
            self.tick()?;
            if self.subject[at] == close {
                depth -= 1;
                if depth == 0 {
                    return Ok(Some(at + 1));
                }
            } else if self.subject[at] == open {
                depth += 1;
            }
        }
        Ok(None)
    }

    fn back_reference(&mut self, s: usize, digit: u8) -> Result<Option<usize>, PatternError> {
        let index = usize::from(digit).checked_sub(usize::from(b'1'));
        let Some(Capture::Range(start, end)) = index.and_then(|index| self.captures.get(index)).copied() else {
            return Err(PatternError::InvalidIndex);
        };
        let length = end - start;
        let same = self.subject.get(s..s + length) == Some(&self.subject[start..end]);
        Ok(same.then_some(s + length))
    }

    /// Where the single-character item at `p` ends.
    fn item_end(&self, p: usize) -> Result<usize, PatternError> {
        match self.byte(p) {
            Some(b'%') if self.byte(p + 1).is_none() => Err(PatternError::EndsWithEscape),
            Some(b'%') => Ok(p + 2),
            Some(b'[') => {
                let mut at = p + 1;
                if self.byte(at) == Some(b'^') {
                    at += 1;
                }
                loop {
                    match self.byte(at) {
                        None => return Err(PatternError::OpenSet),
                        Some(b'%') => at += 2,
                        Some(_) => at += 1,
                    }
                    if self.byte(at) == Some(b']') {
                        return Ok(at + 1);
                    }
                }
            }
            _ => Ok(p + 1),
        }
    }

    fn matches_one(&self, s: usize, p: usize, after: usize) -> bool {
        let Some(&c) = self.subject.get(s) else { return false };
        match self.pattern[p] {
            b'.' => true,
            b'%' => self.byte(p + 1).is_some_and(|class| in_class(c, class)),
            b'[' => self.in_set(c, p, after - 1),
            other => other == c,
        }
    }

    /// Whether `c` is in the set that opens at `p` and whose `]` is at `last`.
    fn in_set(&self, c: u8, p: usize, last: usize) -> bool {
        let mut at = p + 1;
        let negated = self.byte(at) == Some(b'^');
        if negated {
            at += 1;
        }
        while at < last {
            let item = self.pattern[at];
            if item == b'%' {
                if in_class(c, self.pattern[at + 1]) {
                    return !negated;
                }
                at += 2;
            } else if self.byte(at + 1) == Some(b'-') && at + 2 < last {
                if (item..=self.pattern[at + 2]).contains(&c) {
                    return !negated;
                }
                at += 3;
            } else {
                if item == c {
                    return !negated;
                }
                at += 1;
            }
        }
        negated
    }
}

fn in_class(c: u8, class: u8) -> bool {
    let member = match class.to_ascii_lowercase() {
        b'a' => c.is_ascii_alphabetic(),
        b'c' => c.is_ascii_control(),
        b'd' => c.is_ascii_digit(),
        b'g' => c.is_ascii_graphic(),
        b'l' => c.is_ascii_lowercase(),
        b'p' => c.is_ascii_punctuation(),
        b's' => c.is_ascii_whitespace() || c == 0x0b,
        b'u' => c.is_ascii_uppercase(),
        b'w' => c.is_ascii_alphanumeric(),
        b'x' => c.is_ascii_hexdigit(),
        b'z' => c == 0,
        _ => return class == c,
    };
    member != class.is_ascii_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(subject: &str, pattern: &str, expected: Result<Option<(usize, usize, &str)>, PatternError>) {
        let always = || true;
        let found = Matcher::new(subject.as_bytes(), pattern.as_bytes(), &always).find(0, true);
        let shown = found.map(|found| {
            found.map(|found| {
                let captures: Vec<_> = found
                    .captures
                    .iter()
                    .map(|capture| match capture {
                        Captured::Text(text) => String::from_utf8_lossy(text).into_owned(),
                        Captured::Position(at) => format!("@{at}"),
                    })
                    .collect();
                (found.start, found.end, captures.join("|"))
            })
        });
        assert_eq!(shown, expected.map(|e| e.map(|(start, end, captures)| (start, end, captures.to_owned()))));
    }

    #[test]
    fn items_and_repetitions() {
        check("hello world", "o w", Ok(Some((4, 7, ""))));
        check("key = value", "^(%w+)%s*=%s*(%w+)$", Ok(Some((0, 11, "key|value"))));
        check("aaa", "a-b", Ok(None));
        check("aaab", "a-b", Ok(Some((0, 4, ""))));
        check("abc", "b?c", Ok(Some((1, 3, ""))));
        check("x1y22", "%d+$", Ok(Some((3, 5, ""))));
        check("a]b", "[]]", Ok(Some((1, 2, ""))));
        check("a-b", "[a%-]+", Ok(Some((0, 2, ""))));
        check("a-b", "[^%w]", Ok(Some((1, 2, ""))));
        check("q5", "[a-f0-9]", Ok(Some((1, 2, ""))));
        check("\u{1}\0x", "%z", Ok(Some((1, 2, ""))));
        check("abc", "()b()", Ok(Some((1, 2, "@2|@3"))));
        check("f(a(b)c)d", "%b()", Ok(Some((1, 8, ""))));
        check("THE (quick) fox", "%f[%a]%a+%f[%A]", Ok(Some((0, 3, ""))));
        check("\"it's\"", "([\"'])(.-)%1", Ok(Some((0, 6, "\"|it's"))));
        check("abc", "", Ok(Some((0, 0, ""))));
        check("a.b", "%.", Ok(Some((1, 2, ""))));
        check("^x", "x^", Ok(None));
    }

    #[test]
    fn what_is_no_pattern_is_said() {
        check("a", "%", Err(PatternError::EndsWithEscape));
        check("a", "[a", Err(PatternError::OpenSet));
        check("a", "[%", Err(PatternError::OpenSet));
        check("a", "%f", Err(PatternError::Frontier));
        check("a", "%b(", Err(PatternError::Unbalanced));
        check("a", "a)", Err(PatternError::InvalidCapture));
        check("a", "(a", Err(PatternError::Unfinished));
        check("a", "%1", Err(PatternError::InvalidIndex));
        check("a", &"()".repeat(33), Err(PatternError::TooManyCaptures));
        check("a", &"a?".repeat(300), Ok(Some((0, 1, ""))));
        check(&"a".repeat(300), &"a?".repeat(300), Err(PatternError::TooComplex));
    }

    #[test]
    fn a_pattern_that_takes_for_ever_ends_when_time_is_up() {
        let subject = b"a".repeat(2000);
        let looks = std::cell::Cell::new(0);
        let in_time = || {
            looks.set(looks.get() + 1);
            looks.get() < 10
        };
        let found = Matcher::new(&subject, b".-.-.-.-.-.-b", &in_time).find(0, true);
        assert_eq!((found, looks.get()), (Err(PatternError::OutOfTime), 10));
    }
}

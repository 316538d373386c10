//! Reading JSON token by token, strictly as RFC 8259 says, without recursion and without allocating.
//!
//! The bytes must be UTF-8; whoever makes a [`Lexer`] has checked that.

use std::borrow::Cow;

/// A place where the bytes stop being JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    /// What is wrong there.
    pub what: &'static str,
    /// The byte it is wrong at, from 0.
    pub at: usize,
}

/// A position in the bytes of one record.
#[derive(Debug, Clone)]
pub(crate) struct Lexer<'a> {
    bytes: &'a [u8],
    /// The next byte to read.
    pub pos: usize,
}

/// A string as written, its escapes checked but not yet resolved.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Text<'a> {
    raw: &'a [u8],
    escaped: bool,
}

/// Powers of ten that a double holds exactly, as far as [`Number::double`] needs them.
const POWERS: [f64; 16] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
];

/// A number as written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Number<'a> {
    raw: &'a [u8],
    /// Written with a `.`.
    pub fraction: bool,
    /// Written with an exponent.
    pub exponent: bool,
    negative: bool,
    /// All digits before an exponent, as one number; wrapped where there are more than 18.
    digits: i64,
    /// How many digits there are before the point, and behind it.
    whole: usize,
    scale: usize,
}

impl<'a> Number<'a> {
    /// Returns its text.
    pub fn text(&self) -> &'a str {
        std::str::from_utf8(self.raw).expect("digits and signs are ASCII")
    }

    /// Returns the value if it is an integer of 64 bits, however it is written: `1e2` and `100.0` are 100.
    pub fn long(&self) -> Option<i64> {
        if !self.fraction && !self.exponent {
            // 18 digits never overflow 64 bits.
            return if self.whole <= 18 {
                Some(if self.negative { -self.digits } else { self.digits })
            } else {
                self.text().parse().ok()
            };
        }
        super::scalar::decimal(self.text(), 0).and_then(|value| i64::try_from(value).ok())
    }

    /// Returns the nearest double, unless the value is beyond them.
    pub fn double(&self) -> Option<f64> {
        // Up to 2^53 an integer is exact as a double, and so is the power: their quotient is rounded once, as it should
        // (Clinger, "How to Read Floating Point Numbers Accurately", 1990).
        if !self.exponent && self.whole + self.scale <= 15 {
            let value = self.digits as f64 / POWERS[self.scale];
            return Some(if self.negative { -value } else { value });
        }
        self.text().parse().ok().filter(|value: &f64| value.is_finite())
    }
}

/// Says whether `text` is a number as JSON writes them.
pub(crate) fn is_number(text: &[u8]) -> bool {
    let mut lexer = Lexer::new(text);
    matches!(lexer.number(), Ok(Some(_))) && lexer.since(0).len() == text.len()
}

impl<'a> Text<'a> {
    /// Returns the string's UTF-8 bytes.
    pub fn bytes(&self) -> Cow<'a, [u8]> {
        if !self.escaped {
            return Cow::Borrowed(self.raw);
        }
        let mut out = Vec::with_capacity(self.raw.len());
        self.append_to(&mut out);
        Cow::Owned(out)
    }

    /// Appends the string's UTF-8 bytes.
    pub fn append_to(&self, out: &mut Vec<u8>) {
        if self.escaped {
            unescape(self.raw, |bytes| out.extend_from_slice(bytes)).expect("the lexer checked the escapes");
        } else {
            out.extend_from_slice(self.raw);
        }
    }
}

impl<'a> Lexer<'a> {
    /// Starts at the first byte, or behind a byte-order mark.
    pub fn new(bytes: &'a [u8]) -> Self {
        let pos = if bytes.starts_with(b"\xEF\xBB\xBF") { 3 } else { 0 };
        Lexer { bytes, pos }
    }

    /// Returns the bytes from `start` to the position.
    pub fn since(&self, start: usize) -> &'a [u8] {
        &self.bytes[start..self.pos]
    }

    /// Returns the next byte, or 0 at the end: no token starts with a 0.
    #[inline]
    pub fn peek(&self) -> u8 {
        self.bytes.get(self.pos).copied().unwrap_or(0)
    }

    /// Goes past white space.
    #[inline]
    pub fn space(&mut self) {
        while matches!(self.bytes.get(self.pos), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.pos += 1;
        }
    }

    /// Makes a fault at the position.
    #[cold]
    pub fn fault(&self, what: &'static str) -> Fault {
        Fault { what, at: self.pos }
    }

    /// Goes past white space and says an error unless that is the end.
    pub fn end(&mut self) -> Result<(), Fault> {
        self.space();
        if self.pos < self.bytes.len() {
            Err(self.fault("something follows the object"))
        } else {
            Ok(())
        }
    }

    /// Enters the object or array at the position; returns `false` if it is empty, and then is behind it.
    #[inline]
    pub fn open(&mut self, close: u8) -> bool {
        self.pos += 1;
        self.space();
        let empty = self.peek() == close;
        self.pos += usize::from(empty);
        !empty
    }

    /// Goes behind a comma (`true`) or the closing bracket (`false`).
    #[inline]
    pub fn more(&mut self, close: u8) -> Result<bool, Fault> {
        self.space();
        let next = self.peek();
        if next == b',' {
            self.pos += 1;
            self.space();
            return Ok(true);
        }
        if next != close {
            return Err(self.fault("a comma or the closing bracket is missing"));
        }
        self.pos += 1;
        Ok(false)
    }

    /// Reads a field's name and its colon; the position is then at the value.
    #[inline]
    pub fn key(&mut self) -> Result<Text<'a>, Fault> {
        if self.peek() != b'"' {
            return Err(self.fault("a field name in double quotes is missing"));
        }
        let key = self.string()?;
        self.space();
        if self.peek() != b':' {
            return Err(self.fault("a colon is missing"));
        }
        self.pos += 1;
        self.space();
        Ok(key)
    }

    /// Goes behind a field's name, its colon and white space if they are exactly the bytes `quoted`.
    #[inline]
    pub fn key_is(&mut self, quoted: &[u8]) -> bool {
        let found = self.bytes[self.pos..].starts_with(quoted);
        if found {
            self.pos += quoted.len();
            self.space();
        }
        found
    }

    /// Reads the string whose opening quote is at the position.
    #[inline]
    pub fn string(&mut self) -> Result<Text<'a>, Fault> {
        let start = self.pos + 1;
        let mut at = start;
        let mut escaped = false;
        loop {
            at = special(self.bytes, at);
            match self.bytes.get(at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    at += 2;
                }
                Some(_) => {
                    return Err(Fault {
                        what: "a control character in a string isn't escaped",
                        at,
                    });
                }
                None => {
                    return Err(Fault {
                        what: "a string has no end",
                        at: self.pos,
                    });
                }
            }
        }
        let raw = &self.bytes[start..at];
        if escaped {
            unescape(raw, |_| {}).map_err(|(what, inside)| Fault {
                what,
                at: start + inside,
            })?;
        }
        self.pos = at + 1;
        Ok(Text { raw, escaped })
    }

    /// Reads a number, or returns `None` if the value at the position is something else.
    #[inline]
    pub fn number(&mut self) -> Result<Option<Number<'a>>, Fault> {
        let start = self.pos;
        let negative = self.peek() == b'-';
        if !negative && !self.peek().is_ascii_digit() {
            return Ok(None);
        }
        self.pos += usize::from(negative);
        let first = self.pos;
        let mut digits = 0;
        let whole = self.add_digits(&mut digits)?;
        if whole > 1 && self.bytes[first] == b'0' {
            return Err(Fault {
                what: "a number starts with a superfluous 0",
                at: first,
            });
        }
        let fraction = self.peek() == b'.';
        let mut scale = 0;
        if fraction {
            self.pos += 1;
            scale = self.add_digits(&mut digits)?;
        }
        let exponent = matches!(self.peek(), b'e' | b'E');
        if exponent {
            self.pos += 1;
            self.pos += usize::from(matches!(self.peek(), b'+' | b'-'));
            self.add_digits(&mut 0)?;
        }
        Ok(Some(Number {
            raw: &self.bytes[start..self.pos],
            fraction,
            exponent,
            negative,
            digits,
            whole,
            scale,
        }))
    }

    /// Goes past digits, at least one, and appends them to a number; returns how many they are.
    #[inline]
    fn add_digits(&mut self, number: &mut i64) -> Result<usize, Fault> {
        let start = self.pos;
        while let Some(digit) = self.bytes.get(self.pos).filter(|byte| byte.is_ascii_digit()) {
            *number = number.wrapping_mul(10).wrapping_add(i64::from(digit - b'0'));
            self.pos += 1;
        }
        if self.pos == start {
            return Err(self.fault("a digit is missing"));
        }
        Ok(self.pos - start)
    }

    /// Reads `true`, `false` or `null`.
    pub fn word(&mut self, word: &str) -> Result<(), Fault> {
        if !self.bytes[self.pos..].starts_with(word.as_bytes()) {
            return Err(self.fault("no JSON value starts like this"));
        }
        self.pos += word.len();
        Ok(())
    }

    fn scalar(&mut self) -> Result<(), Fault> {
        match self.peek() {
            b'"' => self.string().map(drop),
            b't' => self.word("true"),
            b'f' => self.word("false"),
            b'n' => self.word("null"),
            _ if self.number()?.is_some() => Ok(()),
            0 if self.pos >= self.bytes.len() => Err(self.fault("it ends too early")),
            _ => Err(self.fault("no JSON value starts like this")),
        }
    }

    /// Goes past the value at the position, checking it, at any depth: what is open is kept as one bit per level.
    pub fn skip(&mut self) -> Result<(), Fault> {
        let mut open = Open::default();
        loop {
            match self.peek() {
                b'{' => {
                    if self.open(b'}') {
                        open.push(true);
                        self.key()?;
                        continue;
                    }
                }
                b'[' => {
                    if self.open(b']') {
                        open.push(false);
                        continue;
                    }
                }
                _ => self.scalar()?,
            }
            loop {
                let Some(object) = open.top() else { return Ok(()) };
                if self.more(if object { b'}' } else { b']' })? {
                    if object {
                        self.key()?;
                    }
                    break;
                }
                open.pop();
            }
        }
    }
}

/// The brackets that are open, one bit each; the innermost 64 need no allocation.
#[derive(Default)]
struct Open {
    bits: u64,
    depth: usize,
    outer: Vec<u64>,
}

impl Open {
    fn push(&mut self, object: bool) {
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.outer.push(self.bits);
        }
        self.bits = self.bits << 1 | u64::from(object);
        self.depth += 1;
    }

    fn pop(&mut self) {
        self.depth -= 1;
        self.bits >>= 1;
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.bits = self.outer.pop().expect("a word was kept for every 64 levels");
        }
    }

    fn top(&self) -> Option<bool> {
        (self.depth > 0).then_some(self.bits & 1 == 1)
    }
}

/// Returns the first place from `at` on with a quote, a backslash or a control character.
///
/// Eight bytes at a time; field values are mostly shorter than what a call of `memchr` pays off for, and it would need
/// a second pass for the control characters.
#[inline]
fn special(bytes: &[u8], mut at: usize) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    while let Some(word) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*word);
        let zero = |x: u64| x.wrapping_sub(ONES) & !x;
        let quote = zero(word ^ (ONES * b'"' as u64));
        let backslash = zero(word ^ (ONES * b'\\' as u64));
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        // A borrow can only raise false marks above the first true one.
        let marks = (quote | backslash | control) & HIGH;
        if marks != 0 {
            return at + (marks.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while bytes
        .get(at)
        .is_some_and(|byte| !matches!(byte, b'"' | b'\\' | 0..0x20))
    {
        at += 1;
    }
    at
}

fn unescape(raw: &[u8], mut emit: impl FnMut(&[u8])) -> Result<(), (&'static str, usize)> {
    let mut at = 0;
    while let Some(ahead) = memchr::memchr(b'\\', &raw[at..]) {
        emit(&raw[at..at + ahead]);
        at += ahead;
        let simple: &[u8] = match raw.get(at + 1) {
            Some(b'"') => b"\"",
            Some(b'\\') => b"\\",
            Some(b'/') => b"/",
            Some(b'b') => b"\x08",
            Some(b'f') => b"\x0c",
            Some(b'n') => b"\n",
            Some(b'r') => b"\r",
            Some(b't') => b"\t",
            Some(b'u') => {
                let (letter, length) = unicode(raw, at).ok_or(("an escape is no character", at))?;
                emit(letter.encode_utf8(&mut [0; 4]).as_bytes());
                at += length;
                continue;
            }
            _ => return Err(("an escape isn't one of JSON's", at)),
        };
        emit(simple);
        at += 2;
    }
    emit(&raw[at..]);
    Ok(())
}

/// Returns the character of a `\uXXXX` or a pair of them, and the bytes they take; half a pair is none.
fn unicode(raw: &[u8], at: usize) -> Option<(char, usize)> {
    let unit = |at: usize| -> Option<u16> {
        let digits = raw.get(at..at + 6)?.strip_prefix(b"\\u")?;
        digits
            .iter()
            .try_fold(0, |sum, digit| Some(sum * 16 + (*digit as char).to_digit(16)? as u16))
    };
    let first = unit(at)?;
    match char::decode_utf16([first]).next()? {
        Ok(letter) => Some((letter, 6)),
        Err(_) => {
            let pair = char::decode_utf16([first, unit(at + 6)?]).next()?;
            Some((pair.ok()?, 12))
        }
    }
}

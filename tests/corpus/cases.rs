//! The cases of a corpus file: one a line, its name, a colon, and its bytes.
//!
//! Bytes are pairs of hexadecimal digits or JSON text in quotes, each of them maybe `*N` times, or once for each number of
//! `@FROM..TO` (both counted), with `%n` for the number and `%m` for the one before it. Lines that begin with `#` are remarks.

/// One input.
pub struct Case {
    pub name: String,
    pub bytes: Vec<u8>,
}

/// Reads a corpus file.
///
/// # Panics
/// If it isn't written as it should be.
pub fn cases(text: &str) -> Vec<Case> {
    let lines = text.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    let case = |line: &str| {
        let (name, bytes) = line.split_once(':').unwrap_or_else(|| panic!("no name: {line}"));
        Case {
            name: name.to_owned(),
            bytes: read(bytes),
        }
    };
    lines.map(case).collect()
}

fn read(mut rest: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(first) = rest.trim_start().chars().next() {
        rest = rest.trim_start();
        let part: Vec<u8> = if first == '"' {
            let mut texts = serde_json::Deserializer::from_str(rest).into_iter::<String>();
            let text = texts
                .next()
                .expect("a text")
                .unwrap_or_else(|error| panic!("{error}: {rest}"));
            rest = &rest[texts.byte_offset()..];
            text.into_bytes()
        } else {
            let end = rest.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(rest.len());
            let (digits, behind) = rest.split_at(end);
            assert!(end > 0 && end % 2 == 0, "no pairs of digits: {rest}");
            rest = behind;
            let pairs = (0..end).step_by(2).map(|at| &digits[at..at + 2]);
            pairs
                .map(|pair| u8::from_str_radix(pair, 16).expect("digits"))
                .collect()
        };
        let number = |text: &str| -> (usize, usize) {
            let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
            (text[..end].parse().unwrap_or_else(|_| panic!("no number: {text}")), end)
        };
        if let Some(times) = rest.strip_prefix('*') {
            let (times, end) = number(times);
            rest = &rest[1 + end..];
            bytes.extend(part.repeat(times));
        } else if let Some(range) = rest.strip_prefix('@') {
            let (from, end) = number(range);
            let to = range[end..].strip_prefix("..").expect("two dots");
            let (to, more) = number(to);
            rest = &range[end + 2 + more..];
            let part = String::from_utf8(part).expect("text");
            for at in from..=to {
                let text = part.replace("%n", &at.to_string());
                bytes.extend(text.replace("%m", &at.wrapping_sub(1).to_string()).into_bytes());
            }
        } else {
            bytes.extend(part);
        }
    }
    bytes
}

/// Variants of an input, the same each time: bits turned, bytes set, taken out, put in, parts doubled, ends cut.
pub fn variants(bytes: &[u8], others: &[Case], count: usize) -> Vec<Vec<u8>> {
    // xorshift64*: Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled", 2014.
    let mut state = 0x9E37_79B9_7F4A_7C15 ^ (bytes.len() as u64).wrapping_mul(0x2545_F491_4F6C_DD1D);
    let mut below = move |limit: usize| {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % limit.max(1)
    };
    let odd = [
        0x00, 0x01, 0x02, 0x7F, 0x80, 0xC0, 0xFE, 0xFF, b'"', b'{', b'}', b'[', b'\\', b'0', b'-',
    ];
    let mut made = Vec::with_capacity(count);
    for _ in 0..count {
        let mut bytes = bytes.to_vec();
        for _ in 0..=below(3) {
            let at = below(bytes.len());
            match below(7) {
                0 if !bytes.is_empty() => bytes[at] ^= 1 << below(8),
                1 if !bytes.is_empty() => bytes[at] = odd[below(odd.len())],
                2 if !bytes.is_empty() => drop(bytes.remove(at)),
                3 => bytes.insert(at, odd[below(odd.len())]),
                4 => bytes.truncate(at),
                5 => {
                    let end = at + below(bytes.len().saturating_sub(at).min(64));
                    let part = bytes[at.min(bytes.len())..end.min(bytes.len())].to_vec();
                    bytes.splice(at..at, part);
                }
                _ => {
                    let other = &others[below(others.len())].bytes;
                    let from = below(other.len());
                    let end = (from + below(32)).min(other.len());
                    bytes.splice(at..at, other[from.min(end)..end].iter().copied());
                }
            }
        }
        made.push(bytes);
    }
    made
}

#[test]
fn cases_are_read_as_they_are_written() {
    let read = cases("# a remark\nx: 00ff*2 \"a\\n%n\"@1..2\n\ny: \"%m\"@1..1 01\n");
    assert_eq!(read.len(), 2);
    assert_eq!(read[0].bytes, [&[0, 255, 0, 255][..], b"a\n1a\n2"].concat());
    assert_eq!((read[1].name.as_str(), &read[1].bytes[..]), ("y", &[b'0', 1][..]));
    let made = variants(&read[0].bytes, &read, 100);
    assert_eq!(made, variants(&read[0].bytes, &read, 100), "the same each time");
    assert!(made.iter().any(|bytes| *bytes != read[0].bytes));
}

//! Names of fields, found as a record spells them.

use std::collections::HashMap;

use crate::json::lexer::Lexer;

/// Spellings of names remembered per object; only a hostile producer has more, and those are worked out each time.
const SPELLINGS_MAX: usize = 4096;

/// Names of one object's fields, found exactly or whatever their case.
#[derive(Debug)]
pub(super) struct Names {
    names: Vec<Box<[u8]>>,
    /// Each as most producers write it, `"name":`; empty where that needs escapes.
    quoted: Vec<Box<[u8]>>,
    lower: HashMap<String, usize>,
    spellings: HashMap<Box<[u8]>, Option<(usize, bool)>>,
    next: usize,
}

impl Names {
    /// Indexes the names.
    pub fn new<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let names: Vec<&str> = names.collect();
        Names {
            lower: names
                .iter()
                .enumerate()
                .rev()
                .map(|(at, name)| (name.to_lowercase(), at))
                .collect(),
            spellings: names
                .iter()
                .enumerate()
                .map(|(at, name)| (name.as_bytes().into(), Some((at, true))))
                .collect(),
            names: names.iter().map(|name| name.as_bytes().into()).collect(),
            quoted: names.iter().map(|name| quoted(name)).collect(),
            next: 0,
        }
    }

    /// Says that another object begins: its first name is the first, as far as anybody knows.
    #[inline]
    pub fn restart(&mut self) {
        self.next = 0;
    }

    /// Goes behind the field name at the position, and its colon, if it is the one that follows the name found last;
    /// returns its index. Where it returns `None` the lexer hasn't moved.
    #[inline]
    pub fn follow(&mut self, lexer: &mut Lexer<'_>) -> Option<usize> {
        let at = if self.next < self.quoted.len() { self.next } else { 0 };
        let quoted = self.quoted.get(at).filter(|quoted| !quoted.is_empty())?;
        lexer.key_is(quoted).then(|| {
            self.next = at + 1;
            at
        })
    }

    /// Returns the index of a name, and whether it is spelt exactly so. Looks first behind the name found last:
    /// records of a topic mostly hold their fields in one order.
    #[inline]
    pub fn find(&mut self, name: &[u8]) -> Option<(usize, bool)> {
        let from = if self.next < self.names.len() { self.next } else { 0 };
        for (ahead, known) in self.names[from..].iter().take(3).enumerate() {
            if **known == *name {
                self.next = from + ahead + 1;
                return Some((from + ahead, true));
            }
        }
        let found = match self.spellings.get(name) {
            Some(found) => *found,
            None => {
                let lower = String::from_utf8_lossy(name).to_lowercase();
                let found = self.lower.get(&lower).map(|at| (*at, false));
                if self.spellings.len() < SPELLINGS_MAX {
                    self.spellings.insert(name.into(), found);
                }
                found
            }
        };
        if let Some((at, _)) = found {
            self.next = at + 1;
        }
        found
    }
}

fn quoted(name: &str) -> Box<[u8]> {
    let plain = name.bytes().all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\');
    if plain {
        format!("\"{name}\":").into_bytes().into()
    } else {
        Box::default()
    }
}

/// Tells one spelling of a name from another: 0 for the column's own.
#[inline]
pub(super) fn spelling(name: &[u8], exact: bool, seed: u64) -> u64 {
    if exact {
        return 0;
    }
    // FNV-1a; a collision would let the last of two spellings win.
    name.iter().fold(seed ^ 0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    }) | 1
}

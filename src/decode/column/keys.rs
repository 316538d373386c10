//! Keys of a map under construction.

use std::collections::HashSet;

use super::{Column, Store};

/// Entries up to which keys are compared one by one.
const FEW: usize = 8;

impl Column {
    /// Says whether two of the entries since the last map have the same key.
    pub fn repeats_key(&self) -> bool {
        let Store::Map { ends, key, .. } = &self.store else {
            return false;
        };
        let from = ends.last().map_or(0, |end| *end as usize);
        if key.len() < from + 2 {
            return false;
        }
        match &key.store {
            Store::Boolean(values) => repeats(&values[from..]),
            Store::Int(values) | Store::Date(values) => repeats(&values[from..]),
            Store::Long(values) | Store::Time(values) | Store::Timestamp { values, .. } => repeats(&values[from..]),
            Store::Decimal { values, .. } => repeats(&values[from..]),
            Store::Text { ends, bytes } => {
                let key = |at: usize| &bytes[ends[at] as usize..ends[at + 1] as usize];
                let count = ends.len() - 1;
                match count - from > FEW {
                    false => (from..count).any(|at| (from..at).any(|before| key(before) == key(at))),
                    true => {
                        let mut seen = HashSet::with_capacity(count - from);
                        !(from..count).all(|at| seen.insert(key(at)))
                    }
                }
            }
            // No other column is made for keys of messages.
            _ => false,
        }
    }
}

fn repeats<T: Copy + Eq + std::hash::Hash>(keys: &[T]) -> bool {
    if keys.len() <= FEW {
        return keys.iter().enumerate().any(|(at, key)| keys[..at].contains(key));
    }
    let mut seen = HashSet::with_capacity(keys.len());
    !keys.iter().all(|key| seen.insert(*key))
}

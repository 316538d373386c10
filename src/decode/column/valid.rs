//! Which values of a column are there.

use arrow::buffer::{BooleanBuffer, NullBuffer};

/// The number of a column's values, and the places of its nulls: most columns have few or none.
#[derive(Debug, Default)]
pub(super) struct Valid {
    len: usize,
    /// Ascending. A column has fewer than 2^31 values, as Arrow's offsets count them.
    nulls: Vec<u32>,
}

impl Valid {
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Counts a value.
    #[inline(always)]
    pub fn push(&mut self) {
        self.len += 1;
    }

    /// Counts a null.
    #[inline]
    pub fn push_null(&mut self) {
        self.nulls.push(self.len as u32);
        self.len += 1;
    }

    /// Forgets all from `rows` on.
    #[inline]
    pub fn truncate(&mut self, rows: usize) {
        self.len = self.len.min(rows);
        while self.nulls.last().is_some_and(|at| *at as usize >= rows) {
            self.nulls.pop();
        }
    }

    /// Returns the nulls as Arrow has them, and starts anew.
    pub fn finish(&mut self) -> Option<NullBuffer> {
        let Valid { len, nulls } = std::mem::take(self);
        if nulls.is_empty() {
            return None;
        }
        let mut bits = vec![0xFF_u8; len.div_ceil(8)];
        for at in nulls {
            bits[at as usize / 8] &= !(1 << (at % 8));
        }
        Some(NullBuffer::new(BooleanBuffer::new(bits.into(), 0, len)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_are_where_they_were_pushed_and_not_cut_off() {
        let mut valid = Valid::default();
        for at in 0..20 {
            match at % 5 {
                0 => valid.push_null(),
                _ => valid.push(),
            }
        }
        valid.truncate(30);
        valid.truncate(15);
        valid.push();
        valid.push_null();
        assert_eq!(valid.len(), 17);
        let nulls = valid.finish().expect("there are nulls");
        let found: Vec<usize> = (0..nulls.len()).filter(|at| nulls.is_null(*at)).collect();
        assert_eq!((nulls.len(), found), (17, vec![0, 5, 10, 16]));
        assert_eq!((valid.len(), valid.finish()), (0, None));
    }
}

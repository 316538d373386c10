//! Values whose kind is known before they are read: pushed by decoders that were compiled for the column.
//!
//! A method is for columns of one kind; whoever compiles a plan looks at the column's type, once for each schema.

use iceberg::spec::Type;

use super::super::problem::Failed;
use super::{Column, Store};

/// Text up to so many bytes is copied as one block.
const SHORT: usize = 16;

impl Column {
    /// The column's type.
    pub fn of(&self) -> &Type {
        &self.of
    }

    /// Appends to a boolean column.
    #[inline(always)]
    pub fn push_boolean(&mut self, value: bool) {
        let Store::Boolean(values) = &mut self.store else {
            miscompiled()
        };
        values.push(value);
        self.valid.push();
    }

    /// Appends to a column of int or date.
    #[inline(always)]
    pub fn push_int(&mut self, value: i32) {
        let (Store::Int(values) | Store::Date(values)) = &mut self.store else {
            miscompiled()
        };
        values.push(value);
        self.valid.push();
    }

    /// Appends to a column of long, time (microseconds) or timestamp (in its own unit).
    #[inline(always)]
    pub fn push_long(&mut self, value: i64) {
        let (Store::Long(values) | Store::Time(values) | Store::Timestamp { values, .. }) = &mut self.store else {
            miscompiled()
        };
        values.push(value);
        self.valid.push();
    }

    /// Appends to a float column.
    #[inline]
    pub fn push_float(&mut self, value: f32) {
        let Store::Float(values) = &mut self.store else {
            miscompiled()
        };
        values.push(value);
        self.valid.push();
    }

    /// Appends to a double column.
    #[inline(always)]
    pub fn push_double(&mut self, value: f64) {
        let Store::Double(values) = &mut self.store else {
            miscompiled()
        };
        values.push(value);
        self.valid.push();
    }

    /// Appends the first `length` bytes of `from` to a column of those that [`Column::push_bytes`] is for.
    ///
    /// What is behind them isn't looked at: short text is copied as a block of one size, and what is too much cut off again.
    /// That takes a third of the instructions of a copy of so many bytes.
    #[inline(always)]
    pub fn push_head(&mut self, from: &[u8], length: usize) {
        let Store::Text { ends, bytes } = &mut self.store else {
            return self.push_bytes(&from[..length]);
        };
        match from.first_chunk::<SHORT>() {
            Some(block) if length <= SHORT => {
                let end = bytes.len() + length;
                bytes.extend_from_slice(block);
                bytes.truncate(end);
            }
            _ => bytes.extend_from_slice(&from[..length]),
        }
        ends.push(bytes.len() as i32);
        self.valid.push();
    }

    /// Appends an unscaled value to a decimal column; says whether the column has digits enough.
    #[inline]
    pub fn push_decimal(&mut self, value: i128) -> bool {
        let Store::Decimal { values, precision, .. } = &mut self.store else {
            miscompiled()
        };
        let fits = value.unsigned_abs() < 10u128.pow(*precision);
        if fits {
            values.push(value);
            self.valid.push();
        }
        fits
    }

    /// Appends to a column of string, binary, uuid (16 bytes) or fixed (as many as it is wide); text is checked by
    /// [`Column::holds_utf8`].
    pub fn push_bytes(&mut self, value: &[u8]) {
        match &mut self.store {
            Store::Text { ends, bytes } => {
                bytes.extend_from_slice(value);
                ends.push(bytes.len() as i32);
            }
            Store::Binary { ends, bytes } => {
                bytes.extend_from_slice(value);
                ends.push(bytes.len() as i64);
            }
            Store::Uuid(bytes) if value.len() == 16 => bytes.extend_from_slice(value),
            Store::Fixed { bytes, width, .. } if value.len() == *width => bytes.extend_from_slice(value),
            _ => miscompiled(),
        }
        self.valid.push();
    }

    /// Appends to a string column what `write` adds to its bytes; nothing is left of it where that fails.
    pub fn push_text<E>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<(), E> {
        let Store::Text { ends, bytes } = &mut self.store else {
            miscompiled()
        };
        let before = bytes.len();
        if let Err(error) = write(bytes) {
            bytes.truncate(before);
            return Err(error);
        }
        ends.push(bytes.len() as i32);
        self.valid.push();
        Ok(())
    }

    /// Appends the value that a text stands for, by the rules for JSON.
    ///
    /// # Errors
    /// If it stands for none of the column's values.
    pub fn push_parsed(&mut self, text: &[u8]) -> Result<(), Failed> {
        if !self.store.text(text) {
            let quoted = format!("\"{}\"", String::from_utf8_lossy(text));
            return Err(self.misfit(quoted.as_bytes()));
        }
        self.valid.push();
        Ok(())
    }

    /// Appends the value that a text stands for, also the number or boolean that it spells, as a map's key would.
    ///
    /// # Errors
    /// If it stands for none of the column's values.
    pub fn push_spelt(&mut self, text: &[u8]) -> Result<(), Failed> {
        match self.push_key(text)? {
            true => Ok(()),
            false => {
                let quoted = format!("\"{}\"", String::from_utf8_lossy(text));
                Err(self.misfit(quoted.as_bytes()))
            }
        }
    }

    /// The columns of a struct column's fields, in their order. One value for each, then [`Column::push_struct`].
    #[inline]
    pub fn fields(&mut self) -> &mut [Column] {
        let Store::Struct(group) = &mut self.store else {
            miscompiled()
        };
        &mut group.columns
    }

    /// Completes a struct's value, after one for each of its fields.
    #[inline]
    pub fn push_struct(&mut self) {
        self.valid.push();
    }

    /// The column of a list's items. Any number of values, then [`Column::push_list`].
    #[inline]
    pub fn item(&mut self) -> &mut Column {
        let Store::List { item, .. } = &mut self.store else {
            miscompiled()
        };
        item
    }

    /// Completes a list, of the items since the last.
    #[inline]
    pub fn push_list(&mut self) {
        let Store::List { ends, item } = &mut self.store else {
            miscompiled()
        };
        ends.push(item.len() as i32);
        self.valid.push();
    }

    /// The columns of a map's keys and values. As many of one as of the other, then [`Column::push_map`].
    #[inline]
    pub fn entry(&mut self) -> (&mut Column, &mut Column) {
        let Store::Map { key, value, .. } = &mut self.store else {
            miscompiled()
        };
        (key, value)
    }

    /// Completes a map, of the entries since the last.
    #[inline]
    pub fn push_map(&mut self) {
        let Store::Map { ends, key, .. } = &mut self.store else {
            miscompiled()
        };
        ends.push(key.len() as i32);
        self.valid.push();
    }

    /// Says whether all text in the column from row `row` on, and in those inside it, is UTF-8.
    pub fn holds_utf8(&self, row: usize) -> bool {
        match &self.store {
            Store::Text { ends, bytes } => {
                let start = ends[row] as usize;
                // Most text is, and needs no look at where each value ends.
                if bytes[start..].is_ascii() {
                    return true;
                }
                match simdutf8::basic::from_utf8(&bytes[start..]) {
                    Ok(text) => ends[row..]
                        .iter()
                        .all(|end| text.is_char_boundary(*end as usize - start)),
                    Err(_) => false,
                }
            }
            Store::Struct(group) => group.columns.iter().all(|column| column.holds_utf8(row)),
            Store::List { ends, item } => item.holds_utf8(ends[row] as usize),
            Store::Map { ends, key, value } => {
                let first = ends[row] as usize;
                key.holds_utf8(first) && value.holds_utf8(first)
            }
            _ => true,
        }
    }
}

#[cold]
#[inline(never)]
fn miscompiled() -> ! {
    unreachable!("a plan pushes what its column takes")
}

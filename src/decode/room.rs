//! How much a record may make of few bytes: an item of an array may take a byte, or none, and has a value in each of its columns.

use iceberg::spec::{PrimitiveType, Type};

/// Columns' values that any record may make, however short it is: 17 bytes each at most, and mostly nulls.
const VALUES_MIN: usize = 1 << 22;

/// Columns' values that a record may make for each of its bytes besides: who writes every field takes a byte for each.
const VALUES_PER_BYTE: usize = 4;

/// Text that counts as one value, in bytes.
const TEXT_BYTES: usize = 16;

/// The fields of a schema that are looked at with `nested: flatten`, twice as many as there may be columns: names can refer to each
/// other so that a short schema has more than anybody can count.
pub(super) const FLAT_FIELDS_MAX: usize = 20_000;

/// Says that there are more.
#[cold]
pub(super) fn too_many_fields() -> String {
    format!(
        "the schema has more than {FLAT_FIELDS_MAX} fields, those of records in records counted, which is too many for `nested: flatten`"
    )
}

/// The values that a record may still make.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    left: usize,
    all: usize,
}

impl Room {
    /// The room of a record of so many bytes.
    pub fn of(bytes: usize) -> Room {
        let all = VALUES_MIN + VALUES_PER_BYTE * bytes;
        Room { left: all, all }
    }

    /// Takes so many values off.
    ///
    /// # Errors
    /// That there are too many, for a person.
    #[inline]
    pub fn spend(&mut self, values: usize) -> Result<(), String> {
        match self.left.checked_sub(values) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(self.spent()),
        }
    }

    /// Takes text off that isn't the record's own.
    ///
    /// # Errors
    /// As [`Room::spend`].
    #[inline]
    pub fn spend_text(&mut self, bytes: usize) -> Result<(), String> {
        self.spend(bytes / TEXT_BYTES)
    }

    #[cold]
    fn spent(&self) -> String {
        format!(
            "the record makes more than {} values, since its items have columns for more than they hold",
            self.all
        )
    }
}

/// Returns the values that one of a type makes, null or not: its own, and those of the columns inside it.
pub(super) fn values(of: &Type) -> usize {
    match of {
        Type::Struct(fields) => {
            let inner = fields.fields().iter().map(|field| values(&field.field_type));
            1 + inner.sum::<usize>()
        }
        Type::Primitive(PrimitiveType::Fixed(width)) => {
            usize::try_from(*width).map_or(usize::MAX >> 32, |width| 1 + width / TEXT_BYTES)
        }
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_that_has_room_is_made_and_the_next_is_not() {
        let mut room = Room::of(10);
        let all = VALUES_MIN + 10 * VALUES_PER_BYTE;
        assert_eq!(room.spend(all - 1), Ok(()));
        assert_eq!(room.spend_text(TEXT_BYTES), Ok(()));
        assert_eq!(room.spend(0), Ok(()));
        let why = room.spend(1).expect_err("nothing is left");
        assert!(why.contains(&all.to_string()), "{why}");
    }

    #[test]
    fn a_value_counts_with_those_inside_it() {
        for (of, expect) in [
            ("long", 1),
            ("list<struct<a: long, b: long>>", 1),
            ("struct<a: long, b: struct<c: string>>", 4),
            ("fixed(33)", 3),
        ] {
            let of = crate::config::types::parse(of).expect(of);
            assert_eq!(values(&of), expect, "{of}");
        }
    }
}

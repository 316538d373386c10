//! Fields that no column takes: dropped, counted or shown to whoever evolves the table.

use super::problem::{Failed, Problem};
use super::room::Room;
use crate::json::lexer::Lexer;
use crate::schema::UnknownFields;
use crate::schema::infer::{Fields, Shape, shape};

/// What decoding does with fields that have no column, what came of it in one record, and how much that may still make.
#[derive(Debug)]
pub(super) struct Unknown {
    /// The rule.
    pub rule: UnknownFields,
    /// Values dropped and counted.
    pub dropped: u64,
    /// Of the record that is being read.
    pub room: Room,
}

impl Unknown {
    /// Takes the values of an item off what the record may still make.
    #[inline]
    pub fn spend(&mut self, values: usize) -> Result<(), Failed> {
        self.room.spend(values).map_err(|why| Box::new(Problem::Refused(why)))
    }

    /// Takes the value of a field without a column.
    pub fn take(
        &mut self,
        lexer: &mut Lexer<'_>,
        name: &[u8],
        depth: usize,
        unseen: &mut Unseen,
    ) -> Result<(), Failed> {
        match self.rule {
            UnknownFields::Evolve | UnknownFields::Strict => {
                let seen = shape(lexer, depth)?;
                self.dropped += u64::from(seen.to_type().is_some());
                unseen.set(&String::from_utf8_lossy(name), seen)?;
            }
            UnknownFields::Ignore => {
                self.dropped += u64::from(lexer.peek() != b'n');
                lexer.skip()?;
            }
            UnknownFields::Declared => lexer.skip()?,
        }
        Ok(())
    }
}

/// The unseen fields of one object; allocates with the first.
#[derive(Debug, Default)]
pub(super) struct Unseen(Option<Box<Fields>>);

impl Unseen {
    /// Sets what was seen under a name, in place of an earlier value of that name.
    pub fn set(&mut self, name: &str, shape: Shape) -> Result<(), Failed> {
        if shape == Shape::Null && self.0.is_none() {
            return Ok(());
        }
        Ok(self.0.get_or_insert_default().set(name, shape)?)
    }

    /// Returns the fields as the shape of an object, unless nothing in it has a type yet.
    pub fn into_shape(self) -> Option<Box<Shape>> {
        let mut fields = self.0?.list;
        fields.retain(|(name, shape)| !name.is_empty() && shape.to_type().is_some());
        (!fields.is_empty()).then(|| Box::new(Shape::Object(fields)))
    }
}

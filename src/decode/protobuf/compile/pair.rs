//! A message of the writer, the same one in the newest schema, and the columns that the two name.

use super::Compiler;
use crate::schema::protobuf::{Field, MessageType};

/// A message, and its counterpart in the newest schema.
#[derive(Clone, Copy)]
pub(super) struct Pair<'c> {
    /// The message's place in the writer's schema.
    pub index: usize,
    /// Its fields.
    pub fields: &'c [Field],
    writer: &'c MessageType,
    newest: Option<&'c MessageType>,
}

impl<'c> Pair<'c> {
    pub fn new(index: usize, newest: Option<usize>, compiler: &Compiler<'c>) -> Self {
        let writer = &compiler.writer.messages[index];
        Pair {
            index,
            fields: &writer.fields,
            writer,
            newest: newest.map(|newest| &compiler.newest.messages[newest]),
        }
    }

    /// The newest schema's field of the same number.
    pub fn counterpart(&self, field: &Field) -> Option<&'c Field> {
        let newest = self.newest?;
        newest.field(field.number).map(|at| &newest.fields[at])
    }

    /// The message that a single field holds, and the two of it.
    pub fn inner(&self, at: usize, compiler: &Compiler<'c>) -> Option<(usize, Pair<'c>)> {
        let field = &self.fields[at];
        let index = field.shape.message()?;
        let newest = self.counterpart(field).and_then(|newer| newer.shape.message());
        Some((index, Pair::new(index, newest, compiler)))
    }
}

/// Finds the writer's field for each of some columns' names, by its place.
pub(super) fn pairs(names: &[&str], pair: Pair<'_>) -> Vec<Option<usize>> {
    // By the number that the newest schema has for the name.
    let mut found: Vec<Option<usize>> = names
        .iter()
        .map(|name| {
            let newer = named(name, &pair.newest?.fields)?;
            pair.writer.field(newer.number)
        })
        .collect();
    // By the name alone: a column whose field was dropped since, or that wasn't renamed with it. A field that has its column
    // isn't looked at again: its name may be another one's now.
    let mut taken = vec![false; pair.fields.len()];
    found.iter().flatten().for_each(|at| taken[*at] = true);
    for (name, found) in names.iter().zip(&mut found) {
        let at = named(name, pair.fields).and_then(|field| pair.writer.field(field.number));
        if found.is_none() {
            *found = at.filter(|at| !taken[*at]);
        }
    }
    found
}

/// Finds the field of a name, as it is written or else in letters of another case.
fn named<'f>(name: &str, fields: &'f [Field]) -> Option<&'f Field> {
    let lower = name.to_lowercase();
    let exact = fields.iter().find(|field| field.name == name);
    exact.or_else(|| fields.iter().find(|field| field.name.to_lowercase() == lower))
}

//! Values that hold values: objects into structs and maps, arrays into lists.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use iceberg::spec::{ListType, MapType, NestedField, StructType, Type};

use super::super::names::spelling;
use super::super::problem::{Failed, Problem, Step, both_spellings, forgivable, within};
use super::super::unknown::{Unknown, Unseen};
use super::{Column, Group};
use crate::json::lexer::{Lexer, is_number};
use crate::schema::infer::{DEPTH_MAX, Shape};

impl Group {
    pub(super) fn fill(
        &mut self,
        lexer: &mut Lexer<'_>,
        row: usize,
        depth: usize,
        unknown: &mut Unknown,
        of: &Type,
    ) -> Result<Option<Box<Shape>>, Failed> {
        let depth = deeper(depth)?;
        let mut unseen = Unseen::default();
        // Fields whose value doesn't fit: forgiven if the same name comes again, since the last one counts.
        let mut late: Vec<(usize, Failed)> = Vec::new();
        self.names.restart();
        let mut more = lexer.open(b'}');
        while more {
            let (found, key) = match self.names.follow(lexer) {
                Some(at) => (Some((at, true)), Cow::Borrowed(&b""[..])),
                None => {
                    let key = lexer.key()?.bytes();
                    (self.names.find(&key), key)
                }
            };
            if let Some((at, exact)) = found {
                let column = &mut self.columns[at];
                let spelt = spelling(&key, exact, 0);
                if column.len() > row || late.iter().any(|(other, _)| *other == at) {
                    if self.spelt[at] != spelt {
                        return Err(both_spellings(&column.name));
                    }
                    column.truncate(row);
                    late.retain(|(other, _)| *other != at);
                    unseen.set(&column.name, Shape::Null)?;
                }
                self.spelt[at] = spelt;
                let start = lexer.pos;
                match column.fill(lexer, depth, unknown) {
                    Ok(None) => {}
                    Ok(Some(shape)) => unseen.set(&column.name, *shape)?,
                    Err(failed) => {
                        let failed = forgivable(failed, lexer, start)?;
                        late.push((
                            at,
                            within(failed, Step::Field(&column.name), |inner| with_field(of, at, inner)),
                        ));
                        column.truncate(row);
                    }
                }
            } else {
                unknown.take(lexer, &key, depth, &mut unseen)?;
            }
            more = lexer.more(b'}')?;
        }
        if let Some((_, failed)) = late.into_iter().next() {
            return Err(failed);
        }
        for (at, column) in self.columns.iter_mut().enumerate() {
            if column.len() == row {
                let name = &column.name;
                let missing = if column.required { Err(column.missing()) } else { Ok(()) };
                missing.map_err(|failed| within(failed, Step::Field(name), |inner| with_field(of, at, inner)))?;
                column.push_null();
            }
        }
        Ok(unseen.into_shape())
    }
}

pub(super) fn fill_list(
    ends: &mut Vec<i32>,
    item: &mut Column,
    lexer: &mut Lexer<'_>,
    depth: usize,
    unknown: &mut Unknown,
) -> Result<Option<Box<Shape>>, Failed> {
    let depth = deeper(depth)?;
    let mut unseen = Shape::Null;
    let mut more = lexer.open(b']');
    while more {
        unknown.spend(item.values)?;
        let filled = item.fill(lexer, depth, unknown).map_err(|failed| {
            within(failed, Step::Item, |inner| {
                Type::List(ListType::new(Arc::new(NestedField::list_element(0, inner, false))))
            })
        })?;
        if let Some(shape) = filled {
            unseen.merge(*shape);
        }
        more = lexer.more(b']')?;
    }
    ends.push(item.len() as i32);
    Ok((unseen != Shape::Null).then(|| Box::new(Shape::List(Box::new(unseen)))))
}

pub(super) fn fill_map(
    ends: &mut Vec<i32>,
    keys: &mut Column,
    values: &mut Column,
    lexer: &mut Lexer<'_>,
    depth: usize,
    unknown: &mut Unknown,
) -> Result<Option<Box<Shape>>, Failed> {
    let depth = deeper(depth)?;
    // Of equal keys the last counts: all keys are found first, then the values that count are read.
    let mut entries: Vec<(Cow<'_, [u8]>, usize)> = Vec::new();
    let mut last: HashMap<Cow<'_, [u8]>, usize> = HashMap::new();
    let mut more = lexer.open(b'}');
    while more {
        let key = lexer.key()?.bytes();
        match last.get(&key) {
            Some(at) => entries[*at].1 = lexer.pos,
            None => {
                last.insert(key.clone(), entries.len());
                entries.push((key, lexer.pos));
            }
        }
        lexer.skip()?;
        more = lexer.more(b'}')?;
    }
    let end = lexer.pos;
    let mut unseen = Shape::Null;
    for (key, value) in entries {
        if !keys.push_key(&key)? {
            let quoted = format!("\"{}\"", String::from_utf8_lossy(&key));
            let of = values.of.clone();
            return Err(within(keys.misfit(quoted.as_bytes()), Step::MapKey, |inner| {
                Type::Map(MapType::optional(0, inner, 0, of))
            }));
        }
        lexer.pos = value;
        unknown.spend(values.values)?;
        let of = keys.of.clone();
        let filled = values.fill(lexer, depth, unknown).map_err(|failed| {
            within(failed, Step::MapValue, |inner| {
                Type::Map(MapType::optional(0, of, 0, inner))
            })
        })?;
        if let Some(shape) = filled {
            unseen.merge(*shape);
        }
    }
    lexer.pos = end;
    ends.push(keys.len() as i32);
    Ok((unseen != Shape::Null).then(|| Box::new(Shape::Object(vec![("value".to_owned(), unseen)]))))
}

impl Column {
    /// Appends a map's key: text as it is, numbers and booleans as JSON writes them.
    pub(super) fn push_key(&mut self, key: &[u8]) -> Result<bool, Failed> {
        let mut fits = self.store.text(key);
        if !fits && (is_number(key) || matches!(key, b"true" | b"false")) {
            fits = self.store.scalar(&mut Lexer::new(key), key[0])?;
        }
        if fits {
            self.valid.push();
        }
        Ok(fits)
    }
}

fn with_field(of: &Type, at: usize, inner: Type) -> Type {
    let Type::Struct(fields) = of else { return inner };
    let mut fields = fields.fields().to_vec();
    let mut field = (*fields[at]).clone();
    field.field_type = Box::new(inner);
    fields[at] = Arc::new(field);
    Type::Struct(StructType::new(fields))
}

fn deeper(depth: usize) -> Result<usize, Failed> {
    if depth < DEPTH_MAX {
        return Ok(depth + 1);
    }
    Err(Box::new(Problem::Refused(format!(
        "the value is nested more than {DEPTH_MAX} deep"
    ))))
}

//! What a plan is compiled from: the columns of a table that take fields of a record, and what becomes of the other fields.

use iceberg::spec::NestedField;

use crate::schema::{ColumnSource, RowPlan, UnknownFields};

/// A column of the table, and the field it is filled from.
#[derive(Clone, Copy)]
pub(super) struct Target<'p> {
    pub column: usize,
    /// What is left of the path, from the record that is looked at.
    pub path: &'p [String],
    pub field: &'p NestedField,
}

/// What becomes of fields that no column takes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Dropped {
    Counted,
    Ignored,
    /// The table was to be given columns for them.
    Refused,
}

impl Dropped {
    /// What a plan says of them.
    pub fn of(plan: &RowPlan) -> Dropped {
        match plan.unknown {
            UnknownFields::Ignore => Dropped::Counted,
            UnknownFields::Declared => Dropped::Ignored,
            UnknownFields::Evolve | UnknownFields::Strict => Dropped::Refused,
        }
    }
}

/// Returns the columns that fields go to, and the names of the table's others in lower case: a field that is called so has
/// none.
///
/// - `more`: a path, and a column behind those of the plan.
pub(super) fn targets<'p>(
    plan: &'p RowPlan,
    more: Option<(&'p [String], &'p NestedField)>,
) -> (Vec<Target<'p>>, Vec<String>) {
    let (mut targets, mut reserved) = (Vec::new(), Vec::new());
    for (field, source) in plan.schema.as_struct().fields().iter().zip(&plan.sources) {
        match source {
            ColumnSource::Payload(path) => targets.push(Target {
                column: targets.len(),
                path,
                field,
            }),
            _ => reserved.push(field.name.to_lowercase()),
        }
    }
    if let Some((path, field)) = more {
        let column = targets.len();
        targets.push(Target { column, path, field });
    }
    (targets, reserved)
}

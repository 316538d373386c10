//! Why a value can't be taken, and which column would take it, told from the value outwards to its record.

use iceberg::spec::{PrimitiveType, Type};

use crate::json::lexer::{Fault, Lexer};
use crate::schema::infer::{Shape, Shapeless};

/// Why a value can't be taken.
#[derive(Debug)]
pub(super) enum Problem {
    /// The bytes aren't JSON: nothing behind the fault can be read.
    Fault(Fault),
    /// JSON that no table takes.
    Refused(String),
    /// JSON that a column doesn't take.
    Misfit {
        /// Names from the value's own up to the column's.
        path: Vec<String>,
        /// What the column is and the value isn't.
        what: String,
        /// The type of the outermost name that would take the value.
        fits: Type,
        /// The wider column that Iceberg allows and that would take it, seen from the outermost name.
        wider: Option<Shape>,
    },
}

/// A boxed [`Problem`]: results stay small where everything is well.
pub(super) type Failed = Box<Problem>;

impl From<Fault> for Failed {
    fn from(fault: Fault) -> Self {
        Box::new(Problem::Fault(fault))
    }
}

impl From<Shapeless> for Failed {
    fn from(shapeless: Shapeless) -> Self {
        Box::new(match shapeless {
            Shapeless::Fault(fault) => Problem::Fault(fault),
            Shapeless::Refused(why) => Problem::Refused(why),
        })
    }
}

/// Says that one record holds a name in two spellings.
pub(super) fn both_spellings(name: &str) -> Failed {
    Box::new(Problem::Refused(format!("the record holds two spellings of `{name}`")))
}

/// One step from a value to the one that holds it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step<'a> {
    /// Out of the field of this name.
    Field(&'a str),
    /// Out of a list.
    Item,
    /// Out of a map, from one of its keys.
    MapKey,
    /// Out of a map, from one of its values.
    MapValue,
}

/// Adds one step to what is known of a value that doesn't fit; `outer` makes the type around one that would.
#[cold]
pub(super) fn within(mut failed: Failed, step: Step<'_>, outer: impl FnOnce(Type) -> Type) -> Failed {
    if let Problem::Misfit { path, fits, wider, .. } = &mut *failed {
        let inner = std::mem::replace(fits, Type::Primitive(PrimitiveType::String));
        *fits = outer(inner);
        let object = |name: &str, shape| Shape::Object(vec![(name.to_owned(), shape)]);
        let (name, shape) = match step {
            Step::Field(name) => (name, wider.take().map(|inner| object(name, inner))),
            Step::Item => ("element", wider.take().map(|inner| Shape::List(Box::new(inner)))),
            Step::MapValue => ("value", wider.take().map(|inner| object("value", inner))),
            // A map's keys are what its values are found by: they stay.
            Step::MapKey => ("key", None),
        };
        path.push(name.to_owned());
        *wider = shape;
    }
    failed
}

/// Goes behind the value at `start` if only its kind is wrong; anything else stays an error.
pub(super) fn forgivable(failed: Failed, lexer: &mut Lexer<'_>, start: usize) -> Result<Failed, Failed> {
    if matches!(*failed, Problem::Fault(_)) {
        return Err(failed);
    }
    lexer.pos = start;
    lexer.skip()?;
    Ok(failed)
}

//! From a writer's schema and the table's columns to a plan; what can't go together is told in full.

mod fit;
mod pair;

use std::sync::Arc;

use iceberg::spec::{NestedField, PrimitiveType, Type};

use self::pair::{Pair, pairs};
use super::super::room;
use super::super::target::{Dropped, Target, targets};
use super::fill::{Fill, wire};
use super::group::{Act, End, Group, Member, Route, Step};
use super::map::MapFill;
use super::{Program, Root};
use crate::config::types;
use crate::schema::protobuf::{self, Field, Kind, ProtoSchema, Shape, VALUE};
use crate::schema::{RowPlan, UnknownFields};

/// Compiles a plan for records of `writer`.
///
/// A column is filled by the field whose number is that of the column's field in `newest`; where `newest` has no field of the
/// column's name, by the writer's field of its name. Names match whatever the case of their letters, the same case first.
///
/// Where columns aren't declared, a value goes to a column of its own type, or of one that holds all its values. To a declared
/// column goes whatever JSON of that value would.
///
/// - `newest`: the newest schema of the same message that is known.
/// - `more`: a path, and a column behind those of the plan that it goes to as text.
///
/// # Errors
/// Every difference between schema and table, for a person.
pub(in super::super) fn compile(
    writer: &Arc<ProtoSchema>,
    newest: Option<&Arc<ProtoSchema>>,
    plan: &RowPlan,
    more: Option<(&[String], &NestedField)>,
) -> Result<Program, Vec<String>> {
    let mut compiler = Compiler {
        writer,
        newest: newest.unwrap_or(writer),
        declared: plan.unknown == UnknownFields::Declared,
        dropped: Dropped::of(plan),
        inside: Vec::new(),
        differences: Vec::new(),
        flat_fields: 0,
    };
    let (targets, reserved) = targets(plan, more);
    let root = compiler.root(&targets, &reserved, plan.flatten);
    match compiler.differences.is_empty() {
        true => Ok(Program {
            schema: writer.clone(),
            root,
        }),
        false => Err(compiler.differences),
    }
}

struct Compiler<'c> {
    writer: &'c ProtoSchema,
    newest: &'c ProtoSchema,
    declared: bool,
    dropped: Dropped,
    /// The writer's messages that the current place is inside.
    inside: Vec<usize>,
    differences: Vec<String>,
    /// Those that were looked at.
    flat_fields: usize,
}

impl<'c> Compiler<'c> {
    fn root(&mut self, targets: &[Target<'_>], reserved: &[String], flatten: bool) -> Root {
        let root = self.writer.root;
        if self.writer.messages[root].known.is_some() {
            return self.value(targets);
        }
        let pair = Pair::new(root, Some(self.newest.root), self);
        let mut builder = Builder::new(pair.fields.len());
        self.inside.push(root);
        match flatten {
            true => self.flat("", pair, targets, reserved, &mut builder),
            false => self.routed("", pair, targets, reserved, &mut builder),
        }
        self.inside.pop();
        // Behind what the fields themselves do: columns that none of them came to.
        let ends = targets.iter().map(|target| (target.column, End::Missing));
        builder.ends.extend(ends);
        if flatten {
            self.filled_once(&builder, targets);
        }
        let weight = targets
            .iter()
            .map(|target| room::values(&target.field.field_type))
            .sum();
        builder
            .finish(weight, self.dropped)
            .map_or_else(|| Root::Value(None), Root::Message)
    }

    /// Values that stand for something else than their fields go to the column `value`.
    fn value(&mut self, targets: &[Target<'_>]) -> Root {
        let Some(target) = targets.iter().find(|target| target.path == [VALUE]) else {
            if self.dropped == Dropped::Refused {
                let name = self.writer.name();
                self.differences
                    .push(format!("the table has no column `{VALUE}` for values of {name}"));
            }
            return Root::Value(None);
        };
        let of = Kind::Message(self.writer.root);
        match self.fill(VALUE, of, Some(of), target.field) {
            Fill::Message(fill) => Root::Value(Some((target.column, *fill))),
            _ => Root::Value(None),
        }
    }

    /// The fields of the root, or inside a field where a column's `from` leads there.
    fn routed(
        &mut self,
        path: &str,
        pair: Pair<'c>,
        targets: &[Target<'_>],
        reserved: &[String],
        builder: &mut Builder,
    ) {
        let names: Vec<&str> = targets
            .iter()
            .map(|target| target.path.first().map_or("", String::as_str))
            .collect();
        let mut of_field: Vec<Vec<Target<'_>>> = pair.fields.iter().map(|_| Vec::new()).collect();
        for (target, found) in targets.iter().zip(pairs(&names, pair)) {
            if let (Some(at), Some((_, rest))) = (found, target.path.split_first()) {
                of_field[at].push(Target { path: rest, ..*target });
            }
        }
        for ((at, field), targets) in pair.fields.iter().enumerate().zip(of_field) {
            let name = format!("{path}{}", field.name);
            let (here, below): (Vec<_>, Vec<_>) = targets.into_iter().partition(|target| target.path.is_empty());
            let act = match (here.as_slice(), below.is_empty()) {
                ([], true) => self.unplaced(&name, reserved, path.is_empty()),
                ([target], true) => self.act(&name, pair, at, target.column, target.field, builder),
                _ => {
                    let into = here.iter();
                    let into = into.map(|target| self.act(&name, pair, at, target.column, target.field, builder));
                    let into = into.collect();
                    let inner = pair
                        .inner(at, self)
                        .filter(|_| !below.is_empty())
                        .and_then(|(index, inner)| {
                            let mut beside = Builder::new(inner.fields.len());
                            self.inside.push(index);
                            self.routed(&format!("{name}."), inner, &below, &[], &mut beside);
                            self.inside.pop();
                            beside.finish(0, self.dropped)
                        });
                    builder.route(into, inner)
                }
            };
            builder.step(field, act);
        }
    }

    /// `flatten`: the fields of a message, those of messages inside it named `a_b`.
    fn flat(
        &mut self,
        prefix: &str,
        pair: Pair<'c>,
        targets: &[Target<'_>],
        reserved: &[String],
        builder: &mut Builder,
    ) {
        for (at, field) in pair.fields.iter().enumerate() {
            self.flat_fields += 1;
            if self.flat_fields > room::FLAT_FIELDS_MAX {
                if self.flat_fields == room::FLAT_FIELDS_MAX + 1 {
                    self.differences.push(room::too_many_fields());
                }
                return;
            }
            let name = format!("{prefix}{}", field.name);
            let now = pair.counterpart(field).map(|newer| format!("{prefix}{}", newer.name));
            // As the newest schema calls it, since that is what the table follows.
            let found = now.as_deref().and_then(|now| named(now, targets));
            let found = found.or_else(|| named(&name, targets));
            let inner = pair.inner(at, self).filter(|(index, _)| {
                let message = &self.writer.messages[*index];
                message.known.is_none() && !protobuf::as_text(message, *index, &self.inside)
            });
            let act = match (found, inner) {
                (Some(target), _) => self.act(&name, pair, at, target.column, target.field, builder),
                (None, Some((index, inner))) => {
                    let mut beside = Builder::new(inner.fields.len());
                    self.inside.push(index);
                    let prefix = format!("{}_", now.unwrap_or(name));
                    self.flat(&prefix, inner, targets, reserved, &mut beside);
                    self.inside.pop();
                    let inner = beside.finish(0, self.dropped);
                    builder.route(Vec::new(), inner)
                }
                (None, None) => self.unplaced(&name, reserved, true),
            };
            builder.step(field, act);
        }
    }

    /// Tells of columns that several fields would be with `flatten`.
    fn filled_once(&mut self, builder: &Builder, targets: &[Target<'_>]) {
        let mut taken = vec![0; targets.len()];
        builder
            .steps
            .iter()
            .for_each(|step| step.act.columns(&mut |column| taken[column] += 1));
        for target in targets.iter().filter(|target| taken[target.column] > 1) {
            self.differences.push(format!(
                "{} fields would be column `{}` with `nested: flatten`",
                taken[target.column], target.field.name
            ));
        }
    }

    /// The fields of a message that is a struct column.
    fn group(&mut self, path: &str, index: usize, newest: Option<usize>, columns: &[Arc<NestedField>]) -> Group {
        let pair = Pair::new(index, newest, self);
        let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        let mut column_of: Vec<Option<usize>> = vec![None; pair.fields.len()];
        for (column, found) in pairs(&names, pair).into_iter().enumerate() {
            if let Some(at) = found {
                column_of[at].get_or_insert(column);
            }
        }
        let mut builder = Builder::new(pair.fields.len());
        self.inside.push(index);
        for (at, field) in pair.fields.iter().enumerate() {
            let name = format!("{path}.{}", field.name);
            let act = match column_of[at] {
                Some(column) => self.act(&name, pair, at, column, &columns[column], &mut builder),
                None => self.unplaced(&name, &[], false),
            };
            builder.step(field, act);
        }
        self.inside.pop();
        builder
            .ends
            .extend((0..columns.len()).map(|column| (column, End::Missing)));
        let weight = columns.iter().map(|column| room::values(&column.field_type)).sum();
        builder
            .finish(weight, self.dropped)
            .expect("a message of a struct column has ends for its columns")
    }

    fn unplaced(&mut self, name: &str, reserved: &[String], top: bool) -> Act {
        let ours = top && reserved.contains(&name.to_lowercase());
        if self.dropped == Dropped::Refused && !ours {
            self.differences
                .push(format!("field `{name}` has no column in the table"));
        }
        Act::Skip {
            counted: self.dropped != Dropped::Ignored,
        }
    }

    /// What is done with a field that a column is filled from; what is done at the end goes to the builder.
    fn act(
        &mut self,
        path: &str,
        pair: Pair<'c>,
        at: usize,
        column: usize,
        to: &NestedField,
        builder: &mut Builder,
    ) -> Act {
        let field = &pair.fields[at];
        let newer = pair.counterpart(field).map(|newer| newer.shape);
        let step = builder.steps.len();
        match (field.shape, &*to.field_type) {
            (Shape::Single { of, presence }, _) => {
                let newer = newer.and_then(Shape::kind);
                let fill = self.fill(path, of, newer, to);
                match of {
                    Kind::Message(_) => Act::Message(column, fill),
                    _ => {
                        if !presence {
                            builder.ends.push((column, End::Zero(step)));
                        }
                        Act::Value(column, fill)
                    }
                }
            }
            (Shape::Repeated(of), Type::List(list)) => {
                builder.ends.push((column, End::List));
                let newer = newer.and_then(Shape::kind);
                Act::List(
                    column,
                    self.fill(&format!("{path}.element"), of, newer, &list.element_field),
                )
            }
            (Shape::Map { key, value }, Type::Map(map)) => {
                builder.ends.push((column, End::Map(step)));
                let newer = match newer {
                    Some(Shape::Map { value, .. }) => Some(value),
                    _ => None,
                };
                Act::Map(
                    column,
                    Box::new(MapFill {
                        key: self.fill(&format!("{path}.key"), key, None, &map.key_field),
                        key_kind: key,
                        key_wire: wire(key),
                        value: self.fill(&format!("{path}.value"), value, newer, &map.value_field),
                        value_wire: wire(value),
                    }),
                )
            }
            (shape, Type::Primitive(PrimitiveType::String)) if self.declared => {
                let empty = if matches!(shape, Shape::Map { .. }) { "{}" } else { "[]" };
                builder.ends.push((column, End::Text(empty)));
                Act::Gathered {
                    column,
                    message: pair.index,
                    field: at,
                }
            }
            (shape, held) => {
                self.differs(path, held, &self.writer.shape_name(shape));
                Act::Value(column, Fill::Never)
            }
        }
    }

    /// How a value of a kind is read into a column; a difference where it can't.
    fn fill(&mut self, path: &str, of: Kind, newest: Option<Kind>, column: &NestedField) -> Fill {
        if let Some(fill) = self.fitting(path, of, newest, &column.field_type) {
            return fill;
        }
        let presence = false;
        let wanted = self.writer.shape_name(Shape::Single { of, presence });
        self.differs(path, &column.field_type, &wanted);
        Fill::Never
    }

    fn differs(&mut self, path: &str, held: &Type, wanted: &str) {
        let held = types::text(held);
        let why = format!("column `{path}` is {held} in the table, but {wanted} in the schema");
        if !self.differences.contains(&why) {
            self.differences.push(why);
        }
    }
}

/// A group in the making.
struct Builder {
    steps: Vec<Step>,
    ends: Vec<(usize, End)>,
    routes: u32,
}

impl Builder {
    fn new(fields: usize) -> Self {
        Builder {
            steps: Vec::with_capacity(fields),
            ends: Vec::new(),
            routes: 0,
        }
    }

    fn route(&mut self, into: Vec<Act>, inner: Option<Group>) -> Act {
        self.routes += 1;
        Act::Route(Box::new(Route {
            into,
            inner,
            slot: self.routes - 1,
        }))
    }

    fn step(&mut self, field: &Field, act: Act) {
        let member = field.oneof.map(|slot| {
            let mut columns = Vec::new();
            act.columns(&mut |column| columns.push(column));
            Box::new(Member {
                slot,
                columns: columns.into(),
            })
        });
        self.steps.push(Step {
            name: field.name.as_str().into(),
            number: field.number,
            wire: match field.shape {
                Shape::Single { of, .. } | Shape::Repeated(of) => wire(of),
                Shape::Map { .. } => super::reader::BYTES,
            },
            shape: field.shape,
            act,
            oneof: member,
        });
    }

    /// Makes the group; `None` where nothing would come of it.
    fn finish(self, weight: usize, dropped: Dropped) -> Option<Group> {
        let Builder { steps, mut ends, .. } = self;
        // What is null where nothing came is so behind what the fields do, and needn't be where those always make a value.
        let made: Vec<usize> = ends
            .iter()
            .filter(|(_, end)| matches!(end, End::List | End::Map(_) | End::Text(_)))
            .map(|(column, _)| *column)
            .collect();
        ends.retain(|(column, end)| !matches!(end, End::Missing) || !made.contains(column));
        let counted = dropped != Dropped::Ignored;
        (!steps.is_empty() || !ends.is_empty()).then(|| Group::new(steps, ends, weight, counted))
    }
}

fn named<'t, 'p>(name: &str, targets: &'t [Target<'p>]) -> Option<&'t Target<'p>> {
    let lower = name.to_lowercase();
    let exact = targets
        .iter()
        .find(|target| target.path.first().is_some_and(|first| first == name));
    exact.or_else(|| {
        targets
            .iter()
            .find(|target| target.path.first().is_some_and(|first| first.to_lowercase() == lower))
    })
}

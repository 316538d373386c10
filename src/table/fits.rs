//! Do files that were written under an older schema of the table say the same under the one it has now?
//!
//! Iceberg reads files by the ids of their columns. So columns that were added or widened meanwhile are no matter: the
//! files lack them, or hold the narrower type. A column that went, or means something else now, is one: its values would be
//! seen by nobody, or under another name than the records give them.

use iceberg::spec::{NestedField, NestedFieldRef, Schema, Type};

use crate::config::types;

/// Says what hinders the files of the schema `written` from being added to a table that is `now`; `None` if nothing does.
pub fn hindrance(written: &Schema, now: &Schema) -> Option<String> {
    if written.schema_id() == now.schema_id() && written == now {
        return None;
    }
    between(written.as_struct().fields(), now.as_struct().fields())
}

fn between(written: &[NestedFieldRef], now: &[NestedFieldRef]) -> Option<String> {
    let gone = written
        .iter()
        .find_map(|field| match now.iter().find(|other| other.id == field.id) {
            None => Some(format!("column `{}` was dropped", field.name)),
            Some(other) if other.name != field.name => {
                Some(format!("column `{}` was renamed to `{}`", field.name, other.name))
            }
            Some(other) => of_field(field, other),
        });
    gone.or_else(|| {
        let added = |other: &&NestedFieldRef| other.required && written.iter().all(|field| field.id != other.id);
        let required = now.iter().find(added)?;
        Some(format!("column `{}` was added and is required", required.name))
    })
}

fn of_field(written: &NestedField, now: &NestedField) -> Option<String> {
    if now.required && !written.required {
        return Some(format!("column `{}` is required now", written.name));
    }
    match (&*written.field_type, &*now.field_type) {
        (Type::Primitive(of), Type::Primitive(other)) if of == other || types::widens(of, other) => None,
        (Type::Struct(of), Type::Struct(other)) => between(of.fields(), other.fields()),
        (Type::List(of), Type::List(other)) => inner(&[(&of.element_field, &other.element_field)], written, now),
        (Type::Map(of), Type::Map(other)) => inner(
            &[(&of.key_field, &other.key_field), (&of.value_field, &other.value_field)],
            written,
            now,
        ),
        _ => Some(of_another_type(written, now)),
    }
}

/// Compares what is inside two lists or maps.
fn inner(pairs: &[(&NestedFieldRef, &NestedFieldRef)], written: &NestedField, now: &NestedField) -> Option<String> {
    pairs.iter().find_map(|(of, other)| match of.id == other.id {
        true => of_field(of, other),
        false => Some(of_another_type(written, now)),
    })
}

fn of_another_type(written: &NestedField, now: &NestedField) -> String {
    format!(
        "column `{}` was {} and is {}",
        written.name,
        types::text(&written.field_type),
        types::text(&now.field_type)
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use iceberg::spec::{ListType, PrimitiveType, StructType};

    use super::*;

    fn long(id: i32, name: &str) -> NestedField {
        NestedField::optional(id, name, Type::Primitive(PrimitiveType::Long))
    }

    fn of(id: i32, name: &str, primitive: PrimitiveType) -> NestedField {
        NestedField::optional(id, name, Type::Primitive(primitive))
    }

    fn nested(id: i32, name: &str, fields: Vec<NestedField>) -> NestedField {
        let fields = fields.into_iter().map(Arc::new).collect();
        NestedField::optional(id, name, Type::Struct(StructType::new(fields)))
    }

    fn list(id: i32, name: &str, element: PrimitiveType, element_id: i32) -> NestedField {
        let element = NestedField::list_element(element_id, Type::Primitive(element), false);
        NestedField::optional(id, name, Type::List(ListType::new(Arc::new(element))))
    }

    fn check(written: Vec<NestedField>, now: Vec<NestedField>, expect: Option<&str>) {
        let schema = |id: i32, fields: Vec<NestedField>| {
            let fields: Vec<_> = fields.into_iter().map(Arc::new).collect();
            Schema::builder()
                .with_schema_id(id)
                .with_fields(fields)
                .build()
                .expect("a schema")
        };
        assert_eq!(hindrance(&schema(0, written), &schema(1, now)).as_deref(), expect);
    }

    #[test]
    fn added_widened_and_moved_columns_hinder_nothing() {
        use PrimitiveType::{Double, Float, Int, Long};
        check(vec![long(1, "a")], vec![long(1, "a")], None);
        check(vec![long(1, "a")], vec![long(2, "b"), long(1, "a")], None);
        check(
            vec![of(1, "a", Int), of(2, "b", Float)],
            vec![of(1, "a", Long), of(2, "b", Double)],
            None,
        );
        let s = |fields| vec![nested(1, "s", fields)];
        check(s(vec![of(2, "a", Int)]), s(vec![of(2, "a", Long), long(3, "b")]), None);
        check(vec![list(1, "l", Int, 2)], vec![list(1, "l", Long, 2)], None);
    }

    #[test]
    fn columns_that_went_or_mean_something_else_do() {
        use PrimitiveType::{Int, Long, String};
        let a = || vec![long(1, "a")];
        check(a(), vec![long(2, "b")], Some("column `a` was dropped"));
        check(a(), vec![long(2, "a")], Some("column `a` was dropped"));
        check(a(), vec![long(1, "b")], Some("column `a` was renamed to `b`"));
        check(a(), vec![of(1, "a", Int)], Some("column `a` was long and is int"));
        check(a(), vec![of(1, "a", String)], Some("column `a` was long and is string"));
        let required = NestedField::required(2, "b", Type::Primitive(Long));
        check(
            a(),
            vec![long(1, "a"), required],
            Some("column `b` was added and is required"),
        );
        let required = NestedField::required(1, "a", Type::Primitive(Long));
        check(a(), vec![required], Some("column `a` is required now"));
        let s = |fields| vec![nested(1, "s", fields)];
        check(
            s(vec![long(2, "a")]),
            s(vec![long(3, "a")]),
            Some("column `a` was dropped"),
        );
        check(
            vec![list(1, "l", Int, 2)],
            vec![list(1, "l", Int, 3)],
            Some("column `l` was list<int> and is list<int>"),
        );
    }
}

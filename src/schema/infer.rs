//! Inference: what a field's values have in common.

/// The kinds of values seen at one place of the payload; merges like a lattice.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Shape {
    /// Nothing but nulls so far.
    #[default]
    Null,
    /// `true` or `false`.
    Bool,
    /// Integers.
    Long,
    /// Numbers, at least one with a fraction.
    Double,
    /// Text.
    String,
    /// Values of several kinds: kept as the text of their JSON.
    Json,
    /// Objects, with the fields seen in any of them, in order of first sight.
    Object(Vec<(String, Shape)>),
    /// Arrays, with what their items have in common.
    List(Box<Shape>),
}

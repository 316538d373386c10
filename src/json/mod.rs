//! JSON as text: its tokens, and the values that are written as text inside of them.

pub(crate) mod lexer;
pub(crate) mod scalar;

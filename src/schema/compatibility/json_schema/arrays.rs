//! What schemas say of the items of an array.

use super::Check;
use super::facts::Conj;
use crate::schema::compatibility::Misfit;
use crate::schema::json_schema::documents::Place;
use crate::schema::json_schema::node::Node;

impl<'a> Check<'a> {
    /// Checks that the reader takes all items that an array of the writer's may have, place by place.
    pub(super) fn array(
        &mut self,
        writer: &Conj<'a>,
        reader: Place<'a>,
        path: &str,
        out: &mut Vec<Misfit>,
    ) -> Result<(), String> {
        let first = |node: &'a Node| items(node).0.len();
        let longest = writer
            .places
            .iter()
            .map(|place| first(place.node))
            .chain([first(reader.node)]);
        let longest = longest.max().unwrap_or(0);
        let most = writer.places.iter().filter_map(|place| place.node.number("maxItems"));
        let most = most.reduce(f64::min);
        for at in 0..=longest {
            if most.is_some_and(|most| most <= at as f64) {
                return Ok(());
            }
            let Some(inner) = item(reader.node, at) else { continue };
            let written: Vec<_> = writer
                .places
                .iter()
                .filter_map(|place| Some(self.writer.inside(*place, item(place.node, at)?)))
                .collect();
            let written = self.all_of(&written)?;
            let path = match at {
                at if at == longest => format!("{path}[*]"),
                at => format!("{path}[{at}]"),
            };
            // Behind a place that nothing can be at, there is nothing.
            if written.never() {
                return Ok(());
            }
            self.fits(&written, self.reader.inside(reader, inner), &path, out)?;
        }
        Ok(())
    }
}

/// Returns what an array's schema says of its first items, one by one, and of those behind them.
fn items(node: &Node) -> (&[Node], Option<&Node>) {
    match (node.get("prefixItems"), node.get("items")) {
        (Some(Node::List(first)), rest) => (first, rest),
        (_, Some(Node::List(first))) => (first, node.get("additionalItems")),
        (_, rest) => (&[], rest),
    }
}

fn item(node: &Node, at: usize) -> Option<&Node> {
    let (first, rest) = items(node);
    first.get(at).or(rest)
}

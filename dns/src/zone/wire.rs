//! Names as wire bytes, taken apart by labels. It must never allocate.

use selvedge_registry::name::parent;

/// Whether the name is `ancestor` or below it. Comparing bytes is not enough: they could be the end of one long label.
pub(super) fn is_below(wire: &[u8], ancestor: &[u8]) -> bool {
    wire.ends_with(ancestor)
        && std::iter::successors(Some(wire), |wire| parent(wire)).any(|wire| wire == ancestor)
}

/// The labels of wire bytes, without the root's empty one.
pub(crate) fn wire_labels(wire: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::successors(Some(wire), |wire| parent(wire))
        .filter_map(|wire| wire.get(1..1 + usize::from(*wire.first()?)))
        .filter(|label| !label.is_empty())
}

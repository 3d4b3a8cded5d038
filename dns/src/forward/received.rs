//! An upstream's answer as it was received. It must never be changed, as all askers of a question share it.

use std::time::Duration;

use crate::forward::message::Shape;

/// An upstream's answer, shared by all askers of the same question.
#[derive(Debug)]
pub(crate) struct Received {
    pub(super) bytes: Vec<u8>,
    pub(super) shape: Shape,
}

impl Received {
    /// The same, to be kept no longer than this.
    pub(super) fn kept_at_most(self, most: Duration) -> Self {
        Self { shape: self.shape.kept_at_most(most), ..self }
    }
}

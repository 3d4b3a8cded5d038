//! selvedge: to be written.
fn main() {}

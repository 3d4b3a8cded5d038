//! Wires in the real kernel. Each test has a host of its own: a network namespace that ends with the test.
//!
//! Needs root. A test that cannot run fails.

mod hosts;
mod lab;
mod removal;
mod repair;
mod sign;
mod speed;
mod traffic;

//! The sign and the program that waits for it.

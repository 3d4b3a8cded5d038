//! Kernel settings under /proc/sys/net. They are those of the calling thread's network namespace.

use std::io;

/// Sets a value; whether it was another one before.
///
/// # Errors
/// There is no such setting, or it may not be written.
pub(crate) fn set(name: &str, value: &str) -> io::Result<bool> {
    let path = format!("/proc/sys/{name}");
    if std::fs::read_to_string(&path)?.trim() == value {
        return Ok(false);
    }
    std::fs::write(path, value)?;
    Ok(true)
}

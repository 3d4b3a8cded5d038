//! Kernel settings under /proc/sys/net: read first, written only when they differ.
//!
//! The calling thread decides which namespace's settings these are, so this must never be called from a thread that may
//! be in the wrong one.

use std::fs;
use std::io;

use crate::error::Failure;

/// A setting and its wanted value.
#[derive(Debug, Clone)]
pub(crate) struct Setting {
    /// Its purpose; completes "cannot ...".
    pub(crate) step: &'static str,
    /// Below /proc/sys/net.
    pub(crate) path: String,
    /// Its text without the newline.
    pub(crate) value: &'static str,
    /// Whether the kernel may lack it (IPv6 compiled out or disabled).
    pub(crate) optional: bool,
}

/// Corrects the settings; returns how many were written.
pub(crate) fn ensure(settings: &[Setting]) -> Result<u64, Failure> {
    let mut written = 0;
    for setting in settings {
        written += u64::from(ensure_one(setting).map_err(|error| Failure::new(setting.step, &error))?);
    }
    Ok(written)
}

/// The settings with other than their wanted value; one that this kernel does not have counts as right.
pub(crate) fn differing(settings: Vec<Setting>) -> Vec<Setting> {
    let differs = |setting: &Setting| match read(&setting.path) {
        Some(value) => value != setting.value,
        None => !setting.optional,
    };
    settings.into_iter().filter(differs).collect()
}

/// The value of a setting below /proc/sys/net, if there is one.
pub(crate) fn read(path: &str) -> Option<String> {
    fs::read_to_string(full(path)).ok().map(|text| text.trim_end().to_owned())
}

/// The names in a directory of settings.
pub(crate) fn below(path: &str) -> Vec<String> {
    let entries = fs::read_dir(full(path)).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn ensure_one(setting: &Setting) -> io::Result<bool> {
    let path = full(&setting.path);
    match fs::read_to_string(&path) {
        Ok(text) if text.trim_end() == setting.value => return Ok(false),
        Err(error) if setting.optional && error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Ok(_) | Err(_) => {}
    }
    fs::write(&path, setting.value)?;
    Ok(true)
}

fn full(path: &str) -> String {
    format!("/proc/sys/net/{path}")
}

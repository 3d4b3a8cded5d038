//! Where `wait` is mounted in a container. The path also tells it whether it may make system calls: its arguments are the
//! program's, and are the same in all versions.
//!
//! A path must never change its meaning: containers of earlier versions have them.

/// A place for `wait`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// /dev is a tmpfs, so nothing of it shows in `docker diff` or in a committed image. But with the user's own mount
    /// over /dev our mount point would be a file in the host's /dev.
    pub in_dev: bool,
    /// Whether `wait` makes no system call: that is what a `0` at the end says to it.
    pub silent: bool,
}

impl Place {
    /// Its path in the container.
    pub fn path(self) -> &'static str {
        match (self.in_dev, self.silent) {
            (true, false) => "/dev/.selvedge-wait",
            (false, false) => "/.selvedge-wait",
            (true, true) => "/dev/.selvedge-wait0",
            (false, true) => "/.selvedge-wait0",
        }
    }

    /// What is said by a path, if it is one of these.
    pub fn at(path: &str) -> Option<Self> {
        let choices = [(true, false), (false, false), (true, true), (false, true)];
        choices.map(|(in_dev, silent)| Self { in_dev, silent }).into_iter().find(|place| place.path() == path)
    }
}

//! What execve(2) left on the stack: arguments and environment. Must never copy or change any of it: the program gets it
//! as it is.

use core::ffi::CStr;

/// What execve(2) gave us: argument and environment vectors, both ended by a null pointer.
pub(crate) struct Arguments {
    count: usize,
    arguments: *const *const u8,
}

impl Arguments {
    /// What lies at the stack pointer with which the kernel starts a process: the count, then the argument pointers.
    ///
    /// # Safety
    /// `stack` must be that stack pointer.
    pub(crate) unsafe fn at(stack: *const usize) -> Self {
        // SAFETY: the caller says what lies there.
        unsafe { Self { count: *stack, arguments: stack.add(1).cast() } }
    }

    /// What we were called: the path under which we are mounted.
    pub(crate) fn own_name(&self) -> Option<&CStr> {
        // SAFETY: as in `program`.
        (self.count > 0).then(|| unsafe { CStr::from_ptr((*self.arguments).cast()) })
    }

    /// The program to become: the first argument after our own name.
    pub(crate) fn program(&self) -> Option<&CStr> {
        // SAFETY: the kernel ends the vector of `count` strings with a null pointer; each lives as long as the process.
        (self.count > 1).then(|| unsafe { CStr::from_ptr((*self.arguments.add(1)).cast()) })
    }

    /// The argument vector of the program: ours without our own name.
    pub(crate) fn program_arguments(&self) -> *const *const u8 {
        // SAFETY: called only when `program` is there, so the vector has at least two entries and its null.
        unsafe { self.arguments.add(1) }
    }

    /// How many arguments the program gets, itself included.
    pub(crate) fn program_argument_count(&self) -> usize {
        self.count.saturating_sub(1)
    }

    /// The environment, untouched: it follows the null of the arguments (System V ABI, initial process stack).
    pub(crate) fn environment(&self) -> *const *const u8 {
        // SAFETY: the kernel always puts the environment right after the arguments' null pointer.
        unsafe { self.arguments.add(self.count + 1) }
    }

    /// The value of an environment variable; the first one counts, as for Go's os.Getenv.
    pub(crate) fn variable(&self, name: &[u8]) -> Option<&[u8]> {
        let mut entry = self.environment();
        loop {
            // SAFETY: `entry` walks up to the null pointer that ends the environment and not past it.
            let string = unsafe { *entry };
            if string.is_null() {
                return None;
            }
            // SAFETY: every entry is a string ended by NUL that lives as long as the process.
            let string = unsafe { CStr::from_ptr(string.cast()) }.to_bytes();
            if let Some(value) = string.strip_prefix(name).and_then(|rest| rest.strip_prefix(b"=")) {
                return Some(value);
            }
            // SAFETY: the entry just read was not the null, so there is one more.
            entry = unsafe { entry.add(1) };
        }
    }
}

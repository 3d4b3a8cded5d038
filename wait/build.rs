//! Link arguments of the binary `wait`: no C runtime, no dynamic linker, nothing but our own code.
//!
//! They stand here, not in RUSTFLAGS, so that a nested `cargo build -p selvedge-wait` needs nothing else.
//! Must never run anything.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let arguments = [
        "-nostartfiles",
        "-nostdlib",
        "-static",
        "-no-pie",
        // One segment after another without padding to pages: a few kilobytes instead of sixteen.
        "-Wl,-z,noseparate-code",
        "-Wl,--build-id=none",
        // Where the worker finds the mailbox, in every version.
        "-Wl,--section-start=.mailbox=0x10000000",
        "-Wl,-z,max-page-size=4096",
    ];
    for argument in arguments {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
}

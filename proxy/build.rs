//! Builds `wait`, which is embedded in the binary. It has no std and a profile of its own, and cargo cannot
//! yet name one crate's binary as another's input, so a cargo of its own builds it here.

use std::env;
use std::path::PathBuf;
use std::process::Command;

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let target = out.join("wait");
    println!("cargo::rerun-if-changed=../wait");
    let status = Command::new(env::var_os("CARGO").expect("cargo sets CARGO"))
        .args([
            "build",
            "--quiet",
            "--locked",
            "--package",
            "selvedge-wait",
            "--profile",
            "tiny",
            "--target-dir",
        ])
        .arg(&target)
        // Flags meant for the outer build (a sanitizer, coverage) do not fit a program without std.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .status()
        .expect("cargo can be run");
    assert!(status.success(), "wait could not be built");
    println!("cargo::rustc-env=SELVEDGE_WAIT={}", target.join("tiny/wait").display());
}

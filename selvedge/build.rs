//! Builds `wait`, which is embedded in the binary. It has no std and a profile of its own, and cargo cannot
//! yet name one crate's binary as another's input, so a cargo of its own builds it here.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, io};

fn main() -> io::Result<()> {
    // Asked at run time: a target folder may be shared by clones, and this program then comes from another.
    let workspace = Path::new(&of_cargo("CARGO_MANIFEST_DIR")?).join("..");
    for source in ["wait/src", "wait/build.rs", "wait/Cargo.toml", "Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", workspace.join(source).display());
    }
    let (target, dir) = (of_cargo("TARGET")?, PathBuf::from(of_cargo("OUT_DIR")?).join("wait"));
    let mut cargo = Command::new(of_cargo("CARGO")?);
    cargo.current_dir(&workspace).args(["build", "--quiet", "--locked", "--package", "selvedge-wait"]);
    cargo.args(["--profile", "tiny", "--target"]).arg(&target).arg("--target-dir").arg(&dir);
    // Flags meant for the outer build (a sanitizer, coverage) do not fit a program without std. An empty value
    // wins over the environment and over a config file.
    cargo.env("CARGO_ENCODED_RUSTFLAGS", "").env_remove("RUSTFLAGS");
    cargo.env_remove("RUSTC_WORKSPACE_WRAPPER").env_remove("RUSTC_WRAPPER");
    if !cargo.status()?.success() {
        return Err(io::Error::other("wait could not be built"));
    }
    println!("cargo::rustc-env=SELVEDGE_WAIT={}", dir.join(target).join("tiny/wait").display());
    Ok(())
}

fn of_cargo(name: &str) -> io::Result<OsString> {
    env::var_os(name).ok_or_else(|| io::Error::other(format!("cargo sets {name}")))
}

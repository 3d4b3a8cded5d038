# shellcheck shell=bash
# The steps that `scripts/test` runs one after the other and `scripts/dev` one by one.
# It must never install anything: that is up to the script that sources it.

# Always the whole workspace: for a part of it cargo rebuilds the libraries with the features of that part.
tests() { cargo test --quiet --locked --no-fail-fast --workspace "$@"; }

# The logic, with fake engines and paused time: beside the code, and (`logic`) a crate at a time among the fakes of `fake/`. Of
# the programs only `selvedge` has unit tests; the one for containers has no std to test with.
unit_tests() { tests --lib --bin selvedge --test logic; }

# Lines that the unit tests of these crates reach; or of those that are named.
coverage() {
    command -v cargo-tarpaulin >/dev/null || {
        echo 'coverage needs cargo-tarpaulin: cargo install --locked cargo-tarpaulin' >&2
        return 1
    }
    local crates=("$@") arguments=() crate
    [ $# -gt 0 ] || crates=(containers datapath proxy)
    for crate in "${crates[@]}"; do
        arguments+=(--packages "selvedge-$crate" --include-files "$crate/src/*")
        [ ! -d "$crate/tests/logic" ] || arguments+=(--test logic)
    done
    # In a folder of its own: what it builds is instrumented, and would have the next build begin afresh.
    cargo tarpaulin --locked --engine llvm --lib --skip-clean --target-dir target/coverage "${arguments[@]}"
}

# Real ZooKeeper and etcd, name servers and glibc, the kernel's network, keepers as processes.
parts_tests() { tests --test behaviour --test suite --test kernel --test process; }

# One that fails has failed. To find out why, run it again with the same threads (--times), and beside it what it
# compares on the bare engine (--control).
suite() {
    local name=$1
    shift
    cargo test --quiet --locked --workspace --test "$name" -- "$@"
}

# Links that lead nowhere, markup that does not parse; private items too, as people who change the code read it.
docs() { RUSTDOCFLAGS='-D warnings -A rustdoc::private-intra-doc-links' cargo doc --quiet --locked --no-deps --document-private-items; }

format() { cargo fmt --all --check; }
# Also without any registry, which is what a host that stays alone needs.
lints() {
    cargo clippy --quiet --locked --all-targets -- -D warnings &&
        cargo clippy --quiet --locked -p selvedge --no-default-features -- -D warnings
}
check_shell() { grep -rIlE '^#!.*\b(ba)?sh$|^# shellcheck shell=' .ci scripts packaging | xargs shellcheck -x; }

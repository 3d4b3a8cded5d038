# shellcheck shell=bash
# What a machine needs, and how it is installed. Sourced by the scripts beside it.

say() { printf '\n== %s\n' "$*"; }
die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

PATH=$PATH:/usr/sbin:/sbin:${HOME:-/root}/.cargo/bin
export PATH

need_root() { [ "$(id -u)" = 0 ] || die "must run as root: it makes network namespaces and starts dockerd"; }

# Installs those Debian packages that are missing. No package may start a daemon of its own meanwhile.
need_packages() {
    local missing=() package policy=/usr/sbin/policy-rc.d made=
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} = 0 ] && return
    say "installing ${missing[*]}"
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod 755 $policy
        made=yes
    fi
    local result=0
    if ! DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null 2>&1; then
        apt-get update -qq || result=$?
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null || result=$?
    fi
    [ -z "$made" ] || rm -f $policy
    [ $result = 0 ] || die "cannot install ${missing[*]}"
}

# Rust is not taken from Debian 12, whose compiler is too old.
need_cargo() {
    local version
    version=$(cargo --version 2>/dev/null | cut -d' ' -f2) || true
    [ -n "$version" ] || die "no cargo; install Rust 1.88 or newer with rustup (https://rustup.rs), then try again"
    [ "$(printf '%s\n1.88.0\n' "$version" | sort -V | head -n 1)" = 1.88.0 ] ||
        die "cargo $version is too old; 1.88 or newer is needed (rustup update)"
}

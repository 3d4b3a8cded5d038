# shellcheck shell=bash
# What a machine needs, and how it is installed. Sourced by the scripts beside it.
# It must never start a daemon, remove a package that was installed on purpose, or leave its policy-rc.d behind.

say() { printf '\n== %s\n' "$*"; }
die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# Under sudo and cron the sbin directories are often missing from PATH, and so are rustup's tools.
PATH=$PATH:/usr/sbin:/sbin:${CARGO_HOME:-${HOME:-/root}/.cargo}/bin
export PATH

need_root() {
    [ "$(id -u)" = 0 ] || die "must run as root: it makes network namespaces and starts dockerd"
    command -v apt-get >/dev/null || die "this is for Debian 12 or newer: there is no apt-get here"
}

is_installed() {
    case $1 in
    # Docker's own packages work too.
    docker.io) [ -x /usr/bin/docker ] && command -v dockerd >/dev/null ;;
    *) dpkg-query -W -f '${Status}' "$1" 2>/dev/null | grep -q 'ok installed' ;;
    esac
}

# Installs missing Debian packages; installed ones stay as they are, newer or older.
need_packages() {
    local missing=() package
    for package in "$@"; do
        is_installed "$package" || missing+=("$package")
    done
    [ ${#missing[@]} = 0 ] && return
    say "installing ${missing[*]}"
    (
        # One installation at a time; the lock is free again when this subshell ends.
        exec 9>/run/lock/selvedge-scripts.lock
        flock 9
        trap policy_restore EXIT
        trap 'exit 130' INT TERM HUP
        policy_forbid || exit
        apt_install "${missing[@]}"
    ) || die "cannot install ${missing[*]}; apt's words are above"
}

quiet_apt() { DEBIAN_FRONTEND=noninteractive apt-get -y -qq --no-install-recommends -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 "$@" >/dev/null; }

apt_install() {
    # Without lists apt knows nothing; with old ones it asks for versions that mirrors no longer have.
    if ! nothing_goes "$@" || ! quiet_apt install "$@" 2>/dev/null; then
        quiet_apt update && nothing_goes "$@" && quiet_apt install "$@"
    fi
}

# Whether these packages are known and push no other out, as docker.io would Docker's own containerd.io. Only the
# busybox with fewer programs makes way for the static one.
nothing_goes() {
    local plan
    plan=$(apt-get -s --no-install-recommends install "$@" 2>/dev/null) || return
    plan=$(awk '/^Remv/ && $2 != "busybox" {print $2}' <<<"$plan")
    [ -z "$plan" ] || die "installing $* would remove ${plan//$'\n'/ }; install by hand what you want"
}

policy=/usr/sbin/policy-rc.d
policy_mark='# Put here for a moment by scripts of Selvedge.'

# Debian asks this program whether a package may start its services: none may. One that is there may say otherwise.
policy_forbid() {
    policy_restore # what a killed run left
    [ ! -e $policy ] || mv $policy $policy.before-selvedge
    printf '#!/bin/sh\n%s\nexit 101\n' "$policy_mark" >$policy
    chmod 755 $policy
}

policy_restore() {
    if grep -qsxF "$policy_mark" $policy; then rm -f $policy; fi
    [ ! -e $policy.before-selvedge ] || mv $policy.before-selvedge $policy
}

# Rust is not taken from Debian 12, whose compiler is too old.
need_cargo() {
    local version
    version=$(cargo --version 2>/dev/null | cut -d' ' -f2) || true
    [ -n "$version" ] || die "no cargo; install Rust 1.91 or newer with rustup (https://rustup.rs), then try again"
    [ "$(printf '%s\n1.91.0\n' "$version" | sort -V | head -n 1)" = 1.91.0 ] ||
        die "cargo $version is too old; 1.91 or newer is needed (rustup update)"
}

# Removes a directory and unmounts everything below it: a debootstrap or a dockerd that was killed leaves mounts,
# and rm would walk into the machine's own /proc.
remove_tree() {
    local mount
    while read -r mount; do
        umount -l "$mount" || return
    done < <(awk -v below="$1/" 'index($2, below) == 1 {print $2}' /proc/mounts | sort -r)
    rm -rf --one-file-system "$1"
}

# shellcheck shell=bash
# The image `busybox`, made of Debian's static busybox: no registry is needed. Sourced by the scripts.

# Imports it into the engine at $1 (a docker host URL), if it has none.
make_busybox() {
    local host=$1 root applet
    docker -H "$host" image inspect busybox >/dev/null 2>&1 && return
    root=$(mktemp -d)
    mkdir -p "$root"/bin "$root"/etc "$root"/tmp "$root"/root
    chmod 755 "$root"
    chmod 1777 "$root/tmp"
    cp /bin/busybox "$root/bin/busybox"
    for applet in $(/bin/busybox --list); do
        [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
    done
    printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n' >"$root/etc/passwd"
    printf 'root:x:0:\nnogroup:x:65534:\n' >"$root/etc/group"
    tar -C "$root" -c . | docker -H "$host" import -c 'CMD ["sh"]' - busybox >/dev/null
    rm -rf "$root"
}

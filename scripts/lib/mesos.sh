# shellcheck shell=bash
# A real Mesos, master and agent in one program, out of Mesos' own Python package. Sourced by the scripts.
# It must never name a package registry, which is for pip's configuration to choose, nor put anything of Mesos outside of the
# folder that it makes. Needs install.sh.

mesos_version=1.11.0
mesos_archive=1d376f20bca6d05ee8b90c1c123a452b28753497ccc2f1c80ea3ac94c12e8f6e

# Made of this very program.
mesos_is_whole() { [ -x "$1/mesos-cluster" ] && cmp -s tests/mesos/cluster.cpp "$1/cluster.cpp"; }

# Makes it in folder $1, with the libraries of Debian that it needs.
need_mesos() {
    [ "$(uname -m)" = x86_64 ] || die "Mesos' package is for x86_64 alone, not for $(uname -m)"
    need_packages python3-pip gcc g++ libsvn1 libsasl2-2 libapr1
    make_mesos "$1"
}

# Once; one that is not complete is made again from the beginning.
make_mesos() {
    local folder=$1
    mkdir -p "${folder%/*}"
    exec 6>"$folder.lock"
    flock 6
    if mesos_is_whole "$folder"; then
        echo "it is there: $folder"
        return
    fi
    rm -rf "$folder" "$folder.new"
    mkdir -p "$folder.new/unpacked"
    mesos_library "$folder.new" && mesos_program "$folder.new" && rm -rf "$folder.new/unpacked" &&
        cp tests/mesos/cluster.cpp "$folder.new" && mv "$folder.new" "$folder"
}

# pip downloads the archive, compares its checksum and unpacks it. Then it fails, as nothing in it can be built: the
# package is one of files at their places. --no-clean lets the unpacked files stay.
mesos_library() {
    local into=$1 unpacked=$1/unpacked library
    printf 'mesos-scheduler===%s.linux-x86_64 --hash=sha256:%s\n' "$mesos_version" "$mesos_archive" >"$unpacked/wanted"
    TMPDIR=$unpacked python3 -m pip download --quiet --no-cache-dir --no-deps --no-clean --require-hashes \
        --requirement "$unpacked/wanted" --dest "$unpacked" >"$unpacked/log" 2>&1 || true
    library=$(find "$unpacked" -name _scheduler.so -print -quit)
    if [ -z "$library" ]; then
        cat "$unpacked/log"
        return 1
    fi
    mv "$library" "$into/libmesos.so"
}

# The library wants an OpenSSL and a curl of its time, and calls neither: libraries with nothing but their versions do.
mesos_program() {
    local into=$1 library
    printf 'OPENSSL_1.0.0 {}; OPENSSL_1.0.1 {}; OPENSSL_1.0.2 {}; CURL_OPENSSL_3 {};' >"$into/unpacked/versions"
    for library in libssl.so.1.0.0 libcrypto.so.1.0.0 libcurl.so.4; do
        gcc -shared -nostdlib -x c /dev/null -o "$into/$library" \
            "-Wl,-soname,$library,--version-script,$into/unpacked/versions" || return
    done
    # RPATH and not RUNPATH: it counts for what libmesos.so needs too.
    # shellcheck disable=SC2016 # $ORIGIN is the linker's
    g++ tests/mesos/cluster.cpp -o "$into/mesos-cluster" -L"$into" -l:libmesos.so -rdynamic \
        -Wl,-z,lazy,--allow-shlib-undefined,--disable-new-dtags,-rpath,'$ORIGIN'
}

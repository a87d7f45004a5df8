#!/bin/sh
# image.sh BUILD ROOT: the root of the image: the one executable in BUILD as /bot, and the shared objects it needs. libcurl and the
# certificates come along only where the bot calls out: it opens the library by name on its first use.
set -eu
build=$1
root=$2

objects() { # FILE: paths of what the loader would open for it
    ldd "$1" | sed -n 's|^[^/]*\(/[^ ]*\) (0x.*|\1|p'
}
copy() { # PATH: to the same place, what links point at
    mkdir -p "$root$(dirname "$1")"
    cp -L "$1" "$root$1"
}

mkdir -p "$root/etc"
set -- "$build"/*
for file; do
    [ ! -f "$file" ] || bot=$file
done
strip -o "$root/bot" "$bot"
objects "$bot" | while read -r path; do copy "$path"; done

curl=$(grep -ao 'libcurl\.so\.[0-9]*' "$bot" | head -n 1 || true)
if [ -n "$curl" ]; then
    library=$(find /lib /usr/lib -name "$curl" | head -n 1)
    copy "$library"
    objects "$library" | while read -r path; do copy "$path"; done
    copy /etc/ssl/certs/ca-certificates.crt
    echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
fi
find "$root" -name '*.so*' -type f -exec strip --strip-unneeded {} +
echo "image of $(basename "$bot"): $(du -sb "$root" | cut -f1) bytes in $(find "$root" -type f | wc -l) files${curl:+, with $curl}"

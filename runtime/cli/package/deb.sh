#!/bin/sh
# deb.sh BUILD: a Debian package of what `make install` lays out, as BUILD/deb/balm_VERSION_ARCH.deb. The version is the binary's own, with
# DEB_REVISION (1). What it depends on is computed from what it links; libcurl, which is opened on first use, by a program that links it.
set -eu
umask 022
build=$1
cd "$(dirname "$0")/../../.."
for tool in dpkg-deb dpkg-shlibdeps; do
    command -v "$tool" >/dev/null 2>&1 || { echo "deb: $tool is missing: install dpkg-dev" >&2; exit 1; }
done
package=runtime/cli/package
out=$build/deb
root=$out/root
version=$("$build/balm" --version | cut -d' ' -f2)-${DEB_REVISION:-1}
arch=$(dpkg --print-architecture)
rm -rf "$root" "$out/debian"
mkdir -p "$root/DEBIAN" "$out/debian"

# Debian's folders; DEV and the like change nothing that is built already.
make --no-print-directory -s B="$build" DESTDIR="$root" PREFIX=/usr sysconfdir=/etc unitdir=/lib/systemd/system \
    zshdir=/usr/share/zsh/vendor-completions install >/dev/null
find "$root/usr/bin" "$root/usr/lib/balm" -type f -exec strip --strip-unneeded {} +
find "$root/usr/share/man" -type f -exec gzip -9n {} +
install -D -m 644 LICENSE "$root/usr/share/doc/balm/copyright"
if [ -e "$root/usr/share/balm/docs/swagger-ui.css" ]; then
    printf '\nusr/share/balm/docs/swagger-ui*: Swagger UI, under the Apache License 2.0, see swagger-ui.LICENSE and swagger-ui.NOTICE there.\n' \
        >>"$root/usr/share/doc/balm/copyright"
fi
install -m 644 README.md "$root/usr/share/doc/balm/README.md"

# The shim is static. What dpkg-shlibdeps says beside its answer is about a tree that is not a source package's.
depends() {
    printf 'Source: balm\n\nPackage: balm\nArchitecture: any\n' >"$out/debian/control"
    curl=$(sed -n 's/^#define LIBCURL_NAME *"\(.*\)".*/\1/p' runtime/client/client_curl.c)
    echo 'int main(void) { return 0; }' | ${CC:-gcc} -xc - -o "$out/opens" -Wl,--no-as-needed "-l:$curl"
    (cd "$out" && dpkg-shlibdeps -O opens root/usr/bin/balm root/usr/lib/balm/functions/* 2>shlibdeps.log || cat shlibdeps.log >&2) |
        sed -n 's/^shlibs:Depends=//p'
}
depends=$(depends)
[ -n "$depends" ] || { echo "deb: dpkg-shlibdeps found no dependency" >&2; exit 1; }

cat >"$root/DEBIAN/control" <<EOF
Package: balm
Version: $version
Architecture: $arch
Maintainer: the balm authors <balm@localhost>
Section: admin
Priority: optional
Installed-Size: $(du -ks --exclude=DEBIAN "$root" | cut -f1)
Depends: $depends, init-system-helpers (>= 1.54)
Recommends: ca-certificates, tzdata
Description: turns alerts into verified repairs
 Alertmanager's alerts become decisions under guardrails, calls of small bots
 that repair one thing each, checks that it worked, and records that nobody can
 change unseen. Nothing acts until a runbook and the list of host acts allow it.
EOF
(cd "$root" && find etc -type f | sort | sed 's|^|/|') >"$root/DEBIAN/conffiles"
(cd "$root" && find usr lib -type f | sort | xargs md5sum) >"$root/DEBIAN/md5sums"
for script in postinst prerm postrm; do
    install -m 755 "$package/$script" "$root/DEBIAN/$script"
done
deb=$out/balm_${version}_$arch.deb
dpkg-deb --root-owner-group --build "$root" "$deb" >/dev/null
echo "$deb"

#!/bin/sh
# swagger-ui.sh DIR: the files of Swagger UI (Apache-2.0) that the pages below /docs load, out of the npm package swagger-ui-dist: one version,
# known by its hash, kept in ${XDG_CACHE_HOME:-~/.cache}/balm/npm. Nothing of the package is run.
set -eu
version=5.35.0
sha512=534eaba4cb56f55dd73c638179a993512af4674f63317e0826e00da44fc465b021c341bc0a0c2bcd4e18997927fe1d3008336c5dd19aad334d1c2dec53cc9551
dir=$1
[ -e "$dir/swagger-ui-$version" ] && exit 0

cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/balm/npm
package=$cache/swagger-ui-dist-$version.tgz
is_right() { [ -f "$1" ] && [ "$(sha512sum "$1" | cut -d' ' -f1)" = "$sha512" ]; }

mkdir -p "$cache" "$dir"
new=$(mktemp -d "$cache/new.XXXXXX")
trap 'rm -rf "$new"' EXIT
if ! is_right "$package"; then
    command -v npm >/dev/null 2>&1 || { echo "swagger-ui: npm is not here to fetch swagger-ui-dist $version; or put it at $package" >&2; exit 1; }
    npm pack --silent --ignore-scripts --fetch-retries 1 --pack-destination "$new" "swagger-ui-dist@$version" >/dev/null ||
        { echo "swagger-ui: npm could not fetch swagger-ui-dist $version" >&2; exit 1; }
    is_right "$new/swagger-ui-dist-$version.tgz" || { echo "swagger-ui: swagger-ui-dist $version is not the one that was chosen (SHA-512)" >&2; exit 1; }
    mv "$new/swagger-ui-dist-$version.tgz" "$package"
fi

tar -xzf "$package" -C "$new" package/swagger-ui.css package/swagger-ui-bundle.js package/swagger-ui-bundle.js.LICENSE.txt package/LICENSE package/NOTICE
cd "$new/package"
mv LICENSE swagger-ui.LICENSE
cat NOTICE swagger-ui-bundle.js.LICENSE.txt >swagger-ui.NOTICE
cd "$OLDPWD"
chmod 644 "$new"/package/swagger-ui*
mv "$new"/package/swagger-ui.css "$new"/package/swagger-ui-bundle.js "$new"/package/swagger-ui.LICENSE "$new"/package/swagger-ui.NOTICE "$dir"
: >"$dir/swagger-ui-$version"

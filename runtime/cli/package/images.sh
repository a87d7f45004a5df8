#!/bin/sh
# images.sh BUILD PREFIX TAG NAME...: the image PREFIX NAME:TAG of each function, from the context that faas-cli would make: the template c-balm
# with the function's folder in it. DOCKER is the client (docker), DOCKER_BUILD_FLAGS come after its `build`. What each holds is printed.
set -eu
build=$1
prefix=$2
tag=$3
shift 3
docker=${DOCKER:-docker}
command -v "$docker" >/dev/null 2>&1 || { echo "images: $docker is missing: install docker.io, or say DOCKER=podman" >&2; exit 1; }
contexts=$build/images
mkdir -p "$contexts"
for name; do
    [ -f "functions/$name/bot.yaml" ] || { echo "images: there is no functions/$name" >&2; exit 1; }
    rm -rf "${contexts:?}/$name"
    cp -R "$build/templates/template/c-balm" "$contexts/$name"
    rm -rf "$contexts/$name/function"
    cp -R "functions/$name" "$contexts/$name/function"
    echo "image     $prefix$name:$tag"
    # The argument is faas-cli's: with the same, both find the same layers in Docker's cache.
    # shellcheck disable=SC2086 # flags are words
    "$docker" build ${DOCKER_BUILD_FLAGS:-} --build-arg ADDITIONAL_PACKAGE= --tag "$prefix$name:$tag" "$contexts/$name" >"$contexts/$name.log" 2>&1 || {
        tail -n 40 "$contexts/$name.log" >&2
        exit 1
    }
    printf 'built     %s:%s  %s\n' "$prefix$name" "$tag" "$("$docker" image inspect -f '{{.Size}} bytes' "$prefix$name:$tag")"
done

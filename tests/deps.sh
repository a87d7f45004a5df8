#!/bin/sh
# deps.sh PACKAGE...: installs the Debian packages that are missing, by one apt-get line that is shown first. Says what to install where
# that cannot be done here; never asks.
set -u
missing=""
if command -v dpkg-query >/dev/null 2>&1; then
    for package in "$@"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q '^install ok installed' || missing="$missing $package"
    done
else
    echo "not a Debian system: make sure that these (or what they are called here) are installed: $*" >&2
    exit 0
fi
[ -z "$missing" ] && exit 0

line="apt-get install -y --no-install-recommends$missing"
if ! command -v apt-get >/dev/null 2>&1; then
    echo "missing:$missing; there is no apt-get here, install them by other means" >&2
    exit 1
fi
sudo=""
if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null 2>&1; then
        echo "missing:$missing; no right to install them: run as root: $line" >&2
        exit 1
    fi
    sudo="sudo"
fi
# A fresh image has no package lists, and an old one may name versions that are gone.
echo "+ ${sudo:+$sudo }$line"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
export DEBIAN_FRONTEND=noninteractive
if ! $sudo env DEBIAN_FRONTEND=noninteractive $line >"$log" 2>&1; then
    if ! { $sudo apt-get update >>"$log" 2>&1 && $sudo env DEBIAN_FRONTEND=noninteractive $line >>"$log" 2>&1; }; then
        tail -n 20 "$log" >&2
        echo "could not install:$missing" >&2
        exit 1
    fi
fi

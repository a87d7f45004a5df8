#!/bin/sh
# regenerate.sh BUILD [--write]: what is generated from one source of truth and stands in a committed file (between `generated: NAME` and
# `end of generated` marks) is what that source makes now. --write brings the files up to date.
set -eu
build=$1
mode=${2:-check}
cd "$(dirname "$0")/.."

block() { # FILE NAME: replaces the marked block by stdin; the result on stdout
    awk -v name="$2" '
        FNR == NR { fresh = fresh $0 "\n"; next }
        index($0, "generated: " name) { print; printf "%s", fresh; inside = 1; next }
        inside && /end of generated/ { inside = 0 }
        !inside { print }' - "$1"
}

status=0
compare() { # FILE NAME: stdin is what belongs into the block
    block "$1" "$2" >"$build/regenerated"
    if cmp -s "$build/regenerated" "$1"; then return; fi
    if [ "$mode" = --write ]; then cp "$build/regenerated" "$1"; return; fi
    echo "$1: the block '$2' is not what its source makes; run: tests/regenerate.sh $build --write"
    diff "$1" "$build/regenerated" | head -20 || true
    status=1
}

"$build/balm" help up --markdown | compare README.md settings
"$build/balm" generate readme functions/*/bot.yaml | compare README.md functions
"$build/balm" metrics --markdown | compare runtime/metrics/README.md metrics
deployed=$(for f in functions/*/bot.yaml; do name=${f#functions/}; [ -x "$build/functions/${name%/bot.yaml}" ] && echo "$f"; done)
whole() { # FILE COMMAND: the file is what `balm generate COMMAND` makes of them
    # shellcheck disable=SC2086 # one word a file
    "$build/balm" generate "$2" $deployed >"$build/regenerated"
    if cmp -s "$build/regenerated" "$1"; then return; fi
    if [ "$mode" = --write ]; then cp "$build/regenerated" "$1"; return; fi
    echo "$1 is not what functions/*/bot.yaml make; run: tests/regenerate.sh $build --write"
    status=1
}
whole stack.yml stack
whole charts/balm/knative/functions.yaml knative
exit $status

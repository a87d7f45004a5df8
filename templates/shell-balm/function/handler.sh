#!/bin/sh
# One invocation. Parameters of bot.yaml come checked, as BALM_PARAM_<name> and as a JSON object on stdin; one JSON object on stdout is the
# result; stderr goes to the log. They come from an alert: put "…" around each use, and never eval one.
set -eu

json_text() { # what stands between the quotes of a JSON string
    printf '%s' "$1" | tr -d '\000-\037' | sed 's/\\/\\\\/g; s/"/\\"/g'
}

result() { # STATE MESSAGE: done, unchanged, refused, failed or unknown
    printf '{"state": "%s", "message": "%s"}\n' "$1" "$(json_text "$2")"
    exit 0
}

file=$BALM_PARAM_file
echo "looking for $file" >&2

[ -e "$file" ] || result refused "$file is not there"
size=$(wc -c <"$file")
result unchanged "$BALM_PARAM_alertname: $file has $((size)) bytes"

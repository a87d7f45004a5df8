#!/bin/sh
# The handler alone: ./test.sh
set -eu
cd "$(dirname "$0")"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

check() { # FILE PART: what the handler says of FILE has PART in it
    answer=$(BALM_PARAM_alertname=Test BALM_PARAM_file=$1 ./handler.sh 2>/dev/null </dev/null)
    case $answer in
    *"$2"*) echo "ok: $answer" ;;
    *) echo "FAILED: '$2' is not in: $answer" >&2; exit 1 ;;
    esac
}

printf 12345 >"$folder/there"
check "$folder/there" '"state": "unchanged"'
check "$folder/there" 'has 5 bytes'
check "$folder/none" '"state": "refused"'
check "$folder/with \"quotes\"" 'with \"quotes\" is not there'

#!/bin/sh
# lint.sh BUILD: every check that reads the code; each is one passed or failed. Names a tool that is missing.
set -u
build=$1
cd "$(dirname "$0")/.." || exit 1
passed=0
failed=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT

check() { # name, command...
    name=$1
    shift
    if "$@" >"$log" 2>&1; then
        passed=$((passed + 1))
        echo "ok   $name"
    else
        failed=$((failed + 1))
        echo "FAIL $name"
        tail -n 40 "$log"
    fi
}

has() {
    command -v "$1" >/dev/null 2>&1 && return 0
    failed=$((failed + 1))
    echo "FAIL $1 is missing: install it (make deps-lint)"
    return 1
}

sources() { git ls-files -co --exclude-standard -- 'runtime/*.c' 'functions/*.c'; }
everything() { git ls-files -co --exclude-standard -- 'runtime/*.[ch]' 'functions/*.[ch]' 'tests/*.[ch]'; }
jobs=$(nproc)

analyze() { # gcc's path-sensitive analyser over what is ours; objects are thrown away
    sources | grep -v generate_main | xargs -P "$jobs" -I{} sh -c 'gcc -std=c11 -D_GNU_SOURCE -DH2O_USE_LIBUV=0 -Iruntime -I. -I'"$build"'/gen \
        -I'"$build"'/gen/functions -include base/banned.h -O1 -fanalyzer -Wno-analyzer-fd-leak -Werror -c {} -o /dev/null 2>&1'
}
headers_alone() { # each header compiles by itself
    git ls-files -co --exclude-standard -- 'runtime/*.h' | while read -r h; do
        echo "#include \"${h#runtime/}\"" | gcc -std=c11 -D_GNU_SOURCE -DH2O_USE_LIBUV=0 -Iruntime -Wall -Wextra -Werror -xc -fsyntax-only - || exit 1
    done
}
tidy() { sources | xargs -P "$jobs" -n 8 clang-tidy --quiet --warnings-as-errors='*' -checks="$1" -- -std=c11 -D_GNU_SOURCE -DH2O_USE_LIBUV=0 -Iruntime -I. \
    -I"$build/gen" -I"$build/gen/functions" -include base/banned.h; }
formatted() { everything | xargs clang-format --dry-run --Werror; }
no_own_paths() { ! git grep -nIE '(/(home|work|root)/[a-z.])' -- . ':!*.md'; }
shell() { for f in tests/*.sh; do sh -n "$f" || return 1; done; }
python() { git ls-files -co --exclude-standard -- '*.py' .ci/run | xargs python3 -c 'import ast,sys; [ast.parse(open(f).read(), f) for f in sys.argv[1:]]'; }

check "gcc, warnings as errors" make --no-print-directory -j"$jobs" B="$build/lint-gcc" DEV=1 CC=gcc tests bench-binaries
has clang && check "clang, warnings as errors" make --no-print-directory -j"$jobs" B="$build/lint-clang" DEV=1 CC=clang all
check "each header alone" headers_alone
check "gcc -fanalyzer" analyze
has cppcheck && check "cppcheck" cppcheck --quiet --error-exitcode=1 --std=c11 -j "$jobs" --enable=warning,portability --inline-suppr \
    --suppress=missingIncludeSystem --suppress=normalCheckLevelMaxBranches -D_GNU_SOURCE -Iruntime -I. runtime functions
has clang-tidy && check "clang-tidy" tidy '-*,bugprone-*,-bugprone-easily-swappable-parameters,-bugprone-reserved-identifier,-bugprone-narrowing-conversions,-bugprone-implicit-widening-of-multiplication-result,-bugprone-assignment-in-if-condition,cert-err34-c,misc-misleading-identifier,readability-misleading-indentation'
has clang-format && check "clang-format" formatted
check "no paths of one machine" no_own_paths
check "shell scripts parse" shell
check "python parses" python
[ -x tests/regenerate.sh ] && check "generated files are what their sources make" tests/regenerate.sh "$build"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]

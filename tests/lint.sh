#!/bin/sh
# lint.sh BUILD: every check that reads the code; each is one passed or failed. Names a tool that is missing.
set -u
mkdir -p "$1" || exit 1
build=$(cd "$1" && pwd)
cd "$(dirname "$0")/.." || exit 1
passed=0
failed=0
jobs=$(nproc)
log=$(mktemp)
trap 'rm -f "$log"' EXIT

check() { # TOOL NAME COMMAND...: "-" where there is no tool that could be missing
    tool=$1
    name=$2
    shift 2
    if [ "$tool" != - ] && ! command -v "$tool" >/dev/null 2>&1; then
        failed=$((failed + 1))
        echo "FAIL $name: $tool is missing: install it (make deps-lint)"
        return
    fi
    if "$@" >"$log" 2>&1; then
        passed=$((passed + 1))
        echo "ok   $name"
    else
        failed=$((failed + 1))
        echo "FAIL $name"
        grep -E '(error|warning):|\*\*\*' "$log" | sort -u | head -n 40 | grep . || tail -n 40 "$log"
    fi
}

files() { git ls-files -co --exclude-standard -- "$@" | while read -r f; do [ -f "$f" ] && echo "$f"; done; }
sources() { files 'runtime/*.c' 'functions/*.c'; }
# What is tested, and the plain programs that measure it.
analyzed() { sources; files 'tests/tsan/*.c' 'tests/bench/*.c'; }
everything() { files 'runtime/*.[ch]' 'functions/*.[ch]' 'tests/*.[ch]' 'templates/*.[ch]'; }

# As the Makefile compiles; the functions' headers that are made from bot.yaml come from the first check's build.
flags="-std=c11 -D_GNU_SOURCE -DH2O_USE_LIBUV=0 -Iruntime -I. -I$build/lint-gcc/gen -I$build/lint-gcc/gen/functions -include base/banned.h"

compiles() { # COMPILER: a build folder each; -k, because later checks need what can be made
    make --no-print-directory -k -j"$jobs" B="$build/lint-$1" DEV=1 CC="$1" tests bench-binaries crash-binaries
}
headers_alone() { # each header compiles by itself
    # shellcheck disable=SC2086 # flags are words
    files 'runtime/*.h' 'functions/*.h' | while read -r h; do
        echo "#include \"$h\"" | gcc $flags -Wall -Wextra -Werror -xc -fsyntax-only - || echo "$h" >&3
    done 3>"$build/lint-headers"
    ! grep . "$build/lint-headers"
}
# gcc's path-sensitive analyser over what is ours. Without the paths, which are pages: `gcc -fanalyzer` shows them.
analyze() {
    # shellcheck disable=SC2016 # the inner shell's
    analyzed | xargs -P "$jobs" -n 4 sh -c 'for f; do gcc '"$flags"' -O1 -fanalyzer -fdiagnostics-path-format=none -Werror \
        -c "$f" -o /dev/null || bad=1; done; exit ${bad:-0}' sh
}
suspicious() {
    # Function-like macros of libraries whose bodies it must see to parse what follows.
    cat >"$build/lint-macros.h" <<'EOF'
#define json_object_foreach(object, key, value) for (key = 0; (value = json_object_get(object, key)) != 0;)
#define json_array_foreach(array, i, value) for (i = 0; (value = json_array_get(array, i)) != 0; i++)
EOF
    # normalCheckLevelMaxBranches: only says that a function was too large to follow every branch of it.
    cppcheck --quiet --error-exitcode=1 --std=c11 -j "$jobs" --enable=warning,portability --inline-suppr \
        --suppress=missingIncludeSystem --suppress=normalCheckLevelMaxBranches -D_GNU_SOURCE -D__CPPCHECK__ \
        --include="$build/lint-macros.h" -Iruntime -I. runtime functions tests/tsan tests/bench
}
tidy() {
    checks='-*,bugprone-*,cert-err34-c,misc-misleading-identifier,readability-misleading-indentation'
    checks="$checks,-bugprone-easily-swappable-parameters" # two views or two numbers in a row are everywhere: names and tests
    checks="$checks,-bugprone-reserved-identifier"         # _GNU_SOURCE and what libraries ask to be defined
    checks="$checks,-bugprone-narrowing-conversions"       # -Wconversion has it, without the false ones
    checks="$checks,-bugprone-implicit-widening-of-multiplication-result" # constants (64 * 1024) that fit an int
    checks="$checks,-bugprone-assignment-in-if-condition"  # `while ((x = next()) != NULL)` is how one walks
    checks="$checks,-bugprone-not-null-terminated-result"  # views and buffers carry their length: nothing ends in NUL
    # shellcheck disable=SC2016 # the inner shell's
    analyzed | xargs -P "$jobs" -n 8 sh -c 'clang-tidy --quiet --warnings-as-errors="*" -checks='"$checks"' "$@" -- '"$flags" sh
}
formatted() { everything | xargs clang-format --dry-run --Werror; }
no_own_paths() { ! git grep -nIE '(/(home|work|root)/[a-z.])' -- . ':!*.md'; }
shell() { for f in $(files '*.sh'); do sh -n "$f" || return 1; done; }
python() { files '*.py' | xargs python3 -c 'import ast,sys; [ast.parse(open(f).read(), f) for f in sys.argv[1:]]'; }

check gcc "gcc, warnings as errors" compiles gcc
check clang "clang, warnings as errors" compiles clang
check gcc "each header alone" headers_alone
check gcc "gcc -fanalyzer" analyze
check cppcheck "cppcheck" suspicious
check clang-tidy "clang-tidy" tidy
check clang-format "clang-format" formatted
check git "no paths of one machine" no_own_paths
check - "shell scripts parse" shell
check python3 "python parses" python
check - "generated files are what their sources make" tests/regenerate.sh "$build/lint-gcc"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]

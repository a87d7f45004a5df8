#!/bin/sh
# template-repository.sh DIR: DIR/template in a throw-away repository, from which `faas-cli template pull DIR` clones. Without git DIR/template
# is all there is: link or copy it to ./template.
set -eu
cd "$1"
command -v git >/dev/null 2>&1 || exit 0
rm -rf .git
git -c init.defaultBranch=main init -q
git add -fA template
git -c user.name=balm -c user.email=balm@localhost -c commit.gpgsign=false commit -qm "templates of balm"

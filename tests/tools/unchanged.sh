#!/bin/bash
# unchanged.sh COMMAND...: runs COMMAND and fails if that changed, added or removed any file of the git work tree that
# is not ignored. It compares trees, not with HEAD, so work that is not committed yet does not matter.
set -euo pipefail

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# snapshot writes the work tree as a git tree through an index of its own; the real index stays as it is.
snapshot() {
	GIT_INDEX_FILE=$tmp/index git -C "$(git rev-parse --show-toplevel)" add -A
	GIT_INDEX_FILE=$tmp/index git write-tree
}

before=$(snapshot)
"$@"
after=$(snapshot)
if [[ $before != "$after" ]]; then
	echo "'$*' changed these files; commit what it makes:" >&2
	git diff --stat "$before" "$after" >&2
	exit 1
fi

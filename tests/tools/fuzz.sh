#!/bin/bash
# fuzz.sh TIME: runs every fuzz target of the tree for TIME, one after the other.
set -euo pipefail

time=${1:?usage: fuzz.sh TIME}
count=0
while IFS=: read -r file target; do
	target=${target#func } target=${target%(}
	echo "== ./$(dirname "$file") $target"
	go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" "./$(dirname "$file")" </dev/null
	count=$((count + 1))
done < <(git grep --untracked -oE '^func Fuzz[A-Z0-9_]\w*\(' -- '*_test.go')

# A pattern that finds nothing must not look like a good run.
((count)) || { echo "fuzz: no target found" >&2; exit 1; }
echo "fuzz: $count targets, $time each"

#!/bin/bash
# lint-c.sh: compiles every .c file of the tree with all warnings as errors, those in folders named host/ for this machine
# and all others for BPF, and checks the format of .c and .h.
# The flags of `go generate` decide what is shipped; these decide what is clean.
set -euo pipefail

cc=${CLANG:-clang-19}
format=${CLANG_FORMAT:-clang-format-19}
mapfile -t sources < <(git ls-files --cached --others --exclude-standard '*.c')
mapfile -t files < <(git ls-files --cached --others --exclude-standard '*.c' '*.h')
if ((${#files[@]} == 0)); then
	echo "lint-c: no C in this tree"
	exit 0
fi

failed=0
for f in "${sources[@]}"; do
	if [[ $f == */host/*.c ]]; then
		"$cc" -O2 -Wall -Wextra -Werror -pthread -c "$f" -o /dev/null || failed=1
		continue
	fi
	# asm/types.h is in the multiarch folder, which a BPF target does not search. -O2 because some warnings need it.
	"$cc" -target bpfel -mcpu=v3 -g -O2 -Wall -Wextra -Werror -Ixdp/include -I"/usr/include/$(uname -m)-linux-gnu" \
		-c "$f" -o /dev/null || failed=1
done
"$format" --dry-run -Werror "${files[@]}" || failed=1
echo "lint-c: ${#sources[@]} sources compiled, ${#files[@]} files looked at"
exit "$failed"

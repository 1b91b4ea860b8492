package tc

// As in package xdp: both architectures' asm directories are named, and the objects do not depend on which exists.
//
//go:generate go tool bpf2go -cc clang-19 -target bpfel -no-global-types -cflags "-mcpu=v3 -O2 -g -Wall -Wextra -Werror -I../xdp/include -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu" root bpf/root.c
//go:generate go tool bpf2go -cc clang-19 -target bpfel -no-global-types -cflags "-mcpu=v3 -O2 -g -Wall -Wextra -Werror -I../xdp/include -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu" tc bpf/tc.c
//go:generate go tool bpf2go -cc clang-19 -target bpfel -no-global-types -cflags "-mcpu=v3 -O2 -g -Wall -Wextra -Werror -I../xdp/include -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu" sweep bpf/sweep.c

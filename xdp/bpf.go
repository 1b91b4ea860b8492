package xdp

// The asm directories of both architectures are named, so that the same line works wherever headers are multiarch; the
// objects do not depend on which exists.
//
//go:generate go tool bpf2go -cc clang-19 -target bpfel -no-global-types -cflags "-mcpu=v3 -O2 -g -Wall -Wextra -Werror -Iinclude -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu" root bpf/root.c
//go:generate go tool bpf2go -cc clang-19 -target bpfel -no-global-types -cflags "-mcpu=v3 -O2 -g -Wall -Wextra -Werror -Iinclude -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu" ingress bpf/ingress.c

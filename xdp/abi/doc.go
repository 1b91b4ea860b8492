// Package abi is the Go mirror of what the C programs and the daemon agree on: include/sluice/abi.h and reason.h.
//
// The types are made from the BTF that clang writes, so that sizes and offsets are the compiler's, not ours. Fields
// of type __be16 and __be32 become byte arrays in network byte order, so that no one can mistake them for numbers;
// everything else is in the host's order. Padding is explicit, so that cilium/ebpf copies values without reflection.
package abi

//go:generate go run ./gen -include ../include

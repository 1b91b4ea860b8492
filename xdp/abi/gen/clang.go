package main

import (
	"bytes"
	"fmt"
	"os/exec"
	"regexp"
	"strings"

	"github.com/cilium/ebpf/btf"
)

// constantsEnum carries every #define through the compiler as a BTF enum.
const (
	constantsEnum  = "sluice_constants"
	constantPrefix = "SLUICE_CONSTANT_"
)

// loadTypes compiles one variable of each type, because BTF holds only what is used, and returns the BTF.
func loadTypes(clang, include string, h *header) (*btf.Spec, error) {
	var src strings.Builder
	src.WriteString("#include <sluice/abi.h>\n#include <sluice/reason.h>\n")
	for _, t := range h.types {
		fmt.Fprintf(&src, "%s %s %s_variable;\n", t.kind, t.name, t.name)
	}
	fmt.Fprintf(&src, "enum %s {\n", constantsEnum)
	for _, name := range h.defines {
		fmt.Fprintf(&src, "\t%s%s = %s,\n", constantPrefix, name, name)
	}
	fmt.Fprintf(&src, "};\nenum %s constants_variable;\n", constantsEnum)

	object, err := runClang(clang, include, src.String(), "-g", "-O2", "-c")
	if err != nil {
		return nil, err
	}
	spec, err := btf.LoadSpecFromReader(bytes.NewReader(object))
	if err != nil {
		return nil, fmt.Errorf("BTF of the headers: %w", err)
	}
	return spec, nil
}

type reason struct{ name, fate, text string }

var reasonLine = regexp.MustCompile(`@reason (\w+) (\w+) "([^"]*)"`)

// loadReasons expands the X-macro of reason.h with the preprocessor.
func loadReasons(clang, include string) ([]reason, error) {
	src := `#include <sluice/reason.h>
#define SHOW(name, fate, text) @reason name fate text
SLUICE_REASONS(SHOW)
`
	text, err := runClang(clang, include, src, "-E", "-P")
	if err != nil {
		return nil, err
	}
	var list []reason
	for _, m := range reasonLine.FindAllStringSubmatch(string(text), -1) {
		list = append(list, reason{name: m[1], fate: m[2], text: m[3]})
	}
	if want := bytes.Count(text, []byte("@reason")); len(list) != want || want == 0 {
		return nil, fmt.Errorf("reason.h: %d reasons, %d of them of the form X(NAME, fate, \"text\")", want, len(list))
	}
	return list, nil
}

func runClang(clang, include, src string, args ...string) ([]byte, error) {
	args = append(args, "-target", "bpf", "-I", include,
		// Debian keeps asm/types.h apart by architecture, and the bpf target does not look there.
		"-idirafter", "/usr/include/x86_64-linux-gnu", "-idirafter", "/usr/include/aarch64-linux-gnu",
		"-x", "c", "-", "-o", "-")
	cmd := exec.Command(clang, args...)
	cmd.Stdin = strings.NewReader(src)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s (install it, or name another with -clang): %w\n%s", clang, err, stderr.Bytes())
	}
	return stdout.Bytes(), nil
}

// Command gen writes the Go mirror of abi.h and reason.h into the current directory. It finds the names in the
// headers, lets clang say what they are (BTF for types and constants, the preprocessor for the reasons), and formats
// that. The output depends on the headers alone.
package main

import (
	"flag"
	"fmt"
	"os"
)

func main() {
	include := flag.String("include", "../include", "folder that holds sluice/abi.h")
	clang := flag.String("clang", "clang-19", "C compiler with the bpf target")
	flag.Parse()
	if err := run(*clang, *include); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

func run(clang, include string) error {
	files, err := generate(clang, include)
	if err != nil {
		return err
	}
	for name, content := range files {
		if err := os.WriteFile(name, content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// generate returns the content of the generated files by name.
func generate(clang, include string) (map[string][]byte, error) {
	h, err := scan(include)
	if err != nil {
		return nil, err
	}
	spec, err := loadTypes(clang, include, h)
	if err != nil {
		return nil, err
	}
	types, err := formatTypes(h, spec)
	if err != nil {
		return nil, err
	}
	list, err := loadReasons(clang, include)
	if err != nil {
		return nil, err
	}
	reasons, err := formatReasons(list)
	if err != nil {
		return nil, err
	}
	return map[string][]byte{"abi_gen.go": types, "reason_gen.go": reasons}, nil
}

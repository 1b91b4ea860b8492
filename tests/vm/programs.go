package vm

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
)

// lddLine is one library of ldd's answer: "name => /path (0x…)", or "/path (0x…)" of the loader itself.
var lddLine = regexp.MustCompile(`(?m)^\s*(?:\S+ => )?(/\S+) \(0x`)

// Programs returns Files for programs and plugins of the host with all libraries that they load: each where it is on the
// host, so that the loader finds it without a cache. A path may be a pattern, which must match something.
func Programs(ctx context.Context, paths ...string) (map[string]string, error) {
	files := map[string]string{}
	for _, pattern := range paths {
		matches, err := filepath.Glob(pattern)
		if err != nil || len(matches) == 0 {
			return nil, fmt.Errorf("no file %s: run make deps (%w)", pattern, err)
		}
		for _, path := range matches {
			files[path] = path
			out, err := exec.CommandContext(ctx, "ldd", path).CombinedOutput()
			if err != nil {
				return nil, fmt.Errorf("ldd %s: %w\n%s", path, err, out)
			}
			for _, m := range lddLine.FindAllSubmatch(out, -1) {
				files[string(m[1])] = string(m[1])
			}
		}
	}
	return files, nil
}

package host

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// errNoNetfilter says that the kernel part is not there, so there can be no rules.
var errNoNetfilter = errors.New("not in use")

type moduleKind string

const (
	moduleLoaded  moduleKind = "loaded"
	moduleBuiltIn moduleKind = "built in"
	moduleOnDisk  moduleKind = "a module, not loaded yet"
	moduleAbsent  moduleKind = "absent"
)

// moduleState finds out about a module without asking the kernel for what it offers, which would load it.
func moduleState(module, option string) (moduleKind, error) {
	if found, err := fileHas("/proc/modules", func(line string) bool { return strings.HasPrefix(line, module+" ") }); err == nil && found {
		return moduleLoaded, nil
	}
	release, err := kernelRelease()
	if err != nil {
		return "", err
	}
	// kernel/net/…/NAME.ko, packed perhaps; modules.dep has a colon after it.
	named := func(line string) bool {
		file := line[strings.LastIndex(strings.SplitN(line, ":", 2)[0], "/")+1:]
		return strings.HasPrefix(file, module+".ko")
	}
	dir := "/lib/modules/" + release + "/"
	for file, state := range map[string]moduleKind{"modules.builtin": moduleBuiltIn, "modules.dep": moduleOnDisk} {
		if found, err := fileHas(dir+file, named); err == nil && found {
			return state, nil
		}
	}
	for _, file := range []string{"/proc/config.gz", "/boot/config-" + release} {
		builtIn, err := fileHas(file, func(line string) bool { return line == option+"=y" })
		if err == nil && builtIn {
			return moduleBuiltIn, nil
		}
		if err == nil {
			return moduleAbsent, nil
		}
	}
	if _, err := os.Stat(dir + "modules.dep"); err == nil {
		return moduleAbsent, nil
	}
	return "", fmt.Errorf("neither %s nor the kernel's configuration can be read", dir)
}

// fileHas says whether a line satisfies match. A name that ends in .gz is unpacked.
func fileHas(path string, match func(line string) bool) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	var r io.Reader = f
	if strings.HasSuffix(path, ".gz") {
		if r, err = gzip.NewReader(f); err != nil {
			return false, fmt.Errorf("%s: %w", path, err)
		}
	}
	s := bufio.NewScanner(r)
	for s.Scan() {
		if match(s.Text()) {
			return true, nil
		}
	}
	return false, s.Err()
}

package host

import (
	"fmt"
	"path/filepath"
	"strings"
)

const procSys = "/proc/sys/"

// sysctlPath turns a key into its path below /proc/sys. Like sysctl(8) it takes dots or slashes as separators, whichever
// comes first in the key; the other one then stands for itself in a name (net.ipv4.conf.eth0/100.forwarding). Beyond
// sysctl(8), dots in the name of an interface need no such care (net.ipv4.conf.eth0.100.forwarding).
func sysctlPath(key string) (string, error) {
	var elements []string
	if i := strings.IndexAny(key, "./"); i >= 0 && key[i] == '/' {
		elements = strings.Split(key, "/")
	} else {
		elements = strings.Split(key, ".")
		// net.ipv4.conf.NAME.leaf, neigh likewise: no leaf has a dot, so what is between belongs to the name.
		if n := len(elements); n > 5 && elements[0] == "net" && (elements[2] == "conf" || elements[2] == "neigh") {
			elements = append(elements[:3:3], strings.Join(elements[3:n-1], "."), elements[n-1])
		}
		for i, e := range elements {
			elements[i] = strings.ReplaceAll(e, "/", ".")
		}
	}
	for _, e := range elements {
		if e == "" || e == "." || e == ".." {
			return "", fmt.Errorf("sysctl key %q is malformed: write it like net.ipv4.tcp_syncookies", key)
		}
	}
	if len(elements) < 2 {
		return "", fmt.Errorf("sysctl key %q is too short: write it like net.ipv4.tcp_syncookies", key)
	}
	path := strings.Join(elements, "/")
	if path == "net/ipv4/conf/all/forwarding" { // one variable with two names
		path = "net/ipv4/ip_forward"
	}
	return path, nil
}

// sysctlID is the identity of a key: its path, or, where it has none, itself.
func sysctlID(key string) string {
	if path, err := sysctlPath(key); err == nil {
		return path
	}
	return key
}

// sysctlLink is the interface that a path speaks of, or "".
func sysctlLink(path string) string {
	e := strings.Split(path, "/")
	if len(e) == 5 && e[0] == "net" && (e[2] == "conf" || e[2] == "neigh") && e[3] != "all" && e[3] != "default" {
		return e[3]
	}
	return ""
}

// sysctlRank orders keys by how many others they change.
func sysctlRank(path string) int {
	switch {
	case sysctlLink(path) != "":
		return 2
	case strings.Contains(path, "/default/"):
		return 1
	}
	return 0
}

func switchesForwarding(path string) bool {
	return path == "net/ipv4/ip_forward" || filepath.Base(path) == "forwarding"
}

// around lists the paths that a write to path changes as well (Linux's devinet.c and addrconf.c): ip_forward every
// interface's forwarding, and conf/all/accept_redirects; conf/default of IPv4 those never written to; conf/all of IPv6,
// for some variables, every one. No path is around two others. (LRO, which forwarding switches off, and routes learned
// from router advertisements do not come back by it.)
func around(path string) ([]string, error) {
	var pattern string
	var out []string
	e := strings.Split(path, "/")
	switch {
	case path == "net/ipv4/ip_forward":
		pattern, out = "net/ipv4/conf/*/forwarding", []string{"net/ipv4/conf/all/accept_redirects"}
	case strings.HasPrefix(path, "net/ipv4/conf/default/") && !switchesForwarding(path),
		strings.HasPrefix(path, "net/ipv6/conf/all/"):
		pattern = strings.Join(append(e[:3:3], "*", e[4]), "/")
	default:
		return nil, nil
	}
	found, err := filepath.Glob(procSys + pattern)
	if err != nil {
		return nil, err
	}
	for _, f := range found {
		if p := strings.TrimPrefix(f, procSys); p != path && !strings.Contains(p, "/all/") {
			out = append(out, p)
		}
	}
	return out, nil
}

// SameSysctl says whether two spellings name one key.
func SameSysctl(a, b string) bool { return sysctlID(a) == sysctlID(b) }

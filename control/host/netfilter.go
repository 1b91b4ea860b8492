package host

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/bits"
	"os"
	"strings"
	"unsafe"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
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

// countNFTables counts the rules of every family in this namespace, iptables-nft's included.
func countNFTables() (int, error) {
	state, err := moduleState("nf_tables", "CONFIG_NF_TABLES")
	if err == nil && (state == moduleOnDisk || state == moduleAbsent) {
		return 0, errNoNetfilter // to ask would load it
	}
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETRULE, unix.NLM_F_DUMP)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: unix.NFPROTO_UNSPEC, Version: nl.NFNETLINK_V0})
	rules, err := dump(func() ([][]byte, error) { return req.Execute(unix.NETLINK_NETFILTER, 0) })
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPROTONOSUPPORT) {
		return 0, errNoNetfilter
	}
	return len(rules), err
}

// countIPTables counts the rules of legacy tables that exist in this namespace, by IPT_SO_GET_INFO and
// IP6T_SO_GET_INFO: both are option 64, on a raw socket. The policies of built-in chains are no rules.
func countIPTables() (int, error) {
	total, there := 0, false
	for _, family := range []struct {
		names         string
		domain, level int
	}{
		{"/proc/thread-self/net/ip_tables_names", unix.AF_INET, unix.SOL_IP},
		{"/proc/thread-self/net/ip6_tables_names", unix.AF_INET6, unix.SOL_IPV6},
	} {
		names, err := os.ReadFile(family.names)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, err
		}
		for name := range bytes.Lines(names) {
			there = true
			n, err := countTable(family.domain, family.level, bytes.TrimSpace(name))
			if err != nil {
				return 0, fmt.Errorf("table %s: %w", bytes.TrimSpace(name), err)
			}
			total += n
		}
	}
	if !there {
		return 0, errNoNetfilter
	}
	return total, nil
}

func countTable(domain, level int, table []byte) (int, error) {
	fd, err := unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	const getInfo = 64
	var info struct { // struct ipt_getinfo, ip6t_getinfo
		name      [32]byte
		hooks     uint32
		entry     [5]uint32
		underflow [5]uint32
		entries   uint32
		size      uint32
	}
	copy(info.name[:31], table)
	length := uint32(unsafe.Sizeof(info))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), getInfo,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&length)), 0)
	if errno != 0 {
		return 0, errno
	}
	// Beside rules there is the policy of each built-in chain, and the entry that ends the table.
	return int(info.entries) - bits.OnesCount32(info.hooks) - 1, nil
}

package host

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// xtFamily is where a family's legacy tables are asked for, and how its entries are laid out: struct ipt_entry and
// ip6t_entry differ in the length of what they begin with.
type xtFamily struct {
	name          string
	list          string // file with the names of the tables that exist
	domain, level int
	target        int // offset of target_offset in an entry; next_offset follows
	matches       int // offset of the first match
}

var xtFamilies = []xtFamily{
	{"ip", "/proc/thread-self/net/ip_tables_names", unix.AF_INET, unix.SOL_IP, 88, 112},
	{"ip6", "/proc/thread-self/net/ip6_tables_names", unix.AF_INET6, unix.SOL_IPV6, 140, 168},
}

// readIPTables reads the legacy tables that exist in this namespace. To ask for another one would make it.
func readIPTables() (ruleset, error) {
	r, there := ruleset{}, false
	for _, family := range xtFamilies {
		names, err := os.ReadFile(family.list)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for line := range bytes.Lines(names) {
			there = true
			table := string(bytes.TrimSpace(line))
			if err := r.readXT(family, table); err != nil {
				return nil, fmt.Errorf("table %s of %s: %w", table, family.name, err)
			}
		}
	}
	if !there {
		return nil, errNoNetfilter
	}
	return r, nil
}

// xtInfo is struct ipt_getinfo and ip6t_getinfo.
type xtInfo struct {
	name      [32]byte
	hooks     uint32
	entry     [5]uint32
	underflow [5]uint32
	entries   uint32
	size      uint32
}

// readXT asks by IPT_SO_GET_INFO and IPT_SO_GET_ENTRIES (64 and 65 in both families) on a raw socket.
func (r ruleset) readXT(f xtFamily, table string) error {
	fd, err := unix.Socket(f.domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var info xtInfo
	copy(info.name[:31], table)
	if err := getsockopt(fd, f.level, 64, unsafe.Pointer(&info), unsafe.Sizeof(info)); err != nil {
		return err
	}
	const header = 40 // name, size, and the alignment of the entries
	buffer := make([]byte, header+int(info.size))
	copy(buffer[:31], table)
	binary.NativeEndian.PutUint32(buffer[32:], info.size)
	if err := getsockopt(fd, f.level, 65, unsafe.Pointer(&buffer[0]), uintptr(len(buffer))); err != nil {
		return err
	}
	r.xtTable(f, table, info, buffer[header:])
	return nil
}

func getsockopt(fd, level, option int, to unsafe.Pointer, size uintptr) error {
	length := uint32(size)
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option), uintptr(to), uintptr(unsafe.Pointer(&length)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// xtTable walks the entries of a table. A built-in chain is what lies between its entry and its underflow, which is its policy;
// another chain begins behind an entry with the target ERROR, which names it, and ends with a return before the next one.
func (r ruleset) xtTable(f xtFamily, table string, info xtInfo, blob []byte) {
	hooks := []string{"prerouting", "input", "forward", "output", "postrouting"}
	labels := []string{"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"}
	name := func(chain string) string { return f.name + " " + table + " " + chain }
	starts := map[uint32]string{} // of chains that are jumped to
	var jumps []struct {
		from *ruleChain
		to   uint32
	}
	var chain *ruleChain
	for at := uint32(0); ; {
		e, ok := f.entryAt(blob, at)
		if !ok {
			break
		}
		for h := range hooks {
			if info.hooks>>h&1 != 0 && info.entry[h] == at {
				chain = r.at(name(labels[h]))
				chain.hook, chain.kind = hooks[h], table
			}
			if info.hooks>>h&1 != 0 && info.underflow[h] == at {
				chain.drops = e.verdict == -1 // - 1 - NF_DROP
				chain = nil                   // its policy is no rule
			}
		}
		switch {
		case e.target == "ERROR":
			if chain != nil {
				chain.rules-- // the return that ends every chain
			}
			chain = nil
			if at+e.next < uint32(len(blob)) {
				chain = r.at(name(e.label))
				starts[at+e.next] = name(e.label)
			}
		case chain != nil:
			chain.rules++
			if e.conntrack {
				chain.conntrack++
			}
			if e.target == "" && e.verdict >= 0 && uint32(e.verdict) != at+e.next {
				jumps = append(jumps, struct {
					from *ruleChain
					to   uint32
				}{chain, uint32(e.verdict)})
			}
		}
		at += e.next
	}
	for _, j := range jumps {
		if to, ok := starts[j.to]; ok {
			j.from.jumps = append(j.from.jumps, to)
		}
	}
}

type xtEntry struct {
	target    string // "": a verdict
	label     string // of ERROR: the chain that begins
	verdict   int32  // -1 - NF_*, or where it jumps to
	conntrack bool
	next      uint32 // bytes to the next entry
}

// entryAt reads one entry. struct xt_entry_match and xt_entry_target begin with their size (2 bytes) and name (29).
func (f xtFamily) entryAt(blob []byte, at uint32) (e xtEntry, ok bool) {
	if int(at)+f.matches > len(blob) {
		return e, false
	}
	b := blob[at:]
	target, next := int(binary.NativeEndian.Uint16(b[f.target:])), int(binary.NativeEndian.Uint16(b[f.target+2:]))
	if target < f.matches || next < target+36 || next > len(b) {
		return e, false
	}
	e.next = uint32(next)
	e.target = unix.ByteSliceToString(b[target+2 : target+31])
	e.verdict = int32(binary.NativeEndian.Uint32(b[target+32:]))
	if e.target == "ERROR" {
		e.label = unix.ByteSliceToString(b[target+32 : next])
	}
	for m := f.matches; m+32 <= target; {
		size := int(binary.NativeEndian.Uint16(b[m:]))
		match := unix.ByteSliceToString(b[m+2 : m+31])
		e.conntrack = e.conntrack || match == "conntrack" || match == "state"
		if size < 32 {
			break
		}
		m += size
	}
	return e, true
}

package host

import (
	"fmt"
	"maps"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// feature is the state of an offload of a NIC (linux/netdev_features.h).
type feature struct {
	on    bool
	fixed bool // nobody can change it: `ethtool -k` says [fixed]
}

// offloads read and switch the features of links of the namespace in which they were opened. Tests have their own.
type offloads interface {
	// read returns every feature by its kernel name.
	read(link string) (map[string]feature, error)
	// switchTo asks the driver for all of names at once. What became of it, only read tells.
	switchTo(link string, names []string, on bool) error
}

// ethtoolOffloads use the ioctl, which needs no privilege for reading.
type ethtoolOffloads struct{ fd int }

// Bounds of what the kernel may answer. It has 64 to 96 features in all its versions so far.
const (
	maxFeatures   = 256
	featureBlocks = maxFeatures / 32
)

// Structs of linux/ethtool.h, with room for maxFeatures.
type (
	ssetInfo struct { // ethtool_sset_info
		cmd, _ uint32
		mask   uint64 // bit: the set; zero where the kernel does not know it
		len    uint32
		_      uint32
	}
	featureNames struct { // ethtool_gstrings
		cmd, set, len uint32
		names         [maxFeatures][32]byte
	}
	gotFeatures struct { // ethtool_gfeatures
		cmd, size uint32 // in blocks
		blocks    [featureBlocks]struct{ available, requested, active, neverChanged uint32 }
	}
	setFeatures struct { // ethtool_sfeatures
		cmd, size uint32
		blocks    [featureBlocks]struct{ valid, requested uint32 }
	}
)

// ssFeatures is ETH_SS_FEATURES.
const ssFeatures = 4

// openOffloads binds to the calling thread's network namespace.
func openOffloads() (*ethtoolOffloads, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open a socket for ethtool: %w", err)
	}
	return &ethtoolOffloads{fd}, nil
}

func (e *ethtoolOffloads) close() { unix.Close(e.fd) }

// index returns the number of every feature by name, and how many there are.
func (e *ethtoolOffloads) index(link string) (map[string]int, error) {
	info := ssetInfo{cmd: unix.ETHTOOL_GSSET_INFO, mask: 1 << ssFeatures}
	if err := ethtool(e.fd, link, unsafe.Pointer(&info)); err != nil {
		return nil, fmt.Errorf("count the offloads of %s: %w", link, err)
	}
	if info.mask == 0 || info.len > maxFeatures {
		return nil, fmt.Errorf("count the offloads of %s: the kernel has %d of them, more than the %d that are known", link, info.len, maxFeatures)
	}
	text := featureNames{cmd: unix.ETHTOOL_GSTRINGS, set: ssFeatures, len: info.len}
	if err := ethtool(e.fd, link, unsafe.Pointer(&text)); err != nil {
		return nil, fmt.Errorf("read the names of the offloads of %s: %w", link, err)
	}
	out := make(map[string]int, info.len)
	for n := range min(info.len, text.len) {
		out[unix.ByteSliceToString(text.names[n][:])] = int(n)
	}
	return out, nil
}

func (e *ethtoolOffloads) read(link string) (map[string]feature, error) {
	index, err := e.index(link)
	if err != nil {
		return nil, err
	}
	got := gotFeatures{cmd: unix.ETHTOOL_GFEATURES, size: featureBlocks}
	if err := ethtool(e.fd, link, unsafe.Pointer(&got)); err != nil {
		return nil, fmt.Errorf("read the offloads of %s: %w", link, err)
	}
	out := make(map[string]feature, len(index))
	for name, n := range index {
		b, bit := got.blocks[n/32], uint32(1)<<(n%32)
		out[name] = feature{on: b.active&bit != 0, fixed: b.available&bit == 0 || b.neverChanged&bit != 0}
	}
	return out, nil
}

func (e *ethtoolOffloads) switchTo(link string, names []string, on bool) error {
	index, err := e.index(link)
	if err != nil {
		return err
	}
	count := slices.Max(append(slices.Collect(maps.Values(index)), 0)) + 1
	set := setFeatures{cmd: unix.ETHTOOL_SFEATURES, size: uint32(count+31) / 32} // exactly, or the kernel refuses it
	for _, name := range names {
		n, known := index[name]
		if !known {
			return fmt.Errorf("the kernel has no offload %s", name)
		}
		set.blocks[n/32].valid |= 1 << (n % 32)
		if on {
			set.blocks[n/32].requested |= 1 << (n % 32)
		}
	}
	if err := ethtool(e.fd, link, unsafe.Pointer(&set)); err != nil {
		return fmt.Errorf("switch %v of %s: %w", names, link, err)
	}
	return nil
}

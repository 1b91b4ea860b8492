package host

import (
	"context"
	"net"
	"net/netip"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// InterfaceStatus is one line of `show interfaces`. Its JSON names are stable.
type InterfaceStatus struct {
	Name      string         `json:"name"`
	Index     int            `json:"index"`
	Kind      string         `json:"kind,omitempty"` // as LinkFact.Kind
	MTU       int            `json:"mtu"`            // bytes
	Up        bool           `json:"up"`
	Carrier   bool           `json:"carrier"`
	SpeedMbps int            `json:"speed_mbps,omitempty"` // 0: the driver does not say
	Driver    string         `json:"driver,omitempty"`
	RxQueues  int            `json:"rx_queues,omitempty"` // that are in use; 0: the driver does not say
	RxRing    int            `json:"rx_ring,omitempty"`   // descriptors of a queue; 0: the driver does not say
	TxRing    int            `json:"tx_ring,omitempty"`
	Addresses []netip.Prefix `json:"addresses,omitempty"` // not masked
	RX        Counters       `json:"rx"`
	TX        Counters       `json:"tx"`
}

// Counters are the kernel's own of one direction, since the link was made.
type Counters struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
	Errors  uint64 `json:"errors"`
	Drops   uint64 `json:"drops"`
}

// Status reads every interface of the namespace, by name. It changes nothing.
func (h *Host) Status(ctx context.Context) ([]InterfaceStatus, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	links, addresses, err := h.linksAndAddresses()
	if err != nil {
		return nil, err
	}
	out := make([]InterfaceStatus, 0, len(links))
	for _, l := range links {
		a := l.Attrs()
		s := InterfaceStatus{
			Name: a.Name, Index: a.Index, Kind: kindOf(l), MTU: a.MTU,
			Up: a.Flags&net.FlagUp != 0, Carrier: a.RawFlags&unix.IFF_LOWER_UP != 0,
			SpeedMbps: speed(a.Name), Driver: driver(a.Name), Addresses: addresses[a.Index],
		}
		s.RxQueues, s.RxRing, s.TxRing = h.queuesAndRings(a.Name)
		if c := a.Statistics; c != nil {
			s.RX = Counters{c.RxPackets, c.RxBytes, c.RxErrors, c.RxDropped}
			s.TX = Counters{c.TxPackets, c.TxBytes, c.TxErrors, c.TxDropped}
		}
		out = append(out, s)
	}
	return out, nil
}

func (h *Host) queuesAndRings(link string) (rxQueues, rxRing, txRing int) {
	number := func(v Values, name string) int {
		n, _ := strconv.Atoi(v[name])
		return n
	}
	queues, _ := queuesOf(h.ethtool.fd).read(link) // no answer, no numbers
	rings, _ := ringsOf(h.ethtool.fd).read(link)
	return number(queues, "rx") + number(queues, "combined"), number(rings, "rx"), number(rings, "tx")
}

// driver is what ethtool -i says, "" where the link has no such thing (lo).
func driver(name string) string {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	info, err := unix.IoctlGetEthtoolDrvinfo(fd, name)
	if err != nil {
		return ""
	}
	return unix.ByteSliceToString(info.Driver[:])
}

// linkSettings is the fixed head of struct ethtool_link_settings with room for its three bitmaps (linux/ethtool.h).
type linkSettings struct {
	cmd   uint32
	speed uint32 // Mbit/s, all ones: unknown
	_     [7]byte
	words int8 // link_mode_masks_nwords
	_     [32]byte
	masks [3 * 127]uint32
}

// speed asks by ETHTOOL_GLINKSETTINGS, in Mbit/s; 0 is unknown. The kernel answers the first request with the negative
// number of bitmap words that it wants room for, and the second one, which says that number, with the settings.
func speed(name string) int {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	var s linkSettings
	s.cmd = unix.ETHTOOL_GLINKSETTINGS
	for range 2 {
		if ethtool(fd, name, unsafe.Pointer(&s)) != nil {
			return 0
		}
		if s.words > 0 {
			break
		}
		s.cmd, s.words = unix.ETHTOOL_GLINKSETTINGS, -s.words
	}
	const unknown = 1<<32 - 1
	if s.speed == unknown {
		return 0
	}
	return int(s.speed)
}

// ethtool does SIOCETHTOOL; request points to a struct of linux/ethtool.h.
func ethtool(fd int, name string, request unsafe.Pointer) error {
	var ifreq struct { // struct ifreq, its union as a pointer
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}
	copy(ifreq.name[:unix.IFNAMSIZ-1], name)
	ifreq.data = request
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&ifreq))); errno != 0 {
		return errno
	}
	return nil
}

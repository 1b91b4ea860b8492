package xdp

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"sluice/xdp/abi"
	"sluice/xdp/table"
)

// Sample is one packet that XDP or tcx dropped, or that a rule logs. What was not parsed is zero.
type Sample struct {
	Time     time.Duration // CLOCK_BOOTTIME
	Hook     abi.Hook
	Ifindex  int
	Len      int           // bytes of the frame
	Reason   abi.Reason    // of a drop
	Fate     abi.EventFate // what the rule did, or would have
	Rule     uint32        // stable id; 0: none decided
	VLAN     int
	Protocol uint8
	Src, Dst netip.AddrPort // ports 0 where Ports is false; addresses invalid where it is not IP
	Ports    bool
	Fragment bool // a later one
	TCPFlags uint8
	ICMPType uint8
}

// Unseen counts, since the machine booted, the packets of which no sample was written while somebody listened.
type Unseen = table.Unseen

// WatchDrops makes the programs of both hooks sample what they drop, at most rate samples a second in all, until ctx
// ends. It calls sample for each; and unseen before it begins, when it has begun, and then about once a second. Both
// must be quick, or samples are lost (and counted). No generation is loaded for it. Only one may run at a time.
func WatchDrops(ctx context.Context, path string, rate int, sample func(Sample), unseen func(Unseen)) error {
	return watchSamples(ctx, path, abi.WatchDrops, "dropped packets", table.DropEvents, rate, sample, unseen)
}

// WatchLogs is WatchDrops for the packets that rules log.
func WatchLogs(ctx context.Context, path string, rate int, sample func(Sample), unseen func(Unseen)) error {
	return watchSamples(ctx, path, abi.WatchLogs, "logged packets", table.LogEvents, rate, sample, unseen)
}

func watchSamples(ctx context.Context, path string, watcher abi.Watcher, what, ring string, rate int,
	sample func(Sample), unseen func(Unseen)) error {
	spec, err := loadIngress()
	if err != nil {
		return err
	}
	w, err := table.OpenWatch(path, spec, watcher, what, ring, rate)
	if err != nil {
		return err
	}
	defer w.Close()
	return w.Follow(ctx, func(raw []byte, begin time.Duration) error {
		var e abi.PacketEvent
		if _, err := binary.Decode(raw, binary.NativeEndian, &e); err != nil {
			return fmt.Errorf("ring of %s: a sample of %d bytes: %w", what, len(raw), err)
		}
		if time.Duration(e.TimeNs) >= begin {
			sample(sampleOf(e))
		}
		return nil
	}, unseen)
}

func sampleOf(e abi.PacketEvent) Sample {
	s := Sample{
		Time: time.Duration(e.TimeNs), Hook: abi.Hook(e.Hook), Ifindex: int(e.Ifindex), Len: int(e.Len),
		Reason: abi.Reason(e.Reason), Fate: abi.EventFate(e.Fate), Rule: e.Rule, VLAN: int(e.VLAN), Protocol: e.Protocol,
		Ports: e.Flags&abi.EventPorts != 0, Fragment: e.Flags&abi.EventFragment != 0, TCPFlags: e.TCPFlags, ICMPType: e.ICMPType,
	}
	if e.Family == 0 {
		return s
	}
	s.Src = netip.AddrPortFrom(address(e.Family, e.Src), binary.BigEndian.Uint16(e.Sport[:]))
	s.Dst = netip.AddrPortFrom(address(e.Family, e.Dst), binary.BigEndian.Uint16(e.Dport[:]))
	return s
}

// address takes the family from the packet: an IPv6 one may carry a mapped address, and is to be seen as it was.
func address(family uint8, a abi.Addr) netip.Addr {
	if family == 4 {
		return netip.AddrFrom16(a).Unmap()
	}
	return netip.AddrFrom16(a)
}

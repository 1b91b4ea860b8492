package xdp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"sluice/xdp/abi"
	"sluice/xdp/pin"
	"sluice/xdp/table"
)

// Drop is one sampled packet that XDP or tcx dropped. What was not parsed is zero.
type Drop struct {
	Time     time.Duration // CLOCK_BOOTTIME
	Hook     abi.Hook
	Ifindex  int
	Len      int // bytes of the frame
	Reason   abi.Reason
	Rule     uint32 // stable id; 0: none decided
	VLAN     int
	Protocol uint8
	Src, Dst netip.AddrPort // ports 0 where Ports is false; addresses invalid where it is not IP
	Ports    bool
	Fragment bool // a later one
	TCPFlags uint8
	ICMPType uint8
}

// Unseen counts, since the machine booted, the drops of which no sample was written while somebody listened.
type Unseen struct {
	Suppressed uint64 // beyond the rate
	Lost       uint64 // no room in the ring: the daemon was too slow
}

// The programs stop sampling by themselves when the lease is not renewed.
const (
	dropLease = 3 * time.Second
	dropRenew = time.Second
)

// WatchDrops makes the programs of both hooks sample what they drop, at most rate samples a second in all, until ctx
// ends. It calls drop for each; and unseen before it begins, when it has begun, and then about once a second. Both must
// be quick, or samples are lost (and counted). No generation is loaded for it. Only one may run at a time.
func WatchDrops(ctx context.Context, path string, rate int, drop func(Drop), unseen func(Unseen)) error {
	dir, err := pin.Open(path)
	if err != nil {
		return err
	}
	spec, err := loadIngress()
	if err != nil {
		return err
	}
	maps, err := table.OpenState(dir, spec, table.DropEvents, table.DropControl, table.DropBudget)
	if err != nil {
		return err
	}
	defer table.CloseAll(maps)
	events, err := ringbuf.NewReader(maps[table.DropEvents])
	if err != nil {
		return fmt.Errorf("ring of dropped packets: %w", err)
	}
	defer events.Close()

	w := dropWatch{maps: maps, burst: burst(rate), unseen: unseen}
	begin := bootTime()
	if err := w.tell(); err != nil {
		return err
	}
	if err := w.renew(); err != nil {
		return err
	}
	defer w.stop()
	renewed := make(chan error, 1)
	ctx, cancel := context.WithCancel(ctx)
	go func() { renewed <- w.keep(ctx, events) }()
	err = read(events, begin, drop)
	cancel()
	return errors.Join(err, <-renewed)
}

// burst spreads a rate over the CPUs and windows; each CPU gets at least one sample a window.
func burst(rate int) uint32 {
	perWindow := rate * abi.DropWindowNs / int(time.Second)
	return uint32(max(1, perWindow/ebpf.MustPossibleCPU()))
}

type dropWatch struct {
	maps   map[string]*ebpf.Map
	burst  uint32
	unseen func(Unseen)
}

func (w dropWatch) renew() error {
	until := abi.DropControl{UntilNs: uint64(bootTime() + dropLease), Burst: w.burst}
	if err := w.maps[table.DropControl].Put(uint32(0), until); err != nil {
		return fmt.Errorf("start sampling: %w", err)
	}
	return nil
}

func (w dropWatch) stop() { _ = w.maps[table.DropControl].Put(uint32(0), abi.DropControl{}) } // else the lease ends it

// keep renews the lease and reports what was not sampled, and ends the reader with ctx.
func (w dropWatch) keep(ctx context.Context, events *ringbuf.Reader) error {
	defer events.Close()
	tick := time.NewTicker(dropRenew)
	defer tick.Stop()
	for {
		if err := w.renew(); err != nil {
			return err
		}
		if err := w.tell(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (w dropWatch) tell() error {
	var (
		perCPU []abi.DropBudget
		out    Unseen
	)
	if err := w.maps[table.DropBudget].Lookup(uint32(0), &perCPU); err != nil {
		return fmt.Errorf("count of unsampled drops: %w", err)
	}
	for _, c := range perCPU {
		out.Suppressed += c.Suppressed
		out.Lost += c.Lost
	}
	w.unseen(out)
	return nil
}

// read hands on what was dropped since begin: a process that was killed may have left older ones in the ring.
func read(events *ringbuf.Reader, begin time.Duration, drop func(Drop)) error {
	var record ringbuf.Record
	for {
		err := events.ReadInto(&record)
		if errors.Is(err, os.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("ring of dropped packets: %w", err)
		}
		var e abi.DropEvent
		if _, err := binary.Decode(record.RawSample, binary.NativeEndian, &e); err != nil {
			return fmt.Errorf("ring of dropped packets: a sample of %d bytes: %w", len(record.RawSample), err)
		}
		if time.Duration(e.TimeNs) >= begin {
			drop(dropOf(e))
		}
	}
}

func dropOf(e abi.DropEvent) Drop {
	d := Drop{
		Time: time.Duration(e.TimeNs), Hook: abi.Hook(e.Hook), Ifindex: int(e.Ifindex), Len: int(e.Len),
		Reason: abi.Reason(e.Reason), Rule: e.Rule, VLAN: int(e.VLAN), Protocol: e.Protocol,
		Ports: e.Flags&abi.DropPorts != 0, Fragment: e.Flags&abi.DropFragment != 0, TCPFlags: e.TCPFlags, ICMPType: e.ICMPType,
	}
	if e.Family == 0 {
		return d
	}
	d.Src = netip.AddrPortFrom(address(e.Family, e.Src), binary.BigEndian.Uint16(e.Sport[:]))
	d.Dst = netip.AddrPortFrom(address(e.Family, e.Dst), binary.BigEndian.Uint16(e.Dport[:]))
	return d
}

// address takes the family from the packet: an IPv6 one may carry a mapped address, and is to be seen as it was.
func address(family uint8, a abi.Addr) netip.Addr {
	if family == 4 {
		return netip.AddrFrom16(a).Unmap()
	}
	return netip.AddrFrom16(a)
}

// bootTime is CLOCK_BOOTTIME, which bpf_ktime_get_boot_ns reads as well.
func bootTime() time.Duration {
	var ts unix.Timespec
	// Cannot fail: the clock exists since Linux 2.6.39 and ts is ours.
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	return time.Duration(ts.Nano())
}

package xdp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"sluice/xdp/abi"
	"sluice/xdp/pin"
	"sluice/xdp/table"
)

// The programs stop telling by themselves when the lease is not renewed.
const (
	watchLease = 3 * time.Second
	watchRenew = time.Second
)

// watch makes the programs of all hooks tell one watcher of packets, through a ring. Only one of a kind may run at a
// time. No generation is loaded for it.
type watch struct {
	watcher abi.Watcher
	what    string // of errors
	burst   uint32
	maps    map[string]*ebpf.Map
	events  *ringbuf.Reader
}

// openWatch opens the ring and what else is named. Nothing is told before lease.
func openWatch(path string, watcher abi.Watcher, what, ring string, rate int, more ...string) (*watch, error) {
	dir, err := pin.Open(path)
	if err != nil {
		return nil, err
	}
	spec, err := loadIngress()
	if err != nil {
		return nil, err
	}
	maps, err := table.OpenState(dir, spec, append(more, ring, table.Watches, table.WatchBudgets)...)
	if err != nil {
		return nil, err
	}
	events, err := ringbuf.NewReader(maps[ring])
	if err != nil {
		return nil, errors.Join(fmt.Errorf("ring of %s: %w", what, err), table.CloseAll(maps))
	}
	return &watch{watcher: watcher, what: what, burst: burst(rate), maps: maps, events: events}, nil
}

func (w *watch) close() {
	_ = w.events.Close()
	_ = table.CloseAll(w.maps)
}

// burst spreads a rate over the CPUs and windows; each CPU gets at least one packet a window.
func burst(rate int) uint32 {
	perWindow := rate * abi.WatchWindowNs / int(time.Second)
	return uint32(max(1, perWindow/ebpf.MustPossibleCPU()))
}

// put writes this watcher's element and no other's, which others may be writing.
func (w *watch) put(lease abi.Watch) error {
	raw, err := binary.Append(nil, binary.NativeEndian, lease)
	if err != nil {
		return err
	}
	all, err := w.maps[table.Watches].Memory()
	if err == nil {
		_, err = all.WriteAt(raw, int64(w.watcher)*int64(len(raw)))
	}
	if err != nil {
		return fmt.Errorf("ask for %s: %w", w.what, err)
	}
	return nil
}

func (w *watch) lease() error {
	return w.put(abi.Watch{UntilNs: uint64(bootTime() + watchLease), Burst: w.burst})
}

// stop ends the lease; where that fails it ends by itself.
func (w *watch) stop() { _ = w.put(abi.Watch{}) }

// keep renews the lease and calls each, now and then about once a second, until ctx ends.
func (w *watch) keep(ctx context.Context, each func() error) error {
	tick := time.NewTicker(watchRenew)
	defer tick.Stop()
	for {
		if err := errors.Join(w.lease(), each()); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// spent sums what the CPUs have spent since the machine booted.
func (w *watch) spent() (sum abi.WatchBudget, err error) {
	var perCPU []abi.WatchBudget
	if err := w.maps[table.WatchBudgets].Lookup(uint32(w.watcher), &perCPU); err != nil {
		return sum, fmt.Errorf("count of %s: %w", w.what, err)
	}
	for _, c := range perCPU {
		sum.Wanted += c.Wanted
		sum.Suppressed += c.Suppressed
		sum.Lost += c.Lost
	}
	return sum, nil
}

// read hands on what is in the ring until the reader is closed, or until it was flushed and the ring is empty. The bytes
// are each's only while it runs.
func (w *watch) read(each func([]byte) error) error {
	var record ringbuf.Record
	for {
		err := w.events.ReadInto(&record)
		if errors.Is(err, os.ErrClosed) || errors.Is(err, ringbuf.ErrFlushed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("ring of %s: %w", w.what, err)
		}
		if err := each(record.RawSample); err != nil {
			return err
		}
	}
}

// bootTime is CLOCK_BOOTTIME, which bpf_ktime_get_boot_ns reads as well.
func bootTime() time.Duration {
	var ts unix.Timespec
	// Cannot fail: the clock exists since Linux 2.6.39 and ts is ours.
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	return time.Duration(ts.Nano())
}

package table

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
)

// The programs stop telling by themselves when the lease is not renewed.
const (
	watchLease = 3 * time.Second
	watchRenew = time.Second
)

// Watch makes the programs of all hooks tell one watcher of packets or flows, through a ring. Only one of a kind may run at
// a time. No generation is loaded for it.
type Watch struct {
	Maps    map[string]*ebpf.Map // what was asked for beside the ring
	watcher abi.Watcher
	what    string // of errors
	burst   uint32
	events  *ringbuf.Reader
}

// Unseen counts, since the machine booted, what was not told while somebody listened.
type Unseen struct {
	Suppressed uint64 // beyond the rate
	Lost       uint64 // no room in the ring: the daemon was too slow
}

// OpenWatch opens the ring and what else is named, all of spec. Nothing is told before Lease.
func OpenWatch(path string, spec *ebpf.CollectionSpec, watcher abi.Watcher, what, ring string, rate int, more ...string) (*Watch, error) {
	dir, err := pin.Open(path)
	if err != nil {
		return nil, err
	}
	maps, err := OpenState(dir, spec, append(more, ring, Watches, WatchBudgets)...)
	if err != nil {
		return nil, err
	}
	events, err := ringbuf.NewReader(maps[ring])
	if err != nil {
		return nil, errors.Join(fmt.Errorf("ring of %s: %w", what, err), CloseAll(maps))
	}
	return &Watch{watcher: watcher, what: what, burst: burst(rate), Maps: maps, events: events}, nil
}

// Close closes the ring and the maps; a lease ends by itself.
func (w *Watch) Close() {
	_ = w.events.Close()
	_ = CloseAll(w.Maps)
}

// burst spreads a rate over the CPUs and windows; each CPU gets at least one packet a window.
func burst(rate int) uint32 {
	perWindow := rate * abi.WatchWindowNs / int(time.Second)
	return uint32(max(1, perWindow/ebpf.MustPossibleCPU()))
}

// put writes this watcher's element and no other's, which others may be writing.
func (w *Watch) put(lease abi.Watch) error {
	raw, err := binary.Append(nil, binary.NativeEndian, lease)
	if err != nil {
		return err
	}
	all, err := w.Maps[Watches].Memory()
	if err == nil {
		_, err = all.WriteAt(raw, int64(w.watcher)*int64(len(raw)))
	}
	if err != nil {
		return fmt.Errorf("ask for %s: %w", w.what, err)
	}
	return nil
}

// Lease asks for what is watched, for some seconds.
func (w *Watch) Lease() error {
	return w.put(abi.Watch{UntilNs: uint64(BootTime() + watchLease), Burst: w.burst})
}

// Stop ends the lease; where that fails it ends by itself.
func (w *Watch) Stop() { _ = w.put(abi.Watch{}) }

// Keep renews the lease and calls each, now and then about once a second, until ctx ends.
func (w *Watch) Keep(ctx context.Context, each func() error) error {
	tick := time.NewTicker(watchRenew)
	defer tick.Stop()
	for {
		if err := errors.Join(w.Lease(), each()); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Spent sums what the CPUs have spent since the machine booted.
func (w *Watch) Spent() (sum abi.WatchBudget, err error) {
	var perCPU []abi.WatchBudget
	if err := w.Maps[WatchBudgets].Lookup(uint32(w.watcher), &perCPU); err != nil {
		return sum, fmt.Errorf("count of %s: %w", w.what, err)
	}
	for _, c := range perCPU {
		sum.Wanted += c.Wanted
		sum.Suppressed += c.Suppressed
		sum.Lost += c.Lost
	}
	return sum, nil
}

// Read hands on what is in the ring until the reader is closed, or until it was flushed and the ring is empty. The bytes
// are each's only while it runs.
func (w *Watch) Read(each func([]byte) error) error {
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

// Flush ends Read once what the ring holds was read.
func (w *Watch) Flush() { _ = w.events.Flush() }

// Follow watches until ctx ends. It calls each for what the ring brings, told by the CLOCK_BOOTTIME of the beginning from what
// a process that was killed left in it; and unseen before it begins, when it has begun, and then about once a second. Both
// must be quick, or more is lost.
func (w *Watch) Follow(ctx context.Context, each func(raw []byte, begin time.Duration) error, unseen func(Unseen)) error {
	tell := func() error {
		sum, err := w.Spent()
		if err == nil {
			unseen(Unseen{Suppressed: sum.Suppressed, Lost: sum.Lost})
		}
		return err
	}
	begin := BootTime()
	if err := errors.Join(tell(), w.Lease()); err != nil {
		return err
	}
	defer w.Stop()
	ctx, cancel := context.WithCancel(ctx)
	kept := make(chan error, 1)
	go func() {
		defer w.events.Close() // ends the reader
		kept <- w.Keep(ctx, tell)
	}()
	err := w.Read(func(raw []byte) error { return each(raw, begin) })
	cancel()
	return errors.Join(err, <-kept)
}

// BootTime is CLOCK_BOOTTIME, which bpf_ktime_get_boot_ns reads as well.
func BootTime() time.Duration {
	var ts unix.Timespec
	// Cannot fail: the clock exists since Linux 2.6.39 and ts is ours.
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	return time.Duration(ts.Nano())
}

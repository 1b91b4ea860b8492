package lane

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"structs"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// FrameSize is that of every frame, without FCS.
const FrameSize = 64

// Sample is what a number of packets cost.
type Sample struct {
	Packets int
	CPU     time.Duration // of the sending thread and of its CPU's ksoftirqd: sender, wire and receiver together
	Wall    time.Duration // on the clock, without setting up and tearing down
	Verdict uint32        // of a Feeder's last packet: enum xdp_action
}

// Nanos are CPU nanoseconds per packet.
func (s Sample) Nanos() float64 { return float64(s.CPU) / float64(s.Packets) }

// Mpps are millions of packets per second of the clock.
func (s Sample) Mpps() float64 { return float64(s.Packets) / s.Wall.Seconds() / 1e6 }

// Runner runs n packets, and says what they cost.
type Runner func(n int) (Sample, error)

// Sender sends flows into a site as live frames (BPF_F_TEST_XDP_LIVE_FRAMES) out of the generator's veth. The closer
// gives the program back.
func (o *Objects) Sender(s *Site, flows *Flows) (Runner, func(), error) {
	index := 0
	if err := s.Generator.Do(func() (err error) { index, _, err = Up(tor); return err }); err != nil {
		return nil, nil, err
	}
	header := ethernet{Dst: [6]byte(s.mac.uplink), Src: [6]byte(s.mac.tor), Type: [2]byte{8, 0}}
	c, err := o.load("send", flows, map[string]any{"out": uint32(index), "link": header})
	if err != nil {
		return nil, nil, err
	}
	program := c.Programs["send"]
	return func(n int) (Sample, error) {
		return s.Generator.measure(n, &testRun{Program: uint32(program.FD()), Flags: unix.BPF_F_TEST_XDP_LIVE_FRAMES})
	}, c.Close, nil
}

// xdpMD is struct xdp_md.
type xdpMD struct {
	_                                                            structs.HostLayout
	Data, DataEnd, DataMeta, IngressIfindex, RxQueue, EgressIndx uint32
}

// Feeder runs flows through a program (of type xdp.frags) by BPF_PROG_TEST_RUN, as if they came in by the uplink of a
// site. Writing the frame and a tail call are in the cost of every program alike.
func (o *Objects) Feeder(s *Site, flows *Flows, program *ebpf.Program) (Runner, func(), error) {
	header := ethernet{Dst: [6]byte(s.mac.uplink), Src: [6]byte(s.mac.tor), Type: [2]byte{8, 0}}
	c, err := o.load("feed", flows, map[string]any{"link": header})
	if err != nil {
		return nil, nil, err
	}
	if err := c.Maps["slot"].Put(uint32(0), program); err != nil {
		c.Close()
		return nil, nil, fmt.Errorf("put the program into the slot: %w", err)
	}
	context := &xdpMD{DataEnd: FrameSize, IngressIfindex: uint32(s.UplinkIndex)}
	feed := c.Programs["feed"]
	return func(n int) (Sample, error) {
		defer runtime.KeepAlive(context)
		return s.Box.measure(n, &testRun{
			Program: uint32(feed.FD()), ContextIn: uint64(uintptr(unsafe.Pointer(context))), ContextSizeIn: uint32(unsafe.Sizeof(*context)),
		})
	}, c.Close, nil
}

// measure makes one call that runs a program n times.
func (n *Namespace) measure(packets int, call *testRun) (out Sample, err error) {
	frame := new([FrameSize]byte)
	call.DataIn, call.DataSizeIn, call.Repeat = uint64(uintptr(unsafe.Pointer(frame))), FrameSize, uint32(packets)
	err = n.Do(func() error {
		defer runtime.KeepAlive(frame)
		cpu, err := LastCPU()
		if err != nil {
			return err
		}
		if err := Pin(cpu); err != nil {
			return err
		}
		softirq := SoftirqPID(cpu)
		before, err := cpuTime(softirq)
		if err != nil {
			return err
		}
		if err := call.run(); err != nil {
			return err
		}
		after, err := cpuTime(softirq)
		// The kernel gives the mean of the runs.
		out = Sample{Packets: packets, CPU: after - before, Wall: time.Duration(call.Duration) * time.Duration(packets), Verdict: call.Retval}
		return err
	})
	return out, err
}

// retry repeats a call that a signal broke off.
func retry(run Runner, n int) (Sample, error) {
	for {
		s, err := run(n)
		if !errors.Is(err, unix.EINTR) {
			return s, err
		}
	}
}

// Repeats finds the number of packets that take about as long as one run should, within the bounds. The first packets
// also warm the caches.
func Repeats(run Runner, aim time.Duration, least, most int) (int, error) {
	s, err := retry(run, least)
	if err != nil {
		return 0, err
	}
	return min(most, max(least, int(float64(aim)/s.Nanos()))), nil
}

// Lane is one rival: a name, and how to run a number of packets through it.
type Lane struct {
	Name    string
	Run     Runner
	Repeats int
}

// Rounds runs every lane once a round, in an order of its own each round, so that what disturbs the machine for a while
// meets all of them. Samples are by lane and round, and those of one round belong together.
func Rounds(ctx context.Context, rng *rand.Rand, rounds int, lanes []Lane) (map[string][]Sample, error) {
	out := map[string][]Sample{}
	for range rounds {
		for _, i := range rng.Perm(len(lanes)) {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			s, err := retry(lanes[i].Run, lanes[i].Repeats)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", lanes[i].Name, err)
			}
			out[lanes[i].Name] = append(out[lanes[i].Name], s)
		}
	}
	return out, nil
}

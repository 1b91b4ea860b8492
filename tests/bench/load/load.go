// Package load is the load of the benchmarks of the path: requests and responses over TCP between two namespaces (RR),
// the same with a connection for each (CRR), and streams by iperf3 (Stream), all on one CPU, and what they cost of it.
package load

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"sluice/tests/bench/lane"
)

// Kind is what is done.
type Kind string

// What netperf calls TCP_RR, TCP_CRR and TCP_STREAM.
const (
	RR     Kind = "RR"
	CRR    Kind = "CRR"
	Stream Kind = "STREAM"
)

// Spec is one run.
type Spec struct {
	Kind        Kind
	Server      netip.AddrPort // where the servers listen: an IPv4 address of their namespace
	Connections int            // at once, each with a thread at either end; 1 if it is 0, 256 at most
	Duration    time.Duration  // that is measured; streams round it up to whole seconds
	CPU         int            // that all of it runs on; lane.LastCPU() is a good one
	// Request and Response are bytes, 1 if they are 0, 64 MiB at most. Streams have none. A long request and a short
	// response are a stream that a Session can measure in pieces.
	Request, Response int
	// Beside are processes whose CPU time is part of the cost: a tunnel's, say. RR and CRR only; 64 at most.
	Beside []int
}

// Result is what was done in the measured time.
type Result struct {
	Operations uint64 // of RR and CRR
	Bytes      uint64 // that servers and clients received, without headers
	Wall       time.Duration
	CPU        time.Duration // of both ends, of their CPU's ksoftirqd, and of processes beside: all that the operations cost
	Softirq    time.Duration // the part of CPU that was in ksoftirqd
	Beside     time.Duration // the part of CPU that was in processes beside
	Latency    Quantiles     // of RR and CRR
	Switches   uint64        // context switches of both ends, of RR and CRR
	// Retransmitted are TCP segments of both namespaces, also of the time before and after that was not measured.
	Retransmitted uint64
}

// Quantiles are those of the time from one operation's begin to its end on the clock, to 1.6 % above 128 ns.
type Quantiles struct{ P50, P99, P999, Max time.Duration }

// PerOperation is CPU time in nanoseconds.
func (r Result) PerOperation() float64 { return float64(r.CPU) / float64(r.Operations) }

// PerMB is CPU time in nanoseconds for a million bytes.
func (r Result) PerMB() float64 { return float64(r.CPU) / float64(r.Bytes) * 1e6 }

// ErrNothing says that not one operation, or not one byte, came through in the measured time.
var ErrNothing = errors.New("nothing came through")

// Generator runs loads. Its program is C (host/load.c): neither a scheduler of its own nor a garbage collector is in
// the figures.
type Generator struct {
	dir     string // "": the program is somebody else's
	program string

	mu    sync.Mutex
	ports map[*lane.Namespace]uint64 // how many ports of a clients' namespace were used: the next run goes on from there
}

// New compiles the program. The caller closes the Generator.
func New(ctx context.Context) (*Generator, error) {
	root, err := lane.Root()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "sluice-load-")
	if err != nil {
		return nil, err
	}
	g := With(filepath.Join(dir, "load"))
	g.dir = dir
	// Static, so that a virtual machine without a libc runs it as well.
	cmd := exec.CommandContext(ctx, "clang-19", "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-pthread", "-o", g.program,
		filepath.Join(root, "tests/bench/load/host/load.c"))
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, errors.Join(fmt.Errorf("compile the load: %w\n%s", err, out), g.Close())
	}
	return g, nil
}

// With returns one whose program is there already, from another Generator's Program.
func With(program string) *Generator {
	return &Generator{program: program, ports: map[*lane.Namespace]uint64{}}
}

// Program is the path of the compiled program.
func (g *Generator) Program() string { return g.program }

func (g *Generator) port(client *lane.Namespace) uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.ports[client]
}

func (g *Generator) setPort(client *lane.Namespace, used uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ports[client] = used
}

// Close removes the program that New compiled.
func (g *Generator) Close() error {
	if g.dir == "" {
		return nil
	}
	return os.RemoveAll(g.dir)
}

// Run does one run and measures it. Any error at either end is one of Run.
func (g *Generator) Run(ctx context.Context, client, server *lane.Namespace, s Spec) (Result, error) {
	if s.Kind == Stream {
		return stream(ctx, client, server, s)
	}
	session, err := g.Open(ctx, client, server, s)
	if err != nil {
		return Result{}, err
	}
	r, err := session.Run(s.Duration)
	return r, errors.Join(err, session.Close())
}

func (s Spec) complete() Spec {
	s.Connections, s.Request, s.Response = max(s.Connections, 1), max(s.Request, 1), max(s.Response, 1)
	return s
}

package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Profile is where the CPU time of a lane goes, by perf's samples of cpu-clock: there is no PMU in most virtual machines.
// Time with interrupts off is counted where they come on again.
type Profile struct {
	Shape   Shape
	Rival   string
	Samples int
	Symbols []Symbol // the largest first
}

// Symbol is a function of the kernel, a BPF program, or all of user space.
type Symbol struct {
	Name  string
	Share float64 // of the samples
}

const (
	perfRate  = "4999" // Hz; not a multiple of a timer's
	userSpace = "user space"
	keep      = 60  // symbols of a profile
	enough    = 300 // samples; with fewer a profile says nothing
)

// profiled are the loads and lanes that have a profile.
var (
	profiledShapes = []Shape{Shapes[0], Shapes[2], Shapes[4]}
	profiledLanes  = []string{Plain, NFT, Routing, Sluice, SluiceTCX}
)

// profiles makes them of lanes that are up. A machine without perf has none, and the report says so.
func (g *group) profiles(ctx context.Context, o Options, shapes []Shape) ([]Profile, error) {
	if _, err := exec.LookPath("perf"); err != nil {
		g.log.Warn("no profiles: perf is missing (make deps installs it)")
		return nil, nil
	}
	var out []Profile
	for _, s := range shapes {
		for _, l := range g.lanes {
			if !slices.Contains(profiledLanes, l.Key) || !slices.Contains(profiledShapes, s) {
				continue
			}
			p, err := g.profile(ctx, l, s, o.Profile)
			if err != nil {
				return nil, fmt.Errorf("profile of %s, %s: %w", s, l, err)
			}
			out = append(out, p)
		}
	}
	return out, nil
}

func (g *group) profile(ctx context.Context, l *pathLane, s Shape, d time.Duration) (p Profile, err error) {
	dir, err := os.MkdirTemp("", "sluice-perf-")
	if err != nil {
		return p, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	data := filepath.Join(dir, "data")
	stop, err := record(ctx, data)
	if err != nil {
		return p, err
	}
	_, err = g.run(ctx, l, s, d)
	if err := errors.Join(err, stop()); err != nil {
		return p, err
	}
	script := exec.CommandContext(ctx, "perf", "script", "-i", data, "-C", strconv.Itoa(g.cpu), "-F", "comm,ip,sym")
	var stdout, stderr bytes.Buffer
	script.Stdout, script.Stderr = &stdout, &stderr
	if err := script.Run(); err != nil {
		return p, fmt.Errorf("perf script: %w: %.300s", err, stderr.Bytes())
	}
	p = symbols(stdout.Bytes(), fmt.Sprintf("ksoftirqd/%d", g.cpu))
	p.Shape, p.Rival = s, l.Key
	return p, nil
}

// record takes samples from when it returns until stop is called.
func record(ctx context.Context, data string) (stop func() error, err error) {
	// All CPUs, because a process gets its name on the CPU where it was started. perf starts the shell when it records, and
	// ends with it.
	cmd := exec.CommandContext(ctx, "perf", "record", "-q", "-e", "cpu-clock", "-F", perfRate, "-a", "-o", data, "--",
		"sh", "-c", "echo recording; read -r end; exit 0")
	var complaint bytes.Buffer
	cmd.Stderr, cmd.WaitDelay = &complaint, time.Second
	end, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(out, make([]byte, len("recording\n"))); err != nil {
		return nil, fmt.Errorf("perf record: %w: %.300s", errors.Join(err, cmd.Wait()), complaint.Bytes())
	}
	return func() error {
		end.Close()
		if err := cmd.Wait(); err != nil {
			return fmt.Errorf("perf record: %w: %.300s", err, complaint.Bytes())
		}
		return nil
	}, nil
}

// symbols counts the samples of the load's processes and of a kernel thread: what else ran on the CPU is not the lane's.
func symbols(script []byte, softirq string) Profile {
	var p Profile
	counts := map[string]int{}
	for lines := bufio.NewScanner(bytes.NewReader(script)); lines.Scan(); {
		words := strings.Fields(lines.Text()) // load ffffffff81c0ffee tcp_ack
		if len(words) < 3 || words[0] != "load" && words[0] != "iperf3" && words[0] != softirq {
			continue
		}
		p.Samples++
		counts[symbol(words[1], words[2])]++
	}
	for name, n := range counts {
		p.Symbols = append(p.Symbols, Symbol{name, digits(float64(n) / float64(p.Samples))})
	}
	slices.SortFunc(p.Symbols, func(a, b Symbol) int {
		return cmp.Or(cmp.Compare(b.Share, a.Share), strings.Compare(a.Name, b.Name))
	})
	p.Symbols = p.Symbols[:min(keep, len(p.Symbols))]
	return p
}

// symbol names an address: addresses of the kernel are in the upper half, and a BPF program has its tag in its name.
func symbol(address, name string) string {
	if len(address) < 16 || address[0] != 'f' {
		return userSpace
	}
	if tagged, is := strings.CutPrefix(name, "bpf_prog_"); is {
		if _, plain, ok := strings.Cut(tagged, "_"); ok {
			return "bpf: " + plain
		}
	}
	return name
}

// share is that of a symbol.
func (p Profile) share(name string) float64 {
	for _, s := range p.Symbols {
		if s.Name == name {
			return s.Share
		}
	}
	return 0
}

// profileOf finds one; it has no samples where there is none.
func (r *Results) profileOf(s Shape, key string) Profile {
	for _, p := range r.Profiles {
		if p.Shape == s && p.Rival == key {
			return p
		}
	}
	return Profile{}
}

// Difference is what a function takes in a lane and in another one, in the unit of the load's costs.
type Difference struct {
	Name      string
	Own, That float64
}

// differences are the functions that take more of one lane than of another, the largest first.
func (r *Results) differences(s Shape, own, that string, most int) []Difference {
	a, b := r.profileOf(s, own), r.profileOf(s, that)
	costA, costB := r.find(NodeNetworking, s, 0, own).Cost(), r.find(NodeNetworking, s, 0, that).Cost()
	if a.Samples < enough || b.Samples < enough || !costA.Valid() || !costB.Valid() {
		return nil
	}
	var out []Difference
	for _, symbol := range a.Symbols {
		d := Difference{symbol.Name, symbol.Share * costA.Median, b.share(symbol.Name) * costB.Median}
		if d.Own > d.That {
			out = append(out, d)
		}
	}
	slices.SortStableFunc(out, func(x, y Difference) int { return cmp.Compare(y.Own-y.That, x.Own-x.That) })
	return out[:min(most, len(out))]
}

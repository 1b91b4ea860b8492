package load

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"sluice/tests/bench/lane"
)

// stream runs iperf3 at both ends. It knows whole seconds only, so the duration is rounded up, and the CPU time is that
// of the processes from their start to their end: about 10 ms more than that of the stream alone.
func stream(ctx context.Context, client, server *lane.Namespace, s Spec) (Result, error) {
	s = s.complete()
	if err := prepare(client, server); err != nil {
		return Result{}, err
	}
	n, err := open(client, server)
	if err != nil {
		return Result{}, err
	}
	defer n.Close()
	segments, err := n.retransmitted()
	if err != nil {
		return Result{}, err
	}
	r, err := streamOnce(ctx, client, server, s)
	if err != nil {
		return Result{}, fmt.Errorf("%s to %s: %w", s.Kind, s.Server, err)
	}
	after, err := n.retransmitted()
	r.Retransmitted = after - segments
	return r, err
}

func streamOnce(ctx context.Context, client, server *lane.Namespace, s Spec) (Result, error) {
	seconds := int(max(1, math.Ceil(s.Duration.Seconds())))
	ctx, cancel := context.WithTimeout(ctx, time.Duration(seconds)*time.Second+15*time.Second)
	defer cancel()
	softirq := lane.SoftirqPID(s.CPU)
	before, err := softirqTime(softirq)
	if err != nil {
		return Result{}, err
	}
	address, port := s.Server.Addr().String(), strconv.Itoa(int(s.Server.Port()))
	far, err := serve(ctx, server, s.CPU, "--bind", address, "--port", port)
	if err != nil {
		return Result{}, err
	}
	near := iperf3(ctx, "--client", address, "--port", port, "--time", strconv.Itoa(seconds), "--interval", "0",
		"--parallel", strconv.Itoa(s.Connections), "--congestion", "cubic", "--window", "512K", "--json")
	var said, complaint bytes.Buffer
	near.Stdout, near.Stderr = &said, &complaint
	err = client.Do(func() error { return onCPU(s.CPU, near.Run) })
	if err != nil {
		// Nobody will come to the server any more.
		cancel()
	}
	r, wrong := read(said.Bytes())
	if err := errors.Join(err, wrong, far.Wait()); err != nil {
		return Result{}, fmt.Errorf("iperf3: %w %s", err, bytes.TrimSpace(complaint.Bytes()))
	}
	after, err := softirqTime(softirq)
	r.Softirq = after - before
	r.CPU = used(near) + used(far) + r.Softirq
	return r, err
}

func iperf3(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "iperf3", args...)
	cmd.WaitDelay = time.Second
	return cmd
}

// serve starts a server for one client, and returns when it listens. It ends with its client or with ctx.
func serve(ctx context.Context, in *lane.Namespace, cpu int, args ...string) (*exec.Cmd, error) {
	cmd := iperf3(ctx, append([]string{"--server", "--one-off", "--forceflush"}, args...)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	if err := in.Do(func() error { return onCPU(cpu, cmd.Start) }); err != nil {
		return nil, err
	}
	for lines := bufio.NewReader(out); ; {
		line, err := lines.ReadString('\n')
		if strings.HasPrefix(line, "Server listening") {
			go io.Copy(io.Discard, lines) // ends with the process
			return cmd, nil
		}
		if err != nil {
			return nil, fmt.Errorf("iperf3 does not listen: %w: %s %s", errors.Join(err, cmd.Wait()), line, bytes.TrimSpace(complaint.Bytes()))
		}
	}
}

// onCPU pins the thread of a Namespace.Do, so that what f starts is pinned as well.
func onCPU(cpu int, f func() error) error {
	if err := lane.Pin(cpu); err != nil {
		return fmt.Errorf("stay on CPU %d: %w", cpu, err)
	}
	return f()
}

// used is exact: the kernel scales user and system time so that their sum is what the scheduler counted.
func used(cmd *exec.Cmd) time.Duration {
	return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
}

func softirqTime(pid int) (time.Duration, error) {
	if pid == 0 {
		return 0, nil
	}
	return lane.Ran(pid)
}

// read reads what a client says. iperf3 puts its complaints there, too.
func read(data []byte) (Result, error) {
	var said struct {
		Error string
		End   struct {
			Received struct {
				Bytes   uint64
				Seconds float64
			} `json:"sum_received"`
		}
	}
	if err := json.Unmarshal(data, &said); err != nil {
		return Result{}, fmt.Errorf("read what it says: %w", err)
	}
	got := said.End.Received
	switch {
	case said.Error != "":
		return Result{}, errors.New(said.Error)
	case got.Bytes == 0:
		return Result{}, ErrNothing
	}
	return Result{Bytes: got.Bytes, Wall: time.Duration(got.Seconds * float64(time.Second))}, nil
}

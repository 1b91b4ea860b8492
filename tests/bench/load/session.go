package load

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"sluice/tests/bench/lane"
)

// How long the same is done before it is measured: caches and predictors have forgotten a lane while others had the CPU.
const (
	warmFirst = 50 * time.Millisecond
	warmAgain = 3 * time.Millisecond
)

// Session is RR or CRR between two namespaces that is measured in pieces. Both ends are there all the time, and asleep
// between two measurements: so sessions of rival lanes take turns within milliseconds, and what slows the machine for a
// second slows all of them.
type Session struct {
	spec        Spec
	cmd         *exec.Cmd
	orders      io.WriteCloser
	answers     *bufio.Reader
	complaint   *bytes.Buffer
	namespaces  *namespaces
	retransmits uint64
	warm        time.Duration
	ever        Quantiles
	ports       uint64
	returnPorts func(uint64)
}

// Open starts both ends of a load of RR or CRR; the Duration of s is for Run alone. ctx ends it at any time. The caller
// closes the Session.
func (g *Generator) Open(ctx context.Context, client, server *lane.Namespace, s Spec) (*Session, error) {
	s = s.complete()
	if s.Kind != RR && s.Kind != CRR {
		return nil, fmt.Errorf("load %q: RR, CRR or STREAM, and no session of streams", s.Kind)
	}
	if err := prepare(client, server); err != nil {
		return nil, err
	}
	n, err := open(client, server)
	if err != nil {
		return nil, err
	}
	session := &Session{spec: s, namespaces: n, complaint: &bytes.Buffer{}, warm: warmFirst, ports: g.port(client)}
	session.returnPorts = func(ports uint64) { g.setPort(client, ports) }
	if session.retransmits, err = n.retransmitted(); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	if err := session.start(ctx, g.program); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return session, nil
}

func (s *Session) start(ctx context.Context, program string) error {
	args := []string{strings.ToLower(string(s.spec.Kind)), strconv.Itoa(s.spec.CPU), strconv.Itoa(lane.SoftirqPID(s.spec.CPU)), s.spec.Server.Addr().String()}
	for _, n := range []int{int(s.spec.Server.Port()), s.spec.Connections, s.spec.Request, s.spec.Response, int(s.ports)} {
		args = append(args, strconv.Itoa(n))
	}
	var beside []string
	for _, pid := range s.spec.Beside {
		beside = append(beside, strconv.Itoa(pid))
	}
	args = append(args, strings.Join(beside, ","))
	s.cmd = exec.CommandContext(ctx, program, args...)
	s.cmd.Stderr, s.cmd.ExtraFiles, s.cmd.WaitDelay = s.complaint, s.namespaces.enter[:], time.Second
	var err error
	if s.orders, err = s.cmd.StdinPipe(); err != nil {
		return err
	}
	answers, err := s.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	s.answers = bufio.NewReader(answers)
	return s.cmd.Start()
}

// Run measures once. After an error that is not ErrNothing the session is of no more use.
func (s *Session) Run(d time.Duration) (Result, error) {
	_, err := fmt.Fprintln(s.orders, int64(s.warm), int64(d))
	var line []byte
	if err == nil {
		line, err = s.answers.ReadBytes('\n')
	}
	s.warm = warmAgain
	if err != nil {
		if ended := s.end(); ended != nil {
			err = ended // which says more than a broken pipe
		}
		return Result{}, fmt.Errorf("%s to %s: %w", s.spec.Kind, s.spec.Server, err)
	}
	// What load.c prints.
	var said struct {
		Operations, Switches, Ports    uint64
		Wall, Process, Softirq, Beside time.Duration
		Latency, Ever                  Quantiles
	}
	if err := json.Unmarshal(line, &said); err != nil {
		return Result{}, fmt.Errorf("read what the load says: %w", err)
	}
	if said.Operations == 0 {
		return Result{}, fmt.Errorf("%s to %s: %w", s.spec.Kind, s.spec.Server, ErrNothing)
	}
	s.ever, s.ports = said.Ever, said.Ports
	before := s.retransmits
	s.retransmits, err = s.namespaces.retransmitted()
	return Result{
		Operations: said.Operations, Bytes: said.Operations * uint64(s.spec.Request+s.spec.Response), Wall: said.Wall,
		CPU: said.Process + said.Softirq + said.Beside, Softirq: said.Softirq, Beside: said.Beside, Latency: said.Latency, Switches: said.Switches,
		Retransmitted: s.retransmits - before,
	}, err
}

// Latency is that of all operations that were measured until now.
func (s *Session) Latency() Quantiles { return s.ever }

// Close ends both ends, and says what went wrong in them.
func (s *Session) Close() error {
	err := s.end()
	s.returnPorts(s.ports)
	return errors.Join(err, s.namespaces.Close())
}

// end may be called twice.
func (s *Session) end() error {
	if s.cmd.ProcessState != nil {
		return nil
	}
	s.orders.Close() // where it is closed already the process is on its way
	if err := s.cmd.Wait(); err != nil {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(s.complaint.Bytes()))
	}
	return nil
}

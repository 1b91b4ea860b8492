package netns

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/cmd/lab"
	"sluice/control/api"
	"sluice/tests/pindir"
)

//go:embed testdata/gateway.yaml
var gatewayFile string

// patience is how long a test waits for what must come; nothing is slow because it is long.
const patience = 30 * time.Second

// site is a lab whose ToR runs BIRD, and whose gateway's configuration is testdata/gateway.yaml until a test edits it.
type site struct {
	*lab.Site
	t    *testing.T
	api  *api.Client
	bird *bird
	file string // what Gateway.File holds

	rendered string // what it held first: configs/lab-gateway.yaml with the lab's keys
	after    afterwards
}

// afterwards is a test whose cleanups run once its site is gone.
type afterwards struct {
	testing.TB
	cleanups []func()
}

func (a *afterwards) Cleanup(f func()) { a.cleanups = append(a.cleanups, f) }

// dirs are directories of pins: half of what these tests took was the verifier.
var dirs = pindir.NewLender("netns")

// constant is what of a file makes other programs, and other tables of flows.
var constant = regexp.MustCompile(`role: \w+|\{from: \w+, to: \w+|max_entries: \d+|strict: \w+`)

// borrow lets a node that was never started recast the programs that another test's left. file is its configuration.
func (s *site) borrow(n *lab.Node, file func() string) {
	n.BPFDir = dirs.Lend(&s.after, func() string {
		all := constant.FindAllString(file(), -1)
		slices.Sort(all)
		return strings.Join(slices.Compact(all), " ")
	})
}

// newSite builds a site. BIRD runs; the gateway's daemon does not, yet.
func newSite(t *testing.T) *site {
	s := newBareSite(t)
	s.bird = startBird(t, s)
	return s
}

// newBareSite is newSite without BIRD: for files whose routes are static.
func newBareSite(t *testing.T) *site {
	t.Helper()
	l, err := lab.New(t.Context(), lab.Options{Binary: binary(), Dir: labsDir(), WithoutToR: true})
	if err != nil {
		t.Fatal(err)
	}
	s := &site{Site: l, t: t, api: l.Gateway.API(), after: afterwards{TB: t}}
	t.Cleanup(func() {
		s.api.Close()
		if t.Failed() && s.Gateway.Daemon() != nil {
			log, _ := os.ReadFile(s.Gateway.Daemon().Log)
			t.Logf("the daemon said:\n%s", log[max(0, len(log)-6000):])
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		for _, f := range slices.Backward(s.after.cleanups) {
			f()
		}
	})
	rendered, err := os.ReadFile(s.Gateway.File)
	if err != nil {
		t.Fatal(err)
	}
	s.rendered = string(rendered)
	s.write(gatewayFile)
	s.quiet()
	return s
}

// quiet waits until every link of the gateway has its link-local address: they come a second after the link, and belong
// to `self` and to the state of the machine.
func (s *site) quiet() {
	s.t.Helper()
	eventually(s.t, func() error {
		links := strings.Count(s.must(s.Gateway.Namespace, "ip -o link show up"), "\n") - 1 // but for lo
		addresses := s.must(s.Gateway.Namespace, "ip -6 -o addr show scope link -tentative")
		ready := strings.Count(addresses, "\n") - strings.Count(addresses, "fe80::1/64") // but for those of ours
		if ready != links {
			return fmt.Errorf("%d of %d links have their link-local address", ready, links)
		}
		return nil
	})
}

// newGateway is newSite with the daemon up and both sessions established.
func newGateway(t *testing.T) *site {
	t.Helper()
	s := newSite(t)
	s.start()
	s.established()
	return s
}

func (s *site) write(text string) {
	s.t.Helper()
	s.file = text
	if err := os.WriteFile(s.Gateway.File, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// edit replaces texts in the gateway's file, given in pairs; each must be there exactly once.
func (s *site) edit(oldnew ...string) {
	s.t.Helper()
	s.write(edited(s.t, s.file, oldnew...))
}

func edited(t *testing.T, text string, oldnew ...string) string {
	t.Helper()
	for i := 0; i < len(oldnew); i += 2 {
		if n := strings.Count(text, oldnew[i]); n != 1 {
			t.Fatalf("the file has %q %d times, and the test edits it once", oldnew[i], n)
		}
		text = strings.Replace(text, oldnew[i], oldnew[i+1], 1)
	}
	return text
}

// start starts the daemon and waits until its revision is applied.
func (s *site) start() api.Status {
	s.t.Helper()
	if s.Gateway.Daemon() == nil {
		s.borrow(s.Gateway, func() string { return s.file })
	}
	return s.startAnew()
}

// startAnew is start with nothing to be recast: for who looks at what is pinned.
func (s *site) startAnew() api.Status {
	s.t.Helper()
	if err := s.Gateway.StartDaemon(); err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	status, err := s.Gateway.WaitReady(ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	return status
}

// startPeer starts the other end of the tunnels, and does not wait for it.
func (s *site) startPeer() {
	s.t.Helper()
	text, err := os.ReadFile(s.Peer.File)
	if err != nil {
		s.t.Fatal(err)
	}
	s.borrow(s.Peer, func() string { return string(text) })
	if err := s.Peer.StartDaemon(); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) kill() {
	s.t.Helper()
	if err := s.Gateway.KillDaemon(); err != nil {
		s.t.Fatal(err)
	}
}

// terminate is SIGTERM, and waits for the end, which must be a good one.
func (s *site) terminate() {
	s.t.Helper()
	if err := s.Gateway.Daemon().Signal(syscall.SIGTERM); err != nil {
		s.t.Fatal(err)
	}
	s.ends(0)
}

// ends waits for the daemon's end.
func (s *site) ends(code int) {
	s.t.Helper()
	select {
	case <-s.Gateway.Daemon().Done():
	case <-time.After(patience):
		s.t.Fatal("the daemon does not end")
	}
	if got := s.Gateway.Daemon().ExitCode(); got != code {
		s.t.Errorf("the daemon ended with %d, want %d", got, code)
	}
}

// said is what a command answered.
type said struct {
	code     int
	out, err string
}

// sluice runs the command in the gateway's namespace, with the settings of its daemon.
func (s *site) sluice(args ...string) said {
	s.t.Helper()
	return s.in(s.Gateway.Namespace, binary(), append(args, "--socket", s.Gateway.Socket)...)
}

// in runs a program in a namespace.
func (s *site) in(ns *lab.Namespace, program string, args ...string) said {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 2*patience)
	defer cancel()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &out, &errs, patience // a shell's child may outlive it with the pipes
	err := ns.Do(cmd.Run)
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		s.t.Fatalf("%s %s: %v", program, strings.Join(args, " "), err)
	}
	return said{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

// must runs a program that has to succeed, given as words, and returns its output.
func (s *site) must(ns *lab.Namespace, words string) string {
	s.t.Helper()
	fields := strings.Fields(words)
	r := s.in(ns, fields[0], fields[1:]...)
	if r.code != 0 {
		s.t.Fatalf("%s: exit code %d: %s%s", words, r.code, r.out, r.err)
	}
	return r.out
}

// apply applies the gateway's file, which has to succeed.
func (s *site) apply(args ...string) string {
	s.t.Helper()
	r := s.sluice(append([]string{"apply", "-c", s.Gateway.File}, args...)...)
	if r.code != 0 {
		s.t.Fatalf("sluice apply: exit code %d: %s%s", r.code, r.out, r.err)
	}
	return r.out
}

func (s *site) status() api.Status { return show[api.Status](s, "status") }

func show[T any](s *site, noun string) T {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 2*patience)
	defer cancel()
	v, err := api.Show[T](ctx, s.api, noun)
	if err != nil {
		s.t.Fatalf("show %s: %v", noun, err)
	}
	return v
}

// established waits until all sessions are up, the ToR has what we announce, and the kernel the ToR's default routes.
func (s *site) established() {
	s.t.Helper()
	eventually(s.t, func() error {
		if st := s.status(); st.Established != st.Neighbors || st.Neighbors == 0 {
			return fmt.Errorf("%d of %d sessions are up", st.Established, st.Neighbors)
		}
		return errors.Join(s.bird.has(advertised...), s.learned(bothDefaults))
	})
}

var advertised = []string{
	"203.0.113.0/24", "203.0.113.10/32", "203.0.113.11/32",
	"2001:db8:100::/48", "2001:db8:100::10/128", "2001:db8:100::11/128",
}

// eventually polls until ok has no complaint. At the deadline it says the last one, after what explain has to say.
func eventually(t *testing.T, ok func() error, explain ...func()) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			for _, e := range explain {
				e()
			}
			t.Fatalf("still after %s: %v", patience, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// answers fails unless an HTTP request is answered by the host of that name.
func (s *site) answers(from *lab.Namespace, server netip.Addr, port uint16, name string) {
	s.t.Helper()
	if err := s.get(from, server, port, name); err != nil {
		s.t.Errorf("%s asks %s port %d: %v", from.Name, server, port, err)
	}
}

func (s *site) get(from *lab.Namespace, server netip.Addr, port uint16, name string) error {
	return s.getWithin(5*time.Second, from, server, port, name)
}

func (s *site) getWithin(limit time.Duration, from *lab.Namespace, server netip.Addr, port uint16, name string) error {
	ctx, cancel := context.WithTimeout(s.t.Context(), limit)
	defer cancel()
	body, err := from.Get(ctx, netip.AddrPortFrom(server, port), "/x")
	if err == nil && body != name+" /x\n" {
		err = fmt.Errorf("answered %q, want it from %s", body, name)
	}
	return err
}

// silent fails unless nobody answers a connection: a refusal would mean that it arrived.
func (s *site) silent(from *lab.Namespace, server netip.Addr, port uint16) {
	s.t.Helper()
	if err := s.unanswered(from, server, port); err != nil {
		s.t.Errorf("%s connects to %s port %d: %v", from.Name, server, port, err)
	}
}

func (s *site) unanswered(from *lab.Namespace, server netip.Addr, port uint16) error {
	ctx, cancel := context.WithTimeout(s.t.Context(), 700*time.Millisecond)
	defer cancel()
	conn, err := from.Dial(ctx, "tcp", netip.AddrPortFrom(server, port).String())
	if err == nil {
		_ = conn.Close()
		return errors.New("connected, want silence")
	}
	var timeout net.Error
	if !errors.As(err, &timeout) || !timeout.Timeout() {
		return fmt.Errorf("%w, want silence", err)
	}
	return nil
}

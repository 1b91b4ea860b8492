//go:build vmguest

package site

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/cmd/lab"
	"sluice/control/api"
	"sluice/crypto/keys"
)

const (
	program = "/bin/sluice"
	// patience is long: the kernel's verifier is emulated, and a change that finds no spare generation has taken 108 s of it.
	patience = 5 * time.Minute
	// inner is behind both tunnels.
	inner = "10.20.0.1"
)

var (
	//go:embed testdata/gateway.yaml
	gatewayFile string
	//go:embed testdata/peer.yaml
	peerFile string
)

// site is a lab whose gateway and peer have two tunnels between them.
type site struct {
	*lab.Site
	t             *testing.T
	gateway, peer *end
	wire          *lab.Capture // of the gateway's uplink, from the beginning
	boots         int          // how often the gateway was booted again
}

// end is a node with the text of its file.
type end struct {
	*lab.Node
	t    *testing.T
	text string
}

// TestSite has one site for all, since its daemons' programs are most of the work of a machine that is emulated. Each step finds
// both tunnels up, and leaves them so.
func TestSite(t *testing.T) {
	s := newSite(t)
	s.up()
	for _, step := range []struct {
		name string
		run  func()
	}{
		{"traffic takes ESP while WireGuard is cut", s.trafficTakesESPWhileWireGuardIsCut},
		{"a clock that is set back stops nothing", s.aClockThatIsSetBackStopsNothing},
		{"a clock that is years ahead stops nothing", s.aClockThatIsYearsAheadStopsNothing},
		{"nothing leaves while tunnels are down", s.nothingLeavesWhileTunnelsAreDown},
		{"a peer with another MTU is understood", s.aPeerWithAnotherMTUIsUnderstood},
		{"charon takes over the keys and gives them back", s.charonTakesOverTheKeysAndGivesThemBack},
		{"what BGP learns over a tunnel goes through it", s.whatBGPLearnsOverATunnelGoesThroughIt},
		{"a reboot begins a new epoch", s.aRebootBeginsANewEpoch},
	} {
		t.Run(step.name, func(t *testing.T) {
			s.concerns(t)
			s.gateway.tunnelsAre(api.PeerUp, "fra1", "fra2")
			s.peer.tunnelsAre(api.PeerUp, "edge1", "edge2")
			s.routeIs("fra1")
			step.run()
		})
	}
	s.concerns(t)
	s.neverInClear()
}

// concerns is whom failures from here on belong to.
func (s *site) concerns(t *testing.T) { s.t, s.gateway.t, s.peer.t = t, t, t }

// newSite makes both nodes and starts no daemon yet. Nothing with the marker may cross the gateway's uplink until the test
// calls heard.
func newSite(t *testing.T) *site {
	t.Helper()
	l, err := lab.New(t.Context(), lab.Options{Binary: program, Dir: "/tmp/labs", WithoutToR: true})
	if err != nil {
		t.Fatal(err)
	}
	s := &site{Site: l, t: t, gateway: &end{Node: l.Gateway, t: t}, peer: &end{Node: l.Peer, t: t}}
	t.Cleanup(func() {
		for _, e := range []*end{s.gateway, s.peer} {
			if t.Failed() && e.Daemon() != nil {
				log, _ := os.ReadFile(e.Daemon().Log)
				t.Logf("the daemon of %s said:\n%s", e.Name, log[max(0, len(log)-8000):])
			}
		}
		if err := errors.Join(s.kernelsBootID(), s.Close()); err != nil {
			t.Error(err)
		}
	})
	key := func(name string) (file, public string) {
		file = filepath.Join(s.Dir, name+".wg")
		if public, err = keys.Generate(file); err != nil {
			t.Fatal(err)
		}
		return file, public
	}
	master := filepath.Join(s.Dir, "master")
	if err := keys.GeneratePSK(master); err != nil {
		t.Fatal(err)
	}
	own, public := key("gateway")
	other, otherPublic := key("peer")
	in := strings.NewReplacer("GATEWAY_KEY", own, "GATEWAY_PUBLIC", public, "PEER_KEY", other, "PEER_PUBLIC", otherPublic, "MASTER_KEY", master)
	s.gateway.write(in.Replace(gatewayFile))
	s.peer.write(in.Replace(peerFile))
	s.must(s.ToR, "ip route add 203.0.113.0/24 via 198.18.0.2")
	if s.wire, err = s.ToR.StartCapture("gateway", marker); err != nil {
		t.Fatal(err)
	}
	return s
}

// up starts both daemons and waits until both tunnels carry what they should.
func (s *site) up() {
	s.t.Helper()
	begin := time.Now()
	for _, e := range []*end{s.peer, s.gateway} {
		if err := e.StartDaemon(); err != nil {
			s.t.Fatal(err)
		}
	}
	s.peer.ready()
	s.gateway.ready()
	s.echo(inner)
	s.echo("10.30.0.1")
	s.gateway.tunnelsAre(api.PeerUp, "fra1", "fra2")
	s.peer.tunnelsAre(api.PeerUp, "edge1", "edge2")
	s.t.Logf("up after %s", time.Since(begin))
}

func (e *end) write(text string) {
	e.t.Helper()
	e.text = text
	if err := os.WriteFile(e.File, []byte(text), 0o600); err != nil {
		e.t.Fatal(err)
	}
}

// edit replaces texts, given in pairs; each must be there exactly once.
func (e *end) edit(oldnew ...string) {
	e.t.Helper()
	text := e.text
	for i := 0; i < len(oldnew); i += 2 {
		if n := strings.Count(text, oldnew[i]); n != 1 {
			e.t.Fatalf("the file has %q %d times, and the test edits it once:\n%s", oldnew[i], n, text)
		}
		text = strings.Replace(text, oldnew[i], oldnew[i+1], 1)
	}
	e.write(text)
}

func (e *end) ready() {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(e.t.Context(), patience)
	defer cancel()
	if _, err := e.WaitReady(ctx); err != nil {
		e.t.Fatal(err)
	}
}

func (e *end) start() {
	e.t.Helper()
	if err := e.StartDaemon(); err != nil {
		e.t.Fatal(err)
	}
	e.ready()
}

func (e *end) kill() {
	e.t.Helper()
	if err := e.KillDaemon(); err != nil {
		e.t.Fatal(err)
	}
}

// sluice is the command, which must succeed.
func (e *end) sluice(words string) string {
	e.t.Helper()
	out, err := run(e.t, e.Namespace, append([]string{program}, append(strings.Fields(words), "--socket", e.Socket)...)...)
	if err != nil {
		e.t.Fatal(err)
	}
	return out
}

// apply tells how long it took: where no generation is spare, that is the emulated verifier's time.
func (e *end) apply() {
	e.t.Helper()
	begin := time.Now()
	e.sluice("apply -c " + e.File)
	e.t.Logf("%s applied its file in %s", e.Name, time.Since(begin))
}

// nothingToDo fails unless the machine is what the file says.
func (e *end) nothingToDo() {
	e.t.Helper()
	if out := e.sluice("plan -c " + e.File); !strings.Contains(out, "nothing to do") {
		e.t.Errorf("plan of the unchanged file:\n%s", out)
	}
}

func (s *site) must(n *lab.Namespace, words string) string {
	s.t.Helper()
	out, err := run(s.t, n, strings.Fields(words)...)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

func run(t *testing.T, n *lab.Namespace, words ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	path := map[string]string{"ip": "/usr/sbin/ip"}[words[0]]
	if path == "" {
		path = words[0]
	}
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, path, words[1:]...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := n.Do(cmd.Run); err != nil {
		return out.String(), fmt.Errorf("%s: %w\n%s%s", strings.Join(words, " "), err, out.String(), errs.String())
	}
	return out.String(), nil
}

// eventually polls, and says how long it took: to a twentieth or so, since each look costs an emulated machine dearly.
func eventually(t *testing.T, ok func() error) time.Duration {
	t.Helper()
	for begin := time.Now(); ; time.Sleep(max(20*time.Millisecond, time.Since(begin)/20)) {
		err := ok()
		if took := time.Since(begin); err == nil {
			return took
		} else if took > patience {
			t.Fatalf("still after %s: %v", patience, err)
		}
	}
}

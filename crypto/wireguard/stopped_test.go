package wireguard

import (
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/crypto/path"
)

// twoTunnels are two userspace tunnels of one peer each, with a route to it.
func twoTunnels(t *testing.T) State {
	t.Helper()
	var s State
	for i, name := range []string{"fra1", "fra2"} {
		key := newKey(t, t.TempDir(), name)
		prefix := list([]string{"10.20.0.0/16", "10.30.0.0/16"}[i])
		s.Tunnels = append(s.Tunnels, Tunnel{Name: name, Backend: Userspace, PrivateKeyFile: key.file, PublicKey: key.public, ListenPort: port + uint16(i), MTU: 1420,
			Peers: []Peer{{Name: "a", PublicKey: publicKey(t), AllowedIPs: prefix}}, Routes: []path.Route{{Prefix: prefix[0], Metric: 7}}})
	}
	return s
}

func TestRoutesAreWithdrawnFromATunnelWhoseProcessHasEnded(t *testing.T) {
	d, s := manyDriver(t)
	want := twoTunnels(t)
	if _, err := converge(t.Context(), d, want); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Observe(t.Context()); err != nil { // as after every apply
		t.Fatal(err)
	}
	s.killProcess(t, "fra1")
	if err := d.Withhold(t.Context(), map[string][]string{"fra1": {want.Tunnels[0].Peers[0].PublicKey}}); err != nil {
		t.Error(err)
	}
	routes, err := d.links.Routes()
	if err != nil {
		t.Fatal(err)
	}
	var left []path.Route
	for _, of := range routes {
		left = append(left, of...)
	}
	if !slices.Equal(left, want.Tunnels[1].Routes) {
		t.Errorf("routes %v, want those of fra2 alone", left)
	}
	if err := d.Down(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestAStoppedProcessHidesItsOwnTunnelAlone(t *testing.T) {
	d, s := manyDriver(t)
	if _, err := converge(t.Context(), d, twoTunnels(t)); err != nil {
		t.Fatal(err)
	}
	stopProcess(t, s.process(t, "fra1"))
	got := wantFirstStopped(t, d)
	d.mu.Lock() // as a step that waits for the stopped process has it
	last, err := d.Status(t.Context())
	d.mu.Unlock()
	if err == nil || !slices.EqualFunc(last, got, func(a, b TunnelStatus) bool { return a.Name == b.Name && a.Running == b.Running }) {
		t.Errorf("while a step waits: %+v, %v", last, err)
	}
	until(t, "all goes down", func() bool { return d.Down(t.Context()) == nil }) // the stopped one was killed and is ending
}

// wantFirstStopped wants the status of two tunnels, the first of which stands still, and returns it.
func wantFirstStopped(t *testing.T, d *Driver) []TunnelStatus {
	t.Helper()
	got, err := d.Status(t.Context())
	if err == nil || len(got) != 2 {
		t.Fatalf("%+v, %v", got, err)
	}
	if got[0].Running || !strings.Contains(got[0].Why, "did not answer in 2s") || len(got[0].Peers) != 0 {
		t.Errorf("the stopped one: %+v", got[0])
	}
	if !got[1].Running || got[1].Why != "" || len(got[1].Peers) != 1 {
		t.Errorf("the other one: %+v", got[1])
	}
	return got
}

// TestAStoppedProcessThatNobodyHasAdoptedHidesItsOwnTunnelAlone is a restart of the daemon.
func TestAStoppedProcessThatNobodyHasAdoptedHidesItsOwnTunnelAlone(t *testing.T) {
	before, s := manyDriver(t)
	if _, err := converge(t.Context(), before, twoTunnels(t)); err != nil {
		t.Fatal(err)
	}
	d := s.driver(t)
	pid := s.process(t, "fra1")
	stopProcess(t, pid)
	wantFirstStopped(t, d)
	if !d.mu.TryLock() {
		t.Fatal("the driver is held while the stopped process is waited for")
	}
	if len(d.children) != 0 {
		t.Error("who only asks has adopted")
	}
	d.mu.Unlock()
	if err := unix.Kill(pid, unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	until(t, "both are shown", func() bool {
		got, err := d.Status(t.Context())
		return err == nil && len(got) == 2 && got[0].Running && got[1].Running
	})
	if s.process(t, "fra1") != pid {
		t.Error("who only asks has replaced the process")
	}
	if err := d.Down(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestAStepThatBeginsMeanwhileHidesNoAnswer has the driver held from when Status has asked until it returns.
func TestAStepThatBeginsMeanwhileHidesNoAnswer(t *testing.T) {
	d, s := manyDriver(t)
	if _, err := converge(t.Context(), d, twoTunnels(t)); err != nil {
		t.Fatal(err)
	}
	stopProcess(t, s.process(t, "fra1"))
	var got []TunnelStatus
	func() {
		step := make(chan struct{})
		defer func() { // also where the test ends here: Stop needs the driver
			<-step
			d.mu.Unlock()
		}()
		go func() {
			defer close(step)
			for asking, end := false, time.Now().Add(30*time.Second); !asking && time.Now().Before(end); time.Sleep(time.Millisecond) {
				d.asks.mu.Lock()
				asking = d.asks.open["fra1"] != nil
				d.asks.mu.Unlock()
			}
			d.mu.Lock()
		}()
		got = wantFirstStopped(t, d)
	}()
	if name := got[1].Peers[0].Name; name != "a" {
		t.Errorf("the peer's name is %q", name)
	}
	until(t, "all goes down", func() bool { return d.Down(t.Context()) == nil })
}

// TestOneLookFindsAllProcessesThatStandStill takes answerTime of the room process: all are asked at once.
func TestOneLookFindsAllProcessesThatStandStill(t *testing.T) {
	d, s := manyDriver(t)
	if _, err := converge(t.Context(), d, twoTunnels(t)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"fra1", "fra2"} {
		stopProcess(t, s.process(t, name))
	}
	_, err := d.Observe(t.Context())
	for _, name := range []string{"fra1", "fra2"} {
		if err == nil || !strings.Contains(err.Error(), "of tunnel "+name+" did not answer") {
			t.Errorf("%s: %v", name, err)
		}
	}
	until(t, "all goes down", func() bool { return d.Down(t.Context()) == nil })
}

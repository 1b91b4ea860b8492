package wireguard

import (
	"os"
	"slices"
	"strconv"
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
	s.killProcess(t, "fra1")
	if err := d.Withhold(t.Context(), map[string][]string{"fra1": {want.Tunnels[0].Peers[0].PublicKey}}); err != nil {
		t.Error(err)
	}
	routesAreOfTheSecond(t, d, want)
	if err := d.Down(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestAProcessThatEndsWhileItIsAskedDoesNotRun: a kill, an out-of-memory one say, meets a look. It is no error, and the next step starts another.
func TestAProcessThatEndsWhileItIsAskedDoesNotRun(t *testing.T) {
	d, s := manyDriver(t)
	want := twoTunnels(t)
	if _, err := converge(t.Context(), d, want); err != nil {
		t.Fatal(err)
	}
	pid := s.process(t, "fra1")
	stopProcess(t, pid)
	var have State
	looked := make(chan error, 1)
	go func() {
		var err error
		have, err = d.Observe(t.Context())
		looked <- err
	}()
	untilAsked(t, "a look", []int{pid}, looked)
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := <-looked; err != nil || len(have.Tunnels) != 2 || !have.Tunnels[0].Down || have.Tunnels[1].Down {
		t.Errorf("%+v, %v", have.Tunnels, err)
	}
	if ops, err := converge(t.Context(), d, want); err != nil || s.process(t, "fra1") == pid {
		t.Errorf("%q: %v", ops, err)
	}
	if err := d.Down(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestRoutesAreWithdrawnFromATunnelThatNeverRan is a restart of the daemon with a tunnel that it cannot start: its key file is gone, say.
func TestRoutesAreWithdrawnFromATunnelThatNeverRan(t *testing.T) {
	before, s := manyDriver(t)
	want := twoTunnels(t)
	if _, err := converge(t.Context(), before, want); err != nil {
		t.Fatal(err)
	}
	s.killProcess(t, "fra1")
	d := s.driver(t)
	if _, err := d.Observe(t.Context()); err != nil {
		t.Fatal(err)
	}
	down := map[string][]string{"fra1": {want.Tunnels[0].Peers[0].PublicKey}}
	if err := d.Withhold(t.Context(), down); err != nil {
		t.Error(err)
	}
	routesAreOfTheSecond(t, d, want)
	if ops, err := converge(t.Context(), d, d.Wanted(want)); err != nil {
		t.Errorf("%q: %v", ops, err)
	}
	routesAreOfTheSecond(t, d, want)
	if err := d.Withhold(t.Context(), nil); err != nil {
		t.Error(err)
	}
	if _, err := converge(t.Context(), d, d.Wanted(want)); err != nil {
		t.Error(err)
	}
	if routes, err := d.links.Routes(); err != nil || len(routes) != 2 {
		t.Errorf("in the end: routes %v, %v", routes, err)
	}
	if err := d.Down(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestRoutesAreWithdrawnWhileAStepWaitsForAProcessThatStandsStill: the process is asked, and has not answered, before and after.
func TestRoutesAreWithdrawnWhileAStepWaitsForAProcessThatStandsStill(t *testing.T) {
	d, s := manyDriver(t)
	want := twoTunnels(t)
	if _, err := converge(t.Context(), d, want); err != nil {
		t.Fatal(err)
	}
	pid := s.process(t, "fra1")
	stopProcess(t, pid)
	looked := make(chan error, 1)
	go func() {
		_, err := d.Observe(t.Context())
		looked <- err
	}()
	untilAsked(t, "a look", []int{pid}, looked)
	if err := d.Withhold(t.Context(), map[string][]string{"fra1": {want.Tunnels[0].Peers[0].PublicKey}}); err != nil {
		t.Error(err)
	}
	select {
	case err := <-looked:
		t.Errorf("the withdrawal has waited for the look (%v)", err)
		looked <- nil
	default:
	}
	routesAreOfTheSecond(t, d, want)
	if err := unix.Kill(pid, unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	<-looked
	until(t, "all goes down", func() bool { return d.Down(t.Context()) == nil })
}

// routesAreOfTheSecond wants those of the second tunnel alone.
func routesAreOfTheSecond(t *testing.T, d *Driver, want State) {
	t.Helper()
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

// TestOneLookAsksAllProcessesAtOnce: all of them stand still with a question before any has answered, whether this driver knows them or
// an earlier one has left them. Those that go on are not replaced, and those that do not are told together.
func TestOneLookAsksAllProcessesAtOnce(t *testing.T) {
	before, s := manyDriver(t)
	want := twoTunnels(t)
	if _, err := converge(t.Context(), before, want); err != nil {
		t.Fatal(err)
	}
	after := s.driver(t)
	var pids []int
	for _, one := range want.Tunnels {
		pids = append(pids, s.process(t, one.Name))
	}
	for _, c := range []struct {
		name string
		d    *Driver
		on   bool
	}{
		{"known", before, true},
		{"left by an earlier daemon", after, true},
		{"adopted", after, false}, // this one takes answerTime of the room process
	} {
		for _, pid := range pids {
			stopProcess(t, pid)
		}
		var have State
		looked := make(chan error, 1)
		go func() {
			var err error
			have, err = c.d.Observe(t.Context())
			looked <- err
		}()
		untilAsked(t, c.name, pids, looked)
		if !c.on {
			err := <-looked
			for _, one := range want.Tunnels {
				if err == nil || !strings.Contains(err.Error(), "of tunnel "+one.Name+" did not answer") {
					t.Errorf("%s: %v does not tell of %s", c.name, err, one.Name)
				}
			}
			continue
		}
		for _, pid := range pids {
			if err := unix.Kill(pid, unix.SIGCONT); err != nil {
				t.Fatal(err)
			}
		}
		if err := <-looked; err != nil || len(have.Tunnels) != len(pids) {
			t.Errorf("%s: %+v, %v", c.name, have, err)
		}
		for i, one := range want.Tunnels {
			if now := s.process(t, one.Name); now != pids[i] || have.Tunnels[i].Down {
				t.Errorf("%s: process %d of %s is %d now, observed as %+v", c.name, pids[i], one.Name, now, have.Tunnels[i])
			}
		}
	}
	until(t, "all goes down", func() bool { return after.Down(t.Context()) == nil })
}

// untilAsked waits until all of these have a question of this process that they have not read.
func untilAsked(t *testing.T, what string, pids []int, looked <-chan error) {
	t.Helper()
	waiting := func() (open map[int]bool) {
		open = map[int]bool{}
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			fd, err := strconv.Atoi(e.Name())
			if err != nil {
				continue
			}
			if cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil && slices.Contains(pids, int(cred.Pid)) {
				unread, err := unix.IoctlGetInt(fd, unix.SIOCOUTQ) // what the other end has not read
				open[int(cred.Pid)] = open[int(cred.Pid)] || err == nil && unread > 0
			}
		}
		return open
	}
	for {
		// Twice: who was asked before another one is still asked.
		all := true
		for range 2 {
			open := waiting()
			for _, pid := range pids {
				all = all && open[pid]
			}
		}
		if all {
			return
		}
		select {
		case err := <-looked:
			t.Fatalf("%s: the look is over (%v) before all were asked: %v", what, err, waiting())
		case <-time.After(time.Millisecond):
		}
	}
}

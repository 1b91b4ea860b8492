package console

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"sluice/control/api"
	"sluice/control/engine"
	"sluice/control/node/source"
)

var update = flag.Bool("update", false, "write the golden files anew")

func prefixes(text ...string) (out []netip.Prefix) {
	for _, t := range text {
		out = append(out, netip.MustParsePrefix(t))
	}
	return out
}

// healthy is a gateway as it should be.
func healthy() View {
	return View{
		Now: time.Date(2026, 11, 22, 18, 22, 1, 0, time.UTC), Asked: time.Date(2026, 11, 22, 18, 22, 1, 0, time.UTC), Up: 76*time.Hour + 12*time.Minute, Login: true,
		Status: api.Status{
			Node: "edge-1", Version: "0.9-12-gabcdef0", XDPGeneration: "1a2b3c4d5e6f708192a3b4c5d6e7f809", TCGeneration: "99aabbccddeeff001122334455667788",
			Engine: engine.Status{Revision: 13, Applied: true, Conditions: []engine.Condition{
				{Type: engine.ConditionDegraded, Status: engine.False, Reason: "Applied"}, {Type: engine.ConditionInSync, Status: engine.True, Reason: "Verified"},
			}},
			Boot: &api.Boot{Record: source.Record{Source: source.FromStick, Device: "/dev/sdb1", Digest: "0123456789abcdef"}, Outcome: source.Accepted, Revision: 13},
		},
		Interfaces: []api.Interface{
			{Name: "eth0", Role: "uplink", Index: 2, Up: true, Carrier: true, XDPMode: "native", Addresses: prefixes("198.18.0.2/30", "2001:db8::2/64", "fe80::1/64")},
			{Name: "eth2", Role: "management", Index: 3, Up: true, Carrier: true, Addresses: prefixes("10.0.9.2/24")},
			{Name: "lo", Index: 1, Up: true, Addresses: prefixes("203.0.113.1/32")},
		},
		Neighbors: []api.Neighbor{{Name: "tor-a", Address: netip.MustParseAddr("198.18.0.1"), ASN: 65000, State: "established", UptimeSeconds: 3725}},
		Tunnels:   []api.Tunnel{{Name: "fra1", Type: "wireguard", Peers: []api.TunnelPeer{{Name: "fra1-a", State: api.PeerUp, Endpoint: "198.51.100.7:51820"}}}},
	}
}

// crowded has more of everything than a screen holds.
func crowded() View {
	v := healthy()
	v.Login = false
	v.Status.Engine.Applied = false
	v.Status.Engine.Pending = &engine.PendingStatus{Revision: 13, Base: 12, Remaining: 89.6, Confirm: true}
	v.Status.Engine.Conditions = []engine.Condition{
		{Type: engine.ConditionDegraded, Status: engine.True, Reason: "RepairFailed", Message: "bringing the machine to revision 13: " + strings.Repeat("step 3 of 9 failed ", 20)},
		{Type: engine.ConditionInSync, Status: engine.False, Reason: engine.ConditionDegraded},
		{Type: engine.ConditionChecks, Status: engine.False, Reason: "Failing", Message: "reach 198.18.0.1: no answer"},
	}
	v.Status.Boot.Outcome, v.Status.Boot.Why = source.Rejected, "check failed: reach 198.18.0.1: no answer"
	v.Status.Neighbors, v.Status.Established, v.Status.Tunnels = 13, 1, &api.TunnelCount{Up: 13}
	for n := range 12 {
		v.Interfaces = append(v.Interfaces, api.Interface{Name: fmt.Sprintf("eth1.%d", n), Role: "downstream", Index: 10 + n, Up: n%2 == 0})
		v.Neighbors = append(v.Neighbors, api.Neighbor{Name: fmt.Sprintf("n%d", n), Address: netip.MustParseAddr("192.0.2.1"), ASN: 4200000000, State: "active", LastError: "\x1b[2Jconnection refused\n"})
		v.Tunnels = append(v.Tunnels, v.Tunnels[0])
	}
	return v
}

// maintenance is a node that came up without a file.
func maintenance() View {
	v := healthy()
	v.Interfaces, v.Neighbors, v.Tunnels, v.Login = nil, nil, nil, false
	v.Status = api.Status{Version: v.Status.Version, Engine: engine.Status{Conditions: []engine.Condition{{Type: engine.ConditionMaintenance, Status: engine.True, Reason: "NoRevision",
		Message: "/run/sluice/boot/sluice.yaml:1:1: nodes: unknown key `nodes`; did you mean node? Nothing is forwarded; no management addresses are known from before, and nobody can log in. To end it, put a good sluice.yaml on a stick or on partition 2, and restart"}}},
		Boot: &api.Boot{Record: source.Record{Source: source.FromPartition, Device: "/dev/vda2", Digest: "0123456789abcdef", Problems: []string{"sluice.yaml is bad: sluice.yaml:1:1: nodes: unknown key `nodes`; did you mean node?"}}}}
	return v
}

// held is an encrypted node whose data partition does not open.
func held() View {
	v := maintenance()
	v.Status.Engine.Conditions[0].Message = "no revision stands, and the daemon does without one. Nothing is forwarded; no management addresses are known from before. No configuration is taken until the data partition is open: see what the boot found"
	v.Status.Boot = &api.Boot{Record: source.Record{Source: source.None, Held: true, Problems: []string{"the data partition is encrypted, and this machine shows no TPM: switch it on in the firmware's setup; or the recovery key opens it, as the file recovery-key on the configuration partition or a stick"}}}
	return v
}

func silent() View {
	v := healthy()
	return View{Now: v.Now, Up: 65 * time.Second, Version: "0.9", Login: true, Missed: silentAfter, Err: errors.New("could not reach the daemon on /run/sluice/sluice.sock: it is not running, or has another --socket")}
}

// unanswered is a view behind looks that brought nothing.
func unanswered(v View, looks int) View {
	for range looks {
		v = View{Now: v.Now.Add(7 * time.Second), Up: v.Up, Version: "1.3", Login: true, Err: errors.New("no answer within 5s")}.after(v)
	}
	return v
}

// partly is a node that answers all but two questions, and runs an image.
func partly() View {
	v := healthy()
	v.Status.Image = "1.3"
	v.Neighbors, v.Untold.Neighbors = nil, errors.New("bgp: GoBGP is busy with a table and does not answer yet")
	v.Tunnels, v.Untold.Tunnels = nil, errors.New("no answer within 5s")
	return v
}

func TestWhoMayLogInIsNotKnownBeforeTheDaemonHasSaid(t *testing.T) {
	v := View{Now: healthy().Now}
	if got := v.Screen(); !strings.Contains(got, "No login yet.") {
		t.Error(got)
	}
	if v.Asked = v.Now; !strings.Contains(v.Screen(), "the configuration enables none") {
		t.Error(v.Screen())
	}
}

func TestScreens(t *testing.T) {
	for name, v := range map[string]View{"healthy": healthy(), "crowded": crowded(), "maintenance": maintenance(), "held": held(), "silent": silent(),
		"partly": partly(), "waiting": unanswered(View{Now: healthy().Now}, silentAfter-1), "stale": unanswered(healthy(), silentAfter-1)} {
		t.Run(name, func(t *testing.T) {
			got := v.Screen()
			lines := strings.Split(strings.TrimSuffix(got, "\n"), "\n")
			if len(lines) != Height {
				t.Errorf("%d lines", len(lines))
			}
			for i, line := range lines {
				if len(line) > Width || strings.IndexFunc(line, func(r rune) bool { return r < ' ' || r > '~' }) >= 0 {
					t.Errorf("line %d: %q", i+1, line)
				}
			}
			file := filepath.Join("testdata", name+".golden.txt")
			if *update {
				if err := errors.Join(os.MkdirAll("testdata", 0o755), os.WriteFile(file, []byte(got), 0o644)); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil || got != string(want) {
				t.Errorf("%v; the screen is\n%s", err, got)
			}
		})
	}
}

// TestEverythingThatIsWrongIsOnTheScreen: every condition of the engine has a title, and is a problem in one of its states at most.
func TestEverythingThatIsWrongIsOnTheScreen(t *testing.T) {
	source, err := os.ReadFile("../../engine/status.go")
	if err != nil {
		t.Fatal(err)
	}
	conditions := regexp.MustCompile(`(?m)^\tCondition\w+ += "(\w+)"`).FindAllStringSubmatch(string(source), -1)
	if len(conditions) < len(titles) {
		t.Errorf("conditions %q", conditions)
	}
	for _, c := range conditions {
		kind, shown := c[1], 0
		title := titles[kind]
		if title == "" {
			t.Errorf("%s has no title", kind)
		}
		for _, status := range []engine.ConditionValue{engine.True, engine.False} {
			v := healthy()
			v.Status.Engine.Conditions = []engine.Condition{{Type: kind, Status: status, Reason: "R", Message: "why it is so"}}
			if strings.Contains(v.Screen(), "! "+title+": why it is so") {
				shown++
			}
		}
		if want := map[bool]int{true: 0, false: 1}[kind == engine.ConditionTunnels]; shown != want {
			t.Errorf("%s is a problem in %d states", kind, shown)
		}
	}
}

// TestOneLookWithoutAnAnswerIsNoAlarm: a daemon that starts or compiles answers the next one.
func TestOneLookWithoutAnAnswerIsNoAlarm(t *testing.T) {
	const alarm, mark = "THE DAEMON DOES NOT ANSWER", "as of 18:22:01"
	for looks := range silentAfter {
		if s := unanswered(healthy(), looks).Screen(); strings.Contains(s, alarm) || strings.Contains(s, mark) != (looks > 0) || !strings.Contains(s, "tor-a") {
			t.Errorf("behind %d looks:\n%s", looks, s)
		}
	}
	v := unanswered(healthy(), silentAfter)
	if s := v.Screen(); !strings.Contains(s, alarm) || strings.Contains(s, mark) {
		t.Errorf("the alarm:\n%s", s)
	}
	if s := healthy().after(v).Screen(); s != healthy().Screen() {
		t.Errorf("it answers again:\n%s", s)
	}
	if v.Login = false; strings.Contains(v.Screen(), "journalctl") {
		t.Errorf("what nobody can do:\n%s", v.Screen())
	}
	v = healthy()
	v.Err = &api.Failure{Message: "xdp: no such device"}
	if s := v.after(healthy()).Screen(); !strings.Contains(s, "CANNOT TELL ITS STATUS: xdp: no such device") || strings.Contains(s, alarm) {
		t.Errorf("an answer that is no status:\n%s", s)
	}
}

// writer hands on what is drawn, a screen each.
type writer chan string

func (w writer) Write(b []byte) (int, error) { w <- string(b); return len(b), nil }

// TestTheScreenFollowsTheDaemon: drawn when it changes, with Enter for a login where that is enabled.
func TestTheScreenFollowsTheDaemon(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "s")
	keys, typed, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer keys.Close()
	defer typed.Close()
	screens := make(writer, 100)
	type end struct {
		login bool
		err   error
	}
	ended := make(chan end, 1)
	go func() {
		login, err := Run(t.Context(), Options{
			Client: api.NewClient(socket), Version: "0.9", In: keys, Out: screens, Every: 10 * time.Millisecond,
			Login:  func() bool { return false },
			Uptime: func() time.Duration { return time.Hour }, Now: func() time.Time { return time.Unix(0, 0) },
		})
		ended <- end{login, err}
	}()
	until := func(text string) {
		t.Helper()
		for {
			select {
			case s := <-screens:
				if !strings.HasPrefix(s, clear) || strings.Count(s, "\r\n") != Height-1 {
					t.Errorf("drawn: %q", s)
				}
				if strings.Contains(s, text) {
					return
				}
			case <-time.After(time.Minute):
				t.Fatalf("%q was never on the screen", text)
			}
		}
	}
	until("THE DAEMON DOES NOT ANSWER")
	serve(t, socket)
	until("edge-7")
	until("BGP            not told: bgp is busy")
	until("edge-7")     // drawn again though nothing changed
	fmt.Fprintln(typed) // where nobody may log in it is a look more
	until("edge-7")
	select {
	case e := <-ended:
		t.Fatalf("it ended: %+v", e)
	default:
	}
	typed.Close() // nobody is at the keyboard any more, and the screen goes on
	until("edge-7")
}

// serve is a daemon as far as the screen sees it.
func serve(t *testing.T, socket string) {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answers := map[string]string{"status": `{"node": "edge-7"}`, "interfaces": "[]", "tunnels": "{}"}
		text, ok := answers[filepath.Base(r.URL.Path)]
		if !ok {
			http.Error(w, `{"error": "bgp is busy"}`, http.StatusInternalServerError)
		}
		fmt.Fprint(w, text)
	}))
	s.Listener.Close()
	s.Listener = l
	s.Start()
	t.Cleanup(s.Close)
}

func TestEnterLeadsToTheLoginWhereThereIsOne(t *testing.T) {
	login, err := Run(t.Context(), Options{
		Client: api.NewClient(filepath.Join(t.TempDir(), "none")), In: strings.NewReader("root\n"), Out: make(writer, 100), Every: time.Hour,
		Login: func() bool { return true }, Uptime: func() time.Duration { return 0 }, Now: time.Now,
	})
	if !login || err != nil {
		t.Errorf("%v %v", login, err)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if login, err := Run(ctx, Options{
		Client: api.NewClient(filepath.Join(t.TempDir(), "none")), In: strings.NewReader(""), Out: make(writer, 100), Every: time.Hour,
		Login: func() bool { return true }, Uptime: func() time.Duration { return 0 }, Now: time.Now,
	}); login || err != nil {
		t.Errorf("without a key pressed: %v %v", login, err)
	}
}

package netns

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sluice/cmd/lab"
	"sluice/tests/birdc"
)

// torFile is BIRD as the ToR: a session for each family, default routes to learn, and what it hears goes to the kernel.
const torFile = `
log %q all; debug protocols { states, events };
router id 198.18.0.1;
protocol device { scan time 1; }
protocol static default4 { ipv4; route 0.0.0.0/0 blackhole; }
protocol static default6 { ipv6; route ::/0 blackhole; }
protocol kernel kernel4 { ipv4 { import none; export where source = RTS_BGP; }; }
protocol kernel kernel6 { ipv6 { import none; export where source = RTS_BGP; }; }
template bgp session {
  hold time 90; connect retry time 1; connect delay time 1; error wait time 1, 2;
  graceful restart on; graceful restart time 60;
}
protocol bgp edge from session {
  local 198.18.0.1 as 65000; neighbor 198.18.0.2 as 65010;
  ipv4 { import all; export where source = RTS_STATIC; };
}
protocol bgp edge6 from session {
  local 2001:db8::1 as 65000; neighbor 2001:db8::2 as 65010;
  ipv6 { import all; export where source = RTS_STATIC; };
}
`

// monotonous is what BIRD repeats every second.
var monotonous = regexp.MustCompile(`(?m)^.*(Connecting to|Connect delayed|Connection refused|Scanning|Pruning).*\n`)

// bird is the BIRD 2 of a site's ToR.
type bird struct {
	t      *testing.T
	socket string
	log    string
}

func startBird(t *testing.T, s *site) *bird { return startBirdWith(t, s, torFile) }

// startBirdWith takes another file, whose one verb is the log.
func startBirdWith(t *testing.T, s *site, file string) *bird {
	t.Helper()
	return startBirdIn(t, s, s.ToR, "bird", file)
}

// startBirdIn starts one of several, each with a name and a namespace of its own.
func startBirdIn(t *testing.T, s *site, ns *lab.Namespace, name, file string) *bird {
	t.Helper()
	b := &bird{t: t, socket: filepath.Join(s.Dir, name+".ctl"), log: filepath.Join(s.Dir, name+".log")}
	config := filepath.Join(s.Dir, name+".conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, file, b.log), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if said, _ := os.ReadFile(b.log); t.Failed() {
			said = monotonous.ReplaceAll(said, nil)
			t.Logf("BIRD said:\n%s", said[max(0, len(said)-4000):])
		}
	})
	process, err := ns.Command("tor-"+name, "/usr/sbin/bird", "-f", "-c", config, "-s", b.socket, "-P", filepath.Join(s.Dir, name+".pid"))
	if err != nil {
		t.Fatalf("BIRD 2 (package bird2): %v", err)
	}
	eventually(t, func() error {
		select {
		case <-process.Done():
			said, _ := os.ReadFile(process.Log)
			t.Fatalf("BIRD has ended: %s", said)
		default:
		}
		_, err := b.ask("show status")
		return err
	})
	return b
}

func (b *bird) ask(command string) (string, error) { return birdc.Ask(b.socket, command) }

func (b *bird) do(command string) string {
	b.t.Helper()
	out, err := b.ask(command)
	if err != nil {
		b.t.Fatalf("birdc %s: %v", command, err)
	}
	return out
}

// heard are the prefixes that the gateway's sessions brought.
func (b *bird) heard() (map[string]bool, error) {
	prefixes := map[string]bool{}
	for _, session := range []string{"edge", "edge6"} {
		out, err := b.ask("show route protocol " + session)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(out) {
			if f := strings.Fields(line); len(f) > 1 && strings.Contains(f[0], "/") {
				prefixes[f[0]] = true
			}
		}
	}
	return prefixes, nil
}

// has complains unless BIRD has exactly these prefixes.
func (b *bird) has(want ...string) error {
	heard, err := b.heard()
	if err != nil {
		return err
	}
	for _, p := range want {
		if !heard[p] {
			return fmt.Errorf("BIRD lacks %s", p)
		}
		delete(heard, p)
	}
	if len(heard) > 0 {
		return fmt.Errorf("BIRD has more than %v: %v", want, heard)
	}
	return nil
}

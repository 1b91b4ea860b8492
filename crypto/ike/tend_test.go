package ike

import (
	"strings"
	"testing"
	"time"
)

// site is a scripted sequence of looks at one connection. In a look, text stands for what charon tells:
//
//	"1+a"  IKE_SA 1 established with a live child of digest a; "1+a+b" with two, "1+" with none
//	"2?"   IKE_SA 2 is connecting
type look struct {
	at   time.Duration // since the beginning
	sas  string
	does string        // what is expected, as "initiate", "ike 1", "child 11"; children of IKE_SA n are 10n+1, 10n+2
	told string        // peer-up, peer-down
	next time.Duration // when to come again; 0: not judged
}

const (
	second = time.Second
	ms     = time.Millisecond
)

func TestTheSupervision(t *testing.T) {
	cases := map[string]struct {
		follows bool // the other end leads
		looks   []look
	}{
		"the end that leads begins at once and anew every ten seconds": {looks: []look{
			{at: 0, does: "initiate", next: 10 * second},
			{at: 1 * second, sas: "1?", next: 10 * second},
			{at: 10 * second, sas: "1?", next: 1 * second},
			{at: 11 * second, sas: "1?", does: "ike 1, initiate", next: 10 * second},
			{at: 12 * second, sas: "2?", next: 10 * second},
			{at: 13 * second, sas: "2+a", told: "peer-up", next: 30 * second},
		}},
		"an attempt that failed is not repeated in a hurry": {looks: []look{
			{at: 0, does: "initiate"},
			{at: 1 * second, next: 9 * second},
			{at: 10 * second, does: "initiate"},
		}},
		"the other end waits for the first": {follows: true, looks: []look{
			{at: 0, next: 6 * second},
			{at: 2 * second, sas: "1?"},
			{at: 2500 * ms, sas: "1+a", told: "peer-up"},
			{at: 9 * second, told: "peer-down", next: 6 * second},
			{at: 15 * second, does: "initiate"},
		}},
		"what goes down is raised at once by the end that leads": {looks: []look{
			{at: 0, sas: "1+a", told: "peer-up"},
			{at: 60 * second, does: "initiate", told: "peer-down"},
		}},
		"a child that was closed is made again on the IKE_SA that stands": {looks: []look{
			{at: 0, sas: "1+a", told: "peer-up"},
			{at: 60 * second, sas: "1+", does: "initiate", told: "peer-down"},
			{at: 61 * second, sas: "1+a", told: "peer-up"},
		}},
		"a changed connection replaces its child without a gap": {looks: []look{
			{at: 0, sas: "1+old", does: "initiate", told: "peer-up"},
			{at: 1 * second, sas: "1+old+a/0", next: 1 * second},
			{at: 2 * second, sas: "1+old+a", does: "child 11"},
			{at: 3 * second, sas: "1+a"},
		}},
		"with another IKE_SA the former goes whole": {looks: []look{
			{at: 0, sas: "1+old", does: "initiate", told: "peer-up"},
			{at: 1 * second, sas: "1+old 2+a", does: "ike 1"},
		}},
		"of a changed connection that its peer does not take, the former stays": {looks: []look{
			{at: 0, sas: "1+old", does: "initiate", told: "peer-up"},
			{at: 5 * second, sas: "1+old"},
			{at: 10 * second, sas: "1+old", does: "initiate"},
		}},
		"of two, the end that leads keeps the newer": {looks: []look{
			{at: 0, sas: "1+a 2+a", told: "peer-up", next: 5 * second},
			{at: 4 * second, sas: "1+a 2+a", next: 1 * second},
			{at: 5 * second, sas: "1+a 2+a", does: "ike 1"},
		}},
		"and of two children of one IKE_SA as well": {looks: []look{
			{at: 0, sas: "1+a+a", told: "peer-up"},
			{at: 5 * second, sas: "1+a+a", does: "child 11"},
		}},
		"the other end leaves both": {follows: true, looks: []look{
			{at: 0, sas: "1+a 2+a", told: "peer-up"},
			{at: 60 * second, sas: "1+a 2+a"},
		}},
		"two for a moment, as in a rekeying, are left alone": {looks: []look{
			{at: 0, sas: "1+a+a", told: "peer-up"},
			{at: 3 * second, sas: "1+a"},
			{at: 6 * second, sas: "1+a+a"},
			{at: 9 * second, sas: "1+a"},
		}},
		"an IKE_SA that nothing hangs on is closed": {looks: []look{
			{at: 0, sas: "1+ 2+a", does: "ike 1", told: "peer-up"},
		}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			conn := Loaded{Tunnel: "fra1", Peer: "p", Digest: "a", LocalID: "a", RemoteID: "b"}
			if c.follows {
				conn.LocalID, conn.RemoteID = conn.RemoteID, conn.LocalID
			}
			tend, begin := newTender(defaultTimes), time.Unix(1e9, 0)
			for _, l := range c.looks {
				do, changes, next := tend.step(begin.Add(l.at), []Loaded{conn}, scripted(t, l.sas))
				var does, told []string
				for _, a := range do {
					does = append(does, short(a))
				}
				for _, e := range changes {
					told = append(told, string(e.Kind))
				}
				if got := strings.Join(does, ", "); got != l.does {
					t.Errorf("at %s, with %q: does %q, want %q", l.at, l.sas, got, l.does)
				}
				if got := strings.Join(told, ", "); got != l.told {
					t.Errorf("at %s, with %q: tells %q, want %q", l.at, l.sas, got, l.told)
				}
				if l.next != 0 && next != l.next {
					t.Errorf("at %s, with %q: comes again in %s, want %s", l.at, l.sas, next, l.next)
				}
			}
		})
	}
}

func short(a action) string {
	switch a.kind {
	case closeIKE:
		return "ike " + number(a.id)
	case closeChild:
		return "child " + number(a.id)
	}
	return string(a.kind)
}

func number(n uint32) string {
	return strings.TrimLeft(string([]byte{byte('0' + n/10), byte('0' + n%10)}), "0")
}

func scripted(t *testing.T, text string) []IKESA {
	t.Helper()
	var out []IKESA
	for _, word := range strings.Fields(text) {
		sa := IKESA{Tunnel: "fra1", Peer: "p", ID: uint32(word[0] - '0'), State: "ESTABLISHED", Age: time.Hour, Initiator: true}
		if word[1] == '?' {
			sa.State, sa.Age = "CONNECTING", 0
		} else if rest := word[2:]; rest != "" {
			for i, name := range strings.Split(rest, "+") {
				name, fresh := strings.CutSuffix(name, "/0")
				child := ChildSA{ID: sa.ID*10 + uint32(i) + 1, Name: name, State: "INSTALLED", Age: time.Hour}
				if fresh {
					child.Age = 0
				}
				sa.Children = append(sa.Children, child)
			}
		}
		out = append(out, sa)
	}
	return out
}

func TestAConnectionThatIsGoneIsForgotten(t *testing.T) {
	tend, now := newTender(defaultTimes), time.Unix(1e9, 0)
	conn := []Loaded{{Tunnel: "fra1", Peer: "p", Digest: "a", LocalID: "a", RemoteID: "b"}}
	tend.step(now, conn, nil)
	if do, _, next := tend.step(now, nil, scripted(t, "1+a")); len(do) != 0 || next != defaultTimes.look || len(tend.seen) != 0 {
		t.Errorf("does %v, comes again in %s, remembers %d", do, next, len(tend.seen))
	}
	if do, _, _ := tend.step(now, conn, nil); len(do) != 1 {
		t.Errorf("loaded again: does %v", do)
	}
}

package wireguard

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"sluice/crypto/keys"
)

// staged makes the next key of a's tunnel, and the state of b that knows it beside the present one. The prefixes are at
// the key that holds says: 0 the present one, 1 the next.
func (p *pair) staged(t *testing.T) (next string, b func(holds int) State) {
	t.Helper()
	next = p.wantA.Tunnels[0].PrivateKeyFile + ".next"
	public, err := keys.Generate(next)
	if err != nil {
		t.Fatal(err)
	}
	return next, func(holds int) State {
		w := p.wantB.Tunnels[0]
		present := w.Peers[0]
		fresh := present
		fresh.PublicKey = public
		if holds == 0 {
			fresh.AllowedIPs = nil
		} else {
			present.AllowedIPs = nil
		}
		w.Peers = []Peer{present, fresh}
		slices.SortFunc(w.Peers, func(a, b Peer) int { return strings.Compare(a.PublicKey, b.PublicKey) })
		return State{Tunnels: []Tunnel{w}}
	}
}

// follow is what the other node's daemon does meanwhile: when a handshake by the next key is seen, the prefixes move.
func (p *pair) follow(t *testing.T, next string, b func(holds int) State) (done chan struct{}) {
	t.Helper()
	public, err := keys.PublicKey(next)
	if err != nil {
		t.Fatal(err)
	}
	done = make(chan struct{})
	go func() {
		defer close(done)
		for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
			list := p.endB.ask(request{Do: "status"}).Status
			if len(list) != 1 {
				continue // it could not be asked
			}
			for _, peer := range list[0].Peers {
				if peer.PublicKey == public && !peer.LastHandshake.IsZero() {
					p.endB.ask(request{Do: "converge", Want: b(1)})
					return
				}
			}
		}
	}()
	return done
}

func TestAKeyIsRotatedWithoutALostPacket(t *testing.T) {
	p := newPair(t)
	p.up(t)
	next, b := p.staged(t)
	file := p.wantA.Tunnels[0].PrivateKeyFile
	oldKey, nextKey := read(t, file), read(t, next)
	p.endB.converge(b(0))
	s := startStream(t, p.a.dial(t, "udp", "10.20.0.1"))
	s.goesOn(50)
	followed := p.follow(t, next, b)
	p.endA.must(request{Do: "rotate", Next: next})
	<-followed
	s.goesOn(100)
	s.lostNothing()
	if got := read(t, file); !bytes.Equal(got, nextKey) {
		t.Error("the tunnel's key file does not hold the next key")
	}
	if got := read(t, file+".old"); !bytes.Equal(got, oldKey) {
		t.Error("the key that was is not beside it")
	}
	if _, err := os.Stat(next); err == nil {
		t.Error("the next file is still there")
	}
	w := &p.wantA.Tunnels[0]
	var err error
	if w.PublicKey, err = keys.PublicKey(file); err != nil {
		t.Fatal(err)
	}
	if ops := p.endA.converge(p.wantA); len(ops) != 0 {
		t.Errorf("compiled again, the tunnel is to %v", ops)
	}
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestAKeyThatAPeerDoesNotKnowGoesBackWithoutALostPacket(t *testing.T) {
	p := newPair(t)
	p.up(t)
	next, _ := p.staged(t)
	file := p.wantA.Tunnels[0].PrivateKeyFile
	before := read(t, file)
	s := startStream(t, p.a.dial(t, "udp", "10.20.0.1"))
	s.goesOn(50)
	public, err := keys.PublicKey(next)
	if err != nil {
		t.Fatal(err)
	}
	wantError(t, p.endA.ask(request{Do: "rotate", Next: next}), "new key of tunnel fra1", ErrNotTaken.Error(), ": b;", "the old one is in use", public)
	s.goesOn(100)
	s.lostNothing()
	if !bytes.Equal(read(t, file), before) {
		t.Error("the key file has changed")
	}
	if ops := p.endA.converge(p.wantA); len(ops) != 0 {
		t.Errorf("the tunnel is to %v", ops)
	}
}

func TestARotationThatCannotBeginChangesNothing(t *testing.T) {
	p := newPair(t)
	p.up(t)
	w := p.wantA.Tunnels[0]
	for name, c := range map[string]struct{ next, says string }{
		"no file":          {"/nonexistent/next", "does not exist"},
		"the key in use":   {w.PrivateKeyFile, "in use"},
		"the key of peers": {p.wantB.Tunnels[0].PrivateKeyFile, "the key of peer b"},
	} {
		t.Run(name, func(t *testing.T) {
			wantError(t, p.endA.ask(request{Do: "rotate", Next: c.next}), "fra1", c.says)
			if ops := p.endA.converge(p.wantA); len(ops) != 0 {
				t.Errorf("the tunnel is to %v", ops)
			}
		})
	}
}

func TestAPresharedKeyIsReplacedWithoutALostPacket(t *testing.T) {
	p := newPair(t)
	p.up(t)
	s := startStream(t, p.a.dial(t, "udp", "10.20.0.1"))
	s.goesOn(50)
	psk := filepath.Join(t.TempDir(), "psk")
	if err := keys.GeneratePSK(psk); err != nil {
		t.Fatal(err)
	}
	for _, w := range []*State{&p.wantA, &p.wantB} {
		w.Tunnels[0].Peers = slices.Clone(w.Tunnels[0].Peers)
		w.Tunnels[0].Peers[0].PresharedKeyFile = psk
	}
	handshake := p.endA.handshake()
	p.endA.converge(p.wantA)
	s.goesOn(50) // the session lives through
	p.endB.converge(p.wantB)
	s.goesOn(50)
	s.lostNothing()
	if now := p.endA.handshake(); !now.Equal(handshake) {
		t.Error("the session was begun anew")
	}
}

func TestADriverThatStopsGivesARotationUpWithoutALostPacket(t *testing.T) {
	p := newPair(t)
	p.up(t)
	next, _ := p.staged(t)
	s := startStream(t, p.a.dial(t, "udp", "10.20.0.1"))
	s.goesOn(50)
	wantError(t, p.endA.ask(request{Do: "stop in rotate", Next: next}), "given up before its peers had taken it", context.Canceled.Error())
	p.endA.kill()
	s.goesOn(100)
	s.lostNothing()
	p.endA = startEnd(t, p.a)
	if got, want := p.endA.observe().Tunnels[0].PublicKey, p.wantA.Tunnels[0].PublicKey; got != want {
		t.Errorf("the device has the key of %s, want the old one, %s", got, want)
	}
}

// mute is a device that takes settings and cannot be read.
type mute struct {
	device
	key wgtypes.Key
}

func (m *mute) state() (*wgtypes.Device, error) { return nil, errors.New("no answer") }
func (m *mute) poke(...wgtypes.Key) error       { return nil }
func (m *mute) configure(cfg wgtypes.Config) error {
	m.key = *cfg.PrivateKey
	return nil
}

func TestTheOldKeyComesBackToADeviceThatCannotBeRead(t *testing.T) {
	dev := &mute{key: wgtypes.Key{2}}
	r := &rotation{d: &Driver{}, dev: dev, old: wgtypes.Key{1}, new: wgtypes.Key{2}}
	if err := r.goBack(t.Context()); err == nil || err.Error() != "no answer" {
		t.Errorf("error %v", err)
	}
	if dev.key != r.old {
		t.Error("the new key is still set")
	}
}

// late is a device whose peer takes a key while nobody looks, and which may not be read any more.
type late struct {
	mute
	reads  int
	breaks bool
}

func (l *late) state() (*wgtypes.Device, error) {
	l.reads++
	if l.reads > 1 && l.breaks {
		return nil, errors.New("no answer")
	}
	p := wgtypes.Peer{PublicKey: wgtypes.Key{7}}
	if l.reads > 1 {
		p.LastHandshakeTime = time.Unix(1, 0)
	}
	return &wgtypes.Device{Peers: []wgtypes.Peer{p}}, nil
}

func TestWhatCameAboutBeforeTheTimeIsOverCountsThoughItWasNotSeenYet(t *testing.T) {
	over, cancel := context.WithCancel(t.Context())
	cancel()
	for breaks, want := range map[bool][]string{false: nil, true: {"b"}} {
		r := &rotation{d: &Driver{}, dev: &late{breaks: breaks}, waiting: map[wgtypes.Key]*rotationPeer{{7}: {name: "b"}}}
		missing, err := r.until(over, func(w *rotationPeer, _ wgtypes.Peer) bool { return !w.answered.IsZero() })
		if err != nil || !slices.Equal(missing, want) {
			t.Errorf("the device breaks: %v; missing %q, %v", breaks, missing, err)
		}
	}
}

// calm is a device without peers, which takes everything.
type calm struct{ mute }

func (c *calm) state() (*wgtypes.Device, error) { return &wgtypes.Device{}, nil }
func (c *calm) hold() error                     { return nil }
func (c *calm) release() error                  { return nil }

func TestTheDeviceHasTheKeyThatItsFileHolds(t *testing.T) {
	broken := errors.New("input/output error")
	for name, c := range map[string]struct {
		changed   bool
		err, want error
	}{
		"the file has the new key": {true, nil, nil},
		"which the disk may lose":  {true, broken, nil},
		"the file has the old one": {false, broken, broken},
	} {
		t.Run(name, func(t *testing.T) {
			dev := &calm{mute{key: wgtypes.Key{1}}}
			r := &rotation{d: &Driver{log: slog.New(slog.DiscardHandler)}, dev: dev, old: wgtypes.Key{1}, new: wgtypes.Key{2},
				advance: func() (bool, error) { return c.changed, c.err }}
			if err := r.run(t.Context()); !errors.Is(err, c.want) {
				t.Errorf("error %v", err)
			}
			if dev.key == r.new != c.changed {
				t.Errorf("the file has the new key: %v; the device: %v", c.changed, dev.key == r.new)
			}
		})
	}
}

package child

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/device"
)

// greeter begins handshakes. By itself the device tries no sooner than 5 s after its last try, and counts one that could
// not leave the machine.
type greeter struct {
	dev *device.Device

	mu    sync.Mutex
	tried map[device.NoisePublicKey]time.Time
}

// greetPause is how long a handshake that was begun is given: to begin another forgets it, and the other side takes two
// within 20 ms for a flood.
const greetPause = time.Second

func newGreeter(dev *device.Device) *greeter {
	return &greeter{dev: dev, tried: map[device.NoisePublicKey]time.Time{}}
}

// greet speaks to the peers that lines of public_key=HEX name as if nothing were known of the way to them: by a source
// address that is chosen anew and, where no session is alive, with a handshake as soon as may be. It does not wait for answers.
func (g *greeter) greet(lines []string) error {
	if len(lines) == 0 {
		return nil
	}
	var renew strings.Builder
	var now []*device.Peer
	var later []string
	err := g.reachable(lines, func(key device.NoisePublicKey, peer *device.Peer, c contact) {
		line := fmt.Sprintf("public_key=%x", key)
		// An endpoint that is written forgets the source address, which may not be this machine's any more.
		fmt.Fprintf(&renew, "%s\nupdate_only=true\nendpoint=%s\n", line, c.endpoint)
		switch {
		case !c.silent():
		case g.turn(key):
			now = append(now, peer)
		default:
			later = append(later, line)
		}
	})
	if err != nil {
		return err
	}
	if len(later) > 0 {
		time.AfterFunc(greetPause, func() { _ = g.greet(later) })
	}
	if err := g.dev.IpcSet(renew.String()); err != nil {
		return err
	}
	go func() {
		for _, peer := range now {
			peer.ExpireCurrentKeypairs() // forgets the last try; there is no session to lose
			_ = peer.SendHandshakeInitiation(false)
		}
	}()
	return nil
}

// greetAll is for another source address than before: a peer with a session hears at once from there, for it speaks to the old
// one until then, and what it says there would be answered from there.
func (g *greeter) greetAll() error {
	text, err := g.dev.IpcGet()
	if err != nil {
		return err
	}
	var lines, live []string
	for hex, c := range contacts(text) {
		line := "public_key=" + hex
		if lines = append(lines, line); !c.silent() {
			live = append(live, line)
		}
	}
	return errors.Join(g.greet(lines), g.poke(live))
}

// turn says whether a handshake with a peer may begin now, which is noted.
func (g *greeter) turn(key device.NoisePublicKey) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if time.Since(g.tried[key]) < greetPause {
		return false
	}
	g.tried[key] = time.Now()
	return true
}

// poke sends an empty packet to each peer, and where there is no session to send it by, begins one. It does not wait
// either: what a device of a thousand peers says of itself takes 5 ms to read, and as many handshakes half a second to compute.
func (g *greeter) poke(lines []string) error {
	for _, line := range lines {
		key, err := keyOf(line)
		if err != nil {
			return err
		}
		g.turn(key) // of those with a session nobody asks whose turn it is
	}
	go func() {
		var list []*device.Peer
		_ = g.reachable(lines, func(_ device.NoisePublicKey, peer *device.Peer, _ contact) { list = append(list, peer) })
		for _, peer := range list {
			peer.SendKeepalive()
		}
	}()
	return nil
}

// keyOf reads public_key=HEX.
func keyOf(line string) (key device.NoisePublicKey, err error) {
	hex, ok := strings.CutPrefix(line, "public_key=")
	if !ok || key.FromHex(hex) != nil {
		return key, unix.EINVAL
	}
	return key, nil
}

// reachable calls f with those peers whose endpoint is known: without one it is for the other side to begin.
func (g *greeter) reachable(lines []string, f func(key device.NoisePublicKey, peer *device.Peer, c contact)) error {
	text, err := g.dev.IpcGet()
	if err != nil {
		return err
	}
	now := contacts(text)
	for _, line := range lines {
		key, err := keyOf(line)
		if err != nil {
			return err
		}
		peer, c := g.dev.LookupPeer(key), now[strings.TrimPrefix(line, "public_key=")]
		if peer != nil && c.endpoint != "" {
			f(key, peer, c)
		}
	}
	return nil
}

// contact is what is known of a peer.
type contact struct {
	endpoint  string // "" while unknown
	handshake time.Time
}

// silent says whether there is no session with the peer.
func (c contact) silent() bool { return time.Since(c.handshake) >= device.RejectAfterTime }

// contacts reads what a device says of itself, by public key in hex.
func contacts(text string) map[string]contact {
	out := map[string]contact{}
	peer := ""
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		c := out[peer]
		switch key {
		case "public_key":
			peer, c = value, contact{}
		case "endpoint":
			c.endpoint = value
		case "last_handshake_time_sec":
			if seconds, err := strconv.ParseInt(value, 10, 64); err == nil {
				c.handshake = time.Unix(seconds, 0)
			}
		default:
			continue
		}
		if peer != "" {
			out[peer] = c
		}
	}
	return out
}

package ipsec

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

// record is a tunnel's file, STATE_DIR/ipsec/NAME.json. It holds no secret.
type record struct {
	Tunnel  Tunnel                `json:"tunnel"`  // as last applied; without a name: gone
	Highest uint64                `json:"highest"` // epoch of any peer that is gone
	Peers   map[string]peerRecord `json:"peers"`
}

type peerRecord struct {
	Reqid uint32 `json:"reqid"`
	counters
	place
}

// errUnwritten: what is not on the disk might be used again after a crash, so nothing is sent in it.
var errUnwritten = errors.New("epochs cannot be written")

func (d *Driver) dir() string { return filepath.Join(d.opts.StateDir, "ipsec") }

// load reads every tunnel's file, once. A file that is damaged is an error: to go on without it could repeat an epoch.
func (d *Driver) load() error {
	if d.loaded {
		return nil
	}
	files, err := filepath.Glob(filepath.Join(d.dir(), "*.json"))
	if err != nil {
		return err
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("epochs of IPsec tunnels: %w", err)
		}
		var r record
		if err := json.Unmarshal(data, &r); err != nil {
			return fmt.Errorf("epochs of IPsec tunnels: %s is damaged (%w): if the clock is right, move it away and apply again", file, err)
		}
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		t := &tunnel{want: r.Tunnel, ifID: IfID(name), highest: r.Highest, peers: map[string]*peer{}}
		for n, p := range r.Peers {
			w, _ := findPeer(r.Tunnel, n)
			if p.From != w.Endpoint {
				p.At, p.Waits = netip.AddrPort{}, netip.AddrPort{}
			}
			t.peers[n] = &peer{want: w, reqid: p.Reqid, counters: p.counters, place: p.place, used: p.Sent, turned: d.opts.Now()}
			if p.Sent > furthest {
				d.log.Warn(fmt.Sprintf("epoch %d is of the year %d by this machine's clock then, and the other end does not look for it: set the clock, "+
					"end the daemon, remove %s and begin again", p.Sent, yearOf(p.Sent), file), "tunnel", name, "peer", n)
			}
		}
		d.tunnels[name] = t
		d.raise(t)
	}
	d.loaded = true
	return nil
}

// top is the highest epoch that the tunnel has used.
func (t *tunnel) top() uint64 {
	top := t.highest
	for _, p := range t.peers {
		top = max(top, p.Sent)
	}
	return top
}

// raise takes the tunnel's epochs into the node's highest. One that a wrong clock has left beyond all search stays with its
// peer: who begins goes by the clock, as without a disk.
func (d *Driver) raise(t *tunnel) {
	tame := func(e uint64) {
		if e <= furthest {
			d.highest = max(d.highest, e)
		}
	}
	tame(t.highest)
	for _, p := range t.peers {
		tame(p.Sent)
	}
}

// save writes the files that differ from what is known.
func (d *Driver) save() error {
	var failed []error
	for name, t := range d.tunnels {
		if t.dirty {
			failed = append(failed, d.write(name, t))
		}
	}
	return errors.Join(failed...)
}

// write puts a tunnel's file on the disk; after a crash the old one is there or the new one.
func (d *Driver) write(name string, t *tunnel) (err error) {
	defer func() {
		if t.dirty = err != nil; err != nil {
			err = fmt.Errorf("%w of tunnel %s, and no peer of it can be sent to in a new one before: %w", errUnwritten, name, err)
		}
		if d.opts.Wrote != nil {
			d.opts.Wrote(filepath.Join(filepath.Base(d.dir()), name+".json"), err)
		}
	}()
	r := record{Tunnel: t.want, Highest: t.highest, Peers: map[string]peerRecord{}}
	for n, p := range t.peers {
		r.Peers[n] = peerRecord{Reqid: p.reqid, counters: p.counters, place: p.place}
	}
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(d.dir(), 0o700); err != nil {
		return err
	}
	file := filepath.Join(d.dir(), name+".json")
	fresh := file + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) { // what a crash left
		return err
	}
	f, err := os.OpenFile(fresh, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(fresh))
	}
	if err := os.Rename(fresh, file); err != nil {
		return err
	}
	parent, err := os.Open(d.dir())
	if err != nil {
		return err
	}
	return errors.Join(parent.Sync(), parent.Close())
}

// register makes want the tunnel's wanted state, with a place for each of its peers.
func (d *Driver) register(want Tunnel) *tunnel {
	t := d.tunnels[want.Name]
	if t == nil {
		t = &tunnel{ifID: IfID(want.Name), peers: map[string]*peer{}}
		d.tunnels[want.Name] = t
	}
	want.Down = false
	t.want, t.dirty = want, true
	if len(want.Peers) == t.placed && (t.placed == 0 || &want.Peers[0] == t.first) { // the next op of one plan
		return t
	}
	t.placed, t.first = len(want.Peers), nil
	if t.placed > 0 {
		t.first = &want.Peers[0]
	}
	gone := t.going()
	var taken map[uint32]bool
	id := uint32(ourRange)
	for _, w := range want.Peers {
		if t.peers[w.Name] != nil {
			continue
		}
		if old := gone[identity{w.ID, w.SecretFile}]; old != "" { // it has another name
			t.peers[w.Name] = t.peers[old]
			delete(t.peers, old)
			delete(gone, identity{w.ID, w.SecretFile})
			continue
		}
		if taken == nil {
			taken = d.takenReqids(t)
		}
		for id++; taken[id]; id++ {
		}
		t.peers[w.Name] = &peer{want: w, reqid: id}
	}
	return t
}

// identity is what a peer's keys follow from.
type identity struct{ id, secretFile string }

// going returns the peers that are wanted no more under their names.
func (t *tunnel) going() map[identity]string {
	stay := map[string]bool{}
	for _, w := range t.want.Peers {
		stay[w.Name] = true
	}
	gone := map[identity]string{}
	for name, p := range t.peers {
		if !stay[name] {
			gone[identity{p.want.ID, p.want.SecretFile}] = name
		}
	}
	return gone
}

// takenReqids are those that a peer of the tunnel has, or anything in the kernel.
func (d *Driver) takenReqids(t *tunnel) map[uint32]bool {
	taken := map[uint32]bool{}
	for _, p := range t.peers {
		taken[p.reqid] = true
	}
	for o := range d.seen.states {
		taken[o.reqid] = taken[o.reqid] || o.ifID == t.ifID
	}
	for s, p := range d.seen.policies {
		taken[p.reqid] = taken[p.reqid] || s.ifID == t.ifID
	}
	return taken
}

// reserve writes to the disk, at once for all, that the named peers may be sent to in their next epoch, and with them
// those to which nothing sends: they are next. It must come before a state of that epoch is made. Peers that cannot begin
// are in the error where they were named (ErrClock), and the others go on; after an error of the disk none is reserved.
func (d *Driver) reserve(t *tunnel, names []string) error {
	asked := map[string]bool{}
	for _, n := range names {
		asked[n] = true
	}
	first, clock := firstEpoch(d.opts.Now(), d.highest) // the same for all that begin: their keys differ by their names
	before := map[*peer]counters{}
	var refused error
	for n, p := range t.peers {
		switch {
		case p.live != 0 && !asked[n] || p.reserved():
			continue
		case p.used == 0 && clock != nil:
			if asked[n] {
				refused = clock
			}
			continue
		}
		before[p] = p.counters
		switch p.Sent = p.used + 1; {
		case p.used == 0:
			p.Sent = first
		case p.stale(d.opts.Boot) && clock == nil:
			p.Sent = max(p.Sent, sinceStart(d.opts.Now()))
		}
		p.Boot = d.opts.Boot
	}
	if len(before) == 0 {
		return refused
	}
	if err := d.write(t.want.Name, t); err != nil {
		// What is not on the disk is not reserved: a crash would use it again.
		for p, c := range before {
			p.counters = c
		}
		return errors.Join(refused, err)
	}
	d.raise(t)
	return refused
}

// reserved says whether the disk knows of an epoch beyond the one in use.
func (p *peer) reserved() bool { return p.Sent > p.used }

// take begins the epoch that was reserved.
func (p *peer) take() uint64 {
	p.used = p.Sent
	return p.used
}

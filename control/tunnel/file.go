package tunnel

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"sluice/control/disk"
)

// schema of the file; a file of another one is not understood. disk.Format grows with it.
const schema = 1

// contents are what a restart must not forget: with them the first compilation gives what the last one gave.
type contents struct {
	Schema  int                     `json:"schema"`
	Tunnels map[string]keptTunnel   `json:"tunnels"`
	Names   map[string][]netip.Addr `json:"names"`
}

type keptTunnel struct {
	Underlay int                 `json:"underlay,omitempty"`
	Peers    map[string]keptPeer `json:"peers"`
}

type keptPeer struct {
	Endpoint  netip.AddrPort `json:"endpoint,omitzero"`
	PublicKey string         `json:"public_key,omitempty"`
	Probe     netip.Addr     `json:"probe,omitzero"` // that Down is about
	Down      bool           `json:"down,omitempty"`
}

// Load reads what was kept. A damaged file is no reason not to start: what it said is found out again.
func (w *Watcher) Load() error {
	data, err := os.ReadFile(w.opts.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var c contents
	if err == nil {
		err = json.Unmarshal(data, &c)
	}
	if err == nil && c.Schema != schema {
		err = fmt.Errorf("schema %d; this version reads %d", c.Schema, schema)
	}
	if err != nil {
		err = fmt.Errorf("what was found out about tunnels is found out again: %w", err)
		w.opts.Faults.Damaged(filepath.Base(w.opts.Path), err.Error())
		return fmt.Errorf("%s: %w", w.opts.Path, err)
	}
	w.locked(func(m *machine) { m.kept = c })
	return nil
}

// save writes what is to be kept, where it is something else than the file has.
func (w *Watcher) save() error {
	var c contents
	w.locked(func(m *machine) {
		m.unsaved = false
		c = m.contents()
	})
	if len(c.Tunnels) == 0 {
		if err := os.Remove(w.opts.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		w.saved = nil
		return nil
	}
	data, err := json.MarshalIndent(c, "", " ")
	if err != nil || bytes.Equal(data, w.saved) {
		return err
	}
	if err := disk.Replace(w.opts.Path, data); err != nil {
		return fmt.Errorf("a restart would have to find out again what became of tunnels: %w", err)
	}
	w.saved = data
	return nil
}

func (m *machine) contents() contents {
	c := contents{Schema: schema, Tunnels: map[string]keptTunnel{}, Names: map[string][]netip.Addr{}}
	for name, t := range m.tunnels {
		k := keptTunnel{Underlay: t.underlay, Peers: map[string]keptPeer{}}
		for _, p := range t.peers {
			one := keptPeer{Endpoint: p.choice.endpoint, PublicKey: p.key}
			if p.probe != nil && !p.probe.held && (p.probe.down || p.probe.answered) {
				one.Probe, one.Down = p.probe.to, p.probe.down
			}
			if one != (keptPeer{}) {
				k.Peers[p.conf.Name] = one
			}
		}
		c.Tunnels[name] = k
	}
	for host, n := range m.names {
		if len(n.addresses) > 0 {
			c.Names[host] = n.addresses
		}
	}
	return c
}

// adopt notes where devices send to, of peers that shook hands lately.
func (m *machine) adopt(seen []Seen, at time.Time) {
	m.adopted = map[string]map[string]netip.AddrPort{}
	for _, s := range seen {
		if s.PublicKey == "" || !s.Endpoint.IsValid() || s.Handshake.IsZero() || at.Sub(s.Handshake) >= session {
			continue
		}
		if m.adopted[s.Tunnel] == nil {
			m.adopted[s.Tunnel] = map[string]netip.AddrPort{}
		}
		m.adopted[s.Tunnel][s.PublicKey] = s.Endpoint
	}
}

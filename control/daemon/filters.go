package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"time"

	"sluice/bgp"
	"sluice/bgp/flowspec"
	"sluice/control/api"
	"sluice/control/compile"
	"sluice/control/disk"
	"sluice/xdp"
	"sluice/xdp/abi"
)

// filters are the FlowSpec rules and blackholes of BGP neighbors, on their way from the speaker into XDP's overlay. They are no
// part of a revision, and wait for no compilation.
type filters struct {
	mu    sync.Mutex
	table *xdp.FlowSpec // nil: not opened yet
	known []filter      // in the order of their evaluation, refused ones among them
	set   []xdp.FlowSpecFilter
	made  map[string]translation // of known, by what they say
}

// filter is a rule and what became of it.
type filter struct {
	bgp.FlowSpecRule
	key     string    // whose it is, and which
	refused string    // by the speaker or by XDP; "": it holds
	ends    time.Time // zero: not by itself, for its session is up
}

type translation struct {
	xdp.FlowSpecFilter
	refused string
}

// saveFilters is the least time between two writes of the file: an attack may come with many rules a second.
const saveFilters = time.Second

// followFilters keeps the overlay, and the file that the next process begins with, as the speaker says.
func (d *Daemon) followFilters(ctx context.Context) error {
	defer d.closeFilters()
	if f := d.liveDesired().BGP.FlowSpec; f.MaxRules == 0 && f.Blackholes.Max == 0 { // else the speaker will say, once it has judged what was kept
		d.updateFilters()
	}
	save := time.NewTimer(0)
	save.Stop()
	defer save.Stop()
	var saved time.Time
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			d.keepFilters()
			return nil
		case <-again:
			again = d.updateFilters()
		case <-d.bgp.FlowSpecChanges():
			again = d.updateFilters()
			save.Reset(time.Until(saved.Add(saveFilters)))
		case <-save.C:
			d.keepFilters()
			saved = time.Now()
		}
	}
}

// updateFilters puts what holds now into the overlay. Where that fails it is to be done again after a while.
func (d *Daemon) updateFilters() (again <-chan time.Time) {
	rules, _ := d.bgp.FlowSpec()
	d.filters.mu.Lock()
	defer d.filters.mu.Unlock()
	known, set := d.judgeFilters(rules)
	if err := d.setFilters(set); err != nil {
		d.opts.Log.Error("FlowSpec rules of neighbors are not in the data path; what was there before holds", "error", err)
		return time.After(retryDrops)
	}
	d.tellFilters(d.filters.known, known)
	d.filters.known = known
	return nil
}

func (d *Daemon) setFilters(set []xdp.FlowSpecFilter) (err error) {
	f := &d.filters
	if f.table == nil {
		if f.table, err = xdp.OpenFlowSpec(d.opts.BPFDir); err != nil {
			return err
		}
	} else if reflect.DeepEqual(set, f.set) { // routes changed, and no verdict
		return nil
	}
	if err = f.table.Set(set); err == nil {
		f.set = set
	}
	return err
}

// judgeFilters says which rules XDP takes. Where not all fit, those fall out that would be asked last.
func (d *Daemon) judgeFilters(rules []bgp.FlowSpecRule) (known []filter, set []xdp.FlowSpecFilter) {
	policy := d.liveDesired().BGP.FlowSpec
	made, room := map[string]translation{}, abi.MaxFlowspec
	for _, r := range rules {
		f := filter{FlowSpecRule: r, key: r.Address.String() + " " + r.Name, refused: r.Refused}
		if !r.Stale.IsZero() {
			f.ends = r.Stale.Add(policy.Keep)
			if r.Blackhole {
				f.ends = r.Stale.Add(policy.Blackholes.Keep)
			}
		}
		if f.refused == "" {
			says := r.Name + " " + flowspec.ActionsText(r.Actions)
			t, ok := d.filters.made[says]
			if !ok {
				t = translate(r)
			}
			made[says] = t
			entries := t.Entries()
			switch {
			case t.refused != "":
				f.refused = t.refused
			case entries > room:
				f.refused = fmt.Sprintf("XDP has room for %d table entries, and it takes %d", room, entries)
			default:
				room -= entries
				t.Key, t.Blackhole, t.Until = f.key, r.Blackhole, d.bootTime(f.ends)
				set = append(set, t.FlowSpecFilter)
			}
		}
		known = append(known, f)
	}
	d.filters.made = made
	return known, set
}

func translate(r bgp.FlowSpecRule) translation {
	f, err := compile.TranslateFlowSpec(r.Rule, r.Actions)
	if err != nil {
		return translation{refused: strings.TrimPrefix(err.Error(), "FlowSpec rule "+r.Rule.String()+": ")}
	}
	return translation{FlowSpecFilter: f}
}

// bootTime is a moment on CLOCK_BOOTTIME, in whole seconds so that it is the same whenever it is asked; 0 for none.
func (d *Daemon) bootTime(t time.Time) time.Duration {
	if t.IsZero() {
		return 0
	}
	return max((d.clock.Boot() + time.Until(t)).Round(time.Second), 1)
}

// tellFilters tells what changed.
func (d *Daemon) tellFilters(before, now []filter) {
	former := map[string]filter{}
	for _, f := range before {
		former[f.key] = f
	}
	tell := func(f filter, what string) {
		d.hub.publish(api.Event{Type: api.EventFlowSpec, Text: what, Filter: new(shownFilter(f))})
	}
	for _, f := range now {
		was, knew := former[f.key]
		delete(former, f.key)
		if f.refused != "" && f.Refused == "" && was.refused != f.refused {
			d.opts.Log.Warn("FlowSpec rule refused", "neighbor", f.Neighbor, "rule", f.Name, "reason", f.refused)
		}
		switch {
		case f.refused != "" && (!knew || was.refused != f.refused):
			tell(f, "refused")
		case f.refused != "":
		case !knew || was.refused != "":
			tell(f, "added")
		case flowspec.ActionsText(f.Actions) != flowspec.ActionsText(was.Actions):
			tell(f, "changed")
		case f.Stale.IsZero() != was.Stale.IsZero():
			tell(f, map[bool]string{true: "confirmed", false: "stale"}[f.Stale.IsZero()])
		}
	}
	for _, f := range before {
		if _, gone := former[f.key]; gone && f.refused == "" {
			tell(f, "removed")
		}
	}
}

func (d *Daemon) closeFilters() {
	d.filters.mu.Lock()
	defer d.filters.mu.Unlock()
	if d.filters.table != nil {
		if err := d.filters.table.Close(); err != nil {
			d.opts.Log.Warn("overlay of FlowSpec", "error", err)
		}
		d.filters.table = nil
	}
}

// keptFilters are those of an earlier process of this boot: after a reboot the overlay is empty, and neighbors send all anew.
type keptFilters struct {
	BootID   string           `json:"boot_id"`
	FlowSpec bgp.KeptFlowSpec `json:"flowspec"`
}

const filtersName = "flowspec.json"

func (d *Daemon) filtersFile() string { return filepath.Join(d.opts.StateDir, filtersName) }

func (d *Daemon) keepFilters() {
	data, err := json.Marshal(keptFilters{BootID: d.clock.BootID(), FlowSpec: d.bgp.KeepFlowSpec()})
	if err == nil {
		err = disk.Replace(d.filtersFile(), append(data, '\n'))
	}
	if err != nil {
		err = fmt.Errorf("FlowSpec rules would not outlive a restart: %w", err)
	}
	d.faults.Wrote(filtersName, err)
}

// loadFilters is what the speaker begins with.
func (d *Daemon) loadFilters() bgp.KeptFlowSpec {
	var kept keptFilters
	data, err := os.ReadFile(d.filtersFile())
	if errors.Is(err, fs.ErrNotExist) {
		return bgp.KeptFlowSpec{}
	}
	if err == nil {
		err = json.Unmarshal(data, &kept)
	}
	if err != nil {
		err = fmt.Errorf("FlowSpec rules of before the restart come anew from their neighbors alone: %w", err)
		d.opts.Log.Warn(filtersName, "error", err)
		d.faults.Damaged(filtersName, err.Error())
	}
	if kept.BootID != d.clock.BootID() {
		return bgp.KeptFlowSpec{}
	}
	return kept.FlowSpec
}

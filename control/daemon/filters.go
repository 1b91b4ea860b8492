package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/bgp"
	"sluice/bgp/flowspec"
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
	to    map[string]string      // sockets by the targets of redirects, as they were then

	revised chan struct{} // tells that another revision may say something else of them
	unkept  chan struct{} // tells that their file is to be written once more
}

func newFilters() filters {
	return filters{revised: make(chan struct{}, 1), unkept: make(chan struct{}, 1)}
}

// retry has the file written by the one goroutine that writes it.
func (f *filters) retry() {
	select {
	case f.unkept <- struct{}{}:
	default:
	}
}

// filter is a rule and what became of it.
type filter struct {
	bgp.FlowSpecRule
	key     string    // whose it is, and which
	refused string    // by the speaker or by XDP; "": it holds
	socket  string    // that it redirects to
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
		case <-d.filters.revised:
			if d.redirectsChanged() {
				again = d.updateFilters()
			}
		case <-d.bgp.FlowSpecChanges():
			again = d.updateFilters()
			save.Reset(time.Until(saved.Add(saveFilters)))
		case <-save.C:
			d.keepFilters()
			saved = time.Now()
		case <-d.filters.unkept:
			d.keepFilters()
		}
	}
}

// updateFilters puts what holds now into the overlay. Where that fails it is to be done again after a while.
func (d *Daemon) updateFilters() (again <-chan time.Time) {
	rules, _ := d.bgp.FlowSpec()
	d.filters.mu.Lock()
	defer d.filters.mu.Unlock()
	known, set := d.judgeFilters(rules)
	err := d.setFilters(set)
	d.filtersRefused(known, err)
	if err != nil {
		d.opts.Log.Error("FlowSpec rules of neighbors are not in the data path; what was there before holds", "error", err)
		return time.After(retryDrops)
	}
	d.tellFilters(d.filters.known, known)
	d.filters.known = known
	d.rulesChanged() // or filters that sample
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
	made, room := map[string]translation{}, abi.MaxFlowspec
	if to := d.redirects(); !maps.Equal(to, d.filters.to) {
		d.filters.made, d.filters.to = nil, to
	}
	for _, r := range rules {
		f := filter{FlowSpecRule: r, key: r.Address.String() + " " + r.Name, refused: r.Refused, ends: d.filterEnd(r)}
		if f.refused == "" {
			says := r.Name + " " + flowspec.ActionsText(r.Actions)
			t, ok := d.filters.made[says]
			if !ok {
				t = translate(r, d.filters.to)
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
				f.socket = t.Socket
				set = append(set, t.FlowSpecFilter)
			}
		}
		known = append(known, f)
	}
	d.filters.made = made
	return known, set
}

func translate(r bgp.FlowSpecRule, sockets map[string]string) translation {
	f, err := compile.TranslateFlowSpec(r.Rule, r.Actions, sockets)
	if err != nil {
		return translation{refused: strings.TrimPrefix(err.Error(), "FlowSpec rule "+r.Rule.String()+": ")}
	}
	return translation{FlowSpecFilter: f}
}

// redirects are the sockets that the file names for targets of neighbors.
func (d *Daemon) redirects() map[string]string {
	out := map[string]string{}
	if cfg := d.liveConfig(); cfg.BGP != nil {
		for _, r := range cfg.BGP.FlowSpec.Redirects {
			out[r.Target] = r.Socket
		}
	}
	return out
}

// redirectsChanged is false before the speaker has judged what was kept: until then what an earlier process left holds.
func (d *Daemon) redirectsChanged() bool {
	d.filters.mu.Lock()
	defer d.filters.mu.Unlock()
	return d.filters.table != nil && !maps.Equal(d.redirects(), d.filters.to)
}

// filtersRevised has filters translated anew where the file says something else of them.
func (d *Daemon) filtersRevised() {
	select {
	case d.filters.revised <- struct{}{}:
	default:
	}
}

// anySamples says whether a filter wants its packets shown.
func (d *Daemon) anySamples() bool {
	d.filters.mu.Lock()
	defer d.filters.mu.Unlock()
	return slices.ContainsFunc(d.filters.set, func(f xdp.FlowSpecFilter) bool { return f.Sample })
}

// bootTime is a moment on CLOCK_BOOTTIME, in whole seconds so that it is the same whenever it is asked; 0 for none.
func (d *Daemon) bootTime(t time.Time) time.Duration {
	if t.IsZero() {
		return 0
	}
	return max((d.clock.Boot() + time.Until(t)).Round(time.Second), 1)
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

func (d *Daemon) filtersFile() string { return filepath.Join(d.state, filtersName) }

// keepFilters is for followFilters alone: two at a time would write one and the same new file.
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

package daemon

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"sluice/control/api"
	"sluice/control/compile"
	"sluice/control/config"
	"sluice/control/engine"
	"sluice/control/feed"
)

// compile is compile.Compile with what the watched set files hold. Where the newest contents do not compile, and those
// before do, these go on: a feed that ran wild keeps nobody from applying, starting or going back.
func (d *Daemon) compile(cfg *config.Config, rt compile.Runtime, facts compile.Facts) (*compile.Desired, error) {
	d.works()
	held := d.feeds.Snapshot(cfg.Watched())
	rt.Watched, rt.Workloads, rt.Tunnels = held.Contents, d.workloads.Added(cfg), d.tunnels.Now(cfg)
	rt.Reached, rt.Drain = d.health.Reached(), d.drain.Phase()
	desired, err := d.compiled.Compile(cfg, rt, facts)
	if err == nil {
		held.Compiled()
		return desired, nil
	}
	before, ok := held.Before()
	if !ok {
		return nil, err
	}
	rt.Watched = before
	desired, other := d.compiled.Compile(cfg, rt, facts)
	if other != nil {
		return nil, err // for another reason, then
	}
	fresh := held.Fresh()
	if len(fresh) == 1 {
		held.Refused(fresh[0], err)
		return desired, nil
	}
	for _, path := range fresh { // one that does not fit is no reason to refuse the others
		rt.Watched = maps.Clone(before)
		rt.Watched[path] = held.Contents[path]
		with, err := d.compiled.Compile(cfg, rt, facts)
		if err != nil {
			held.Refused(path, err)
			continue
		}
		held.Compiled(path)
		desired, before = with, rt.Watched
	}
	return desired, nil
}

// watchedSets are the files that the live revision watches. While another is pending its base may come back.
func (d *Daemon) watchedSets() (paths []string, settled bool) {
	before := d.engine.Pending()
	number, live, _ := d.engine.Current()
	if live.Config != nil {
		paths = live.Config.Watched()
	}
	// Asked on both sides: what is live must not be of a revision that came or went in between.
	return paths, number != 0 && before == nil && d.engine.Pending() == nil
}

// keptSets is where the last good contents of watched set files lie.
func keptSets(state string) string { return filepath.Join(state, "sets") }

// prepareSets reads the files that a candidate is the first to watch. One that is not good and never was has nothing to
// go on with. An error is of type config.Errors.
func prepareSets(feeds *feed.List, cfg *config.Config) error {
	var errs config.Errors
	asked := map[string]bool{}
	for i, s := range cfg.Sets {
		for _, path := range s.Watched {
			if asked[path] {
				continue
			}
			asked[path] = true
			var list config.Errors
			if !errors.As(feeds.Prepare([]string{path}), &list) {
				continue
			}
			if list[0].Pos.File == "" { // there is no line of its own to point at
				list[0].Pos, list[0].Path = s.Pos, fmt.Sprintf("sets[%d]", i)
				list[0].Hint = "a watched file must be there and good when it is first applied, be it empty"
			}
			errs = append(errs, list...)
		}
	}
	if errs != nil {
		return errs
	}
	return nil
}

// keptWarnings name the files of a candidate that are not good now, and that go on with what they held before.
func keptWarnings(feeds *feed.List, cfg *config.Config) (out []string) {
	for _, path := range cfg.Watched() {
		if s := feeds.Status(path); s.Wrong != "" {
			out = append(out, s.Wrong+": it is watched, and what it held when it was last good goes on")
		}
	}
	return out
}

func (d *Daemon) reportSets(problems []feed.Problem) {
	switch {
	case problems == nil:
		d.engine.SetCondition(engine.ConditionSetFiles, "", "", "")
	case len(problems) == 0:
		d.engine.SetCondition(engine.ConditionSetFiles, engine.True, "Read", "")
	default:
		var texts []string
		for _, p := range problems {
			texts = append(texts, p.Text)
		}
		d.engine.SetCondition(engine.ConditionSetFiles, engine.False, "Kept", "what was good before goes on: "+strings.Join(texts, "; "))
	}
}

func (d *Daemon) setNotice(c feed.Change) {
	e := api.SetFile{File: c.Path, Prefixes: c.Prefixes, Added: c.Added, Removed: c.Removed}
	for _, s := range d.liveConfig().Sets {
		if slices.Contains(s.Watched, c.Path) {
			e.Sets = append(e.Sets, s.Name)
		}
	}
	if c.Wrong != nil {
		e.Error = c.Wrong.Error()
	}
	d.hub.publish(api.Event{Type: api.EventSetFile, SetFile: &e})
}

func (d *Daemon) showSets() []api.Set {
	out := []api.Set{}
	for _, s := range d.liveConfig().Sets {
		set := api.Set{Name: s.Name, Files: listed(s.Files), Watched: len(s.Watched) > 0}
		add := func(prefixes int, ipv4 int) {
			set.Prefixes += prefixes
			set.IPv4 += ipv4
			set.IPv6 += prefixes - ipv4
		}
		ipv4 := 0
		for _, p := range s.Prefixes {
			if p.Addr().Is4() {
				ipv4++
			}
		}
		add(len(s.Prefixes), ipv4)
		for _, path := range s.Watched {
			f := d.feeds.Status(path)
			add(f.Prefixes, f.IPv4)
			if set.LastChange == nil && !f.Changed.IsZero() || set.LastChange != nil && f.Changed.After(*set.LastChange) {
				set.LastChange = &f.Changed
			}
			if f.Wrong != "" {
				set.LastError, set.LastErrorAt = f.Wrong, &f.Since
			}
		}
		out = append(out, set)
	}
	return out
}

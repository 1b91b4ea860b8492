package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"sluice/control/api"
	"sluice/control/compile"
	"sluice/control/config"
	"sluice/control/engine"
	"sluice/plural"
	"sluice/xdp"
)

// The Daemon is the api.Backend.

// Plan says what applying c would do.
func (d *Daemon) Plan(ctx context.Context, c api.Candidate) (engine.Plan, error) {
	candidate, err := d.parseCandidate(c)
	if err != nil {
		return engine.Plan{}, refused(err)
	}
	if err := prepareSets(d.feeds, candidate.Config); err != nil {
		return engine.Plan{}, refused(err)
	}
	p, err := d.engine.Plan(ctx, candidate)
	p.Steps = listed(p.Steps)
	if desired := p.Desired(); desired != nil {
		p.Warnings = slices.Concat(p.Warnings, keptWarnings(d.feeds, candidate.Config), lintWarnings(candidate.Config, desired))
	}
	return p, refused(err)
}

// Apply makes a candidate the revision of the machine.
func (d *Daemon) Apply(ctx context.Context, r api.ApplyRequest) (engine.Result, error) {
	begin := time.Now()
	candidate, err := d.parseCandidate(r.Candidate)
	d.opts.Log.Debug("took", "part", "parse", "time", time.Since(begin))
	if err != nil {
		return engine.Result{}, refused(err)
	}
	if err := prepareSets(d.feeds, candidate.Config); err != nil {
		return engine.Result{}, refused(err)
	}
	result, err := d.engine.Apply(ctx, candidate, engine.ApplyOptions{
		Confirm: seconds(r.ConfirmSeconds), Message: r.Message, Author: r.Author,
	})
	return d.finished(result, err)
}

// finished is the answer to a change: with what its rules look like, only now, for looking takes longer than the change.
func (d *Daemon) finished(r engine.Result, err error) (engine.Result, error) {
	d.works()
	d.forgetGone(context.Background())
	r.Plan.Steps = listed(r.Plan.Steps)
	if err == nil {
		live := d.liveConfig()
		r.Plan.Warnings = slices.Concat(r.Plan.Warnings, keptWarnings(d.feeds, live), lintWarnings(live, d.liveDesired()))
	}
	return r, refused(err)
}

// Bounds of what apply says of rules without effect; `sluice check` says it all.
const (
	maxLinted   = 20000 // rules; so many take some 0.5 s
	maxWarnings = 20
)

// lintWarnings are about rules that can never act.
func lintWarnings(cfg *config.Config, desired *compile.Desired) []string {
	rules := 0
	for _, p := range desired.TC.Generation.Policies() {
		rules += len(p.Rules)
	}
	if rules > maxLinted {
		return []string{fmt.Sprintf("%d rules are too many to look here for those that can never act: run `sluice check -c FILE`", rules)}
	}
	var out []string
	more := 0
	for _, f := range compile.Findings(cfg, desired) {
		switch {
		case f.Redundant():
		case len(out) == maxWarnings:
			more++
		default:
			out = append(out, fmt.Sprintf("%s/%s: %s", f.Policy, f.Rule, f.Message))
		}
	}
	if more > 0 {
		out = append(out, plural.Of(more, "more rule", "more rules")+" can never act: `sluice check` names them")
	}
	return out
}

// ClearCounters sets the counters of rules and defaults to zero.
func (d *Daemon) ClearCounters(_ context.Context, r api.ClearCountersRequest) (api.Cleared, error) {
	var ids []uint32
	beyond := map[uint32]uint32{} // what a limit dropped is counted by itself
	for _, l := range d.liveDesired().TC.Generation.Limiters {
		beyond[l.Rule] = l.Beyond
	}
	out := api.Cleared{Policies: []string{}}
	for _, p := range d.policies() {
		if p.Name == "" || r.Policy != "" && !api.InPolicy(p.Name, r.Policy) {
			continue
		}
		out.Policies, out.Rules = append(out.Policies, p.Name), out.Rules+len(p.Rules)
		if p.DefaultID != 0 {
			ids = append(ids, p.DefaultID)
		}
		for i := range p.Rules {
			ids = append(ids, p.Rules[i].ID)
			if id, limited := beyond[p.Rules[i].ID]; limited {
				ids = append(ids, id)
			}
		}
	}
	if len(out.Policies) == 0 && r.Policy != "" {
		return out, refused(fmt.Errorf("there is no policy %q; `sluice show policy` lists them", r.Policy))
	}
	return out, xdp.ClearRuleHits(d.opts.BPFDir, ids)
}

// Confirm keeps the pending revision.
func (d *Daemon) Confirm(ctx context.Context) (api.Confirmed, error) {
	n, err := d.engine.Confirm(ctx)
	return api.Confirmed{Revision: n}, refused(err)
}

// Rollback applies an earlier revision again.
func (d *Daemon) Rollback(ctx context.Context, r api.RollbackRequest) (engine.Result, error) {
	result, err := d.engine.Rollback(ctx, r.Revision, engine.ApplyOptions{
		Confirm: seconds(r.ConfirmSeconds), Message: r.Message, Author: r.Author,
	})
	return d.finished(result, err)
}

// History lists the revisions, oldest first.
func (d *Daemon) History(context.Context) ([]engine.Meta, error) {
	return listed(d.engine.History()), nil
}

// Config returns the files of a revision; 0 is the live one.
func (d *Daemon) Config(ctx context.Context, revision int) (api.StoredConfig, error) {
	if revision == 0 {
		if revision = d.engine.Status().Revision; revision == 0 {
			return api.StoredConfig{}, refused(errors.New("no revision is live yet"))
		}
	}
	c, meta, err := d.engine.Stored(ctx, revision)
	if err != nil {
		return api.StoredConfig{}, refused(err)
	}
	out := api.StoredConfig{Meta: meta, Bytes: c.Bytes, Files: []api.File{}}
	for _, f := range c.Files {
		out.Files = append(out.Files, api.File(f))
	}
	return out, nil
}

// Down gives the machine back, and ends the daemon once the answer is given.
func (d *Daemon) Down(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx) // half a down helps nobody
	// The engine takes away what the revision made; each subsystem then what no revision knows, such as empty pins.
	err := d.engine.Down(ctx)
	err = errors.Join(err, d.bgp.Down(ctx), d.xdp.Down(ctx), d.tc.Down(ctx), d.host.Down(ctx),
		d.wireguard.Down(ctx), d.ipsec.Down(ctx), d.path.Down(ctx))
	if err == nil {
		d.stop()
	}
	return err
}

func (d *Daemon) parseCandidate(c api.Candidate) (engine.Candidate, error) {
	files := make([]config.File, 0, len(c.Files))
	contents := map[string][]byte{}
	for _, f := range c.Files {
		files = append(files, config.File(f))
		contents[f.Path] = f.Contents
	}
	read := func(path string) ([]byte, error) {
		if b, ok := contents[path]; ok {
			return b, nil
		}
		return nil, fmt.Errorf("%s was not sent along: %w", path, fs.ErrNotExist)
	}
	cfg, err := d.parse(c.Name, c.Bytes, read)
	return engine.Candidate{Name: c.Name, Bytes: c.Bytes, Files: files, Config: cfg}, err
}

// refused marks an error as the answer to the request rather than a fault of the API.
func refused(err error) error {
	if err == nil {
		return nil
	}
	return &api.Failure{Message: err.Error(), Refused: true, Problems: api.Problems(err)}
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

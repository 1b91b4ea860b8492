package workload

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"sluice/control/compile"
	"sluice/control/config"
	"sluice/control/engine"
)

// request waits for its turn. What it asks for may become part of one alteration with what others ask for meanwhile: an
// orchestrator that starts adds hundreds, and each alteration writes the tables of all.
type request struct {
	Change
	outcomes []Outcome
	err      error
	done     chan struct{}
}

// Change does a request, and returns when the machine holds what follows. Where ctx ends before, it may still be done.
func (l *List) Change(ctx context.Context, c Change) ([]Outcome, error) {
	r := &request{Change: c, done: make(chan struct{})}
	for i := range r.Add {
		r.Add[i] = r.Add[i].normal()
	}
	l.mu.Lock()
	l.queue = append(l.queue, r)
	l.mu.Unlock()
	select {
	case <-r.done:
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for the changes before: %w", ctx.Err())
	case l.turn <- struct{}{}:
		l.serve(context.WithoutCancel(ctx)) // it is about the requests of others as well
		<-l.turn
	}
	<-r.done
	return r.outcomes, r.err
}

// serve does all requests that wait. One that fails must not take others with it, so then each is done by itself.
func (l *List) serve(ctx context.Context) {
	l.mu.Lock()
	batch := l.queue
	l.queue = nil
	l.mu.Unlock()
	if left := l.alter(ctx, batch); len(left) > 1 {
		for _, r := range left {
			l.alter(ctx, []*request{r})
		}
	}
	for _, r := range batch {
		close(r.done)
	}
}

// alter does requests in one alteration. Those that it returns failed together.
func (l *List) alter(ctx context.Context, batch []*request) (failed []*request) {
	if len(batch) == 0 {
		return nil
	}
	var before map[string]*Spec
	var good []*request
	kept := false
	err := l.opts.Alter(ctx, engine.Alteration{
		Why: why(batch),
		Begin: func() (err error) {
			before, good, err = l.begin(batch)
			return err
		},
		Judge: func(d *compile.Desired) error { return judge(d, good) },
		Keep: func() error {
			kept = true
			return l.save()
		},
		Undo: func() error {
			l.set(before)
			if kept {
				return l.save()
			}
			return nil
		},
	})
	switch {
	case errors.Is(err, errUnchanged), err == nil:
		return nil
	case good == nil: // not even begun
		good = batch
	}
	for _, r := range good {
		r.err = err
	}
	return good
}

func why(batch []*request) string {
	var names []string
	for _, r := range batch {
		for _, s := range r.Add {
			names = append(names, s.Name)
		}
		names = append(names, r.Remove...)
	}
	if len(names) == 1 {
		return "workload " + names[0]
	}
	return fmt.Sprintf("%d workloads", len(names))
}

// begin puts what is right about the requests into the list, and tells the others what is wrong.
func (l *List) begin(batch []*request) (before map[string]*Spec, good []*request, err error) {
	cfg := l.opts.Live()
	l.mu.Lock()
	defer l.mu.Unlock()
	before = l.specs
	now := before
	for _, r := range batch {
		next, err := l.with(now, r, cfg)
		if r.err = err; err == nil {
			now, good = next, append(good, r)
		}
	}
	l.read.prune(now)
	changed := slices.ContainsFunc(good, func(r *request) bool {
		return slices.ContainsFunc(r.outcomes, func(o Outcome) bool { return o.Change != Unchanged })
	})
	if !changed {
		return before, good, errUnchanged
	}
	l.specs = now
	return before, good, nil
}

// with is the list with one request done, and says what becomes of each workload.
func (l *List) with(now map[string]*Spec, r *request, cfg *config.Config) (map[string]*Spec, error) {
	next := maps.Clone(now)
	r.outcomes = nil
	for _, name := range r.Remove {
		if next[name] == nil {
			return nil, unknown(name, cfg)
		}
		delete(next, name)
		r.outcomes = append(r.outcomes, Outcome{name, Removed})
	}
	var errs []error
	for _, s := range r.Add {
		is := Unchanged
		switch had := next[s.Name]; {
		case had == nil:
			is = Added
		case !had.equal(s):
			is = Replaced
		}
		if is != Unchanged {
			next[s.Name] = &s
			errs = append(errs, l.wrong(cfg, &s))
		}
		r.outcomes = append(r.outcomes, Outcome{s.Name, is})
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	for _, s := range r.Add {
		for name, other := range next {
			if name != s.Name {
				errs = append(errs, clash(l.read.get(cfg, next[s.Name]).Workload, l.read.get(cfg, other).Workload))
			}
		}
	}
	return next, errors.Join(errs...)
}

// wrong says what of a spec the file of now does not allow; config.Errors, whose paths name the workload: a request may have many.
func (l *List) wrong(cfg *config.Config, s *Spec) error {
	a := l.read.get(cfg, s)
	var errs config.Errors
	if a.Err != nil && !errors.As(a.Err, &errs) {
		return a.Err
	}
	errs = slices.Clone(errs)
	if a.Err == nil {
		for _, clash := range cfg.Clashes(a.Workload) {
			errs = append(errs, clash.Error())
		}
	}
	if len(errs) == 0 {
		return nil
	}
	for i := range errs {
		errs[i].Path = strings.TrimSuffix("workload "+s.Name+"."+errs[i].Path, ".")
	}
	return errs
}

func unknown(name string, cfg *config.Config) error {
	if cfg.WorkloadByName(name) != nil {
		return fmt.Errorf("%s is a workload of the file: take it out of the file, and apply that", name)
	}
	return fmt.Errorf("no workload %s was added by the API; `sluice show workloads` lists them", name)
}

// judge wants every workload that was asked for on the machine, or waiting for its interface.
func judge(d *compile.Desired, good []*request) error {
	var refused refusedError
	for _, one := range d.Refused {
		for _, r := range good {
			if slices.ContainsFunc(r.Add, func(s Spec) bool { return s.Name == one.Workload }) {
				refused = append(refused, one)
			}
		}
	}
	if len(refused) == 0 {
		return nil
	}
	return refused
}

func (l *List) set(specs map[string]*Spec) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.specs = specs
	l.read.prune(specs)
}

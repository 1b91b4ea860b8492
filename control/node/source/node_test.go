package source

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"sluice/control/compile"
	"sluice/control/config"
	"sluice/control/engine"
	"sluice/tests/scratch"
)

var discard = slog.New(slog.DiscardHandler)

// clock stands still but for Sleep.
type clock struct {
	mu      sync.Mutex
	boot    time.Duration
	boots   int
	waiting map[chan time.Time]time.Duration
}

func (c *clock) Now() time.Time {
	return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).Add(c.Boot())
}
func (c *clock) Boot() time.Duration { c.mu.Lock(); defer c.mu.Unlock(); return c.boot }
func (c *clock) BootID() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return fmt.Sprintf("boot-%d", c.boots)
}

func (c *clock) After(d time.Duration) <-chan time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	ch := make(chan time.Time, 1)
	c.waiting[ch] = c.boot + d
	return ch
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.boot += d
	for ch, at := range c.waiting {
		if at <= c.boot {
			ch <- time.Time{}
			delete(c.waiting, ch)
		}
	}
}

// node is a node that boots: a state directory, a boot directory, and a real engine that has nothing to do.
type node struct {
	t       *testing.T
	dir     string
	clock   *clock
	engine  *engine.Engine
	end     func() // of the daemon
	failing string // why apply.checks fail; "": they hold
	applies int
	lacks   bool // the machine has no interface

	left int // calls until the cut; below 0: none
}

func (n *node) Baseline(context.Context) (json.RawMessage, error) { return json.RawMessage("{}"), nil }

func (n *node) Check(context.Context, json.RawMessage, []config.Check) []engine.Failure {
	if n.failing == "" {
		return nil
	}
	return []engine.Failure{{Check: "reach 198.18.0.1", Message: n.failing}}
}

func (n *node) bootDir() string { return filepath.Join(n.dir, "boot") }

func newNode(t *testing.T) *node {
	n := &node{t: t, dir: scratch.Memory(t), clock: &clock{waiting: map[chan time.Time]time.Duration{}}, left: -1}
	t.Cleanup(func() { n.end() })
	return n
}

func parse(name string, data []byte, read func(string) ([]byte, error)) (*config.Config, error) {
	return config.Parse(config.Source{Name: name, Bytes: data, ReadFile: read})
}

// start is the daemon's: as systemd does it after a boot, and after it died.
func (n *node) start() {
	store, err := engine.OpenStore(n.dir)
	if err != nil {
		n.t.Fatal(err)
	}
	n.engine, err = engine.New(engine.Options{
		Parse: parse, Store: store, Clock: n.clock, Checker: n,
		Compile: func(cfg *config.Config, _ compile.Runtime, _ compile.Facts) (*compile.Desired, error) {
			if cfg.Node.Name == "refused" || n.lacks {
				return nil, errors.New("sluice.yaml:3:5: there is no interface eth0")
			}
			return &compile.Desired{Config: cfg}, nil
		},
		Facts: func(context.Context, *config.Config) (compile.Facts, error) { return compile.Facts{}, nil },
		Source: func() (engine.Source, error) {
			src, err := config.LoadFile(filepath.Join(n.bootDir(), FileName))
			return engine.Source{Name: src.Name, Bytes: src.Bytes, ReadFile: src.ReadFile}, err
		},
	})
	if err != nil {
		n.t.Fatal(err)
	}
	if err := n.engine.Start(n.t.Context()); err != nil {
		n.t.Logf("start: %v", err) // the maintenance state
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { _ = n.engine.Run(ctx); close(ended) }()
	n.end = sync.OnceFunc(func() { stop(); <-ended })
}

// bring has a source found at boot.
func (n *node) bring(text string) {
	c := newCandidate(FromStick, "/dev/sdb1", []byte(text), nil)
	if err := stage(n.bootDir(), c, Record{Source: c.origin, Digest: c.digest()}); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) reboot() {
	n.end()
	n.clock.mu.Lock()
	n.clock.boots, n.clock.boot = n.clock.boots+1, 0
	n.clock.mu.Unlock()
	n.start()
}

func (n *node) restart() {
	n.end()
	n.start()
}

// errCut is thrown where the power is cut.
var errCut = errors.New("cut")

func (n *node) step() {
	if n.left == 0 {
		panic(errCut)
	}
	n.left--
}

// Everything that Decide does to the outside is a place to be cut, ahead of it and behind.

func (n *node) Status(context.Context) (engine.Status, error) {
	n.step()
	return n.engine.Status(), nil
}

func (n *node) History(context.Context) ([]engine.Meta, error) {
	n.step()
	return n.engine.History(), nil
}

func (n *node) Apply(ctx context.Context, file, message string, confirm time.Duration) (engine.Result, error) {
	n.step()
	defer n.step()
	n.applies++
	src, err := config.LoadFile(file)
	if err != nil {
		return engine.Result{}, err
	}
	cfg, err := config.Parse(src)
	if err != nil {
		return engine.Result{}, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	r, err := n.engine.Apply(ctx, engine.Candidate{Name: src.Name, Bytes: src.Bytes, Config: cfg}, engine.ApplyOptions{Confirm: confirm, Message: message})
	if err != nil {
		err = fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return r, err
}

func (n *node) Confirm(ctx context.Context) error {
	n.step()
	defer n.step()
	_, err := n.engine.Confirm(ctx)
	return err
}

// Sleep has the engine do what is due: its Run answers the second time behind the round that the first one began.
func (n *node) Sleep(ctx context.Context, d time.Duration) error {
	n.step()
	n.clock.advance(d)
	return errors.Join(n.engine.Alive(ctx), n.engine.Alive(ctx))
}

func (n *node) now() time.Time {
	n.step()
	return n.clock.Now()
}

// decide calls Decide with the power cut after so many steps; below 0: it is not. cut says whether it was.
func (n *node) decide(after int) (b Boot, cut bool) {
	n.left = after
	defer func() {
		n.left = -1
		switch r := recover(); r {
		case nil:
		case errCut:
			cut = true
		default:
			panic(r)
		}
	}()
	b, err := Decide(n.t.Context(), DecideOptions{Dir: n.bootDir(), StateDir: n.dir, Daemon: n, Log: discard, Now: n.now, Sleep: n.Sleep})
	if err != nil {
		n.t.Errorf("decide: %v", err)
	}
	return b, false
}

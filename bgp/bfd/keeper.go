package bfd

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"sluice/process"
)

// Keeper is a daemon's hold on the process: it finds the one that an earlier daemon left, starts one where sessions are wanted, and
// starts it again when it dies. Its methods may be called from any goroutine.
type Keeper struct {
	log     *slog.Logger
	place   process.Place
	changed chan struct{}
	closed  chan struct{}
	once    sync.Once

	mu     sync.Mutex
	client *process.Client // nil: none
	wanted []Config
	pause  time.Duration // before the next start after a death
}

// theOne is the name of the process at its place.
const theOne = "sessions"

// Pauses before a process that died is started again: one that dies at once is not started without end.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = 30 * time.Second
	longLife   = 10 * time.Second
)

// NewKeeper starts nothing. command is a program and its words, the last one Verb; the process lives in the network namespace of this
// one.
func NewKeeper(log *slog.Logger, stateDir string, command []string) (*Keeper, error) {
	netns, err := process.NetNS(os.Getpid())
	if err != nil {
		return nil, fmt.Errorf("BFD: network namespace: %w", err)
	}
	return &Keeper{
		log: log, changed: make(chan struct{}, 1), closed: make(chan struct{}),
		place: process.Place{Kind: kind, Dir: filepath.Join(stateDir, "bfd"), Command: command, NetNS: netns},
	}, nil
}

// Changed holds a value once a state may have changed since the last was taken.
func (k *Keeper) Changed() <-chan struct{} { return k.changed }

// Set makes the sessions those of wanted, as Server.Set does. Without any the process ends.
func (k *Keeper) Set(wanted []Config) error {
	for _, c := range wanted {
		if err := c.check(); err != nil {
			return err
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.wanted = slices.Clone(wanted)
	if len(wanted) == 0 {
		return k.end()
	}
	if err := k.ensure(); err != nil {
		return err
	}
	return k.hand()
}

// Report asks the process. Without one it is empty.
func (k *Keeper) Report() (r Report, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.client == nil || !k.client.Alive() {
		return Report{}, nil
	}
	return reportOf(k.client)
}

func reportOf(c *process.Client) (r Report, err error) {
	said, err := c.Ask(process.Request{Do: doReport, Value: "1"})
	if err == nil {
		err = json.Unmarshal([]byte(process.Fields(said)["report"]), &r)
	}
	return r, err
}

// Close lets go of the process, which lives on.
func (k *Keeper) Close() {
	k.once.Do(func() { close(k.closed) })
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.client != nil {
		k.client.Close()
		k.client = nil
	}
}

// Down ends every process that is left, and removes its files.
func (k *Keeper) Down() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.wanted = nil
	return errors.Join(k.end(), k.place.Sweep())
}

// end ends the process, if there is one. k.mu is held.
func (k *Keeper) end() error {
	c := k.client
	if c == nil {
		var err error
		if c, err = k.place.Adopt(theOne, k.says); errors.Is(err, process.ErrNone) {
			return nil
		} else if err != nil {
			return fmt.Errorf("BFD: %w", err)
		}
	}
	k.client = nil
	return c.End()
}

// hand gives the process what is wanted. k.mu is held.
func (k *Keeper) hand() error {
	text, err := json.Marshal(k.wanted)
	if err == nil {
		err = k.client.Do(process.Request{Do: doSet, Value: string(text)})
	}
	if err != nil {
		return fmt.Errorf("set the BFD sessions: %w", err)
	}
	return nil
}

// ensure has a process run. k.mu is held.
func (k *Keeper) ensure() error {
	if k.client != nil && k.client.Alive() {
		return nil
	}
	c, err := k.place.Adopt(theOne, k.says)
	if process.Replaceable(err) {
		k.log.Warn("the BFD process is replaced, and its sessions go down: this program cannot speak to it", "why", err)
		if err = k.place.Evict(theOne); err == nil {
			err = process.ErrNone
		}
	}
	switch {
	case err == nil:
		k.log.Info("BFD process adopted", "pid", c.PID())
	case errors.Is(err, process.ErrNone):
		if c, err = k.place.Start(theOne, k.says); err == nil {
			k.complain(c)
		}
	}
	if err != nil {
		return fmt.Errorf("BFD: %w", err)
	}
	if k.client != nil {
		k.client.Close()
	}
	k.client = c
	go k.mourn(c)
	return nil
}

// complain tells what a new process was refused. That it does not answer shows soon enough.
func (k *Keeper) complain(c *process.Client) {
	if r, err := reportOf(c); err == nil && r.Priority != RealTime {
		k.log.Warn("the BFD process has no real-time priority (CAP_SYS_NICE): while this machine is busy, peers may take it for dead", "priority", r.Priority)
	}
}

// says hears the process. All that it has to say is that there is something new to ask for.
func (k *Keeper) says(string) {
	select {
	case k.changed <- struct{}{}:
	default:
	}
}

// mourn starts another process when this one ends and nobody asked it to.
func (k *Keeper) mourn(c *process.Client) {
	born := time.Now()
	select {
	case <-k.closed:
		return
	case <-c.Done():
	}
	k.says("")
	for {
		select {
		case <-k.closed:
			return
		case <-time.After(k.nextPause(time.Since(born) >= longLife)):
		}
		if k.again(c) {
			return
		}
	}
}

func (k *Keeper) nextPause(anew bool) time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.pause = min(max(2*k.pause, firstPause), lastPause); anew {
		k.pause = firstPause
	}
	return k.pause
}

// again reports whether there is nothing left to do about the end of c: another process has a mourner of its own.
func (k *Keeper) again(c *process.Client) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.client != c || len(k.wanted) == 0 {
		return true
	}
	k.log.Error("the BFD process has ended, and is started again: peers take its sessions for down"+k.place.Crash(theOne), "pid", c.PID())
	err := k.ensure()
	if err == nil {
		err = k.hand()
	}
	if err != nil {
		k.log.Error("the BFD process does not start", "error", err)
	}
	return k.client != c
}

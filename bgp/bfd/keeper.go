package bfd

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
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
	trouble func(why string)

	mu       sync.Mutex
	client   *process.Client // nil: none
	wanted   []Config
	pause    time.Duration  // before the next start after a death
	up       map[key]uint32 // our discriminators of sessions that were up in the last report
	troubled bool
}

// theOne is the name of the process at its place.
const theOne = "sessions"

// greeting is how often a process is asked whether it answers: one that hangs is killed, by its client, and started again.
const greeting = 2 * time.Second

// Pauses before a process that died is started again: one that dies at once is not started without end, one that lived for long at once.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = 30 * time.Second
	longLife   = 10 * time.Second
)

// NewKeeper starts nothing. command is a program and its words, the last one Verb; the process lives in the network namespace of this
// one. trouble hears why sessions that are wanted are not held, and "" once they are again; it must not block, nor call back.
func NewKeeper(log *slog.Logger, stateDir string, command []string, trouble func(why string)) (*Keeper, error) {
	netns, err := process.NetNS(os.Getpid())
	if err != nil {
		return nil, fmt.Errorf("BFD: network namespace: %w", err)
	}
	return &Keeper{
		log: log, trouble: trouble, changed: make(chan struct{}, 1), closed: make(chan struct{}),
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
		k.tell("")
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
	if r, err = reportOf(k.client); err == nil {
		k.up = map[key]uint32{}
		for _, st := range r.Sessions {
			if st.State == Up {
				k.up[key{st.Peer, st.Interface}] = st.Discriminator
			}
		}
	}
	return r, err
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
			return k.evictLost()
		} else if err != nil {
			return fmt.Errorf("BFD: %w", err)
		}
	}
	k.client, k.up = nil, nil
	return c.End()
}

// evictLost ends a process that an earlier daemon left and that nobody can speak to: it holds the port. k.mu is held.
func (k *Keeper) evictLost() error {
	pids, err := k.place.EvictLost(theOne)
	if len(pids) > 0 {
		k.log.Warn("the BFD process is replaced, and its sessions go down: the file of its socket was removed", "pids", pids)
	}
	return err
}

// tell says what the trouble is, and once that it is over. k.mu is held.
func (k *Keeper) tell(why string) {
	if why != "" || k.troubled {
		k.troubled = why != ""
		k.trouble(why)
	}
}

// hand gives the process what is wanted. k.mu is held.
func (k *Keeper) hand() error {
	list := make([]handed, 0, len(k.wanted))
	for _, c := range k.wanted {
		list = append(list, handed{c, k.up[c.key()]})
	}
	text, err := json.Marshal(list)
	if err == nil {
		err = k.client.Do(process.Request{Do: doSet, Value: string(text)})
	}
	if err != nil {
		return fmt.Errorf("set the BFD sessions: %w", err)
	}
	k.tell("")
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
		if err = k.evictLost(); err == nil {
			c, err = k.place.Start(theOne, k.says)
		}
		if err == nil {
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
	born, greet := time.Now(), time.NewTicker(greeting)
	defer greet.Stop()
	why := "has ended"
	for c.Alive() {
		select {
		case <-k.closed:
			return
		case <-greet.C:
			switch _, err := c.Hello(); {
			case errors.Is(err, net.ErrClosed):
				return
			case errors.Is(err, os.ErrDeadlineExceeded):
				why = "hung and was killed"
			}
		case <-c.Done():
		}
	}
	for pause := k.nextPause(time.Since(born) >= longLife); ; pause = k.nextPause(false) {
		k.says("")
		select {
		case <-k.closed:
			return
		case <-time.After(pause):
		}
		if k.again(c, why) {
			return
		}
	}
}

func (k *Keeper) nextPause(none bool) time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.pause = min(max(2*k.pause, firstPause), lastPause); none {
		k.pause = 0
	}
	return k.pause
}

// again reports whether there is nothing left to do about the end of c: another process has a mourner of its own.
func (k *Keeper) again(c *process.Client, why string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.client != c || len(k.wanted) == 0 {
		return true
	}
	why += k.place.Crash(theOne)
	k.log.Error("the BFD process "+why+"; it is started again, and its sessions go on if their peers hear of them in time", "pid", c.PID())
	if !k.troubled {
		k.tell("the BFD process " + why + ": no BFD session is held until it runs again")
	}
	err := k.ensure()
	if err == nil {
		err = k.hand()
	}
	if err != nil {
		k.log.Error("the BFD process does not start", "error", err)
		k.tell("no BFD session is held: " + err.Error())
	}
	return k.client != c
}

package process

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// Journal carries what the process has to say to whoever watches, which is the daemon. While nobody does, the last lines
// wait. It never blocks who speaks.
type Journal struct {
	now func() time.Time

	mu      sync.Mutex
	waiting []string
	said    map[string]time.Time // by format, when it was last said
	watch   map[chan string]bool
}

const (
	maxWaiting = 100
	// repeat is how often one kind of error is told: while an underlay is down, each packet is one.
	repeat = 10 * time.Second
)

// NewJournal returns an empty one.
func NewJournal() *Journal {
	return &Journal{now: time.Now, said: map[string]time.Time{}, watch: map[chan string]bool{}}
}

// Sayf is Say for errors, one kind of which is not told again soon. It takes a format of the program's, never foreign text,
// since formats are remembered.
func (j *Journal) Sayf(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if last, known := j.said[format]; known && j.now().Sub(last) < repeat {
		return
	}
	j.said[format] = j.now()
	j.say(fmt.Sprintf(format, args...))
}

// Say tells one line, an event say. Lines may be lost, where nobody watches or who does is slow: they are news, and state is
// asked for.
func (j *Journal) Say(line string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.say(line)
}

func (j *Journal) say(line string) {
	if len(j.watch) == 0 {
		j.waiting = append(j.waiting, line)
		j.waiting = j.waiting[max(0, len(j.waiting)-maxWaiting):]
		return
	}
	for w := range j.watch {
		select {
		case w <- line:
		default: // who does not keep up loses lines
		}
	}
}

// watchers is how many daemons watch.
func (j *Journal) watchers() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.watch)
}

// follow writes line after line to c until it is closed at the other end.
func (j *Journal) follow(c io.ReadWriter) {
	lines := make(chan string, maxWaiting)
	j.mu.Lock()
	for _, line := range j.waiting {
		lines <- line
	}
	j.waiting = nil
	j.watch[lines] = true
	j.mu.Unlock()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_, _ = io.Copy(io.Discard, c) // nothing is said there; it ends with the connection
	}()
	defer func() {
		j.mu.Lock()
		delete(j.watch, lines)
		j.mu.Unlock()
	}()
	for {
		select {
		case <-gone:
			return
		case line := <-lines:
			if _, err := fmt.Fprintln(c, line); err != nil {
				return
			}
		}
	}
}

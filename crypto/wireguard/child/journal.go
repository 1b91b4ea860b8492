package child

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/device"
)

// journal carries what the device has to say to whoever watches, which is the daemon. While nobody does, the last lines
// wait. It never blocks who speaks.
type journal struct {
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

func newJournal() *journal {
	return &journal{now: time.Now, said: map[string]time.Time{}, watch: map[chan string]bool{}}
}

// logger is the library's. Its verbose stream says a line per packet at times, and is dropped.
func (j *journal) logger() *device.Logger {
	return &device.Logger{Verbosef: device.DiscardLogf, Errorf: j.sayf}
}

// sayf takes a format of the program's, never foreign text, since formats are remembered.
func (j *journal) sayf(format string, args ...any) {
	for i, a := range args {
		// The library quotes the line of a request that it cannot read, and that line may hold a key.
		var ipc *device.IPCError
		if err, ok := a.(error); ok && errors.As(err, &ipc) {
			args[i] = fmt.Sprintf("request refused with code %d", ipc.ErrorCode())
		}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if last, known := j.said[format]; known && j.now().Sub(last) < repeat {
		return
	}
	j.said[format] = j.now()
	line := fmt.Sprintf(format, args...)
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
func (j *journal) watchers() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.watch)
}

// follow writes line after line to c until it is closed at the other end.
func (j *journal) follow(c io.ReadWriter) {
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

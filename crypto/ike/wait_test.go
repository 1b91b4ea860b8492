package ike

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// silence accepts connections and never says a word; it counts them.
func silence(t *testing.T) (*Client, *atomic.Int32) {
	t.Helper()
	dir, err := os.MkdirTemp("", "vici")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int32
	t.Cleanup(func() { l.Close(); os.RemoveAll(dir) })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			asked.Add(1)
			defer c.Close()
		}
	}()
	c := New(l.Addr().String(), slog.New(slog.DiscardHandler))
	c.times.patience = 2 * time.Second // less may end while it connects
	return c, &asked
}

func TestACharonThatHangsIsNotWaitedForByEveryStep(t *testing.T) {
	c, asked := silence(t)
	first := c.Ping(t.Context())
	if !errors.Is(first, ErrNoCharon) {
		t.Fatalf("error %v", first)
	}
	until(t, "it was asked", func() bool { return asked.Load() > 0 }) // which is counted beside us
	before := asked.Load()
	for range 5 {
		if err := c.Ping(t.Context()); err != first {
			t.Errorf("error %v, want the same as before: %v", err, first)
		}
	}
	if asked.Load() != before {
		t.Error("it was asked again")
	}
	c.hung.until = time.Now() // later
	if err := c.Ping(t.Context()); err == first || !errors.Is(err, ErrNoCharon) {
		t.Errorf("it is never asked again: %v", err)
	}
	until(t, "it is asked again", func() bool { return asked.Load() > before })
}

func TestWhatWasClosedIsWaitedFor(t *testing.T) {
	okay := answer("success=yes")
	sa := event("list-sa", "sluice:fra1:a{", "uniqueid=1", "state=DELETING", "remote-host=192.0.2.1", "child-sas{", "}", "}")
	c := serve(t, map[string][][]byte{"list-sas": {okay}})
	if err := c.Closed(t.Context(), "fra1", "a"); err != nil {
		t.Error(err)
	}
	c = serve(t, map[string][][]byte{"list-sas": {sa, okay}})
	if err := c.Closed(t.Context(), "fra1", "a"); err == nil {
		t.Error("an SA that stays is none")
	}
	c = New(filepath.Join(t.TempDir(), "none"), slog.New(slog.DiscardHandler))
	if err := c.Closed(t.Context(), "fra1", "a"); err != nil {
		t.Error(err)
	}
}

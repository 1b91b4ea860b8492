package daemon

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/control/api"
)

// manager is the end of systemd: what it is told, a datagram each.
func manager(t *testing.T) <-chan string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("NOTIFY_SOCKET", path)
	heard := make(chan string, 1000)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		buf := make([]byte, 4096)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			heard <- string(buf[:n])
		}
	}()
	t.Cleanup(func() {
		conn.Close()
		<-ended
	})
	return heard
}

// until returns what was heard up to the first word that begins like this.
func until(t *testing.T, heard <-chan string, begins string) (before []string) {
	t.Helper()
	for {
		select {
		case word := <-heard:
			if strings.HasPrefix(word, begins) {
				return before
			}
			before = append(before, word)
		case <-t.Context().Done():
			t.Fatalf("never heard %q; heard %q", begins, before)
		case <-time.After(time.Minute):
			t.Fatalf("not heard %q; heard %q", begins, before)
		}
	}
}

func TestTheServiceManagerHearsHowTheDaemonIs(t *testing.T) {
	heard := manager(t)
	ctx, stop := context.WithCancel(t.Context())
	changed := make(chan struct{})
	hangs := make(chan error, 1)
	var hang error
	h := herald{
		status: func() string { return "edge-1, revision 3" }, changed: changed, watchdog: 40 * time.Millisecond, log: discard,
		alive: func(context.Context) error {
			select {
			case hang = <-hangs:
			default:
			}
			return hang
		},
	}
	ended := make(chan error, 1)
	go func() { ended <- h.run(ctx) }()
	if before := until(t, heard, "READY=1\nSTATUS=edge-1, revision 3"); len(before) > 0 {
		t.Errorf("before it was ready: %q", before)
	}
	until(t, heard, "WATCHDOG=1")
	until(t, heard, "WATCHDOG=1")
	changed <- struct{}{}
	until(t, heard, "STATUS=edge-1")
	hangs <- errors.New("the engine has not moved")
	until(t, heard, "STATUS=hangs: the engine has not moved")
	for _, word := range until(t, heard, "STATUS=hangs") {
		if strings.HasPrefix(word, "WATCHDOG") {
			t.Error("a daemon that hangs gave a sign of life")
		}
	}
	hangs <- nil
	until(t, heard, "WATCHDOG=1")
	stop()
	until(t, heard, "STOPPING=1")
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestNobodyIsToldWithoutAServiceManager: and a socket that is not there ends nothing.
func TestNobodyIsToldWithoutAServiceManager(t *testing.T) {
	for _, socket := range []string{"", filepath.Join(t.TempDir(), "none")} {
		t.Setenv("NOTIFY_SOCKET", socket)
		ctx, stop := context.WithCancel(t.Context())
		stop()
		h := herald{status: func() string { return "" }, log: discard}
		if err := h.run(ctx); err != nil {
			t.Errorf("%q: %v", socket, err)
		}
	}
}

// TestLifeIsAnAnswer: of the API on its own socket, and of an engine whose Run is there.
func TestLifeIsAnAnswer(t *testing.T) {
	d := idle(t)
	if err := d.alive(t.Context()); !errors.Is(err, api.ErrUnreachable) {
		t.Errorf("without an API: %v", err)
	}
	ctx, stop := context.WithCancel(t.Context())
	server := api.NewServer(d.opts.Socket, d, discard)
	served := make(chan error, 2)
	go func() { served <- server.Run(ctx) }()
	<-server.Ready()
	asking, giveUp := context.WithTimeout(t.Context(), time.Second) // an engine that does not answer takes all of it
	defer giveUp()
	if err := d.alive(asking); err == nil {
		t.Error("without an engine that runs there is life")
	}
	go func() { _ = d.engine.Run(ctx); served <- nil }()
	if err := d.alive(t.Context()); err != nil {
		t.Errorf("with both: %v", err)
	}
	stop()
	for range 2 {
		if err := <-served; err != nil {
			t.Error(err)
		}
	}
	if line := d.statusLine(); line != "no name, no revision" {
		t.Errorf("the status line %q", line)
	}
}

package netns

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestTheServiceManagerIsToldOfAWholeLife of a daemon: ready when its revision is applied, signs of life, another revision, the end.
func TestTheServiceManagerIsToldOfAWholeLife(t *testing.T) {
	t.Parallel()
	s := newBareSite(t)
	socket := filepath.Join(s.Dir, "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	heard := make(chan string, 10000)
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				close(heard)
				return
			}
			heard <- string(buf[:n])
		}
	}()
	until := func(want string) {
		t.Helper()
		var all []string
		within(t, 2*patience, func() error {
			for {
				select {
				case word := <-heard:
					if all = append(all, word); strings.Contains(word, want) {
						return nil
					}
				default:
					return fmt.Errorf("not heard %q; heard %q", want, all)
				}
			}
		})
	}
	script := filepath.Join(s.Dir, "service")
	text := fmt.Sprintf("#!/bin/sh\nNOTIFY_SOCKET=%s WATCHDOG_USEC=2000000 WATCHDOG_PID=$$ exec %s \"$@\"\n", socket, binary())
	if err := os.WriteFile(script, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := s.Gateway.StartDaemonOf(script); err != nil {
		t.Fatal(err)
	}
	until("READY=1\nSTATUS=e2e-gateway, revision 1")
	if st := s.status().Engine; !st.Applied {
		t.Errorf("it is ready, and holds %+v", st)
	}
	until("WATCHDOG=1")
	s.edit("\nbgp:\n", "\nconntrack: {max_entries: 4096}\n\nbgp:\n")
	if out := s.sluice("apply", "-c", s.Gateway.File); out.code != 0 {
		t.Fatalf("apply: %+v", out)
	}
	until(", revision 2, XDP generation ")
	until("WATCHDOG=1")
	if err := s.Gateway.Daemon().Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	until("STOPPING=1")
	<-s.Gateway.Daemon().Done()
}

package process

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
)

// TestAProcessOfAnotherVersionIsUnderstoodOrReplaced: the process is the older or the younger one, and only its protocol matters.
func TestAProcessOfAnotherVersionIsUnderstoodOrReplaced(t *testing.T) {
	netns, err := NetNS(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, says, program string
		err                 string
		replaceable         bool
	}{
		{"one of today", "version=2\nprogram=v1.5\npid=1\nwatchers=0\n", "v1.5", "", false},
		{"one from before it told its program", "version=2\npid=1\nwatchers=0\n", "", "", false},
		{"one that tells more", "version=2\nprogram=v2\npid=1\nwatchers=0\nmood=good\n", "v2", "", false},
		{"one of another protocol", "version=3\nprogram=v3\npid=1\nwatchers=0\n", "", `it speaks version "3" of our requests, this program 2`, true},
		{"one that says none", "pid=1\n", "", ErrForeign.Error(), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := Place{Kind: Kind{Of: "tunnel", Verb: "tunneld", Version: 2}, Dir: t.TempDir(), NetNS: netns}
			l, err := net.Listen("unix", p.Socket("fra1"))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
			go answerHello(l, c.says)
			client, err := p.Adopt("fra1", func(string) {})
			if Replaceable(err) != c.replaceable || errors.Is(err, ErrNone) || (c.err == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("adopted with %v, want %q", err, c.err)
			}
			if err == nil {
				defer client.Close()
				if client.Program() != c.program || client.PID() != os.Getpid() {
					t.Errorf("program %q of process %d", client.Program(), client.PID())
				}
			}
		})
	}
}

// answerHello answers the first request of each connection, and leaves it open.
func answerHello(l net.Listener, says string) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			r := bufio.NewReader(conn)
			for line, err := r.ReadString('\n'); err == nil; line, err = r.ReadString('\n') {
				if line == "\n" {
					fmt.Fprintf(conn, "%serrno=0\n\n", says)
				}
			}
			conn.Close()
		}()
	}
}

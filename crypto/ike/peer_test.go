package ike

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The peer of these tests speaks VICI byte by byte, to say what no charon says. Everything else is tested with a real one.

// element builds the parts of a message: pairs "key=value", "name{" to open a section, "}" to close it, "name[a b]" a list.
func message(parts ...string) []byte {
	var b []byte
	named := func(kind byte, name string) { b = append(append(b, kind, byte(len(name))), name...) }
	value := func(v string) { b = append(binary.BigEndian.AppendUint16(b, uint16(len(v))), v...) }
	for _, p := range parts {
		if p == "}" {
			b = append(b, 2)
		} else if name, ok := strings.CutSuffix(p, "{"); ok {
			named(1, name)
		} else if name, items, ok := strings.Cut(strings.TrimSuffix(p, "]"), "["); ok {
			named(4, name)
			for _, i := range strings.Fields(items) {
				b = append(b, 5)
				value(i)
			}
			b = append(b, 6)
		} else {
			key, v, _ := strings.Cut(p, "=")
			named(3, key)
			value(v)
		}
	}
	return b
}

func frame(payload ...byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(payload))), payload...)
}

func answer(parts ...string) []byte { return frame(append([]byte{1}, message(parts...)...)...) }

func event(name string, parts ...string) []byte {
	return frame(append(append([]byte{7, byte(len(name))}, name...), message(parts...)...)...)
}

// serve answers commands by the script; a command that it does not know gets silence. A nil answer hangs up.
func serve(t *testing.T, script map[string][][]byte) *Client {
	t.Helper()
	dir, err := os.MkdirTemp("", "vici") // a socket's path may have 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(); os.RemoveAll(dir) })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go converse(c, script)
		}
	}()
	return New(socket, slog.New(slog.DiscardHandler))
}

func converse(c net.Conn, script map[string][][]byte) {
	defer c.Close()
	for {
		header := make([]byte, 4)
		if _, err := io.ReadFull(c, header); err != nil {
			return
		}
		packet := make([]byte, binary.BigEndian.Uint32(header))
		if _, err := io.ReadFull(c, packet); err != nil {
			return
		}
		if packet[0] == 3 || packet[0] == 4 {
			c.Write(frame(5)) // events are confirmed
			continue
		}
		for _, b := range script[string(packet[2:2+packet[1]])] {
			if b == nil {
				return
			}
			c.Write(b)
		}
	}
}

func TestAnswersThatMakeNoSenseAreErrorsAndNoMore(t *testing.T) {
	okay, none := answer("success=yes"), answer("keys[]")
	sa := func(parts ...string) [][]byte {
		return [][]byte{event("list-sa", append(append([]string{"sluice:fra1:a{"}, parts...), "}")...), okay}
	}
	cases := map[string]struct {
		sas  [][]byte
		want error
		says string
	}{
		"more than VICI allows":          {[][]byte{{0xff, 0xff, 0xff, 0xff}}, ErrProtocol, "4294967295 bytes"},
		"nothing":                        {[][]byte{{0, 0, 0, 0}}, ErrProtocol, "0 bytes"},
		"a packet of another kind":       {[][]byte{frame(9)}, ErrProtocol, ""},
		"an unknown command":             {[][]byte{frame(2)}, ErrProtocol, ""},
		"a value longer than its text":   {[][]byte{frame(1, 3, 1, 'a', 0xff, 0xff, 'b')}, ErrProtocol, ""},
		"a section without an end":       {[][]byte{frame(1, 1, 1, 'a')}, ErrProtocol, ""},
		"an element of no kind":          {[][]byte{frame(append([]byte{1, 1, 1, 'a'}, 77, 2)...)}, ErrProtocol, ""},
		"half a packet":                  {[][]byte{{0, 0, 0, 9, 1}, nil}, ErrNoCharon, "start strongSwan"},
		"half a header":                  {[][]byte{{0, 0}, nil}, ErrNoCharon, ""},
		"a refusal":                      {[][]byte{answer("success=no", "errmsg=not today")}, ErrRefused, "not today"},
		"a number of letters":            {sa("uniqueid=many"), ErrProtocol, "uniqueid"},
		"a number beyond its size":       {sa("uniqueid=4294967296"), ErrProtocol, "uniqueid"},
		"no address":                     {sa("local-host=here"), ErrProtocol, "local-host"},
		"no port":                        {sa("local-host=198.18.0.1", "local-port=65536"), ErrProtocol, "local-port"},
		"text instead of a section":      {sa("child-sas=none"), ErrProtocol, "child-sas"},
		"a list instead of text":         {sa("state[UP DOWN]"), ErrProtocol, "state"},
		"text instead of a child":        {sa("child-sas{", "a=b", "}"), ErrProtocol, "a is"},
		"an SPI that is none":            {sa("child-sas{", "a{", "spi-in=xyz", "}", "}"), ErrProtocol, "spi-in"},
		"text instead of a connection":   {[][]byte{event("list-sa", "sluice:fra1:a=b"), okay}, ErrProtocol, "sluice:fra1:a"},
		"an SA of somebody else":         {[][]byte{event("list-sa", "office{", "uniqueid=many", "}"), okay}, nil, ""},
		"an SA of which nothing is told": {sa(), nil, ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			client := serve(t, map[string][][]byte{"get-shared": {none}, "list-conns": {okay}, "list-sas": c.sas})
			_, err := client.Status(t.Context())
			if !errors.Is(err, c.want) || c.want != nil && (!strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "list-sas") && c.want != ErrRefused) {
				t.Errorf("error %v, want %v that says %q", err, c.want, c.says)
			}
		})
	}
}

func TestConnectionsOfAnotherMakeAreToldAsSuch(t *testing.T) {
	okay := answer("success=yes")
	client := serve(t, map[string][][]byte{
		"get-shared": {answer("keys[office sluice:fra1:a:0123456789abcdef:/none sluice:bad]")},
		"list-conns": {
			event("list-conn", "office{", "}"),
			event("list-conn", "sluice:fra1:b{", "children{", "one{", "}", "two{", "}", "}", "}"),
			event("list-conn", "sluice:fra1:a{", "remote_addrs[198.18.0.2 0.0.0.0/0]", "local-1{", "id=x", "}", "remote-1{", "id=y", "}",
				"children{", "abc{", "remote-ts[10.30.0.0/16 10.20.0.0/16 10.0.0.1-10.0.0.3]", "}", "}", "}"),
			okay,
		},
	})
	list, err := client.Loaded(t.Context())
	if err != nil || len(list) != 2 {
		t.Fatalf("loaded %+v, %v", list, err)
	}
	a, b := list[0], list[1]
	if a.Peer != "a" || a.Digest != "abc" || a.Remote != "198.18.0.2" || a.LocalID != "x" || a.RemoteID != "y" || a.SecretFile != UnknownKey {
		t.Errorf("a is %+v", a)
	}
	if len(a.Prefixes) != 2 || a.Prefixes[0].String() != "10.20.0.0/16" {
		t.Errorf("prefixes %v", a.Prefixes)
	}
	if b.Peer != "b" || b.Digest != "" {
		t.Errorf("b is %+v", b)
	}
}

func TestACharonThatIsSilentIsNotWaitedForForever(t *testing.T) {
	client := serve(t, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := client.Ping(ctx); !errors.Is(err, ErrNoCharon) {
		t.Errorf("error %v", err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	if err := client.Ping(ctx); !errors.Is(err, context.Canceled) || errors.Is(err, ErrNoCharon) {
		t.Errorf("error %v", err)
	}
}

func TestWhereNobodyListensTheErrorSaysWhatToDo(t *testing.T) {
	dir := t.TempDir()
	dead := filepath.Join(dir, "file")
	if err := os.WriteFile(dead, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, socket := range []string{filepath.Join(dir, "none"), dead} {
		client := New(socket, slog.New(slog.DiscardHandler))
		_, err := client.Loaded(t.Context())
		for _, says := range []string{"charon does not answer at " + socket, "systemctl start strongswan", "keying: static"} {
			if !errors.Is(err, ErrNoCharon) || !strings.Contains(err.Error(), says) {
				t.Errorf("error %v does not say %q", err, says)
			}
		}
		if err := client.Unload(t.Context(), "fra1", "a"); err != nil {
			t.Errorf("nothing is loaded where nobody listens, but: %v", err)
		}
	}
}

package child

import (
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"time"

	"sluice/process"
)

// Place is where the processes of one daemon are found.
type Place struct{ process.Place }

// At is the place of a daemon with sockets and logs in dir. The command is a program, and its words before NAME and SOCKET, which
// answers them with Run; netns is the inode of the network namespace that the processes live in.
func At(dir string, command []string, netns uint64) Place {
	return Place{process.Place{Kind: process.Kind{Of: "tunnel", Verb: Verb, Version: version}, Dir: dir, Command: command, NetNS: netns}}
}

// Adopt returns a client of the process that runs the tunnel called name, and process.ErrNone where there is none. Its lines
// are handed to say.
func (p Place) Adopt(name string, say func(string)) (*Client, error) {
	return client(p.Place.Adopt(name, say))
}

// AdoptFrom is Adopt for a process of another daemon's place.
func (p Place) AdoptFrom(h Holder, name string, say func(string)) (*Client, error) {
	return client(p.Place.AdoptFrom(h.PID, name, say))
}

// Start makes a process for the TUN, which it takes over, in the network namespace of the calling thread.
func (p Place) Start(name string, tun *os.File, say func(string)) (*Client, error) {
	return client(p.Place.Start(name, say, tun))
}

// Client speaks to the process of one tunnel. It may be used by several goroutines.
type Client struct{ *process.Client }

func client(c *process.Client, err error) (*Client, error) {
	if err != nil {
		return nil, err
	}
	return &Client{c}, nil
}

// Requests; hello is the room process's.
const (
	doGet     = "get"
	doSet     = "set"
	doLocal   = "local"
	doUp      = "up"
	doGreet   = "greet"
	doPoke    = "poke"
	doProbe   = "probe"
	doHold    = "hold"
	doRelease = "release"
)

// plain is a request that has neither value nor body.
func plain(do string) process.Request { return process.Request{Do: do, Value: "1"} }

// Get returns what the device says of itself, in the configuration protocol.
func (c *Client) Get() (string, error) { return c.Ask(plain(doGet)) }

// Set writes settings in the configuration protocol. A port that is in use is unix.EADDRINUSE.
func (c *Client) Set(settings string) error {
	return c.Do(process.Request{Do: doSet, Value: "1", Body: settings})
}

// SetLocal sets the address that packets come from which answer nothing, and with one that is not valid leaves it to
// routes.
func (c *Client) SetLocal(a netip.Addr) error {
	r := process.Request{Do: doLocal}
	if a.IsValid() {
		r.Value = a.String()
	}
	return c.Do(r)
}

// sayLocal is what hello says of SetLocal.
func sayLocal(w io.Writer, a *netip.Addr) {
	if a != nil && a.IsValid() {
		fmt.Fprintf(w, "local=%s\n", a)
	}
}

// Local is what SetLocal has set.
func (c *Client) Local() (a netip.Addr, err error) {
	fields, err := c.Hello()
	if text := fields["local"]; err == nil && text != "" {
		a, err = netip.ParseAddr(text)
	}
	return a, err
}

// Up opens the device's UDP sockets, and does nothing where they are open.
func (c *Client) Up() error { return c.Do(plain(doUp)) }

// Greet speaks to peers, by public key in hex, as if nothing were known of the way to them: those without a session
// get a handshake at once, whenever the last one was tried. Where the interface of the configured address went down or came up
// since, all peers are meant, whichever are named.
func (c *Client) Greet(keys ...string) error { return c.Do(named(doGreet, keys)) }

// Poke sends an empty packet to peers, by public key in hex.
func (c *Client) Poke(keys ...string) error { return c.Do(named(doPoke, keys)) }

// Hold keeps what is sent into the tunnel waiting, until Release and for at most d.
func (c *Client) Hold(d time.Duration) error {
	return c.Do(process.Request{Do: doHold, Value: fmt.Sprint(d.Milliseconds())})
}

// Release ends Hold.
func (c *Client) Release() error { return c.Do(plain(doRelease)) }

func named(do string, keys []string) process.Request {
	var b strings.Builder
	for _, k := range keys {
		b.WriteString("public_key=" + k + "\n")
	}
	return process.Request{Do: do, Value: "1", Body: b.String()}
}

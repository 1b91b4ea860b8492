package pin

import (
	"os"
	"path/filepath"
)

// Socket is one pair of a bypass socket's name and an interface.
type Socket struct{ Name, Interface string }

// SocketPath is where the XSKMAP of a socket is pinned. It is a contract: external programs open it. Of both names, "_"
// becomes "__" and "." becomes "_d".
func (d *Dir) SocketPath(s Socket) string {
	return filepath.Join(d.path, socketsDir, encode(s.Name), encode(s.Interface))
}

// TracePath is where the link of a tracepoint program is pinned.
func (d *Dir) TracePath(name string) string { return filepath.Join(d.path, tracesDir, name) }

// Sockets lists the pinned ones, sorted.
func (d *Dir) Sockets() ([]Socket, error) {
	sockets, err := names(filepath.Join(d.path, socketsDir))
	if err != nil {
		return nil, err
	}
	var out []Socket
	for _, socket := range sockets {
		interfaces, err := names(filepath.Join(d.path, socketsDir, socket))
		if err != nil {
			return nil, err
		}
		for _, i := range interfaces {
			out = append(out, Socket{decode(socket), decode(i)})
		}
	}
	return out, nil
}

// RemoveSocket removes a pin, and the directory of its socket with the last one.
func (d *Dir) RemoveSocket(s Socket) error {
	path := d.SocketPath(s)
	if err := removePin(path); err != nil {
		return err
	}
	_ = os.Remove(filepath.Dir(path)) // fails where another interface has one
	return nil
}

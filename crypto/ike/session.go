package ike

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/strongswan/govici/vici"
)

// patience bounds a command. charon answers all that we ask at once; a loaded machine is given time.
const patience = 10 * time.Second

// maxFrame is VICI's own limit of a packet, in bytes. The library would allocate whatever a length says.
const maxFrame = 512 << 10

// session is a connection to charon that ends with its context. The library knows no contexts, and its Close waits for
// charon: so the connections below it are closed instead.
type session struct {
	*vici.Session
	socket string
	stop   func() bool
	mu     sync.Mutex
	wires  []net.Conn
}

// open connects. The caller closes.
func open(ctx context.Context, socket string) (*session, error) {
	s := &session{socket: socket}
	dial := func(_ context.Context, network, address string) (net.Conn, error) {
		var d net.Dialer
		conn, err := d.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.wires = append(s.wires, conn)
		return &frames{Conn: conn}, nil
	}
	var err error
	s.Session, err = vici.NewSession(vici.WithSocketPath(socket), vici.WithDialContext(dial))
	if err != nil {
		s.hangUp()
		return nil, s.broken(ctx, err)
	}
	s.stop = context.AfterFunc(ctx, s.hangUp)
	return s, nil
}

func (s *session) close() {
	s.stop()
	s.hangUp()
}

func (s *session) hangUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.wires {
		c.Close()
	}
}

// ask sends one command. ErrRefused, ErrNoCharon, ErrProtocol.
func (s *session) ask(ctx context.Context, command string, args *vici.Message) (*vici.Message, error) {
	m, err := s.CommandRequest(command, args)
	if err != nil && m == nil {
		return nil, fmt.Errorf("%s: %w", command, s.broken(ctx, err))
	}
	if err != nil {
		return nil, fmt.Errorf("%w to %s: %v", ErrRefused, command, m.Get("errmsg"))
	}
	return m, nil
}

// stream sends a command that answers by events.
func (s *session) stream(ctx context.Context, command, event string, args *vici.Message) ([]*vici.Message, error) {
	list, err := s.StreamedCommandRequest(command, event, args)
	if err != nil || len(list) == 0 {
		return nil, fmt.Errorf("%s: %w", command, s.broken(ctx, err))
	}
	// The last message is the answer, which alone tells of a failure.
	answer := list[len(list)-1]
	if answer.Err() != nil {
		return nil, fmt.Errorf("%w to %s: %v", ErrRefused, command, answer.Get("errmsg"))
	}
	return list[:len(list)-1], nil
}

// subscribe asks for events, and waits for charon's answer no longer than for that to a command.
func (s *session) subscribe(ctx context.Context, events ...string) error {
	late := time.AfterFunc(patience, s.hangUp)
	defer late.Stop()
	if err := s.Subscribe(events...); err != nil {
		return fmt.Errorf("subscribe: %w", s.broken(ctx, err))
	}
	return nil
}

// errLost is in errors that say that the connection is gone.
var errLost = errors.New("connection lost")

// broken says why there was no answer. Of a context that its caller has ended, the caller hears that.
func (s *session) broken(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) || err == nil {
		return cmp.Or(ctx.Err(), ErrProtocol)
	}
	var lost net.Error // also every error of a system call
	isLost := func(e error) bool { return errors.Is(err, e) }
	if errors.As(err, &lost) || slices.ContainsFunc([]error{io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe, net.ErrClosed, errLost}, isLost) {
		return fmt.Errorf("%w at %s: start strongSwan (systemctl start strongswan), or use keying: static: %w", ErrNoCharon, s.socket, err)
	}
	return fmt.Errorf("%w, at %s: %w", ErrProtocol, s.socket, err)
}

// frames refuses packets beyond VICI's limit before anybody makes room for them. Each is a length of 4 bytes in network
// byte order, then so many bytes; the library reads the one and the other in full.
type frames struct {
	net.Conn
	left   uint32 // of the frame that is being read
	header []byte
}

func (f *frames) Read(p []byte) (int, error) {
	if f.left == 0 && len(p) > 4-len(f.header) {
		p = p[:4-len(f.header)]
	}
	if f.left > 0 && uint32(len(p)) > f.left {
		p = p[:f.left]
	}
	n, err := f.Conn.Read(p)
	if f.left > 0 {
		f.left -= uint32(n)
		return n, err
	}
	f.header = append(f.header, p[:n]...)
	if len(f.header) == 4 {
		f.left, f.header = binary.BigEndian.Uint32(f.header), f.header[:0]
		if f.left > maxFrame || f.left == 0 {
			return 0, fmt.Errorf("a packet of %d bytes", f.left)
		}
	}
	return n, err
}

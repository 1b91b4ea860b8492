package child

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/device"

	"sluice/process"
)

// version is that of the requests below. A daemon replaces a process that speaks another one; what is only added, as program was,
// needs no new one where a daemon can do without.
const version = 2

// maxHold bounds how long packets are held without another request.
const maxHold = 10 * time.Second

// server answers daemons: get and set of WireGuard's cross-platform configuration protocol, and a few requests more.
type server struct {
	dev     *device.Device
	udp     *bind
	tun     *prober
	greeter *greeter
}

// newServer is the server of a process that was started from that version of the binary.
func newServer(program string, dev *device.Device, udp *bind, tun *prober, says *process.Journal) *process.Server {
	s := &server{dev, udp, tun, newGreeter(dev)}
	return &process.Server{Version: version, Program: program, Journal: says, Answer: s.answer, Hello: func(w io.Writer) {
		sayLocal(w, udp.local.Load())
		sayProbes(w)
	}}
}

func (s *server) answer(r process.Request, w io.Writer) error {
	switch r.Do {
	case doGet:
		return s.dev.IpcGetOperation(w)
	case doSet:
		s.udp.leave(s.leaving(r.Body)) // first: what comes in behind the change has to find it
		return s.dev.IpcSetOperation(strings.NewReader(r.Body))
	case doLocal:
		a, err := netip.ParseAddr(r.Value)
		if r.Value != "" && err != nil {
			return unix.EINVAL
		}
		if s.udp.setLocal(a) {
			return s.greeter.greetAll()
		}
		return nil
	case doUp:
		return s.dev.Up()
	case doGreet:
		if s.udp.look() {
			return s.greeter.greetAll()
		}
		return s.greeter.greet(r.Lines())
	case doPoke:
		return s.greeter.poke(r.Lines())
	case doProbe:
		return s.tun.probe(r.Value, r.Lines(), w)
	case doHold:
		ms, err := strconv.Atoi(r.Value)
		if d := time.Duration(ms) * time.Millisecond; err == nil && d > 0 && d <= maxHold {
			s.tun.hold(d)
			return nil
		}
		return unix.EINVAL
	case doRelease:
		s.tun.release()
		return nil
	}
	return unix.EOPNOTSUPP
}

// logger is the library's. Its verbose stream says a line per packet at times, and is dropped.
func logger(says *process.Journal) *device.Logger {
	return &device.Logger{Verbosef: device.DiscardLogf, Errorf: func(format string, args ...any) {
		for i, a := range args {
			// The library quotes the line of a request that it cannot read, and that line may hold a key.
			var ipc *device.IPCError
			if err, ok := a.(error); ok && errors.As(err, &ipc) {
				args[i] = fmt.Sprintf("request refused with code %d", ipc.ErrorCode())
			}
		}
		says.Sayf(format, args...)
	}}
}

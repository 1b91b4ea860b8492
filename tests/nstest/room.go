package nstest

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// Roomy gives a socket room for seconds of packets: who reads may have to wait for a processor.
func Roomy(t testing.TB, conn net.Conn) {
	t.Helper()
	raw, err := conn.(*net.UDPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var refused error
	if err := raw.Control(func(fd uintptr) { refused = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 32<<20) }); err != nil || refused != nil {
		t.Fatal(err, refused)
	}
}

package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"sluice/tests/bench/lane"
)

// farEnd is one peer that lives: a device of the WireGuard library without an interface, which answers echo requests itself. A
// thousand of them fit into this process, where a thousand with links would not fit into the machine.
type farEnd struct {
	*device.Device
	public string // base64
}

// newFarEnd makes one that listens at an address of a namespace and lets near come to it.
func newFarEnd(in *lane.Namespace, at netip.AddrPort, near string) (*farEnd, error) {
	private, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		return nil, err
	}
	other, err := wgtypes.ParseKey(near)
	if err != nil {
		return nil, err
	}
	var socket *net.UDPConn
	err = in.Do(func() (err error) {
		socket, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at))
		return err
	})
	if err != nil {
		return nil, err
	}
	dev := device.NewDevice(newEcho(), &farBind{socket: socket}, device.NewLogger(device.LogLevelSilent, ""))
	err = dev.IpcSet(fmt.Sprintf("private_key=%s\npublic_key=%s\nallowed_ip=0.0.0.0/0\n", hex.EncodeToString(private[:]), hex.EncodeToString(other[:])))
	if err = errors.Join(err, dev.Up()); err != nil {
		dev.Close()
		return nil, errors.Join(err, socket.Close())
	}
	return &farEnd{dev, private.PublicKey().String()}, nil
}

// farBind is one socket, packet by packet: the library's own holds eight megabytes of buffers for each device.
type farBind struct {
	socket *net.UDPConn
	open   bool
}

type farEndpoint struct{ netip.AddrPort }

func (farEndpoint) ClearSrc()             {}
func (farEndpoint) SrcToString() string   { return "" }
func (farEndpoint) SrcIP() netip.Addr     { return netip.Addr{} }
func (e farEndpoint) DstToString() string { return e.String() }
func (e farEndpoint) DstIP() netip.Addr   { return e.Addr() }

func (e farEndpoint) DstToBytes() []byte {
	b, _ := e.MarshalBinary() // an address and port that were received
	return b
}

func (b *farBind) Open(uint16) ([]conn.ReceiveFunc, uint16, error) {
	receive := func(packets [][]byte, sizes []int, from []conn.Endpoint) (int, error) {
		n, a, err := b.socket.ReadFromUDPAddrPort(packets[0])
		sizes[0], from[0] = n, farEndpoint{a}
		return 1, err
	}
	b.open = true
	return []conn.ReceiveFunc{receive}, b.socket.LocalAddr().(*net.UDPAddr).AddrPort().Port(), nil
}

func (b *farBind) Send(packets [][]byte, to conn.Endpoint) error {
	var errs []error
	for _, p := range packets {
		_, err := b.socket.WriteToUDPAddrPort(p, to.(farEndpoint).AddrPort)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (b *farBind) ParseEndpoint(s string) (conn.Endpoint, error) {
	a, err := netip.ParseAddrPort(s)
	return farEndpoint{a}, err
}

// Close is called before Open as well.
func (b *farBind) Close() error {
	if !b.open {
		return nil
	}
	return b.socket.Close()
}

func (b *farBind) SetMark(uint32) error { return nil }
func (b *farBind) BatchSize() int       { return 1 }

// echo is a TUN without an interface: echo requests that come out of the tunnel go back into it as answers.
type echo struct {
	answers chan []byte
	events  chan tun.Event
	end     chan struct{}
}

func newEcho() *echo {
	return &echo{make(chan []byte, 16), make(chan tun.Event), make(chan struct{})}
}

func (e *echo) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	select {
	case p := <-e.answers:
		sizes[0] = copy(bufs[0][offset:], p)
		return 1, nil
	case <-e.end:
		return 0, os.ErrClosed
	}
}

func (e *echo) Write(bufs [][]byte, offset int) (int, error) {
	for _, b := range bufs {
		if p := echoed(b[offset:]); p != nil {
			select {
			case e.answers <- p:
			default: // nobody reads: the device comes to its end
			}
		}
	}
	return len(bufs), nil
}

// echoed is the answer to an ICMP echo request over IPv4 without options; nil: it is none.
func echoed(p []byte) []byte {
	const header, request = 20, 8
	if len(p) < header+8 || p[0] != 0x45 || p[9] != 1 || p[header] != request {
		return nil
	}
	out := append([]byte(nil), p...)
	copy(out[12:16], p[16:20])
	copy(out[16:20], p[12:16])
	out[header] = 0
	// Of what the checksum covers, 0x0800 has become 0 (RFC 1624).
	sum := uint32(out[header+2])<<8 | uint32(out[header+3])
	sum += request << 8
	sum = sum&0xffff + sum>>16
	out[header+2], out[header+3] = byte(sum>>8), byte(sum)
	return out
}

func (e *echo) File() *os.File           { return nil }
func (e *echo) MTU() (int, error)        { return 1420, nil }
func (e *echo) Name() (string, error)    { return "echo", nil }
func (e *echo) Events() <-chan tun.Event { return e.events }
func (e *echo) BatchSize() int           { return 1 }

func (e *echo) Close() error {
	close(e.end)
	close(e.events)
	return nil
}

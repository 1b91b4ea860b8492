package lab

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"golang.org/x/sys/unix"
)

// Flood is an attack: spoofed UDP and TCP SYN packets of minimal size to the workloads' web ports and to the box.
type Flood struct {
	Rate     int           // packets a second, at most; a loaded machine sends less
	Duration time.Duration // 0: until the context ends
}

// Flooded is what was sent.
type Flooded struct {
	Packets uint64
	Took    time.Duration
}

// floodFrames is how many different packets are sent in turn, each with a source of its own.
const floodFrames = 1024

// Run sends the flood from the attacker's host and returns when its time is over or ctx ends, which is no error.
func (f Flood) Run(ctx context.Context, s *Site) (Flooded, error) {
	frames, err := s.floodFrames()
	if err != nil {
		return Flooded{}, fmt.Errorf("prepare the flood: %w", err)
	}
	fd, err := s.Attacker.packetSocket("eth0")
	if err != nil {
		return Flooded{}, fmt.Errorf("flood: %w", err)
	}
	defer unix.Close(fd)
	if f.Duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, f.Duration)
		defer cancel()
	}
	var sent Flooded
	start := time.Now()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		// What a tick missed is made up for, but never as one long burst.
		due := uint64(time.Since(start).Seconds() * float64(f.Rate))
		for burst := 0; sent.Packets < due && burst < f.Rate/100; burst++ {
			_, err := unix.Write(fd, frames[sent.Packets%floodFrames])
			if errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
				break
			}
			if err != nil {
				return sent, fmt.Errorf("flood: %w", err)
			}
			sent.Packets++
		}
		<-tick.C
	}
	sent.Took = time.Since(start)
	return sent, nil
}

// floodFrames makes the packets, addressed to the ToR as the attacker's router.
func (s *Site) floodFrames() ([][]byte, error) {
	own, err := s.Attacker.nl.LinkByName("eth0")
	if err != nil {
		return nil, err
	}
	router, err := s.ToR.nl.LinkByName("attacker")
	if err != nil {
		return nil, err
	}
	ethernet := layers.Ethernet{SrcMAC: own.Attrs().HardwareAddr, DstMAC: router.Attrs().HardwareAddr}
	frames := make([][]byte, floodFrames)
	for i := range frames {
		if frames[i], err = floodFrame(ethernet, i); err != nil {
			return nil, err
		}
	}
	return frames, nil
}

// floodFrame makes packet i: the kinds take turns.
func floodFrame(ethernet layers.Ethernet, i int) ([]byte, error) {
	ipv6, syn := i%4 == 3, i/4%2 == 0
	protocol := layers.IPProtocolUDP
	if syn {
		protocol = layers.IPProtocolTCP
	}
	var ip gopacket.NetworkLayer
	var packet []gopacket.SerializableLayer
	if ipv6 {
		ethernet.EthernetType = layers.EthernetTypeIPv6
		l := &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: protocol, SrcIP: random(Attackers6), DstIP: Web6[i/8%2].AsSlice()}
		ip, packet = l, append(packet, &ethernet, l)
	} else {
		ethernet.EthernetType = layers.EthernetTypeIPv4
		to := []netip.Addr{Web4[0], Web4[1], Gateway4}[i/4%3]
		l := &layers.IPv4{Version: 4, TTL: 64, Protocol: protocol, SrcIP: random(Attackers4), DstIP: to.AsSlice()}
		ip, packet = l, append(packet, &ethernet, l)
	}
	port := uint16(1024 + rand.IntN(60000))
	if syn {
		tcp := &layers.TCP{SrcPort: layers.TCPPort(port), DstPort: 80, Seq: rand.Uint32(), SYN: true, Window: 65535}
		_ = tcp.SetNetworkLayerForChecksum(ip)
		packet = append(packet, tcp)
	} else {
		udp := &layers.UDP{SrcPort: layers.UDPPort(port), DstPort: 53}
		_ = udp.SetNetworkLayerForChecksum(ip)
		packet = append(packet, udp, gopacket.Payload(make([]byte, 18)))
	}
	buffer := gopacket.NewSerializeBuffer()
	options := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(buffer, options, packet...); err != nil {
		return nil, err
	}
	return buffer.Bytes(), nil
}

// random is an address of the prefix.
func random(p netip.Prefix) net.IP {
	ip := p.Addr().AsSlice()
	for i := p.Bits() / 8; i < len(ip); i++ {
		ip[i] = byte(rand.IntN(256))
	}
	return ip
}

// packetSocket opens an AF_PACKET socket that sends on a link, and receives nothing before it is bound to an EtherType.
func (n *Namespace) packetSocket(link string) (fd int, err error) {
	l, err := n.nl.LinkByName(link)
	if err != nil {
		return -1, fmt.Errorf("%s in %s: %w", link, n.Name, err)
	}
	err = n.Do(func() error {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return -1, err
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: l.Attrs().Index}); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

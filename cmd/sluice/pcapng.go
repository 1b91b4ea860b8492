package main

import (
	"io"
	"strings"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"sluice/control/api"
)

// pcapng writes packets as draft-ietf-opsawg-pcapng has them. An interface is described when its first packet comes: a
// reader that wants one kind of link in a file is not to fail because of a link that is silent.
type pcapng struct {
	to      io.WriteCloser
	snaplen int    // 0: none
	first   string // the name of an interface, for a file without packets
	begun   time.Time

	out     *pcapgo.NgWriter
	links   map[link]int // number in the file
	counts  []uint64     // packets, by that number
	packets uint64
	bytes   int64
}

// link is an interface by name, and whether its packets begin with their IP header.
type link struct {
	name string
	ip   bool
}

// Write counts what goes to the file.
func (p *pcapng) Write(b []byte) (int, error) {
	n, err := p.to.Write(b)
	p.bytes += int64(n)
	return n, err
}

// write leaves nothing in buffers: whoever reads from a pipe sees the packet now.
func (p *pcapng) write(f api.Frame) error {
	on, err := p.link(link{f.Interface, f.IP})
	if err != nil {
		return err
	}
	direction := pcapgo.NgEpbFlagDirectionInbound
	if f.Hook == "tcx-egress" {
		direction = pcapgo.NgEpbFlagDirectionOutbound
	}
	err = p.out.WritePacketWithOptions(
		gopacket.CaptureInfo{Timestamp: f.Time, CaptureLength: len(f.Data), Length: max(f.Length, len(f.Data)), InterfaceIndex: on},
		f.Data, pcapgo.NgPacketOptions{Comments: []string{frameComment(f)}, Flags: &pcapgo.NgEpbFlags{Direction: direction}})
	if err != nil {
		return err
	}
	p.packets++
	p.counts[on]++
	return p.out.Flush()
}

// frameComment is what became of a packet, why, by whose word and where: "drop rule-drop ingress/no-bogons (edge.yaml:31) xdp".
func frameComment(f api.Frame) string {
	words := []string{f.Fate, f.Reason}
	if f.Rule != "" {
		words = append(words, f.Rule+lineText(f.File, f.Line))
	}
	if f.Filter != "" {
		words = append(words, f.Filter)
	}
	if f.Ban != "" {
		words = append(words, f.Ban)
	}
	return strings.Join(append(words, f.Hook), " ")
}

func (p *pcapng) link(l link) (int, error) {
	if n, ok := p.links[l]; ok {
		return n, nil
	}
	describes := pcapgo.NgInterface{Name: l.name, LinkType: layers.LinkTypeEthernet, TimestampResolution: 9}
	if l.ip {
		describes.LinkType = layers.LinkTypeRaw
	}
	if p.snaplen > 0 {
		const tag = 4 // a VLAN tag that stood beside the frame is put back
		describes.SnapLength = uint32(p.snaplen + tag)
	}
	n, err := len(p.links), error(nil)
	if p.out == nil {
		p.links = map[link]int{}
		options := pcapgo.NgWriterOptions{SectionInfo: pcapgo.NgSectionInfo{Application: "sluice " + version}}
		p.out, err = pcapgo.NewNgWriterInterface(p, describes, options)
	} else {
		_, err = p.out.AddInterface(describes)
	}
	if err != nil {
		return 0, err
	}
	p.links[l] = n
	p.counts = append(p.counts, 0)
	return n, nil
}

// close ends the file with the statistics of its interfaces. What was missed is known of all together only.
func (p *pcapng) close(missed uint64) error {
	err := p.finish(missed)
	if closed := p.to.Close(); err == nil {
		err = closed
	}
	return err
}

func (p *pcapng) finish(missed uint64) error {
	if p.out == nil { // a file needs an interface to be one
		name := p.first
		if name == "" {
			name = "none"
		}
		if _, err := p.link(link{name: name}); err != nil {
			return err
		}
	}
	now := time.Now()
	for n, count := range p.counts {
		stats := pcapgo.NgInterfaceStatistics{LastUpdate: now, StartTime: p.begun, EndTime: now, PacketsReceived: count, PacketsDropped: pcapgo.NgNoValue64}
		if len(p.counts) == 1 {
			stats.PacketsReceived, stats.PacketsDropped = count+missed, missed
		}
		if err := p.out.WriteInterfaceStats(n, stats); err != nil {
			return err
		}
	}
	return p.out.Flush()
}

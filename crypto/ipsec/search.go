package ipsec

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"time"
)

// espHeader is SPI, sequence number (4 bytes each) and GCM's IV (8).
const espHeader = 16

// search returns the epoch above heard whose key opens an ESP packet. It looks back and ahead in turn from now on, or from
// what was heard where that is later: a sender began by its clock, long ago or just now, and has counted on since; or by a clock that was wrong.
func search(d direction, esp []byte, heard uint64, now time.Time) (uint64, bool) {
	const (
		step  = spiMask + 1
		ahead = 1 << 20 // two years of minutes
	)
	base := max(sinceStart(now), heard)
	end := max(base+ahead, furthest)
	from, ok := latest(binary.BigEndian.Uint32(esp), base)
	back, behind := from, ok && from > heard
	for next := from + step; behind || next <= end; next += step { // from wraps where ok is false, and next does not
		if behind && opens(d, back, esp) {
			return back, true
		}
		if behind = behind && back > heard+step; behind {
			back -= step
		}
		if next <= end && opens(d, next, esp) {
			return next, true
		}
	}
	return 0, false
}

// former returns the epoch before the one that was heard whose key opens an ESP packet. It looks back a little: a state directory of a
// backup is some boots and rotations old.
func former(d direction, esp []byte, heard uint64) (uint64, bool) {
	const step, back = spiMask + 1, 16
	e, ok := latest(binary.BigEndian.Uint32(esp), heard)
	for range back {
		if !ok {
			break
		}
		if e < heard && opens(d, e, esp) {
			return e, true
		}
		e, ok = e-step, e >= step
	}
	return 0, false
}

// past tells of a peer that sends in an epoch of the past, once for each, and says whether it does. It may be a replay as well, so
// no more is done; or late, where its state lingers.
func (d *Driver) past(e ear, esp []byte) bool {
	epoch, ok := former(e.direction, esp, e.heard)
	if !ok {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.tunnels[e.tunnel]
	if t == nil || t.peers[e.peer] == nil {
		return true
	}
	p := t.peers[e.peer]
	if p.former == epoch || epoch+1 == e.heard && d.lingers(p) {
		return true
	}
	p.former = epoch
	d.log.Warn(fmt.Sprintf("peer %s sends in epoch %d, which was used before: its state directory is older than its past (or somebody replays its packets); "+
		"run sluice key rotate there, until it is past the epoch that was heard", e.peer, epoch), "tunnel", e.tunnel, "heard", e.heard)
	return true
}

// stands says whether a packet is of an epoch that the kernel stands ready for.
func stands(d direction, esp []byte, heard uint64) bool {
	for _, e := range window(heard) {
		if d.spi(e) == binary.BigEndian.Uint32(esp) {
			return opens(d, e, esp)
		}
	}
	return false
}

// opens says whether a packet is authentic under an epoch's key (RFC 4106). The upper half of its sequence number, which
// is not in it, is 0 in every epoch that maxPackets has ended.
func opens(d direction, epoch uint64, esp []byte) bool {
	material, err := d.key(epoch)
	if err != nil {
		return false
	}
	key := material()
	block, err := aes.NewCipher(key[:32])
	if err != nil {
		return false
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return false
	}
	var aad [12]byte // SPI, upper and lower half of the sequence number
	copy(aad[:4], esp[:4])
	copy(aad[8:], esp[4:8])
	nonce := append(append(make([]byte, 0, 12), key[32:]...), esp[8:espHeader]...)
	_, err = aead.Open(nil, nonce, esp[espHeader:], aad[:])
	return err == nil
}

package ipsec

import (
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"sluice/crypto/keys"
)

// What one direction between two nodes has: a key for each epoch of its sender, and a tag that the SPIs of all its epochs
// begin with, so that a receiver knows whose an unknown SPI may be. HKDF (RFC 5869) over SHA-256, salt "sluice esp v1":
//
//	info = kind (1 byte) | length of from (2 bytes, big endian) | from | length of to (2) | to [| epoch (8, big endian)]
//
// The lengths make the identities unambiguous, and their order makes the two directions differ.

const (
	keySize  = 36 // AES-256 key and the 4 bytes of salt that RFC 4106 section 8.1 puts behind it
	icvBits  = 128
	spiBits  = 8 // low bits of an SPI that are the epoch's
	spiMask  = 1<<spiBits - 1
	hkdfSalt = "sluice esp v1"

	infoTag byte = 1
	infoKey byte = 2
)

// keyMaterial is a secret. It is in a closure because fmt, and whatever prints by reflection, has only its address to show.
type keyMaterial func() [keySize]byte

// direction derives for one sender and one receiver.
type direction struct {
	prk  func() []byte // HKDF-Extract of the master secret
	info []byte        // from and to, without kind and epoch
	tag  uint32        // the upper 24 bits of the SPIs, not 0
}

// newDirection derives for packets of the node called from to the node called to.
func newDirection(master keys.Key, from, to string) (direction, error) {
	secret := master.Bytes()
	prk, err := hkdf.Extract(sha256.New, secret[:], []byte(hkdfSalt))
	if err != nil {
		return direction{}, fmt.Errorf("derive keys: %w", err)
	}
	d := direction{prk: func() []byte { return prk }}
	for _, id := range []string{from, to} {
		d.info = binary.BigEndian.AppendUint16(d.info, uint16(len(id)))
		d.info = append(d.info, id...)
	}
	out, err := hkdf.Expand(sha256.New, prk, string(infoTag)+string(d.info), 3*10)
	if err != nil {
		return direction{}, fmt.Errorf("derive keys: %w", err)
	}
	// 0 would give SPIs below 256, which RFC 4303 section 2.1 reserves. That all ten are 0 does not happen.
	for ; d.tag == 0; out = out[3:] {
		d.tag = uint32(out[0])<<24 | uint32(out[1])<<16 | uint32(out[2])<<8
	}
	return d, nil
}

// spi is that of an epoch.
func (d direction) spi(epoch uint64) uint32 { return d.tag | uint32(epoch&spiMask) }

// owns says whether an SPI is of this direction, in some epoch.
func (d direction) owns(spi uint32) bool { return spi&^uint32(spiMask) == d.tag }

// key is that of an epoch.
func (d direction) key(epoch uint64) (keyMaterial, error) {
	info := binary.BigEndian.AppendUint64([]byte(string(infoKey)+string(d.info)), epoch)
	out, err := hkdf.Expand(sha256.New, d.prk(), string(info), keySize)
	if err != nil {
		return nil, fmt.Errorf("derive keys: %w", err)
	}
	key := [keySize]byte(out)
	return func() [keySize]byte { return key }, nil
}

// latest is the highest epoch of at most bound that has the low bits of an SPI; false where there is none.
func latest(spi uint32, bound uint64) (uint64, bool) {
	back := (bound - uint64(spi)) & spiMask
	return bound - back, bound > back
}

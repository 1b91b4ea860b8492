package xdp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"

	"sluice/xdp/abi"
	"sluice/xdp/table"
)

// listeners are the protected listeners in the kernel. They are state, because what is known of a listener is not to be
// learned anew with every generation; only a rule of the live one makes use of an entry.
type listeners struct{ *ebpf.Map }

func listenerKey(a netip.AddrPort) abi.SYNListenerKey {
	k := abi.SYNListenerKey{Addr: table.SelfKey(a.Addr())}
	binary.BigEndian.PutUint16(k.Port[:], a.Port())
	return k
}

// add makes the entries that are missing, and leaves what was learned of the others.
func (l listeners) add(want []netip.AddrPort, refuses map[netip.AddrPort]uint8) error {
	for _, a := range want {
		key := listenerKey(a)
		err := l.Update(key, abi.SYNListener{Refused: refuses[a]}, ebpf.UpdateNoExist)
		if errors.Is(err, ebpf.ErrKeyExist) {
			err = l.refuse(key, refuses[a])
		}
		if err != nil {
			return fmt.Errorf("listener %s of syn_cookie: %w", a, err)
		}
	}
	return nil
}

// refuse changes what a listener refuses. What the programs learn of it in that moment they learn once more.
func (l listeners) refuse(key abi.SYNListenerKey, options uint8) error {
	var entry abi.SYNListener
	if err := l.Lookup(key, &entry); err != nil || entry.Refused == options {
		return err
	}
	entry.Refused = options
	return l.Put(key, entry)
}

// retain removes every entry but those of want.
func (l listeners) retain(want []netip.AddrPort) error {
	keep := make(map[abi.SYNListenerKey]bool, len(want))
	for _, a := range want {
		keep[listenerKey(a)] = true
	}
	var (
		key   abi.SYNListenerKey
		value abi.SYNListener
		gone  []abi.SYNListenerKey
	)
	entries := l.Iterate()
	for entries.Next(&key, &value) {
		if !keep[key] {
			gone = append(gone, key)
		}
	}
	if err := entries.Err(); err != nil {
		return fmt.Errorf("listeners of syn_cookie: %w", err)
	}
	for _, k := range gone {
		if err := l.Delete(k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("listeners of syn_cookie: %w", err)
		}
	}
	return nil
}

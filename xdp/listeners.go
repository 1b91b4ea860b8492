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

// add makes the entries that are missing, and leaves what is known of the others.
func (l listeners) add(want []netip.AddrPort) error {
	for _, a := range want {
		err := l.Update(listenerKey(a), abi.SYNListener{}, ebpf.UpdateNoExist)
		if err != nil && !errors.Is(err, ebpf.ErrKeyExist) {
			return fmt.Errorf("listener %s of syn_cookie: %w", a, err)
		}
	}
	return nil
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

package xsk

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"sluice/xdp/abi"
	"sluice/xdp/pin"
)

// Registered says for which receive queues a program has registered a socket in a door, in order. A syscall does not see
// into an XSKMAP, so a program looks: one that is attached nowhere, run once.
func Registered(dir *pin.Dir, pair pin.Socket) ([]uint32, error) {
	door, err := ebpf.LoadPinnedMap(dir.SocketPath(pair), nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // taken away meanwhile
	}
	if err != nil {
		return nil, fmt.Errorf("socket %s on %s: %w", pair.Name, pair.Interface, err)
	}
	defer door.Close()
	queues, err := look(door)
	if err != nil {
		return nil, fmt.Errorf("look who is registered at socket %s on %s: %w", pair.Name, pair.Interface, err)
	}
	return queues, nil
}

func look(door *ebpf.Map) ([]uint32, error) {
	looker, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "registered", Type: ebpf.XDP, License: "GPL", Instructions: lookup(door)})
	if err != nil {
		return nil, err
	}
	defer looker.Close()
	said := make([]byte, abi.SocketQueues)
	if _, err := looker.Run(&ebpf.RunOptions{Data: make([]byte, abi.SocketQueues), DataOut: said}); err != nil {
		return nil, err
	}
	var out []uint32
	for queue, registered := range said {
		if registered != 0 {
			out = append(out, uint32(queue))
		}
	}
	return out, nil
}

// lookup is a program that sets byte N of its packet to 1 where queue N of a door has a socket.
func lookup(door *ebpf.Map) asm.Instructions {
	const end, key = "end", -4
	out := asm.Instructions{ // struct xdp_md: data, data_end
		asm.LoadMem(asm.R6, asm.R1, 0, asm.Word),
		asm.LoadMem(asm.R2, asm.R1, 4, asm.Word),
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Add.Imm(asm.R1, abi.SocketQueues),
		asm.JGT.Reg(asm.R1, asm.R2, end),
	}
	for queue := range int16(abi.SocketQueues) {
		next := fmt.Sprintf("next-%d", queue)
		out = append(out,
			asm.StoreImm(asm.R10, key, int64(queue), asm.Word),
			asm.LoadMapPtr(asm.R1, door.FD()),
			asm.Mov.Reg(asm.R2, asm.R10),
			asm.Add.Imm(asm.R2, key),
			asm.FnMapLookupElem.Call(),
			asm.JEq.Imm(asm.R0, 0, next),
			asm.StoreImm(asm.R6, queue, 1, asm.Byte),
			asm.Mov.Imm(asm.R0, 0).WithSymbol(next),
		)
	}
	return append(out, asm.Mov.Imm(asm.R0, 0).WithSymbol(end), asm.Return())
}

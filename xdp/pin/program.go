package pin

import (
	"fmt"
	"runtime"
	"structs"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// programInfo is the beginning of the kernel's struct bpf_prog_info, which grows at its end: what is asked for here fits into it since
// Linux 4.15.
type programInfo struct {
	_                       structs.HostLayout
	kind, id                uint32
	tag                     [8]byte
	jitedBytes, xlatedBytes uint32
	jited, xlated           uint64 // 0: not asked for
	loaded                  uint64
	uid                     uint32
	maps                    uint32 // that there are; asked with: that mapIDs has room for
	mapIDs                  unsafe.Pointer
	name                    [unix.BPF_OBJ_NAME_LEN]byte
}

// infoOf asks for what is small. The library's Info copies the whole program out of the kernel as well, a few ms for ours, and each
// observation asks about all of them.
func infoOf(p *ebpf.Program, info *programInfo) error {
	call := struct {
		_        structs.HostLayout
		fd, size uint32
		info     unsafe.Pointer
	}{fd: uint32(p.FD()), size: uint32(unsafe.Sizeof(*info)), info: unsafe.Pointer(info)}
	_, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_OBJ_GET_INFO_BY_FD, uintptr(unsafe.Pointer(&call)), unsafe.Sizeof(call))
	runtime.KeepAlive(p) // or its descriptor may be another's by then
	if errno != 0 {
		return fmt.Errorf("ask the kernel for a program: %w", errno)
	}
	return nil
}

// ProgramID is what the kernel calls a program.
func ProgramID(p *ebpf.Program) (ebpf.ProgramID, error) {
	var info programInfo
	err := infoOf(p, &info)
	return ebpf.ProgramID(info.id), err
}

// ProgramMaps are the maps that a program works on: those that it was loaded with.
func ProgramMaps(p *ebpf.Program) ([]ebpf.MapID, error) {
	var info programInfo
	if err := infoOf(p, &info); err != nil || info.maps == 0 {
		return nil, err
	}
	ids := make([]ebpf.MapID, info.maps)
	info = programInfo{maps: info.maps, mapIDs: unsafe.Pointer(&ids[0])}
	return ids, infoOf(p, &info)
}

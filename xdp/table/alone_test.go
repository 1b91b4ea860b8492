package table

import (
	"runtime"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// TestASpareIsLoadedOnTheThreadThatWaitsForOthers: on any other one it would have the priority of all that works.
func TestASpareIsLoadedOnTheThreadThatWaitsForOthers(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	thread := 0
	loader := Loader{Spec: &ebpf.CollectionSpec{}, alone: true}
	if _, err := loader.load(func(map[string]*ebpf.Map) error { thread = unix.Gettid(); return nil }); err != nil {
		t.Fatal(err)
	}
	if thread != unix.Gettid() {
		t.Error("it was loaded on another thread")
	}
}

package daemon

import (
	"runtime"
	"testing"
)

func TestALargeHeapIsCollectedEarlier(t *testing.T) {
	for _, c := range []struct {
		live uint64
		want int
	}{{0, 100}, {200 << 20, 100}, {200<<20 + 1, 40}, {4 << 30, 40}} {
		if got := gcPercent(c.live); got != c.want {
			t.Errorf("%d bytes live: %d percent, want %d", c.live, got, c.want)
		}
	}
	kept := make([]byte, 64<<20)
	runtime.GC()
	if got := liveHeap(); got < 64<<20 {
		t.Errorf("%d bytes live beside 64 MiB that are in use", got)
	}
	runtime.KeepAlive(kept)
}

package table

import (
	"testing"

	"sluice/xdp/abi"
)

// TestAFlowIsMergedWithItself, though its last packet seems to be from before it began: the clock of that is coarser.
func TestAFlowIsMergedWithItself(t *testing.T) {
	former := abi.Flow{SinceNs: 1003, LastNs: 1000, State: uint8(abi.FlowNew), Sent: abi.FlowSide{Packets: 3, Bytes: 300}}
	since := former
	since.State, since.Flags, since.Seq, since.Sent.Packets = uint8(abi.FlowReplied), abi.FlowSeq, 77, 2
	want := since
	want.Sent = former.Sent
	if got := mergeFlows(since, former); got != want {
		t.Errorf("merged to %+v, want %+v", got, want)
	}
	later := abi.Flow{SinceNs: 2000, LastNs: 2000}
	if got := mergeFlows(former, later); got != later {
		t.Errorf("the later of two flows is %+v, want %+v", got, later)
	}
	if got := mergeFlows(later, former); got != later {
		t.Errorf("the later of two flows is %+v, want %+v", got, later)
	}
}

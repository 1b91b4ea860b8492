package config

import "time"

// NIC is how the hardware of an interface is set. What is nil or zero the file does not write: it stays as it was found.
type NIC struct {
	Queues      Amount   // combined, or of either direction where the NIC has no combined ones
	RXRing      Amount   // descriptors of each receive queue
	TXRing      Amount   // and of each transmit queue
	Offloads    []Switch // in the order of OffloadNames
	AdaptiveRX  *Switch
	AdaptiveTX  *Switch
	RXDelay     *Delay
	TXDelay     *Delay
	FlowControl *Switch // 802.3x PAUSE, both ways
	IRQs        *IRQAffinity
}

// Amount is a number, or as many as there can be. Zero: unwritten.
type Amount struct {
	N   int
	Max bool
	Pos Pos
}

// Written says whether the file writes it.
func (a Amount) Written() bool { return a.Pos != Pos{} }

// Switch is something that is on or off.
type Switch struct {
	Name string // of an offload, as the file writes it; else ""
	On   bool
	Pos  Pos
}

// Delay is how long an interrupt waits for more packets.
type Delay struct {
	For time.Duration
	Pos Pos
}

// IRQAffinity says which CPUs serve the interrupts of the queues, one after the other. No CPUs: those of the NIC's own NUMA node.
type IRQAffinity struct {
	CPUs []Range
	Pos  Pos
}

// Governor is cpufreq's for all CPUs of the machine. No Name: left as it is.
type Governor struct {
	Name string
	Pos  Pos
}

// The offloads that a file may switch. VLAN tags are not among them: rules with vlan decide about those.
const (
	OffloadLRO   = "lro"
	OffloadGRO   = "gro"
	OffloadGROHW = "gro_hw"
	OffloadGSO   = "gso"
	OffloadTSO   = "tso"
)

package abi

import "fmt"

// Reason is why a packet got its verdict: enum reason of reason.h, and the index of the reason counters.
type Reason uint32

// Fate is what a reason means for the packet.
type Fate uint8

// The fates. Stack is passed as well, to the kernel's own path, because the fast path could not do it. Answer went back
// where it came from, redirect to an AF_XDP socket.
const (
	FatePass Fate = iota
	FateDrop
	FateStack
	FateAnswer
	FateRedirect
)

// String returns "pass", "drop", "stack", "answer" or "redirect".
func (f Fate) String() string {
	switch f {
	case FatePass:
		return "pass"
	case FateDrop:
		return "drop"
	case FateStack:
		return "stack"
	case FateAnswer:
		return "answer"
	case FateRedirect:
		return "redirect"
	}
	return fmt.Sprintf("fate-%d", uint8(f))
}

type reasonInfo struct {
	label, text string
	fate        Fate
}

// String returns the stable label, as in "default-drop". A number that this build does not know, which a newer
// version may have left in pinned counters, becomes "reason-99".
func (r Reason) String() string {
	if r >= ReasonMax {
		return fmt.Sprintf("reason-%d", uint32(r))
	}
	return reasonTable[r].label
}

// Text returns the sentence that show drops and explain print.
func (r Reason) Text() string {
	if r >= ReasonMax {
		return "a reason that this version does not know"
	}
	return reasonTable[r].text
}

// Fate returns what becomes of the packet. An unknown reason counts as a drop, so that it is not overlooked.
func (r Reason) Fate() Fate {
	if r >= ReasonMax {
		return FateDrop
	}
	return reasonTable[r].fate
}

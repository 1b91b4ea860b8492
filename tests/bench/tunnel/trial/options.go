package trial

import (
	"fmt"
	"time"
)

// Lines on the machine's console that the host reads, each followed by JSON: a Measurement, a Spread, and a Crypto.
const (
	MeasurementMark = "TRIAL "
	SpreadMark      = "SPREAD "
	CryptoMark      = "CRYPTO "
)

// Options are what the virtual machine is to do. Its clock counts instructions: a nanosecond is one.
type Options struct {
	Rounds       int
	RR, Stream   time.Duration // of a turn
	Message      int           // of Stream, bytes
	Wires        []Wire        // of RR those without Offload
	CPUs         int           // of the machine in which work is seen to spread
	SpreadRounds int
	Spread       time.Duration // of a round
	Layouts      []Layout
}

// Layout is how many flows go over how many tunnels.
type Layout struct{ Tunnels, Flows int }

// String is for tables.
func (l Layout) String() string { return count(l.Tunnels, "tunnel") + ", " + count(l.Flows, "flow") }

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// Shapes are the loads on all wires, in the order of the report. Segments are nothing to requests of a byte.
func Shapes(wires []Wire) (out []Shape) {
	for _, k := range []Kind{RR, Stream} {
		for _, w := range wires {
			if k == Stream || !w.Offload {
				out = append(out, Shape{k, w})
			}
		}
	}
	return out
}

// Crypto is what the machine's kernel encrypts with.
type Crypto struct {
	Flags   []string // of the CPU that ciphers look at
	Drivers map[string]string
}

package host

import "golang.org/x/sys/unix"

// Refusal is the kernel's answer that it would not forward a packet.
type Refusal struct{ Errno unix.Errno }

func (r *Refusal) Error() string {
	switch r.Errno {
	case unix.ENETUNREACH:
		return "it has no route"
	case unix.EHOSTUNREACH:
		return "an unreachable route, or forwarding is off"
	case unix.EACCES:
		return "a prohibiting route or rule"
	case unix.EXDEV:
		return "its source cannot come in there (rp_filter)"
	case unix.EINVAL:
		return "a blackhole leads there or back to its source, or no router forwards such addresses"
	}
	return r.Errno.Error()
}

// Blackhole says whether it may be that of a route.
func (r *Refusal) Blackhole() bool { return r.Errno == unix.EINVAL }

package main

import "sluice/control/api"

// bfdText is the state of the neighbor's BFD session and, where it is up, after how long a silence it goes down.
func bfdText(n api.Neighbor) string {
	switch {
	case n.BFD == nil:
		return "-"
	case n.BFD.State.String() == "up":
		return "up " + n.BFD.Detection.String()
	}
	return n.BFD.State.String()
}

// bfdWhy says what keeps the neighbor's BFD session from being up, as far as either end knows.
func bfdWhy(n api.Neighbor) string {
	b := n.BFD
	switch {
	case b == nil || b.State.String() == "up":
		return ""
	case b.Error != "":
		return "cannot send: " + b.Error
	case b.RemoteState.String() == "admin-down":
		return "the neighbor has switched it off"
	case b.Diag.String() != "none":
		return b.Diag.String()
	}
	return "the neighbor has not answered yet: is BFD on there?"
}

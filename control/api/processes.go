package api

import "context"

// Process is one that the daemon started and that lives on without it: that of a userspace tunnel, or one that holds the UDP
// port of tunnels' ESP. It goes on as the version it was started from.
type Process struct {
	Tunnels []string `json:"tunnels"`         // that need it
	Holds   string   `json:"holds,omitempty"` // address:port
	PID     int      `json:"pid"`
	Version string   `json:"version"` // "": it is from before processes told
}

// RestartRequest asks for the processes of a tunnel to be exchanged for those of the daemon's version.
type RestartRequest struct {
	Tunnel string `json:"tunnel"`
}

// Restarted says what was exchanged; Before without a PID: none ran.
type Restarted struct {
	Before Process `json:"before"`
	Now    Process `json:"now"`
}

// RestartTunnel exchanges the process of a tunnel.
func (c *Client) RestartTunnel(ctx context.Context, in RestartRequest) (Restarted, error) {
	return post[Restarted](ctx, c, "tunnel/restart", in)
}

package api

import (
	"context"
	"net/netip"
)

// WorkloadSpec is a workload that is added at run time, and stays until it is deleted: apply, rollback and restarts leave
// it alone.
type WorkloadSpec struct {
	Name       string   `json:"name"`
	Interface  string   `json:"interface"` // host side of its veth or netkit; it may come later
	Addresses  []string `json:"addresses"`
	SNAT       string   `json:"snat,omitempty"`
	Path       string   `json:"path,omitempty"`        // redirect or stack
	Policy     string   `json:"policy,omitempty"`      // YAML, with the keys of an entry of workloads: that are not said here
	PolicyFile string   `json:"policy_file,omitempty"` // its name, for places in errors and in explain
}

// WorkloadAdd adds workloads, all or none. One whose name was added before takes its place; the same again is no change.
type WorkloadAdd struct {
	Workloads []WorkloadSpec `json:"workloads"`
}

// WorkloadDelete deletes workloads that were added, all or none.
type WorkloadDelete struct {
	Names []string `json:"names"`
}

// WorkloadChange is what became of one workload of a request.
type WorkloadChange struct {
	Name   string `json:"name"`
	Change string `json:"change"`          // added, replaced, unchanged, removed
	State  string `json:"state,omitempty"` // as Workload.State; none of one that was removed
	Why    string `json:"why,omitempty"`   // it is refused
}

// The states of a workload.
const (
	WorkloadAttached = "attached"
	WorkloadWaiting  = "waiting" // for its interface
	WorkloadRefused  = "refused"
)

// Workload is one workload.
type Workload struct {
	Name      string       `json:"name"`
	Origin    string       `json:"origin"` // file, api
	Interface string       `json:"interface"`
	Index     int          `json:"index"` // of the interface; 0: it is not there
	Present   bool         `json:"present"`
	State     string       `json:"state"`         // attached, waiting, refused
	Why       string       `json:"why,omitempty"` // it is refused
	Addresses []netip.Addr `json:"addresses"`
	Path      string       `json:"path"`
	SNAT      string       `json:"snat"`                       // auto, none, or the address
	Announced []netip.Addr `json:"snat_announced,omitempty"`   // addresses that auto does not translate, because BGP announces them
	Bandwidth uint64       `json:"bandwidth_egress,omitempty"` // bits per second; absent: any
	Ingress   string       `json:"ingress_default"`
	Egress    string       `json:"egress_default"`
	// Rules of its policies, `show policy` has them by name.
	IngressRules int `json:"ingress_rules"`
	EgressRules  int `json:"egress_rules"`
	// In is what went to the workload, Out what it sent, both since its interface was made; Drops what was dropped of both.
	In    Traffic `json:"in"`
	Out   Traffic `json:"out"`
	Drops Traffic `json:"drops"`
	Flows int     `json:"flows"` // tracked ones that it opened
}

// Traffic is counted packets.
type Traffic struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// AddWorkloads adds workloads. When it returns, those whose interface is there are attached.
func (c *Client) AddWorkloads(ctx context.Context, in WorkloadAdd) ([]WorkloadChange, error) {
	return post[[]WorkloadChange](ctx, c, "workload/add", in)
}

// DeleteWorkloads deletes workloads that were added.
func (c *Client) DeleteWorkloads(ctx context.Context, in WorkloadDelete) ([]WorkloadChange, error) {
	return post[[]WorkloadChange](ctx, c, "workload/del", in)
}

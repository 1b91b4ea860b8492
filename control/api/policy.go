package api

import (
	"context"
	"strings"
	"time"
)

// Policy is one policy with the hits of its rules.
type Policy struct {
	Name    string `json:"name"`
	Default string `json:"default"` // accept, drop, continue
	// What the default decided; absent where it continues, or is not counted for want of an id. Replies to tracked flows,
	// which a default of drop lets in, are not among them.
	DefaultHits *Hits  `json:"default_hits,omitempty"`
	Rules       []Rule `json:"rules"`
}

// Hits are a counter of both hooks.
type Hits struct {
	Packets uint64     `json:"packets"`
	Bytes   uint64     `json:"bytes"`
	LastHit *time.Time `json:"last_hit,omitempty"` // none: never, or not since this version counts
}

// Rule is one rule with its counters. Those of a shadow rule are what it would have acted on.
type Rule struct {
	Position int    `json:"position"` // in its policy, from 1
	ID       uint32 `json:"id"`
	Name     string `json:"name"`
	Action   string `json:"action"`
	Shadow   bool   `json:"shadow,omitempty"`
	Match    string `json:"match"`
	Hits
	// LimitDrops are those of Packets that a limit dropped.
	LimitDrops uint64 `json:"limit_drops,omitempty"`
	// ShadowDrops are those that a limit in shadow mode would have dropped.
	ShadowDrops uint64 `json:"shadow_drops,omitempty"`
}

// InPolicy says whether a policy is what a name asks for: itself, or as "workload/web-1" both of a workload's.
func InPolicy(policy, name string) bool { return policy == name || strings.HasPrefix(policy, name+"/") }

// ClearCountersRequest sets the counters of rules and defaults to zero: of one policy, or of all.
type ClearCountersRequest struct {
	Policy string `json:"policy,omitempty"`
}

// Cleared is what was cleared.
type Cleared struct {
	Policies []string `json:"policies"`
	Rules    int      `json:"rules"`
}

// ClearCounters sets counters of rules and defaults to zero.
func (c *Client) ClearCounters(ctx context.Context, in ClearCountersRequest) (Cleared, error) {
	return post[Cleared](ctx, c, "clear/counters", in)
}

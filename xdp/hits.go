package xdp

import (
	"sluice/xdp/pin"
	"sluice/xdp/table"
)

// RuleHit is what a rule, or a policy's default, has matched at all hooks, tc's included: both count into one map.
type RuleHit = table.Hit

// RuleHits reads the counters of rules and defaults by stable id from a directory of pins, shadow rules included. What
// is zero is left out; there may be ids of rules that are gone. Nothing is made where nothing is.
func RuleHits(path string) (map[uint32]RuleHit, error) { return table.ReadHits(pin.At(path)) }

// ClearRuleHits sets counters to zero.
func ClearRuleHits(path string, ids []uint32) error { return table.ClearHits(pin.At(path), ids) }

// Package netns holds the end-to-end tests: the real binary as the gateway of the lab's virtual site, BIRD 2 as its
// ToR, and real packets. Each test has a site of its own; all of it is gone at the end, whatever the end is.
package netns

// Package configs holds the example files. Those of the lab are in the binary, too, so that `sluice lab` needs no tree.
package configs

import _ "embed"

// LabGateway is lab-gateway.yaml, LabPeer is lab-peer.yaml.
var (
	//go:embed lab-gateway.yaml
	LabGateway string
	//go:embed lab-peer.yaml
	LabPeer string
)

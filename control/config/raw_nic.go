package config

type rawNIC struct {
	at
	Queues      val[amount] `key:"queues"`
	Rings       rawRings    `key:"rings"`
	Offloads    rawOffloads `key:"offloads"`
	Coalesce    rawCoalesce `key:"coalesce"`
	FlowControl val[truth]  `key:"flow_control"`
	IRQAffinity irqAffinity `key:"irq_affinity"`
}

type rawRings struct {
	at
	RX val[amount] `key:"rx"`
	TX val[amount] `key:"tx"`
}

type rawOffloads struct {
	at
	LRO   val[truth] `key:"lro"`
	GRO   val[truth] `key:"gro"`
	GROHW val[truth] `key:"gro_hw"`
	GSO   val[truth] `key:"gso"`
	TSO   val[truth] `key:"tso"`
}

type rawCoalesce struct {
	at
	AdaptiveRX val[truth] `key:"adaptive_rx"`
	AdaptiveTX val[truth] `key:"adaptive_tx"`
	RX         val[delay] `key:"rx"`
	TX         val[delay] `key:"tx"`
}

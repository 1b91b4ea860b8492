package config

// What the file says of BGP sessions.

type rawGroup struct {
	at
	Name val[name] `key:"name,required"`
	rawSession
}

type rawNeighbor struct {
	at
	Name    val[name]    `key:"name,required"`
	Address val[unicast] `key:"address,required"`
	Group   val[name]    `key:"group"`
	rawSession
}

// rawSession is what a group may say for its neighbors.
type rawSession struct {
	ASN             num[asn]                                 `key:"asn"`
	Port            num[port]                                `key:"port"`
	LocalAddress    val[unicast]                             `key:"local_address"`
	Passive         val[truth]                               `key:"passive"`
	EnforceFirstAS  val[truth]                               `key:"enforce_first_as"`
	Multihop        num[multihop]                            `key:"multihop"`
	TTLSecurity     num[hops]                                `key:"ttl_security"`
	PasswordFile    val[absPath]                             `key:"password_file"`
	Families        list[pick[Family]]                       `key:"families"`
	HoldTime        val[duration]                            `key:"hold_time"` // of versions without timers:
	Timers          rawTimers                                `key:"timers"`
	GracefulRestart rawGracefulRestart                       `key:"graceful_restart"`
	MaxPrefixes     either[num[prefixCount], rawMaxPrefixes] `key:"max_prefixes"`
	Shutdown        either[val[truth], rawShutdown]          `key:"shutdown"`
	BFD             rawBFD                                   `key:"bfd"`
}

type rawFlowSpec struct {
	at
	AcceptFrom list[val[name]]    `key:"accept_from"`
	MaxRules   num[flowSpecCount] `key:"max_rules"`
	MaxAge     val[duration]      `key:"max_age"`

	Redirect list[rawFlowSpecRedirect] `key:"redirect"`
}

type rawFlowSpecRedirect struct {
	at
	Target val[redirectTarget] `key:"target,required"`
	Socket val[name]           `key:"socket,required"`
}

type rawBlackhole struct {
	at
	AcceptFrom  list[val[name]]      `key:"accept_from,required"`
	Communities list[val[community]] `key:"communities"`
	MaxPrefixes num[flowSpecCount]   `key:"max_prefixes"`
	MaxAge      val[duration]        `key:"max_age"`
}

type rawBFD struct {
	at
	Interval   val[duration]   `key:"interval"`
	Multiplier num[detectMult] `key:"multiplier"`
}

type rawTimers struct {
	at
	Hold         val[duration] `key:"hold"`
	Keepalive    val[duration] `key:"keepalive"`
	ConnectRetry val[duration] `key:"connect_retry"`
}

type rawGracefulRestart struct {
	at
	RestartTime val[duration] `key:"restart_time"`
}

type rawMaxPrefixes struct {
	at
	Limit        num[prefixCount]  `key:"limit,required"`
	WarnAt       num[percent]      `key:"warn_at"`
	Action       pick[LimitAction] `key:"action"`
	RestartAfter val[duration]     `key:"restart_after"`
}

type rawShutdown struct {
	at
	Reason val[notice] `key:"reason,required"`
}

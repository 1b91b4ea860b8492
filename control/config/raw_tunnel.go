package config

// Keys that only one type of tunnel or one keying has are marked by build_*.go: the reader knows one shape for all.

type rawTunnel struct {
	at
	Name      val[linkName]            `key:"name,required"`
	Type      pick[tunnelType]         `key:"type,required"`
	Local     rawLocal                 `key:"local,required"`
	Addresses list[val[addressPrefix]] `key:"addresses"`
	MTU       val[tunnelMTU]           `key:"mtu"`
	ClampMSS  val[truth]               `key:"clamp_mss"`
	Strict    val[truth]               `key:"strict"`
	Health    rawHealth                `key:"health"`
	WireGuard rawWireGuard             `key:"wireguard"`
	IPsec     rawIPsec                 `key:"ipsec"`
	Peers     list[rawPeer]            `key:"peers"`
}

type rawLocal struct {
	at
	Address val[unicast] `key:"address,required"`
	Port    num[port]    `key:"port"`
}

type rawHealth struct {
	at
	Probe     val[unicast]    `key:"probe"`
	Interval  val[duration]   `key:"interval"`
	DownAfter num[probeCount] `key:"down_after"`
	UpAfter   num[probeCount] `key:"up_after"`
}

type rawWireGuard struct {
	at
	Backend        pick[backend] `key:"backend"`
	PrivateKeyFile val[absPath]  `key:"private_key_file,required"`
}

type rawIPsec struct {
	at
	Keying        pick[keying]        `key:"keying,required"`
	ID            val[identity]       `key:"id"`
	Encapsulation pick[encapsulation] `key:"encapsulation"`
	ReplayWindow  num[replayWindow]   `key:"replay_window"`
	Rekey         val[duration]       `key:"rekey"`
	Charon        val[absPath]        `key:"charon"`
	IKEProposals  list[val[proposal]] `key:"ike_proposals"`
	ESPProposals  list[val[proposal]] `key:"esp_proposals"`
	Auth          rawAuth             `key:"auth"`
}

type rawAuth struct {
	at
	Method          pick[authMethod]   `key:"method,required"`
	CertificateFile val[absPath]       `key:"certificate_file"`
	PrivateKeyFile  val[absPath]       `key:"private_key_file"`
	CAFiles         list[val[absPath]] `key:"ca_files"`
}

type rawPeer struct {
	at
	Name             val[name]               `key:"name,required"`
	Endpoints        list[val[peerEndpoint]] `key:"endpoints"`
	PublicKeys       list[val[publicKey]]    `key:"public_keys"`
	PresharedKeyFile val[absPath]            `key:"preshared_key_file"`
	MasterKeyFile    val[absPath]            `key:"master_key_file"`
	ID               val[identity]           `key:"id"`
	Keepalive        val[duration]           `key:"keepalive"`
	Prefixes         list[val[network]]      `key:"prefixes"`
	Routes           val[truth]              `key:"routes"`
	Metric           num[metric]             `key:"metric"`
	Probe            val[unicast]            `key:"probe"`
}

// shift also moves the places that stay in Config: files are read long after the reading.
func (r *rawPeer) shift(lines int) {
	r.at.shift(lines)
	for _, file := range []*at{&r.PresharedKeyFile.at, &r.MasterKeyFile.at} {
		if file.written() {
			file.shift(lines)
		}
	}
}

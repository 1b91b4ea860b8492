package config

// What BGP says, and what it believes.

type rawAdvertise struct {
	at
	Prefixes    list[val[network]] `key:"prefixes"`
	Workloads   val[truth]         `key:"workloads"`
	Tunnels     val[truth]         `key:"tunnels"`
	Aggregate   val[network]       `key:"aggregate"`
	SummaryOnly val[truth]         `key:"summary_only"`

	To   list[val[name]] `key:"to"`
	When rawWhen         `key:"when"`

	Communities      list[val[community]]      `key:"communities"`
	LargeCommunities list[val[largeCommunity]] `key:"large_communities"`
	LocalPreference  num[localPreference]      `key:"local_preference"`
	MED              num[med]                  `key:"med"`
	Prepend          num[prependCount]         `key:"prepend"`
	NextHop          val[nextHop]              `key:"next_hop"`
}

type rawWhen struct {
	at
	Workloads list[val[name]]    `key:"workloads"`
	Reach     list[val[unicast]] `key:"reach"`
}

type rawLearn struct {
	at
	ECMP   num[pathCount]  `key:"ecmp"`
	Table  val[routeTable] `key:"table"`
	Metric num[metric]     `key:"metric"`
	Accept list[rawAccept] `key:"accept"`
	Reject list[rawFilter] `key:"reject"`
}

type rawFilter struct {
	at
	Prefix           val[network]              `key:"prefix"`
	GE               num[prefixLength]         `key:"ge"`
	LE               num[prefixLength]         `key:"le"`
	From             list[val[name]]           `key:"from"`
	ASPath           val[asPath]               `key:"as_path"`
	Communities      list[val[community]]      `key:"communities"`
	LargeCommunities list[val[largeCommunity]] `key:"large_communities"`
}

// rawAccept is a rawFilter with what becomes of what it matches.
type rawAccept struct {
	at
	Prefix           val[network]              `key:"prefix"`
	GE               num[prefixLength]         `key:"ge"`
	LE               num[prefixLength]         `key:"le"`
	From             list[val[name]]           `key:"from"`
	ASPath           val[asPath]               `key:"as_path"`
	Communities      list[val[community]]      `key:"communities"`
	LargeCommunities list[val[largeCommunity]] `key:"large_communities"`
	Set              rawChanges                `key:"set"`
}

func (r *rawAccept) filter() rawFilter {
	return rawFilter{at: r.at, Prefix: r.Prefix, GE: r.GE, LE: r.LE, From: r.From, ASPath: r.ASPath, Communities: r.Communities, LargeCommunities: r.LargeCommunities}
}

type rawChanges struct {
	at
	LocalPreference num[localPreference] `key:"local_preference,required"`
}

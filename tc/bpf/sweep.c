// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

/*
 * The sweep of the flow tables, run by the daemon through BPF_PROG_TEST_RUN: it deletes what has expired, where it stands and
 * within nanoseconds of having looked, and counts what is left. A program of type syscall may be preempted, and the walk holds
 * RCU for one bucket at a time, so half a million flows hold nobody up.
 */

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* What parse.h, behind flow.h, asks of who includes it. No packet is parsed here. */
#define PARSE_CTX  struct __sk_buff
#define load_bytes bpf_skb_load_bytes

#include <sluice/abi.h>
#include <sluice/flow.h>
#include <sluice/translate.h>

#define unused __attribute__((unused))

/* Proven flows by owner, as this walk has counted them. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_FLOW_OWNERS);
	__type(key, __u32);
	__type(value, __u32);
} owners SEC(".maps");

struct swept swept = {}; /* read by Go after the run */

struct walk {
	__u64 now;
	__u32 table; /* enum swept_table */
	__u32 pad;
};

static __always_inline void count_owner(__u32 owner)
{
	__u32 one = 1, *n = bpf_map_lookup_elem(&owners, &owner);

	if (n)
		(*n)++; /* nobody else counts */
	else
		bpf_map_update_elem(&owners, &owner, &one, BPF_ANY);
}

static long sweep_flow(void *map, struct flow_key *key, struct flow *flow, struct walk *w)
{
	__u32 state = flow->judged == REASON_FLOW_REVOKED ? SWEPT_REVOKED : flow->state;

	if (flow_expired(key->protocol, flow, w->now)) {
		bpf_map_delete_elem(map, key);
		swept.expired++;
		return 0;
	}
	if (w->table < SWEPT_TABLES)
		swept.entries[w->table]++;
	if (state < SWEPT_STATES)
		swept.states[state]++;
	if (w->table == SWEPT_FLOWS && flow->owner)
		count_owner(flow->owner);
	return 0;
}

/* One that is claimed changes hands at this moment: it is whose claim it is, and deleted only by ours. */
static long sweep_translation(void *map, struct flow_key *key, struct translation *t, struct walk *w)
{
	__u64 seen = *(volatile __u64 *)&t->since_ns;

	if (translation_stale(t, w->now) && translation_claim(t, seen)) {
		bpf_map_delete_elem(map, key);
		swept.orphans++;
	} else {
		swept.translations++;
	}
	return 0;
}

static long forget_owner(void *map, __u32 *owner, __u32 *n unused, void *ctx unused)
{
	bpf_map_delete_elem(map, owner);
	return 0;
}

static long drop_share(void *map, __u32 *owner, __u32 *n unused, void *ctx unused)
{
	if (!bpf_map_lookup_elem(&owners, owner))
		bpf_map_delete_elem(map, owner);
	return 0;
}

/* What programs counted up during the walk is overwritten: a share is a bound on what one may take, give or take some. */
static long write_share(void *map unused, __u32 *owner, __u32 *n, void *ctx unused)
{
	bpf_map_update_elem(&flow_shares, owner, n, BPF_ANY);
	return 0;
}

SEC("syscall")
int sweep(void *ctx unused)
{
	struct walk w = {.now = bpf_ktime_get_ns(), .table = SWEPT_FLOWS};

	__builtin_memset(&swept, 0, sizeof(swept));
	bpf_for_each_map_elem(&owners, forget_owner, NULL, 0);
	bpf_for_each_map_elem(&flows, sweep_flow, &w, 0);
	w.table = SWEPT_FRESH_OUT;
	bpf_for_each_map_elem(&fresh_out, sweep_flow, &w, 0);
	w.table = SWEPT_FRESH_IN;
	bpf_for_each_map_elem(&fresh_in, sweep_flow, &w, 0);
	bpf_for_each_map_elem(&translations, sweep_translation, &w,
			      0); /* behind the flows that have just gone */
	bpf_for_each_map_elem(&flow_shares, drop_share, NULL, 0);
	bpf_for_each_map_elem(&owners, write_share, NULL, 0);
	return 0;
}

char _license[] SEC("license") = "Dual BSD/GPL";

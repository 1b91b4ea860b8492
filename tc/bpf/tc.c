// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

/*
 * The programs of a generation: one per role and direction. Each is the same walk (judge.h) with the role as a
 * constant; Go puts it into the slot of every interface of that role.
 */

#include "judge.h"

SEC("tcx/ingress")
int uplink_ingress(struct __sk_buff *skb)
{
	return ingress(skb, ROLE_UPLINK);
}

SEC("tcx/egress")
int uplink_egress(struct __sk_buff *skb)
{
	return egress(skb, ROLE_UPLINK);
}

SEC("tcx/ingress")
int downstream_ingress(struct __sk_buff *skb)
{
	return ingress(skb, ROLE_DOWNSTREAM);
}

SEC("tcx/egress")
int downstream_egress(struct __sk_buff *skb)
{
	return egress(skb, ROLE_DOWNSTREAM);
}

SEC("tcx/ingress")
int workload_ingress(struct __sk_buff *skb)
{
	return ingress(skb, ROLE_WORKLOAD);
}

SEC("tcx/egress")
int workload_egress(struct __sk_buff *skb)
{
	return egress(skb, ROLE_WORKLOAD);
}

SEC("tcx/ingress")
int tunnel_ingress(struct __sk_buff *skb)
{
	return ingress(skb, ROLE_TUNNEL);
}

SEC("tcx/egress")
int tunnel_egress(struct __sk_buff *skb)
{
	return egress(skb, ROLE_TUNNEL);
}

SEC("tcx/ingress")
int management_ingress(struct __sk_buff *skb)
{
	return ingress(skb, ROLE_MANAGEMENT);
}

SEC("tcx/egress")
int management_egress(struct __sk_buff *skb)
{
	return egress(skb, ROLE_MANAGEMENT);
}

char _license[] SEC("license") = "Dual BSD/GPL";

// SPDX-License-Identifier: Apache-2.0
/* An object whose size is about -DPADDING=BYTES. */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

volatile const char padding[PADDING] = { 1 };

SEC("xdp")
int program_0(struct xdp_md *ctx)
{
	return padding[ctx->ingress_ifindex & 7] ? XDP_PASS : XDP_DROP;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

// SPDX-License-Identifier: Apache-2.0
#include "run/needs.h"

#include "base/json.h"
#include "load/select.h"
#include "verify/statement.h"

#include <linux/bpf.h>
#include <linux/capability.h>
#include <stdio.h>
#include <string.h>

#define MASK(cap) (UINT64_C(1) << (cap))
#define BPF	  MASK(CAP_BPF)
#define NET_ADMIN MASK(CAP_NET_ADMIN)
#define PERFMON	  MASK(CAP_PERFMON)
#define SYS_ADMIN MASK(CAP_SYS_ADMIN)

/* Capabilities by program type; docs/reference/capabilities.md has this table with its sources. */
static const char net_admin_types[] =
	" sched_cls sched_act xdp lwt_in lwt_out lwt_xmit lwt_seg6local sk_skb sk_msg flow_dissector "
	"cgroup_device cgroup_sock cgroup_sock_addr cgroup_sockopt cgroup_sysctl sock_ops ext netfilter "
	"cgroup_skb ";
static const char perfmon_types[] =
	" kprobe tracepoint perf_event raw_tracepoint raw_tracepoint_writable tracing lsm struct_ops ext ";
static const char net_admin_maps[] = " sockmap sockhash devmap devmap_hash xskmap ";

/* These helpers read memory of other tasks, so they require PERFMON in programs of any type. */
static const uint8_t perfmon_helpers[] = {
	BPF_FUNC_probe_read,	       BPF_FUNC_probe_read_str,	   BPF_FUNC_probe_read_user,
	BPF_FUNC_probe_read_user_str,  BPF_FUNC_probe_read_kernel, BPF_FUNC_probe_read_kernel_str,
	BPF_FUNC_trace_printk,	       BPF_FUNC_trace_vprintk,	   BPF_FUNC_get_current_task,
	BPF_FUNC_get_current_task_btf, BPF_FUNC_snprintf,	   BPF_FUNC_snprintf_btf,
	BPF_FUNC_task_pt_regs,	       BPF_FUNC_sys_bpf,
};

static bool has_word(const char *words, const char *word)
{
	char spaced[64];

	snprintf(spaced, sizeof(spaced), " %s ", word);
	return strstr(words, spaced);
}

static const char *get_string(const json_t *item, const char *member)
{
	const char *text = json_string_value(json_object_get(item, member));

	return text ? text : "";
}

/* With --hand-over the workload decides, so each program counts. */
static bool is_loaded(const json_t *program, const char *file, const struct options *o)
{
	const struct selection_options options = options__selection(o);
	enum selection selection = select__find(&options, file, get_string(program, "name"));

	if (o->hand_over)
		return true;
	if (selection == SELECT_DEFAULT)
		return get_string(program, "section")[0] != '?';
	return selection == SELECT_ON;
}

uint64_t needs__capabilities(const struct statement *st, const char *file, const struct options *o)
{
	uint64_t needed = BPF;
	const char *type;

	for (size_t i = 0; i < statement__program_count(st); i++) {
		if (!is_loaded(json_array_get(st->programs, i), file, o))
			continue;
		type = statement__program_type(st, i);
		needed |= has_word(net_admin_types, type) ? NET_ADMIN : 0;
		needed |= has_word(perfmon_types, type) ? PERFMON : 0;
	}
	for (size_t i = 0; (type = statement__map_type(st, i)); i++)
		needed |= has_word(net_admin_maps, type) ? NET_ADMIN : 0;
	for (size_t i = 0; i < sizeof(perfmon_helpers); i++)
		needed |= statement__lists_helper(st, perfmon_helpers[i]) ? PERFMON : 0;
	if (statement__lists_helper(st, BPF_FUNC_probe_write_user))
		needed |= SYS_ADMIN;
	return needed;
}

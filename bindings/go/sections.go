// SPDX-License-Identifier: Apache-2.0

package sigverify

import "strings"

// sectionTypes is the table of spec/trust-policy.md, Types of sections. A + at the end of a name matches
// nothing, or a slash and any text.
var sectionTypes = []struct{ kind, sections string }{
	{"socket_filter", "socket"},
	{"sk_reuseport", "sk_reuseport/migrate sk_reuseport"},
	{"kprobe", "kprobe+ kretprobe+ uprobe+ uprobe.s+ uretprobe+ uretprobe.s+ kprobe.multi+ " +
		"kretprobe.multi+ kprobe.session+ uprobe.multi+ uretprobe.multi+ uprobe.session+ " +
		"uprobe.multi.s+ uretprobe.multi.s+ uprobe.session.s+ ksyscall+ kretsyscall+ usdt+ " +
		"usdt.s+"},
	{"sched_cls", "tc/ingress tc/egress tcx/ingress tcx/egress tc classifier netkit/primary netkit/peer"},
	{"sched_act", "action"},
	{"tracepoint", "tracepoint+ tp+"},
	{"raw_tracepoint", "raw_tracepoint+ raw_tp+"},
	{"raw_tracepoint_writable", "raw_tracepoint.w+ raw_tp.w+"},
	{"tracing", "tp_btf+ fentry+ fmod_ret+ fexit+ fentry.s+ fmod_ret.s+ fexit.s+ fsession+ fsession.s+ " +
		"iter+ iter.s+"},
	{"ext", "freplace+"},
	{"lsm", "lsm+ lsm.s+ lsm_cgroup+"},
	{"syscall", "syscall"},
	{"xdp", "xdp.frags/devmap xdp/devmap xdp.frags/cpumap xdp/cpumap xdp.frags xdp"},
	{"perf_event", "perf_event"},
	{"lwt_in", "lwt_in"},
	{"lwt_out", "lwt_out"},
	{"lwt_xmit", "lwt_xmit"},
	{"lwt_seg6local", "lwt_seg6local"},
	{"sock_ops", "sockops"},
	{"sk_skb", "sk_skb/stream_parser sk_skb/stream_verdict sk_skb/verdict sk_skb"},
	{"sk_msg", "sk_msg"},
	{"lirc_mode2", "lirc_mode2"},
	{"flow_dissector", "flow_dissector"},
	{"cgroup_skb", "cgroup_skb/ingress cgroup_skb/egress cgroup/skb"},
	{"cgroup_sock", "cgroup/sock_create cgroup/sock_release cgroup/sock cgroup/post_bind4 " +
		"cgroup/post_bind6"},
	{"cgroup_sock_addr", "cgroup/bind4 cgroup/bind6 cgroup/connect4 cgroup/connect6 cgroup/connect_unix " +
		"cgroup/sendmsg4 cgroup/sendmsg6 cgroup/sendmsg_unix cgroup/recvmsg4 cgroup/recvmsg6 " +
		"cgroup/recvmsg_unix cgroup/getpeername4 cgroup/getpeername6 cgroup/getpeername_unix " +
		"cgroup/getsockname4 cgroup/getsockname6 cgroup/getsockname_unix"},
	{"cgroup_sysctl", "cgroup/sysctl"},
	{"cgroup_sockopt", "cgroup/getsockopt cgroup/setsockopt"},
	{"cgroup_device", "cgroup/dev"},
	{"struct_ops", "struct_ops+ struct_ops.s+"},
	{"sk_lookup", "sk_lookup"},
	{"netfilter", "netfilter"},
}

type sectionPattern struct {
	start, kind string
	more        bool // matches the start, a slash and any text, too
}

// sectionPatterns has the names of the table in its order, split once.
var sectionPatterns = splitTable()

func splitTable() (found []sectionPattern) {
	for _, row := range sectionTypes {
		for _, name := range strings.Fields(row.sections) {
			start, more := strings.CutSuffix(name, "+")
			found = append(found, sectionPattern{start: start, kind: row.kind, more: more})
		}
	}
	return found
}

// declaredType returns the type of a name that a statement may declare: one of the table without a +.
func declaredType(name string) (string, bool) {
	for _, pattern := range sectionPatterns {
		if pattern.start == name && !pattern.more {
			return pattern.kind, true
		}
	}
	return "", false
}

// programType returns the type of a program section, which is libbpf's name, or "unspec".
func programType(name string) string {
	for _, pattern := range sectionPatterns {
		rest, ok := strings.CutPrefix(name, pattern.start)
		if ok && (rest == "" || (pattern.more && rest[0] == '/')) {
			return pattern.kind
		}
	}
	return "unspec"
}

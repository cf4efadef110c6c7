/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The registers at a kprobe of each architecture, for PT_REGS_PARM1() and similar macros of
 * <bpf/bpf_tracing.h>. Include this file before that header, instead of vmlinux.h.
 *
 * All types are part of the kernel's user interface and never change, so reading them needs no CO-RE. Source:
 * Linux 6.12, struct pt_regs of arch/x86/include/uapi/asm/ptrace.h (with the kernel's names),
 * arch/arm/include/uapi/asm/ptrace.h and arch/powerpc/include/uapi/asm/ptrace.h; struct user_pt_regs of the
 * same file for arm64, s390 and loongarch; struct user_regs_struct of riscv.
 */
#ifndef BUILDTOOL_REGISTERS_H
#define BUILDTOOL_REGISTERS_H

#include <linux/types.h>

/* Makes <bpf/bpf_tracing.h> use the kernel's names. */
#ifndef __VMLINUX_H__
#define __VMLINUX_H__
#endif

#if defined(__TARGET_ARCH_x86)
struct pt_regs {
	__u64 r15, r14, r13, r12, bp, bx;
	__u64 r11, r10, r9, r8, ax, cx, dx, si, di;
	__u64 orig_ax, ip, cs, flags, sp, ss;
};
#elif defined(__TARGET_ARCH_arm64)
struct user_pt_regs {
	__u64 regs[31];
	__u64 sp, pc, pstate;
};
#elif defined(__TARGET_ARCH_arm)
/* The kernel's unsigned long would have 64 bits in an eBPF program. */
struct pt_regs {
	__u32 uregs[18];
};
#elif defined(__TARGET_ARCH_riscv)
struct user_regs_struct {
	__u64 pc, ra, sp, gp, tp;
	__u64 t0, t1, t2, s0, s1;
	__u64 a0, a1, a2, a3, a4, a5, a6, a7;
	__u64 s2, s3, s4, s5, s6, s7, s8, s9, s10, s11;
	__u64 t3, t4, t5, t6;
};
#elif defined(__TARGET_ARCH_s390)
typedef struct {
	__u64 args[1];
	__u64 psw_mask, psw_addr;
	__u64 gprs[16];
} user_pt_regs;
#elif defined(__TARGET_ARCH_powerpc)
struct pt_regs {
	__u64 gpr[32];
	__u64 nip, msr, orig_gpr3, ctr, link, xer, ccr, softe, trap, dar, dsisr, result;
};
#elif defined(__TARGET_ARCH_loongarch)
struct user_pt_regs {
	__u64 regs[32];
	__u64 orig_a0, csr_era, csr_badv;
};
#else
#error "registers.h: no architecture; compile with -D__TARGET_ARCH_x86 or another"
#endif

/* On architectures where the registers have another name, function signatures need this declaration. */
struct pt_regs;

#endif

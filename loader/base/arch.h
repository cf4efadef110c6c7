/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_BASE_ARCH_H
#define LOADER_BASE_ARCH_H

/* The name of this architecture in statements (spec/sig-section.md, section 6) and in seccomp filters. */
#if defined(__x86_64__)
#define PLATFORM     "linux/amd64"
#define SECCOMP_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define PLATFORM     "linux/arm64"
#define SECCOMP_ARCH AUDIT_ARCH_AARCH64
#elif defined(__arm__)
#define PLATFORM     "linux/arm/v7"
#define SECCOMP_ARCH AUDIT_ARCH_ARM
#elif defined(__riscv) && __riscv_xlen == 64
#define PLATFORM     "linux/riscv64"
#define SECCOMP_ARCH AUDIT_ARCH_RISCV64
#elif defined(__s390x__)
#define PLATFORM     "linux/s390x"
#define SECCOMP_ARCH AUDIT_ARCH_S390X
#elif defined(__powerpc64__) && defined(__LITTLE_ENDIAN__)
#define PLATFORM     "linux/ppc64le"
#define SECCOMP_ARCH AUDIT_ARCH_PPC64LE
#elif defined(__loongarch64)
#define PLATFORM     "linux/loong64"
#define SECCOMP_ARCH AUDIT_ARCH_LOONGARCH64
#else
#error "unsupported architecture: add a row to this table"
#endif

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* Kernel types, reduced to the members that are read; CO-RE finds them by name. */
#ifndef VM_TYPES_H
#define VM_TYPES_H

#define KERNEL_TYPE __attribute__((preserve_access_index))

struct inode {
	unsigned long i_ino;
} KERNEL_TYPE;

struct file {
	struct inode *f_inode;
} KERNEL_TYPE;

struct task_struct {
	int tgid;
} KERNEL_TYPE;

#endif

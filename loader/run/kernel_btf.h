/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_RUN_KERNEL_BTF_H
#define LOADER_RUN_KERNEL_BTF_H

#include "run/objects.h"

/* The types of --btf for a kernel that has none: an object with BTF alone, verified like all others. */
struct kernel_btf {
	struct object_set set; /* none, or the object */
	int fd;		       /* of a sealed file with its bytes; 0: none */
	char path[32];	       /* by which libbpf opens that file */
};

/*
 * Verify the types of @path, a file. Of a directory, they are those of this kernel's release, RELEASE.btf.o,
 * and needed only if the kernel has none; --verify-only verifies the whole directory. Returns 0 also for
 * refused objects, which the set counts; or a negative errno with the text set.
 */
int kernel_btf__verify(struct kernel_btf *btf, const char *path, const struct verify_context *context,
		       const struct trust *image, const struct options *options, struct fault *fault);
void kernel_btf__free(struct kernel_btf *btf);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_RUN_INTERPRETER_H
#define LOADER_RUN_INTERPRETER_H

#include "base/fault.h"

/*
 * Check that the file exists that program @path names as its interpreter: the dynamic linker of an ELF file,
 * or the program after #! of a script. execve(2) answers ENOENT for both, as for a missing program, and only
 * after everything is attached.
 *
 * Returns 0, also for a program that names none or cannot be read, or -ENOENT with the text set.
 */
int interpreter__check(const char *path, struct fault *fault);

#endif

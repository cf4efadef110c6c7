/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_PROBE_LINK_H
#define LOADER_PROBE_LINK_H

/*
 * Link @count eBPF @objects into the file @output by libbpf's static linker, which works for each byte order.
 * The same objects in the same order give the same bytes. libbpf's messages go to stderr, a line each.
 * Returns 0 or a negative errno, after a line on stderr.
 */
int link__objects(const char *output, char *const *objects, int count);

#endif

// SPDX-License-Identifier: Apache-2.0
/*
 * Functions that the static libraries call and do not define. This file must stand before the libraries on
 * the command line.
 *
 * 1. libelf.a of Debian 13 (elfutils 0.192) calls two functions of a library outside the archive. They
 *    manage the tree of elf_getdata_rawchunk(), which the loader never calls, so the tree stays zeroed and
 *    empty. The functions are weak, so that those of a complete archive replace them.
 * 2. libelf decompresses sections with zstd, which is not linked: no eBPF object has a compressed section,
 * and a decompressor would parse an attacker's bytes. Decompression fails.
 * 3. zlib closes a written file with its compressor. libbpf only reads a compressed file, the kernel's
 *    configuration, and the loader stays below 1.6 MB without the compressor.
 */
#include <stddef.h>

void eu_search_tree_init(void *tree);
void eu_search_tree_fini(void *tree, void (*release)(void *));
void *__libelf_decompress_elf(void *section, size_t *size, size_t *alignment);
int gzclose_w(void *file);

__attribute__((weak)) void eu_search_tree_init(void *tree)
{
	(void)tree;
}

__attribute__((weak)) void eu_search_tree_fini(void *tree, void (*release)(void *))
{
	(void)tree;
	(void)release;
}

void *__libelf_decompress_elf(void *section, size_t *size, size_t *alignment)
{
	(void)section;
	(void)size;
	(void)alignment;
	return NULL;
}

int gzclose_w(void *file)
{
	(void)file;
	return -2; /* Z_STREAM_ERROR: not open for writing */
}

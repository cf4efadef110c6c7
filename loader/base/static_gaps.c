// SPDX-License-Identifier: Apache-2.0
/*
 * Functions that the static libraries call and do not find. They must come before the libraries on the
 * command line.
 *
 * 1. libelf.a of Debian 13 (elfutils 0.192) calls two functions of a library that is not part of it. They
 *    keep the tree of elf_getdata_rawchunk, which nothing here calls: the tree is born zeroed and
 *    stays empty. Weak, so that an archive that is whole wins.
 * 2. libelf reads compressed sections with zstd, which is not linked: no eBPF object has such a section, and
 *    the decompressors are code that reads an attacker's bytes. An attempt to use one fails.
 * 3. zlib closes files that it wrote, with its compressor. libbpf only reads one, the kernel's configuration.
 *    The loader stays below 1.6 MB without the compressor.
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

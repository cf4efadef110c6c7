// SPDX-License-Identifier: Apache-2.0
/*
 * What the static libraries ask for and don't get from where they look.
 *
 * 1. Debian 13's libelf.a (elfutils 0.192) calls two functions of a library that is not in it. They
 *    keep the tree of elf_getdata_rawchunk, which nothing here calls: the tree is born zeroed and
 *    stays empty. Weak, so that an archive that is whole wins.
 * 2. libelf reads compressed sections. No eBPF object has one, so the decompressors (0.7 MB, and
 *    code that reads an attacker's bytes) stay outside: an attempt to use one fails.
 * 3. libsodium's key generation, next to its verification, asks for random bytes, and that for its
 *    start-up code with every cipher it chooses from (0.1 MB). Nothing here generates keys: whoever
 *    gets here anyway is stopped.
 * 4. zlib closes files that it wrote, with its compressor (40 KB). libbpf only reads one, the
 *    kernel's configuration.
 *
 * These must come before the libraries on the command line.
 */
#include <stddef.h>
#include <stdlib.h>

void eu_search_tree_init(void *tree);
void eu_search_tree_fini(void *tree, void (*release)(void *));
void *__libelf_decompress_elf(void *section, size_t *size, size_t *alignment);
void randombytes_buf(void *buffer, size_t size);
void sodium_misuse(void);
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

__attribute__((noreturn)) void randombytes_buf(void *buffer, size_t size)
{
	(void)buffer;
	(void)size;
	abort();
}

__attribute__((noreturn)) void sodium_misuse(void)
{
	abort();
}

int gzclose_w(void *file)
{
	(void)file;
	return -2; /* Z_STREAM_ERROR: not open for writing */
}

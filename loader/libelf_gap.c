// SPDX-License-Identifier: Apache-2.0
/*
 * Debian 13's libelf.a (elfutils 0.192) calls two functions of a library that is not in it. They
 * keep the tree of elf_getdata_rawchunk, which nothing here calls: the tree is born zeroed and
 * stays empty. Weak, so that a libelf that brings them wins. Remove when Debian's archive is whole.
 */
void eu_search_tree_init(void *tree);
void eu_search_tree_fini(void *tree, void (*release)(void *));

__attribute__((weak)) void eu_search_tree_init(void *tree)
{
	(void)tree;
}

__attribute__((weak)) void eu_search_tree_fini(void *tree, void (*release)(void *))
{
	(void)tree;
	(void)release;
}

// SPDX-License-Identifier: Apache-2.0
/*
 * elfutils 0.192 (Debian trixie) ships a libelf.a that calls these functions of its internal
 * libeu.a, which no package carries: without them nothing links statically. Weak, so that a
 * libelf.a that is whole uses its own. Only the first member of the tree is ours to touch.
 */
#include <search.h>
#include <stddef.h>

#define WEAK __attribute__((weak))

struct search_tree {
	void *root;
};

typedef int compare_fn(const void *left, const void *right);

void eu_search_tree_init(struct search_tree *tree);
void eu_search_tree_fini(struct search_tree *tree, void (*free_node)(void *node));
void *eu_tsearch(const void *key, struct search_tree *tree, compare_fn *compare);
void *eu_tdelete(const void *key, struct search_tree *tree, compare_fn *compare);

WEAK void eu_search_tree_init(struct search_tree *tree)
{
	tree->root = NULL;
}

WEAK void eu_search_tree_fini(struct search_tree *tree, void (*free_node)(void *node))
{
	tdestroy(tree->root, free_node);
	tree->root = NULL;
}

WEAK void *eu_tsearch(const void *key, struct search_tree *tree, compare_fn *compare)
{
	return tsearch(key, &tree->root, compare);
}

WEAK void *eu_tdelete(const void *key, struct search_tree *tree, compare_fn *compare)
{
	return tdelete(key, &tree->root, compare);
}

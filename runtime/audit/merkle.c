#include "audit/merkle.h"

#include <assert.h>

struct merkle_hash merkle_leaf(struct strview bytes)
{
    struct merkle_hash h;
    sha256_parts((struct strview[]){SV("\0"), bytes}, 2, h.bytes);
    return h;
}

static struct merkle_hash node_hash(const struct merkle_hash *left, const struct merkle_hash *right)
{
    struct merkle_hash h;
    sha256_parts((struct strview[]){SV("\1"),
                                    {(const char *)left->bytes, SHA256_BYTES},
                                    {(const char *)right->bytes, SHA256_BYTES}},
                 3, h.bytes);
    return h;
}

void merkle_tree_init(struct merkle_tree *t)
{
    t->size = 0;
    t->n_peaks = 0;
}

/* Like counting in binary: every 1 at the end of the old size is a subtree of equal height to be joined with.
 */
void merkle_tree_add(struct merkle_tree *t, struct merkle_hash leaf)
{
    assert(t->size != UINT64_MAX);
    struct merkle_hash h = leaf;
    for (uint64_t size = t->size; (size & 1) != 0; size >>= 1)
        h = node_hash(&t->peaks[--t->n_peaks], &h);
    t->peaks[t->n_peaks++] = h;
    t->size++;
}

struct merkle_hash merkle_tree_root(const struct merkle_tree *t)
{
    struct merkle_hash root = {{0}};
    if (t->n_peaks == 0) {
        sha256(SV(""), root.bytes);
        return root;
    }
    root = t->peaks[t->n_peaks - 1];
    for (unsigned i = t->n_peaks - 1; i > 0; i--)
        root = node_hash(&t->peaks[i - 1], &root);
    return root;
}

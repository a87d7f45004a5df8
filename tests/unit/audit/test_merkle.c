#include "audit/merkle.h"

#include <criterion/criterion.h>
#include <string.h>

#include "base/list.h"

static void check_hash(struct merkle_hash h, const char *expected)
{
    char hex[SHA256_HEX + 1];
    hex_encode(h.bytes, sizeof(h.bytes), hex);
    cr_assert_str_eq(hex, expected);
}

static struct merkle_hash root_of(const char *const *leaves, size_t n)
{
    struct merkle_tree t;
    merkle_tree_init(&t);
    for (size_t i = 0; i < n; i++)
        merkle_tree_add(&t, merkle_leaf(sv(leaves[i])));
    return merkle_tree_root(&t);
}

Test(merkle, leaf_of_nothing_is_that_of_rfc_6962)
{
    check_hash(merkle_leaf(SV("")), "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d");
}

Test(merkle, roots_are_those_of_rfc_6962)
{
    static const char *const abc[] = {"a", "b", "c"};
    check_hash(root_of(abc, 0), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    check_hash(root_of(abc, 2), "b137985ff484fb600db93107c77b0365c80d78f5b429ded0fd97361d077999eb");
    check_hash(root_of(abc, 3), "36642e73c2540ab121e3a6bf9545b0a24982cd830eb13d3cd19de3ce6c021ec1");
}

/* Vectors of google/certificate-transparency, cpp/merkletree: inputs of eight sizes. */
Test(merkle, eight_leaves_have_the_known_roots)
{
    static const struct strview inputs[] = {
        {"", 0},
        {"\x00", 1},
        {"\x10", 1},
        {"\x20\x21", 2},
        {"\x30\x31", 2},
        {"\x40\x41\x42\x43", 4},
        {"\x50\x51\x52\x53\x54\x55\x56\x57", 8},
        {"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f", 16}};
    static const char *const roots[] = {"6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
                                        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
                                        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
                                        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
                                        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
                                        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
                                        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
                                        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"};
    struct merkle_tree t;
    merkle_tree_init(&t);
    for (size_t i = 0; i < ARRAY_LEN(inputs); i++) {
        merkle_tree_add(&t, merkle_leaf(inputs[i]));
        cr_assert_eq(t.size, i + 1);
        check_hash(merkle_tree_root(&t), roots[i]);
    }
}

/* The definition itself, by recursion over the largest power of two below n. */
static struct merkle_hash slow_root(const struct merkle_hash *leaves, size_t n)
{
    if (n == 1) return leaves[0];
    size_t k = 1;
    while (k * 2 < n)
        k *= 2;
    uint8_t node[1 + 2 * SHA256_BYTES] = {1};
    struct merkle_hash left = slow_root(leaves, k), right = slow_root(leaves + k, n - k), h;
    memcpy(node + 1, left.bytes, SHA256_BYTES);
    memcpy(node + 1 + SHA256_BYTES, right.bytes, SHA256_BYTES);
    sha256(sv_n((const char *)node, sizeof(node)), h.bytes);
    return h;
}

Test(merkle, growing_leaf_by_leaf_gives_the_defined_root_at_every_size)
{
    static struct merkle_hash leaves[300];
    struct merkle_tree t;
    merkle_tree_init(&t);
    for (size_t i = 0; i < ARRAY_LEN(leaves); i++) {
        leaves[i] = merkle_leaf(sv_n((const char *)&i, sizeof(i)));
        merkle_tree_add(&t, leaves[i]);
        struct merkle_hash fast = merkle_tree_root(&t), slow = slow_root(leaves, i + 1);
        cr_assert_arr_eq(fast.bytes, slow.bytes, SHA256_BYTES, "size %zu", i + 1);
    }
}

#include "audit/merkle.h"

#include <criterion/criterion.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "tests/unit/audit/folder.h"

#define ORIGIN SV("balm.dev/audit/test")
#define TIME   (INT64_C(1763820084) * NS_PER_S + 123456789)

static struct arena arena;
static const char *dir;
static struct error err;

static void set_up(void)
{
    dir = folder_make(&arena);
}

static void tear_down(void)
{
    folder_remove(dir);
    arena_release(&arena);
}

TestSuite(checkpoint, .init = set_up, .fini = tear_down);

static struct audit_key *load(struct strview origin)
{
    struct audit_key *k = NULL;
    enum status s = audit_key_load(dir, origin, &k, &err);
    cr_assert_eq(s, STATUS_OK, "%s", err.message);
    return k;
}

static struct strview sign(const struct audit_key *k, uint64_t size)
{
    struct strview note;
    cr_assert_eq(checkpoint_sign(k, size, merkle_leaf(SV("x")), TIME, &arena, &note, &err), STATUS_OK);
    return note;
}

Test(checkpoint, a_key_is_made_once_and_is_private)
{
    struct audit_key *first = load(ORIGIN), *second = load(SV("another/name"));
    struct stat st;
    cr_assert(sv_eq(audit_key_public_text(first), audit_key_public_text(second)),
              "the name in key.pub stays");
    cr_assert(sv_starts_with(audit_key_public_text(first), SV("balm.dev/audit/test+")));
    cr_assert_eq(stat(arena_printf(&arena, "%s/audit/key", dir).ptr, &st), 0);
    cr_assert_eq(st.st_mode & 07777, 0600);
    cr_assert(sv_starts_with(folder_read(&arena, dir, "audit/key"), SV("-----BEGIN PRIVATE KEY-----\n")));
    struct strview text = folder_read(&arena, dir, "audit/key.pub");
    cr_assert(sv_eq(sv_trim(text), audit_key_public_text(first)));
    audit_key_free(first);
    audit_key_free(second);
}

Test(checkpoint, a_key_that_others_can_read_is_refused)
{
    audit_key_free(load(ORIGIN));
    cr_assert_eq(chmod(arena_printf(&arena, "%s/audit/key", dir).ptr, 0644), 0);
    struct audit_key *k = NULL;
    cr_assert_eq(audit_key_load(dir, ORIGIN, &k, &err), STATUS_FAILED_PRECONDITION);
}

Test(checkpoint, a_lost_private_key_is_not_replaced_silently)
{
    audit_key_free(load(ORIGIN));
    cr_assert_eq(remove(arena_printf(&arena, "%s/audit/key", dir).ptr), 0);
    struct audit_key *k = NULL;
    cr_assert_eq(audit_key_load(dir, ORIGIN, &k, &err), STATUS_FAILED_PRECONDITION);
    cr_assert(sv_contains(sv(err.message), SV("restore")));
}

Test(checkpoint, a_public_key_of_another_pair_is_refused)
{
    audit_key_free(load(ORIGIN));
    folder_write(dir, "audit/key.pub",
                 SV("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW\n"));
    struct audit_key *k = NULL;
    cr_assert_eq(audit_key_load(dir, ORIGIN, &k, &err), STATUS_FAILED_PRECONDITION);
}

Test(checkpoint, what_was_signed_verifies_and_comes_back)
{
    struct audit_key *k = load(ORIGIN), *public = NULL;
    struct strview note = sign(k, 1234);
    struct checkpoint c;
    struct merkle_hash root = merkle_leaf(SV("x"));
    cr_assert_eq(audit_key_parse_public(audit_key_public_text(k), &public, &err), STATUS_OK, "%s",
                 err.message);
    cr_assert_eq(checkpoint_verify(public, note, &arena, &c, &err), STATUS_OK, "%s", err.message);
    cr_assert_eq(c.size, 1234);
    cr_assert_eq(c.time_unix_ns, TIME);
    cr_assert_arr_eq(c.root.bytes, root.bytes, SHA256_BYTES);
    cr_assert(sv_eq(c.origin, ORIGIN));
    struct strview block = arena_printf(&arena, "%.*s\n", SV_ARG(note));
    cr_assert_eq(checkpoint_claimed_size(block), 1234);
    cr_assert_not(checkpoint_is_torn(k, block, 7));
    cr_assert(checkpoint_is_torn(k, sv_sub(block, 0, block.len - 1), 7));
    cr_assert(checkpoint_is_torn(k, sv_sub(block, 0, 20), 7));
    cr_assert_eq(checkpoint_sign(public, 1, root, TIME, &arena, &note, &err), STATUS_FAILED_PRECONDITION,
                 "no private half");
    audit_key_free(k);
    audit_key_free(public);
}

Test(checkpoint, no_byte_can_be_changed_removed_or_added)
{
    struct audit_key *k = load(ORIGIN);
    struct strview note = sign(k, 987654);
    struct checkpoint c;
    char *changed = arena_alloc(&arena, note.len + 1);
    for (size_t i = 0; i < note.len; i++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            memcpy(changed, note.ptr, note.len);
            changed[i] = (char)(changed[i] ^ (1 << bit));
            cr_assert_neq(checkpoint_verify(k, sv_n(changed, note.len), &arena, &c, &err), STATUS_OK,
                          "byte %zu bit %u", i, bit);
        }
        memcpy(changed, note.ptr, i);
        memcpy(changed + i, note.ptr + i + 1, note.len - i - 1);
        cr_assert_neq(checkpoint_verify(k, sv_n(changed, note.len - 1), &arena, &c, &err), STATUS_OK,
                      "without byte %zu", i);
        memcpy(changed, note.ptr, i);
        changed[i] = '\n';
        memcpy(changed + i + 1, note.ptr + i, note.len - i);
        cr_assert_neq(checkpoint_verify(k, sv_n(changed, note.len + 1), &arena, &c, &err), STATUS_OK,
                      "a newline before byte %zu", i);
    }
    audit_key_free(k);
}

Test(checkpoint, one_of_a_foreign_key_is_unauthenticated)
{
    struct audit_key *k = load(ORIGIN), *foreign = NULL;
    struct checkpoint c;
    struct strview note = sign(k, 7);
    cr_assert_eq(
        audit_key_parse_public(SV("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"),
                               &foreign, &err),
        STATUS_OK, "%s", err.message);
    cr_assert_eq(checkpoint_verify(foreign, note, &arena, &c, &err), STATUS_UNAUTHENTICATED);
    audit_key_free(k);
    audit_key_free(foreign);
}

Test(checkpoint, a_signature_of_a_witness_beside_ours_is_passed_over)
{
    struct audit_key *k = load(ORIGIN);
    struct strview note = sign(k, 7);
    struct checkpoint c;
    note = arena_printf(&arena, "%.*s\xE2\x80\x94 witness.example/w AAAAAAAA\n", SV_ARG(note));
    cr_assert_eq(checkpoint_verify(k, note, &arena, &c, &err), STATUS_OK, "%s", err.message);
    audit_key_free(k);
}

/* The example of golang.org/x/mod/sumdb/note: its key, its text, its signature. */
Test(checkpoint, the_signature_of_the_published_example_holds)
{
    struct audit_key *k = NULL;
    struct checkpoint c;
    cr_assert_eq(audit_key_parse_public(
                     SV("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"), &k, &err),
                 STATUS_OK);
    struct strview note = SV(
        "If you think cryptography is the answer to your problem,\n"
        "then you don't know what your problem is.\n"
        "\n"
        "\xE2\x80\x94 PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n");
    cr_assert_eq(checkpoint_verify(k, note, &arena, &c, &err), STATUS_INVALID_ARGUMENT,
                 "signed, but no checkpoint");
    audit_key_free(k);
}

Test(checkpoint, public_keys_that_are_damaged_are_refused)
{
    static const char *const texts[] = {"",
                                        "PeterNeumann",
                                        "PeterNeumann+c74f20a3",
                                        "PeterNeumann+c74f20a4+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
                                        "Peter Neumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
                                        "PeterNeumann+c74f20a3+AhpcTest",
                                        "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TX"};
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct audit_key *k = NULL;
        cr_assert_eq(audit_key_parse_public(sv(texts[i]), &k, &err), STATUS_INVALID_ARGUMENT, "%s", texts[i]);
    }
}

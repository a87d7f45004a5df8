/* Archives as Go's archive/tar and GNU tar write them, and those that must not be unpacked. */
#include "gateway/builder_tar.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#define BLOCK 512

static char bytes[16 * BLOCK];
static size_t len;
static struct arena arena;
static struct error err;

static void finish_header(char *block)
{
    unsigned sum = 0;
    memset(block + 148, ' ', 8);
    for (size_t i = 0; i < BLOCK; i++)
        sum += (unsigned char)block[i];
    (void)snprintf(block + 148, 8, "%06o", sum);
}

static void add(const char *name, char type, const char *content)
{
    char *block = bytes + len;
    size_t size = strlen(content);
    memset(block, 0, 2 * BLOCK);
    (void)snprintf(block, 101, "%s", name);
    (void)snprintf(block + 100, 8, "%07o", 0755);
    (void)snprintf(block + 124, 12, "%08o", (unsigned)size);
    block[156] = type;
    memcpy(block + 257,
           "ustar\0"
           "00",
           8);
    memcpy(block + BLOCK, content, size);
    finish_header(block);
    len += size > 0 ? 2 * BLOCK : BLOCK;
}

static enum status first(struct tar_entry *e)
{
    struct tar_reader t;
    tar_reader_init(&t, sv_n(bytes, len));
    return tar_next(&t, &arena, e, &err);
}

static void begin(void)
{
    len = 0;
    arena = (struct arena){0};
}

static void end(void)
{
    arena_release(&arena);
}

TestSuite(builder_tar, .init = begin, .fini = end);

Test(builder_tar, files_and_folders_come_in_order_and_then_the_end)
{
    struct tar_reader t;
    struct tar_entry e;
    add("context/", '5', "");
    add("context/a", '0', "12345");
    tar_reader_init(&t, sv_n(bytes, len));
    cr_assert_eq(tar_next(&t, &arena, &e, &err), STATUS_OK);
    cr_assert(e.is_folder && sv_eq(e.name, SV("context")));
    cr_assert_eq(tar_next(&t, &arena, &e, &err), STATUS_OK);
    cr_assert(!e.is_folder && e.is_executable && sv_eq(e.name, SV("context/a")) &&
              sv_eq(e.content, SV("12345")));
    cr_assert_eq(tar_next(&t, &arena, &e, &err), STATUS_NOT_FOUND);
}

Test(builder_tar, a_long_name_is_that_of_the_next_entry)
{
    struct tar_entry e;
    add("pax", 'x', "17 path=b/c/name\n12 mtime=1.5\n");
    add("short", '0', "x");
    cr_assert_eq(first(&e), STATUS_INVALID_ARGUMENT, "a record of the wrong length");
    len = 0;
    add("pax", 'x', "17 path=b/c/name\n13 mtime=1.25\n");
    add("short", '0', "x");
    cr_assert_eq(first(&e), STATUS_INVALID_ARGUMENT);
    len = 0;
    add("pax", 'x', "17 path=b/c/names\n");
    add("short", '0', "x");
    cr_assert_eq(first(&e), STATUS_INVALID_ARGUMENT);
    len = 0;
    add("pax", 'x', "18 path=b/c/names\n");
    add("short", '0', "x");
    cr_assert_eq(first(&e), STATUS_OK, "%s", err.message);
    cr_assert(sv_eq(e.name, SV("b/c/names")));
    len = 0;
    add("././@LongLink", 'L', "d/e/names");
    add("short", '0', "x");
    cr_assert_eq(first(&e), STATUS_OK);
    cr_assert(sv_eq(e.name, SV("d/e/names")));
}

Test(builder_tar, what_is_neither_a_file_nor_a_folder_is_refused)
{
    struct tar_entry e;
    for (const char *type = "12346SKVMNZ"; *type != '\0'; type++) {
        len = 0;
        add("context/x", *type, "");
        cr_assert_eq(first(&e), STATUS_INVALID_ARGUMENT, "type %c", *type);
    }
}

Test(builder_tar, a_name_that_does_not_lead_downwards_is_refused)
{
    static const char *const names[] = {"",  "/a",    "..",   "a/..", "../a",  "a/../b",
                                        ".", "a/./b", "a//b", "a/",   "a\x01", "\xff"};
    struct tar_entry e;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        len = 0;
        add(names[i], '0', "x");
        cr_assert_eq(first(&e), STATUS_INVALID_ARGUMENT, "'%s'", names[i]);
    }
}

Test(builder_tar, what_is_cut_or_changed_is_broken)
{
    struct tar_entry e;
    add("a", '0', "12345");
    size_t whole = len;
    for (len = 1; len < BLOCK + 5; len += 7)
        cr_assert_eq(first(&e), STATUS_INVALID_ARGUMENT, "%zu bytes", len);
    len = BLOCK + 5; /* the padding alone is missing */
    cr_assert_eq(first(&e), STATUS_OK);
    len = whole;
    for (size_t i = 0; i < BLOCK; i += 3) {
        bytes[i] ^= 2;
        enum status s = first(&e);
        cr_assert(s == STATUS_INVALID_ARGUMENT || (i >= 148 && i < 156), "byte %zu", i);
        bytes[i] ^= 2;
    }
}

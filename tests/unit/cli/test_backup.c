#include "cli/backup.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char dir[1024], path[1100];

static void set_up(void)
{
    const char *tmp = getenv("TMPDIR");
    (void)snprintf(dir, sizeof(dir), "%s/balm-manifest-XXXXXX", tmp != NULL ? tmp : "/tmp");
    cr_assert_not_null(mkdtemp(dir));
    (void)snprintf(path, sizeof(path), "%s/" BACKUP_MANIFEST, dir);
}

static void tear_down(void)
{
    (void)unlink(path);
    cr_assert_eq(rmdir(dir), 0);
}

TestSuite(backup, .init = set_up, .fini = tear_down, .timeout = 120);

#define HEX "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static struct backup_file files[] = {
    {.path = {"audit/key.pub", 13}, .bytes = 75, .sha256 = HEX},
    {.path = {"secrets/functions/größe", 25}, .bytes = 0, .sha256 = HEX},
};

static void write_one(void)
{
    struct backup_manifest m = {.version = SV("1.2.3"),
                                .made = SV("2026-11-28T06:00:00.000000001Z"),
                                .first_seq = 7,
                                .last_seq = INT64_MAX,
                                .root = SV(HEX),
                                .checkpoint = SV("origin\n9\nroot\n\n— signed\n"),
                                .is_without_secrets = true,
                                .files = files,
                                .n_files = 2};
    struct error err = {0};
    cr_assert_eq(backup_manifest_write(dir, &m, &err), STATUS_OK, "%s", err.message);
}

Test(backup, a_manifest_reads_back)
{
    struct backup_manifest m;
    struct arena a = {0};
    struct error err = {0};
    cr_assert_eq(backup_manifest_read(dir, &a, &m, &err), STATUS_NOT_FOUND);
    write_one();
    cr_assert_eq(backup_manifest_read(dir, &a, &m, &err), STATUS_OK, "%s", err.message);
    cr_assert(sv_eq(m.version, SV("1.2.3")) && sv_eq(m.made, SV("2026-11-28T06:00:00.000000001Z")));
    cr_assert(m.first_seq == 7 && m.last_seq == INT64_MAX && m.is_without_secrets && m.n_files == 2);
    cr_assert(sv_eq(m.root, SV(HEX)) && sv_eq(m.checkpoint, SV("origin\n9\nroot\n\n— signed\n")));
    cr_assert(sv_eq(m.files[1].path, files[1].path) && m.files[0].bytes == 75);
    cr_assert_str_eq(m.files[1].sha256, HEX);
    arena_release(&a);
}

Test(backup, no_bit_of_a_manifest_can_change_unseen)
{
    char text[4096], changed[4096];
    struct backup_manifest m;
    write_one();
    int fd = open(path, O_RDWR | O_CLOEXEC);
    ssize_t n = pread(fd, text, sizeof(text), 0);
    cr_assert(n > 0 && (size_t)n < sizeof(text));
    for (size_t bit = 0; bit < (size_t)n * 8; bit++) {
        struct arena a = {0};
        memcpy(changed, text, (size_t)n);
        changed[bit / 8] = (char)(changed[bit / 8] ^ 1 << bit % 8);
        cr_assert_eq(pwrite(fd, changed, (size_t)n, 0), n);
        cr_assert_eq(backup_manifest_read(dir, &a, &m, NULL), STATUS_DATA_LOSS, "bit %zu", bit);
        arena_release(&a);
    }
    (void)close(fd);
}

Test(backup, no_file_of_a_manifest_leads_out_of_the_folder)
{
    static const char *const good[] = {"audit/key", "journal/00000000000000000001.db",
                                       "secrets/functions/a.b", "audit/before-2026-11-28T06:00:00Z/key.pub",
                                       "functions/..json"};
    static const char *const bad[] = {
        "",         "/",           "audit",    "/audit/key",  "audit/../x", "audit/./x",
        "audit//x", "..",          "../audit", "run/x",       "lock",       "reserve",
        "audit/",   "backup.json", "a/b",      "audit/a/b/c", "journal/..", "lost+found/x"};
    for (size_t i = 0; i < ARRAY_LEN(good); i++)
        cr_assert(backup_parts_know(sv(good[i])), "%s", good[i]);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        cr_assert_not(backup_parts_know(sv(bad[i])), "%s", bad[i]);
    cr_assert_not(backup_parts_know(SV("audit/key\0x")));
}

/* A segment file of any bytes, as damage or somebody's hand leaves it: opened, read and verified. What verify
 * calls genuine has the records that were sealed, byte for byte.
 *
 * Input: the file.
 *
 * Reads: store/journal_segment.c store/journal_reader.c store/journal_db.c store/journal_format.c
 * audit/verify.c audit/verify_checkpoints.c */
#include "audit/verify.h"

#include "folder.h"
#include "replay.h"
#include "sealed_log.h"
#include "store/journal_format.h"

static void prepare(void)
{
    static bool is_prepared;
    struct arena a = {0};
    struct strview key, checkpoints, leaves;
    if (is_prepared) return;
    is_prepared = true;
    folder_make("journal");
    folder_make("audit");
    sealed_files(&a, &key, &checkpoints, &leaves);
    (void)folder_put("audit/key.pub", key);
    (void)folder_put("audit/checkpoints", checkpoints);
    (void)folder_put("audit/leaves", leaves);
    arena_release(&a);
}

/* All records from the first on, as far as they can be read. */
static size_t read_all(const char *dir, bool decode, struct arena *a, struct journal_entry *entries,
                       size_t max)
{
    struct journal_reader *r = NULL;
    struct journal_entry *some;
    size_t total = 0, n = 0;
    struct error err;
    if (journal_reader_open(dir, &r, &err) != STATUS_OK) return 0;
    uint64_t first = journal_reader_first_seq(r);
    while (total < max &&
           journal_reader_read(r, first + total, max - total, decode, a, &some, &n, &err) == STATUS_OK &&
           n > 0)
        for (size_t i = 0; i < n; i++)
            entries[total++] = some[i];
    journal_reader_close(r);
    return total;
}

static void check_genuine(const struct audit_report *report, const char *dir, struct arena *a)
{
    struct journal_entry entries[SEALED_RECORDS];
    if (report->first_bad_seq != 0) return;
    size_t n = read_all(dir, false, a, entries, SEALED_RECORDS);
    assert(report->sealed_records <= report->records && n >= report->sealed_records);
    assert(report->records == 0 || report->sealed_records == SEALED_RECORDS);
    for (size_t i = 0; i < report->sealed_records; i++)
        assert(entries[i].seq == i + 1 && sv_eq(entries[i].bytes, sv(sealed_lines[i])));
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static const char *const beside[] = {"-wal", "-shm", "-journal"};
    struct arena arena = {0};
    struct error err = {0};
    struct audit_report report;
    struct journal_entry entries[100];
    uint64_t first, last;
    char dir[FOLDER_PATH_MAX], path[FOLDER_PATH_MAX + 64];
    prepare();
    (void)snprintf(dir, sizeof(dir), "%s", folder_path("journal"));
    for (size_t i = 0; i < ARRAY_LEN(beside); i++) {
        (void)snprintf(path, sizeof(path), "%s/00000000000000000001.db%s", dir, beside[i]);
        (void)unlink(path);
    }
    (void)folder_put("journal/00000000000000000001.db", sv_n((const char *)bytes, n));
    const struct audit_verify_cfg cfg = {.data_dir = folder()};
    if (audit_verify(&cfg, &arena, &report, &err) == STATUS_OK)
        check_genuine(&report, dir, &arena);
    else
        assert(err.message[0] != '\0');
    if (journal_check_format(dir, &err) == STATUS_OK &&
        journal_segment_check(dir, &first, &last, &err) == STATUS_OK)
        assert(first == 1);
    (void)read_all(dir, true, &arena, entries, ARRAY_LEN(entries));
    arena_release(&arena);
    return 0;
}

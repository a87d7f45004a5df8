/* Checkpoints, leaves and keys of any bytes beside a journal that is genuine, changed or cut: verify never
 * calls genuine what was not signed, whatever else it is shown.
 *
 * Input: one byte: 0 genuine, 1 the third record was changed, 2 the last one is gone. Then the checkpoints,
 * and behind the first NUL the leaves.
 *
 * Reads: audit/verify.c audit/verify_checkpoints.c audit/notes.c audit/checkpoint.c audit/key.c
 * audit/open_intents.c audit/unsealed.c */
#include "audit/verify.h"

#include "audit/notes.h"
#include "folder.h"
#include "replay.h"
#include "sealed_log.h"

enum { GENUINE, CHANGED, CUT, VARIANTS };
#define CHANGED_SEQ 3

static struct strview public_text;
static struct audit_key *key;

/* VARIANT/journal with its records, and VARIANT/audit with the key. */
static void make_folder(int variant)
{
    char name[64], sql[64];
    sqlite3 *db = NULL;
    sqlite3_stmt *insert = NULL;
    (void)snprintf(name, sizeof(name), "%d", variant);
    folder_make(name);
    (void)snprintf(name, sizeof(name), "%d/audit", variant);
    folder_make(name);
    (void)snprintf(name, sizeof(name), "%d/audit/key.pub", variant);
    (void)folder_put(name, public_text);
    (void)snprintf(name, sizeof(name), "%d/journal", variant);
    folder_make(name);
    enum status s = journal_segment_create(folder_path(name), 1, NULL);
    assert(s == STATUS_OK);
    (void)snprintf(name, sizeof(name), "%d/journal/00000000000000000001.db", variant);
    (void)snprintf(sql, sizeof(sql), "INSERT INTO records VALUES(?1, ?2)");
    s = journal_db_open(folder_path(name), SQLITE_OPEN_READWRITE, &db, NULL);
    if (s == STATUS_OK) s = journal_db_prepare(db, sql, &insert, NULL);
    assert(s == STATUS_OK);
    for (size_t i = 0; i < SEALED_RECORDS - (variant == CUT); i++) {
        const char *line = variant == CHANGED && i + 1 == CHANGED_SEQ ? sealed_lines[0] : sealed_lines[i];
        (void)sqlite3_bind_int64(insert, 1, (sqlite3_int64)i + 1);
        (void)sqlite3_bind_blob(insert, 2, line, (int)strlen(line), SQLITE_STATIC);
        (void)sqlite3_step(insert);
        (void)sqlite3_reset(insert);
    }
    (void)sqlite3_finalize(insert);
    s = journal_db_exec(db, "PRAGMA journal_mode = DELETE", NULL);
    assert(s == STATUS_OK);
    journal_db_close(db);
}

static void prepare(void)
{
    static struct arena arena;
    struct strview checkpoints, leaves;
    if (key != NULL) return;
    sealed_files(&arena, &public_text, &checkpoints, &leaves);
    enum status s = audit_key_parse_public(public_text, &key, NULL);
    assert(s == STATUS_OK);
    for (int i = 0; i < VARIANTS; i++)
        make_folder(i);
}

static void check_notes(struct strview text, const char *path, const char *dir)
{
    struct arena a = {0};
    struct checkpoint *kept = NULL, one;
    struct strview note;
    struct audit_key *other = NULL;
    size_t n = 0;
    if (notes_read_kept(key, path, &kept, &n, NULL) == STATUS_OK) {
        for (size_t i = 1; i < n; i++)
            assert(kept[i - 1].size <= kept[i].size);
        free(kept);
    }
    if (notes_newest(dir, NULL, &a, &note, NULL) == STATUS_OK) {
        enum status s = checkpoint_verify(key, note, &a, &one, NULL);
        assert(s == STATUS_OK && one.size == checkpoint_claimed_size(note));
    }
    if (audit_key_parse_public(text, &other, NULL) == STATUS_OK) {
        assert(sv_eq(audit_key_public_text(other), sv_trim(text)));
        audit_key_free(other);
    }
    arena_release(&a);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct arena arena = {0};
    struct error err = {0};
    struct audit_report report;
    char name[64], dir[FOLDER_PATH_MAX], path[FOLDER_PATH_MAX];
    if (n == 0) return 0;
    prepare();
    int variant = bytes[0] % VARIANTS;
    struct strview all = sv_n((const char *)bytes + 1, n - 1), text = sv_sub(all, 0, sv_find(all, '\0'));
    (void)snprintf(name, sizeof(name), "%d", variant);
    (void)snprintf(dir, sizeof(dir), "%s", folder_path(name));
    (void)snprintf(name, sizeof(name), "%d/audit/leaves", variant);
    (void)folder_put(name, sv_sub(all, text.len + 1, all.len));
    (void)snprintf(name, sizeof(name), "%d/audit/checkpoints", variant);
    (void)snprintf(path, sizeof(path), "%s", folder_put(name, text));
    const struct audit_verify_cfg cfg = {.data_dir = dir};
    enum status s = audit_verify(&cfg, &arena, &report, &err);
    assert(s == STATUS_OK);
    assert(report.records == SEALED_RECORDS - (variant == CUT) && report.sealed_records <= report.records);
    if (report.first_bad_seq == 0) {
        assert(report.checkpoints > 0 || report.sealed_records == 0);
        assert(variant != CHANGED || report.sealed_records < CHANGED_SEQ);
    } else {
        assert(report.bad_reason.len > 0);
    }
    check_notes(text, path, dir);
    arena_release(&arena);
    return 0;
}

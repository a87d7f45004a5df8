/* `balm audit verify` finds whatever is done to a journal behind the platform's back: seeded random
 * changes of stored rows through SQLite itself, of the checkpoints, of the end. BALM_SEED repeats one run. */
#include "audit/verify.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "audit/notes.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/random.h"
#include "functions/audit/seal.h"
#include "loop/loop.h"

enum { SEALS = 3, RECORDS_A_SEAL = 150, RECORDS = SEALS * RECORDS_A_SEAL, BYTE_ROUNDS = 400 };

static struct arena arena;
static struct random_seeded rng;
static char dir[4096];
static struct loop *loop;
static uint64_t segments[64], n_segments; /* first sequences */

static uint64_t below(uint64_t bound)
{
    return random_seeded_below(&rng, bound);
}

/* ---- a sealed journal ---- */

static void append_some(struct journal *j, uint64_t first)
{
    struct error err;
    for (uint64_t i = first; i < first + RECORDS_A_SEAL; i++) {
        struct record r = {
            .kind = i % 3 == 0   ? RECORD_INTENT
                    : i % 3 == 1 ? RECORD_OUTCOME
                                 : RECORD_NOTE,
            .time_ns = clock_unix_ns(),
            .intent = arena_printf(&arena, "intent-%llu", (unsigned long long)(i / 3)),
            .incident = SV("incident"),
            .message = sv_sub(
                SV("some words of a length that differs from record to record, so that rows end anywhere"), 0,
                below(80)),
            .target = SV("unit/nginx")};
        cr_assert_eq(journal_append(j, &r, 1, NULL, &err), STATUS_OK, "%s", err.message);
        if (i % 40 == 0)
            cr_assert_eq(journal_wait_durable(j, journal_last_seq(j), 0, &err), STATUS_OK, "%s", err.message);
    }
}

/* Three lives of a platform, each with its last checkpoint. */
static void make_in_fiber(void *arg)
{
    (void)arg;
    struct error err;
    char folder[4200];
    (void)snprintf(folder, sizeof(folder), "%s/journal", dir);
    for (uint64_t life = 0; life < SEALS; life++) {
        struct journal *j = NULL;
        struct seal *seal = NULL;
        cr_assert_eq(journal_open_sqlite(
                         loop, &(struct journal_cfg){.dir = folder, .segment_max_bytes = 40000}, &j, &err),
                     STATUS_OK, "%s", err.message);
        cr_assert_eq(seal_new(j, dir, SV("test"), &seal, &err), STATUS_OK, "%s", err.message);
        cr_assert_eq(journal_fold(j, &err), STATUS_OK, "%s", err.message);
        cr_assert_eq(seal_start(seal, &err), STATUS_OK, "%s", err.message);
        append_some(j, life * RECORDS_A_SEAL);
        seal_free(seal);
        journal_close(j);
    }
}

static void list_segments(void)
{
    n_segments = 0;
    for (uint64_t seq = 1; seq <= RECORDS && n_segments < 64; seq++) {
        char path[4200];
        (void)snprintf(path, sizeof(path), "%s/journal/%020llu.db", dir, (unsigned long long)seq);
        if (access(path, F_OK) == 0) segments[n_segments++] = seq;
    }
    cr_assert(n_segments > 1, "several segments");
}

static void set_up(void)
{
    const char *text = getenv("BALM_SEED"), *tmp = getenv("TMPDIR");
    struct error err;
    if (text == NULL || sv_parse_u64(sv(text), &rng.state) != STATUS_OK) rng.state = 20261122;
    fprintf(stderr, "BALM_SEED=%llu\n", (unsigned long long)rng.state);
    (void)snprintf(dir, sizeof(dir), "%s/balm-verify-XXXXXX", tmp != NULL ? tmp : "/tmp");
    cr_assert_not_null(mkdtemp(dir));
    cr_assert_eq(loop_new(&loop, &err), STATUS_OK);
    cr_assert_eq(loop_run_fiber(loop, make_in_fiber, NULL, &err), STATUS_OK);
    loop_free(loop);
    list_segments();
}

static void remove_file(const char *name)
{
    char path[8300];
    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    (void)remove(path);
}

static void tear_down(void)
{
    for (uint64_t i = 0; i < n_segments; i++) {
        static const char *const suffixes[] = {"", "-wal", "-shm"};
        for (size_t k = 0; k < 3; k++)
            remove_file(
                arena_printf(&arena, "journal/%020llu.db%s", (unsigned long long)segments[i], suffixes[k])
                    .ptr);
    }
    static const char *const names[] = {"journal/leases.db",
                                        "journal/leases.db-wal",
                                        "journal/leases.db-shm",
                                        "journal",
                                        "audit/key",
                                        "audit/key.pub",
                                        "audit/leaves",
                                        "audit/checkpoints",
                                        "audit",
                                        "foreign.pub",
                                        "kept"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        remove_file(names[i]);
    (void)rmdir(dir);
    arena_release(&arena);
}

TestSuite(audit_verify, .init = set_up, .fini = tear_down);

/* ---- what an attacker does ---- */

static sqlite3 *open_segment_of(uint64_t seq)
{
    uint64_t first = 0;
    for (uint64_t i = 0; i < n_segments && segments[i] <= seq; i++)
        first = segments[i];
    sqlite3 *db = NULL;
    const char *path = arena_printf(&arena, "%s/journal/%020llu.db", dir, (unsigned long long)first).ptr;
    cr_assert_eq(sqlite3_open(path, &db), SQLITE_OK);
    return db;
}

static struct strview read_row(uint64_t seq)
{
    sqlite3 *db = open_segment_of(seq);
    sqlite3_stmt *stmt = NULL;
    cr_assert_eq(sqlite3_prepare_v2(db, "SELECT bytes FROM records WHERE seq = ?", -1, &stmt, NULL),
                 SQLITE_OK);
    cr_assert_eq(sqlite3_bind_int64(stmt, 1, (sqlite3_int64)seq), SQLITE_OK);
    cr_assert_eq(sqlite3_step(stmt), SQLITE_ROW);
    struct strview bytes =
        arena_copy(&arena, sv_n(sqlite3_column_blob(stmt, 0), (size_t)sqlite3_column_bytes(stmt, 0)));
    (void)sqlite3_finalize(stmt);
    cr_assert_eq(sqlite3_close(db), SQLITE_OK);
    return bytes;
}

static void run_on_row(const char *sql, uint64_t seq, struct strview bytes)
{
    sqlite3 *db = open_segment_of(seq);
    sqlite3_stmt *stmt = NULL;
    cr_assert_eq(sqlite3_prepare_v2(db, sql, -1, &stmt, NULL), SQLITE_OK);
    cr_assert_eq(sqlite3_bind_int64(stmt, 1, (sqlite3_int64)seq), SQLITE_OK);
    if (sqlite3_bind_parameter_count(stmt) > 1)
        cr_assert_eq(sqlite3_bind_blob(stmt, 2, bytes.ptr, (int)bytes.len, SQLITE_STATIC), SQLITE_OK);
    cr_assert_eq(sqlite3_step(stmt), SQLITE_DONE);
    (void)sqlite3_finalize(stmt);
    cr_assert_eq(sqlite3_close(db), SQLITE_OK);
}

static void write_row(uint64_t seq, struct strview bytes)
{
    run_on_row("UPDATE records SET bytes = ?2 WHERE seq = ?1", seq, bytes);
}

static void delete_row(uint64_t seq)
{
    run_on_row("DELETE FROM records WHERE seq = ?1", seq, SV(""));
}

static void insert_row(uint64_t seq, struct strview bytes)
{
    run_on_row("INSERT INTO records(seq, bytes) VALUES(?1, ?2)", seq, bytes);
}

static struct strview read_file(const char *name)
{
    struct strview content;
    struct error err;
    cr_assert_eq(file_read(&arena, arena_printf(&arena, "%s/%s", dir, name).ptr, 1 << 20, &content, &err),
                 STATUS_OK, "%s", err.message);
    return content;
}

static void write_file(const char *name, struct strview content)
{
    int fd =
        open(arena_printf(&arena, "%s/%s", dir, name).ptr, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    cr_assert(fd >= 0 && write(fd, content.ptr, content.len) == (ssize_t)content.len);
    (void)close(fd);
}

static struct strview change_byte(struct strview bytes, size_t at)
{
    char *changed = arena_cstr(&arena, bytes);
    changed[at] = (char)((unsigned char)changed[at] ^ (unsigned char)(1 + below(255)));
    return sv_n(changed, bytes.len);
}

static struct audit_report verify_cfg(struct audit_verify_cfg cfg)
{
    struct audit_report report;
    struct error err;
    cfg.data_dir = dir;
    cr_assert_eq(audit_verify(&cfg, &arena, &report, &err), STATUS_OK, "%s", err.message);
    return report;
}

static struct audit_report verify_with(const char *public_key)
{
    return verify_cfg((struct audit_verify_cfg){.public_key_file = public_key});
}

static void expect_good(void)
{
    struct audit_report r = verify_with(NULL);
    cr_assert_eq(r.first_bad_seq, 0, "%.*s", SV_ARG(r.bad_reason));
    cr_assert_eq(r.records, RECORDS);
    cr_assert_eq(r.sealed_records, RECORDS);
}

static void expect_bad(uint64_t seq)
{
    struct audit_report r = verify_with(NULL);
    cr_assert_eq(r.first_bad_seq, seq, "expected %llu, found %llu: %.*s", (unsigned long long)seq,
                 (unsigned long long)r.first_bad_seq, SV_ARG(r.bad_reason));
    cr_assert(r.bad_reason.len > 0);
}

/* ---- properties ---- */

Test(audit_verify, what_nobody_touched_is_genuine)
{
    struct audit_report r = verify_with(NULL);
    cr_assert_eq(r.first_bad_seq, 0, "%.*s", SV_ARG(r.bad_reason));
    cr_assert_eq(r.records, RECORDS);
    cr_assert_eq(r.sealed_records, RECORDS);
    cr_assert_geq(r.checkpoints, 1 + SEALS, "of the empty tree, and one at each close");
    cr_assert(r.sealed_unix_ns > clock_unix_ns() - 3600 * NS_PER_S);
    /* Records come in threes: intent, outcome, note; each life appends a multiple of three. */
    cr_assert_eq(r.n_open_intents, 0);
}

Test(audit_verify, any_changed_byte_of_a_record_is_found_where_it_is)
{
    for (int i = 0; i < BYTE_ROUNDS; i++) {
        uint64_t seq = 1 + below(RECORDS);
        struct strview bytes = read_row(seq);
        write_row(seq, change_byte(bytes, below(bytes.len)));
        expect_bad(seq);
        write_row(seq, bytes);
        if (i % 50 == 0) expect_good();
    }
}

Test(audit_verify, a_record_made_longer_or_shorter_is_found)
{
    for (int i = 0; i < 30; i++) {
        uint64_t seq = 1 + below(RECORDS);
        struct strview bytes = read_row(seq);
        write_row(seq, i % 2 == 0 ? sv_sub(bytes, 0, bytes.len - 1)
                                  : arena_printf(&arena, "%.*s ", SV_ARG(bytes)));
        expect_bad(seq);
        write_row(seq, bytes);
    }
    expect_good();
}

Test(audit_verify, a_deleted_record_is_found)
{
    for (int i = 0; i < 30; i++) {
        uint64_t seq = 1 + below(RECORDS);
        struct strview bytes = read_row(seq);
        delete_row(seq);
        expect_bad(seq);
        insert_row(seq, bytes);
    }
    expect_good();
}

Test(audit_verify, a_swapped_pair_is_found)
{
    for (int i = 0; i < 30; i++) {
        uint64_t first = 1 + below(RECORDS - 1), second = first + 1 + below(RECORDS - first);
        struct strview one = read_row(first), two = read_row(second);
        write_row(first, two);
        write_row(second, one);
        expect_bad(first);
        write_row(first, one);
        write_row(second, two);
    }
    expect_good();
}

Test(audit_verify, a_cut_end_is_found)
{
    for (uint64_t seq = RECORDS; seq > RECORDS - 10; seq--) {
        delete_row(seq);
        expect_bad(seq);
    }
}

Test(audit_verify, a_whole_missing_segment_is_found)
{
    remove_file(arena_printf(&arena, "journal/%020llu.db", (unsigned long long)segments[0]).ptr);
    expect_bad(1);
    remove_file(arena_printf(&arena, "journal/%020llu.db", (unsigned long long)segments[n_segments - 1]).ptr);
    expect_bad(1);
}

Test(audit_verify, any_changed_byte_of_the_checkpoints_is_found)
{
    struct strview notes = read_file("audit/checkpoints");
    for (size_t at = 0; at < notes.len; at++) {
        write_file("audit/checkpoints", change_byte(notes, at));
        struct audit_report r = verify_with(NULL);
        cr_assert_neq(r.first_bad_seq, 0, "byte %zu of %zu", at, notes.len);
    }
    write_file("audit/checkpoints", notes);
    expect_good();
}

Test(audit_verify, checkpoints_in_another_order_are_found)
{
    struct strview notes = read_file("audit/checkpoints");
    size_t half = notes.len / 2;
    while (half + 1 < notes.len &&
           !(notes.ptr[half - 1] == '\n' && notes.ptr[half - 2] == '\n' && notes.ptr[half] == 'b'))
        half++;
    write_file("audit/checkpoints", arena_printf(&arena, "%.*s%.*s", SV_ARG(sv_sub(notes, half, notes.len)),
                                                 SV_ARG(sv_sub(notes, 0, half))));
    cr_assert_neq(verify_with(NULL).first_bad_seq, 0);
}

Test(audit_verify, removed_checkpoints_are_found)
{
    write_file("audit/checkpoints", SV(""));
    expect_bad(1);
    remove_file("audit/checkpoints");
    expect_bad(1);
}

Test(audit_verify, a_foreign_key_is_found)
{
    write_file("foreign.pub", SV("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW\n"));
    struct audit_report r = verify_with(arena_printf(&arena, "%s/foreign.pub", dir).ptr);
    cr_assert_neq(r.first_bad_seq, 0);
    cr_assert(sv_contains(r.bad_reason, SV("not signed by the key 'PeterNeumann")), "%.*s",
              SV_ARG(r.bad_reason));
}

Test(audit_verify, lost_leaves_cost_only_the_place)
{
    struct strview bytes = read_row(RECORDS_A_SEAL + 7);
    remove_file("audit/leaves");
    expect_good();
    write_row(RECORDS_A_SEAL + 7, change_byte(bytes, 3));
    struct audit_report r = verify_with(NULL);
    cr_assert(r.first_bad_seq > RECORDS_A_SEAL + 6 && r.first_bad_seq <= RECORDS, "%llu",
              (unsigned long long)r.first_bad_seq);
}

Test(audit_verify, damaged_leaves_are_no_tampering_of_the_journal)
{
    struct strview leaves = read_file("audit/leaves");
    write_file("audit/leaves", change_byte(leaves, 5 * 32 + 1));
    expect_good();
}

/* Whoever changes a record and the leaf with it still lacks the root. */
Test(audit_verify, a_record_changed_together_with_its_leaf_is_found)
{
    uint64_t seq = 1 + below(RECORDS);
    struct strview changed = change_byte(read_row(seq), 9);
    struct merkle_hash leaf = merkle_leaf(changed);
    char *leaves = arena_cstr(&arena, read_file("audit/leaves"));
    memcpy(leaves + (seq - 1) * SHA256_BYTES, leaf.bytes, SHA256_BYTES);
    write_file("audit/leaves", sv_n(leaves, RECORDS * SHA256_BYTES));
    write_row(seq, changed);
    struct audit_report r = verify_with(NULL);
    cr_assert(r.first_bad_seq >= seq, "%llu", (unsigned long long)r.first_bad_seq);
}

/* ---- checkpoints kept elsewhere ---- */

static struct audit_report verify_against(struct strview notes)
{
    write_file("kept", notes);
    return verify_cfg(
        (struct audit_verify_cfg){.checkpoints_file = arena_printf(&arena, "%s/kept", dir).ptr});
}

/* The only checkpoint, signed by our key over the first `size` records that are there now, as old as that. */
static void seal_anew(uint64_t size, int64_t age_ns)
{
    struct audit_key *key = NULL;
    struct merkle_tree tree;
    struct strview note;
    struct error err;
    cr_assert_eq(audit_key_load(dir, SV("x"), &key, &err), STATUS_OK, "%s", err.message);
    merkle_tree_init(&tree);
    for (uint64_t seq = 1; seq <= size; seq++)
        merkle_tree_add(&tree, merkle_leaf(read_row(seq)));
    cr_assert_eq(
        checkpoint_sign(key, size, merkle_tree_root(&tree), clock_unix_ns() - age_ns, &arena, &note, &err),
        STATUS_OK);
    write_file("audit/checkpoints", arena_printf(&arena, "%.*s\n", SV_ARG(note)));
    audit_key_free(key);
}

Test(audit_verify, a_past_signed_anew_by_our_own_key_is_found_by_a_checkpoint_kept_elsewhere)
{
    struct strview notes = read_file("audit/checkpoints"), newest;
    struct error err;
    cr_assert_eq(notes_newest(dir, NULL, &arena, &newest, &err), STATUS_OK, "%s", err.message);
    cr_assert_eq(verify_against(notes).first_bad_seq, 0);
    cr_assert_eq(verify_against(newest).first_bad_seq, 0);
    write_row(17, arena_printf(&arena, "%.*s ", SV_ARG(read_row(17))));
    seal_anew(RECORDS, 0);
    cr_assert_eq(verify_with(NULL).first_bad_seq, 0, "this disk alone cannot show it");
    struct audit_report r = verify_against(newest);
    cr_assert_eq(r.first_bad_seq, RECORDS, "%.*s", SV_ARG(r.bad_reason));
    cr_assert_leq(verify_against(notes).first_bad_seq, 2 * RECORDS_A_SEAL, "the oldest that covers it");
}

Test(audit_verify, records_and_checkpoints_cut_back_together_are_found_by_a_checkpoint_kept_elsewhere)
{
    struct strview notes = read_file("audit/checkpoints");
    delete_row(RECORDS);
    struct strview size = arena_printf(&arena, "\n%d\n", RECORDS);
    size_t cut = (size_t)((char *)memmem(notes.ptr, notes.len, size.ptr, size.len) - notes.ptr);
    while (!(notes.ptr[cut - 1] == '\n' && notes.ptr[cut - 2] == '\n'))
        cut--;
    write_file("audit/checkpoints", sv_sub(notes, 0, cut));
    cr_assert_eq(verify_with(NULL).first_bad_seq, 0);
    cr_assert_eq(verify_against(notes).first_bad_seq, RECORDS);
}

Test(audit_verify, a_kept_checkpoint_that_does_not_hold_is_found_and_what_is_none_is_refused)
{
    struct strview notes = read_file("audit/checkpoints");
    struct audit_report report;
    struct error err;
    size_t size_at = sv_find(notes, '\n') + 1;
    char *changed = arena_cstr(&arena, notes);
    changed[size_at] = '7';
    struct audit_report r = verify_against(sv_n(changed, notes.len));
    cr_assert_eq(r.first_bad_seq, 1);
    cr_assert(sv_contains(r.bad_reason, SV("checkpoint 1 of")), "%.*s", SV_ARG(r.bad_reason));
    struct audit_verify_cfg cfg = {.data_dir = dir,
                                   .checkpoints_file = arena_printf(&arena, "%s/kept", dir).ptr};
    write_file("kept", SV("something else\n"));
    cr_assert_eq(audit_verify(&cfg, &arena, &report, &err), STATUS_INVALID_ARGUMENT);
    write_file("kept", SV(""));
    cr_assert_eq(audit_verify(&cfg, &arena, &report, &err), STATUS_INVALID_ARGUMENT);
    remove_file("kept");
    cr_assert_eq(audit_verify(&cfg, &arena, &report, &err), STATUS_INVALID_ARGUMENT);
}

/* ---- behind the newest checkpoint ---- */

/* Behind the newest checkpoint: not sealed yet, so no tampering. */
static void insert_record(uint64_t seq, struct record r)
{
    struct buf b;
    if (r.time_ns == 0) r.time_ns = clock_unix_ns();
    r.tenant = SV("default");
    r.cluster = SV("local");
    buf_init(&b, 4096);
    record_encode(&r, &b);
    insert_row(seq, buf_view(&b));
    buf_release(&b);
}

Test(audit_verify, an_intent_without_outcome_is_listed)
{
    insert_record(RECORDS + 1, (struct record){.kind = RECORD_INTENT, .intent = SV("lonely")});
    struct audit_report report = verify_with(NULL);
    cr_assert_eq(report.first_bad_seq, 0, "%.*s", SV_ARG(report.bad_reason));
    cr_assert_eq(report.n_open_intents, 1);
    cr_assert(sv_eq(report.open_intents[0], SV("lonely")));
    cr_assert_eq(report.records, RECORDS + 1);
    cr_assert_eq(report.sealed_records, RECORDS);
}

/* As the queue has it: nobody will ever run them. */
Test(audit_verify, intents_of_a_relieved_decider_are_not_open)
{
    insert_record(RECORDS + 1, (struct record){.kind = RECORD_EPOCH, .epoch = 7});
    insert_record(RECORDS + 2, (struct record){.kind = RECORD_INTENT, .intent = SV("older"), .epoch = 6});
    insert_record(RECORDS + 3, (struct record){.kind = RECORD_INTENT, .intent = SV("before any")});
    insert_record(RECORDS + 4, (struct record){.kind = RECORD_INTENT, .intent = SV("valid"), .epoch = 7});
    struct audit_report report = verify_with(NULL);
    cr_assert_eq(report.first_bad_seq, 0, "%.*s", SV_ARG(report.bad_reason));
    cr_assert_eq(report.n_open_intents, 1);
    cr_assert(sv_eq(report.open_intents[0], SV("valid")));
}

static void insert_old(uint64_t n, int64_t age_ns, int64_t step_ns)
{
    for (uint64_t i = 0; i < n; i++)
        insert_record(
            RECORDS + 1 + i,
            (struct record){.kind = RECORD_NOTE, .time_ns = clock_unix_ns() - age_ns + (int64_t)i * step_ns});
}

Test(audit_verify, an_end_that_is_unsealed_for_more_than_a_minute_is_not_called_genuine)
{
    seal_anew(RECORDS, 3600 * NS_PER_S);
    insert_old(40, 3590 * NS_PER_S, 2 * NS_PER_S);
    struct audit_report r = verify_with(NULL);
    cr_assert_eq(r.first_bad_seq, 0);
    cr_assert(r.is_end_unsealed);
}

Test(audit_verify, an_end_that_a_crash_left_unsealed_is_genuine)
{
    seal_anew(RECORDS, 3600 * NS_PER_S);
    insert_old(40, 3590 * NS_PER_S, NS_PER_S / 10);
    struct audit_report r = verify_with(NULL);
    cr_assert_not(r.is_end_unsealed);
    cr_assert_eq(r.records - r.sealed_records, 40);
}

/* Only a platform that has just begun has sealed nothing. */
Test(audit_verify, records_without_any_seal_are_not_called_genuine)
{
    struct record r;
    struct error err;
    seal_anew(0, 3600 * NS_PER_S);
    cr_assert_not(verify_with(NULL).is_end_unsealed, "the records were written this moment");
    for (uint64_t seq = 1; seq <= RECORDS; seq++) {
        struct buf b;
        cr_assert_eq(record_decode(read_row(seq), &arena, &r, &err), STATUS_OK);
        r.time_ns -= 20 * NS_PER_S;
        buf_init(&b, 4096);
        record_encode(&r, &b);
        write_row(seq, buf_view(&b));
        buf_release(&b);
    }
    struct audit_report report = verify_with(NULL);
    cr_assert_eq(report.first_bad_seq, 0);
    cr_assert_eq(report.sealed_records, 0);
    cr_assert(report.is_end_unsealed);
}

Test(audit_verify, without_a_journal_there_is_nothing_to_verify)
{
    struct audit_report report;
    struct error err;
    cr_assert_eq(
        audit_verify(&(struct audit_verify_cfg){.data_dir = arena_printf(&arena, "%s/nowhere", dir).ptr},
                     &arena, &report, &err),
        STATUS_NOT_FOUND);
}

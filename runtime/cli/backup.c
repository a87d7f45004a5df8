#include "cli/backup.h"

#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "audit/notes.h"
#include "base/clock.h"

#define ATTEMPTS_MAX 10 /* against a retention that goes on meanwhile: mostly once a minute */

struct backup_cfg {
    const char *data_dir;
    bool is_without_secrets, is_json;
};

static const struct config_option options[] = {
    {.name = "data",
     .env = "BALM_DATA",
     .type = CONFIG_PATH,
     .offset = offsetof(struct backup_cfg, data_dir),
     .value_name = "DIR",
     .help = "data folder to back up; the platform on it may be running"},
    {.name = "without-secrets",
     .type = CONFIG_BOOL,
     .offset = offsetof(struct backup_cfg, is_without_secrets),
     .help = "leave out the secrets folder and the signing key: restore then makes new ones"},
    {.name = "json",
     .type = CONFIG_BOOL,
     .offset = offsetof(struct backup_cfg, is_json),
     .help = "JSON instead of text"},
};

/* ---- shared with restore ---- */

static void on_verified(uint64_t done, void *arg)
{
    backup_progress_show(arg, "verifying", done, 0, "records");
}

enum status backup_log_verify(const char *dir, struct backup_progress *p, struct arena *a,
                              struct audit_report *ret_report, struct error *err)
{
    struct audit_verify_cfg cfg = {.data_dir = dir, .on_progress = on_verified, .arg = p};
    enum status s = audit_verify(&cfg, a, ret_report, err);
    if (s == STATUS_OK && ret_report->first_bad_seq != 0)
        s = error_set(err, STATUS_DATA_LOSS,
                      "its log is not the one that was sealed, from record %" PRIu64 " on: %.*s",
                      ret_report->first_bad_seq, SV_ARG(ret_report->bad_reason));
    return s;
}

int backup_fail(const struct command *self, const struct error *err)
{
    int code = cli_fail(self, err);
    return err->code == STATUS_UNAVAILABLE ? CLI_FAILED : code;
}

/* ---- backup ---- */

struct backup {
    const struct backup_cfg *cfg;
    const char *data_dir;
    struct backup_draft draft;
    struct backup_manifest manifest;
    struct audit_report report;
    struct backup_progress progress;
    struct arena *arena;
    struct error *err;
};

static enum status check_source(struct backup *b)
{
    const char *journal = arena_printf(b->arena, "%s/journal", b->data_dir).ptr;
    const char *manifest = arena_printf(b->arena, "%s/" BACKUP_MANIFEST, b->data_dir).ptr;
    struct stat st;
    if (stat(journal, &st) != 0)
        return errno == ENOENT || errno == ENOTDIR
                   ? error_set(b->err, STATUS_NOT_FOUND,
                               "%s is no data folder: there is no journal in it (--data DIR)", b->data_dir)
                   : error_set(b->err, status_from_errno(errno), "look at %s: %s", journal, strerror(errno));
    if (access(manifest, F_OK) == 0)
        return error_set(b->err, STATUS_FAILED_PRECONDITION,
                         "%s is a backup itself: copy it with any tool, its manifest goes along",
                         b->data_dir);
    return STATUS_OK;
}

/* It would hold itself, and be gone with what it is to stand in for. */
static enum status check_outside(struct backup *b)
{
    char *inside = realpath(b->draft.path, NULL), *data = realpath(b->data_dir, NULL);
    size_t len = data != NULL ? strlen(data) : 0;
    enum status s = STATUS_OK;
    if (inside != NULL && data != NULL && strncmp(inside, data, len) == 0 && inside[len] == '/')
        s = error_set(b->err, STATUS_INVALID_ARGUMENT, "%s lies in the data folder %s itself",
                      b->draft.target, b->data_dir);
    free(inside);
    free(data);
    return s;
}

/* ret_manifest's views of the newest signature. */
static enum status note_checkpoint(struct backup *b)
{
    enum status s = notes_newest(b->draft.path, NULL, b->arena, &b->manifest.checkpoint, b->err);
    return s == STATUS_NOT_FOUND ? STATUS_OK : s;
}

static enum status write_manifest(struct backup *b)
{
    char now[RFC3339_LEN + 1], root[SHA256_HEX + 1];
    rfc3339_format(clock_unix_ns(), now);
    hex_encode(b->report.root.bytes, SHA256_BYTES, root);
    b->manifest.version = SV(BALM_VERSION);
    b->manifest.made = arena_copy(b->arena, sv(now));
    b->manifest.root = arena_copy(b->arena, sv(root));
    b->manifest.is_without_secrets = b->cfg->is_without_secrets;
    enum status s = note_checkpoint(b);
    return s == STATUS_OK ? backup_manifest_write(b->draft.path, &b->manifest, b->err) : s;
}

static enum status copy_parts(struct backup *b)
{
    enum status s = STATUS_ABORTED;
    for (unsigned attempt = 0; s == STATUS_ABORTED && attempt < ATTEMPTS_MAX; attempt++) {
        s = attempt > 0 ? backup_draft_empty(&b->draft, b->err) : STATUS_OK;
        if (s == STATUS_OK)
            s = backup_parts_copy(b->data_dir, b->draft.path, b->cfg->is_without_secrets, &b->progress,
                                  b->arena, &b->manifest, b->err);
    }
    return s;
}

/* The log first: verifying reads what the hashes are about to be compared with on the disk. */
static enum status copy_and_check(struct backup *b)
{
    enum status s = check_outside(b);
    if (s == STATUS_OK) s = copy_parts(b);
    if (s == STATUS_OK) {
        s = backup_log_verify(b->draft.path, &b->progress, b->arena, &b->report, b->err);
        if (s != STATUS_OK) s = error_prefix(b->err, s, "the copy does not verify, and nothing was kept");
    }
    if (s == STATUS_OK) s = write_manifest(b);
    if (s == STATUS_OK) s = backup_manifest_read(b->draft.path, b->arena, &b->manifest, b->err);
    if (s == STATUS_OK) s = backup_files_check(b->draft.path, &b->manifest, &b->progress, b->err);
    return s == STATUS_OK ? backup_draft_finish(&b->draft, b->err) : s;
}

static enum status make_backup(struct backup *b, const char *target)
{
    enum status s = cli_data_dir(b->cfg->data_dir, b->arena, &b->data_dir, b->err);
    if (s == STATUS_OK) s = check_source(b);
    if (s == STATUS_OK) s = backup_draft_begin(&b->draft, target, b->arena, b->err);
    if (s != STATUS_OK) return s;
    backup_progress_init(&b->progress, !b->cfg->is_json);
    s = copy_and_check(b);
    backup_progress_clear(&b->progress);
    backup_draft_abandon(&b->draft);
    return s;
}

static uint64_t bytes_of(const struct backup_manifest *m)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < m->n_files; i++)
        bytes += m->files[i].bytes;
    return bytes;
}

static void print_json(const struct backup *b)
{
    const struct backup_manifest *m = &b->manifest;
    json_t *o =
        json_pack("{s:s, s:o, s:I, s:I, s:o, s:I, s:I, s:I, s:b, s:b}", "backup", b->draft.target, "made",
                  json_text(m->made), "first", (json_int_t)m->first_seq, "last", (json_int_t)m->last_seq,
                  "root", json_text(m->root), "sealed", (json_int_t)b->report.sealed_records, "files",
                  (json_int_t)m->n_files, "bytes", (json_int_t)bytes_of(m), "withoutSecrets",
                  m->is_without_secrets, "endUnsealed", b->report.is_end_unsealed);
    (void)json_dumpf(o, stdout, JSON_COMPACT | JSON_SORT_KEYS);
    putchar('\n');
    json_release(o);
}

static void print_text(const struct backup *b)
{
    const struct backup_manifest *m = &b->manifest;
    printf("backup       %s\nrecords      %" PRIu64 " to %" PRIu64 ", the first %" PRIu64
           " of them sealed\nroot         %.*s\n",
           b->draft.target, m->first_seq, m->last_seq, b->report.sealed_records, SV_ARG(m->root));
    printf("files        %zu, %" PRIu64 " bytes, %s\n", m->n_files, bytes_of(m),
           m->is_without_secrets ? "without secrets and signing key" : "secrets and signing key among them");
    puts("verified     every file read back, and the log proved by its checkpoints");
    if (b->report.is_end_unsealed) puts("note         sealing stands still: balm audit verify");
}

static int run_backup(const struct command *self, int argc, char **argv)
{
    struct arena a = {0};
    struct backup_cfg cfg = {0};
    struct error err = {0};
    struct backup b = {.cfg = &cfg, .draft = {.fd = -1}, .arena = &a, .err = &err};
    int n = 0, code = CLI_OK;
    enum status s;
    if (!cli_parse(self, argc, argv, &a, &cfg, &n, &code)) goto out;
    (void)umask(077);
    if (n == 1)
        s = make_backup(&b, argv[1]);
    else
        s = error_set(&err, STATUS_INVALID_ARGUMENT,
                      "say one folder to put the backup in, which is not there yet");
    if (s != STATUS_OK)
        code = backup_fail(self, &err);
    else if (cfg.is_json)
        print_json(&b);
    else
        print_text(&b);
out:
    arena_release(&a);
    return code;
}

const struct command command_backup = {
    .name = "backup",
    .arguments = "DIR",
    .summary = "a verified copy of the data folder, while the platform runs or not",
    .description =
        "Copies journal, signatures, deployed functions, secrets and signing key into the new folder DIR, reads the copy back, verifies\n"
        "its log, and gives it its name only then: a backup that has its name is whole, and what was cut short is removed by the next.\n"
        "DIR is laid out like a data folder: balm audit verify --data DIR works on it. backup.json lists every file with its SHA-256.\n"
        "It holds secrets: keep it as you keep them, or make it --without-secrets. Runbooks, stack.yml and the list of host acts are\n"
        "not part of the data folder. Next: balm restore DIR",
    .options = options,
    .n_options = ARRAY_LEN(options),
    .run = run_backup,
};

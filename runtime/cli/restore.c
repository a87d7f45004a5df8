#include "cli/backup.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "loop/loop.h"
#include "store/journal.h"

#define DURABLE_WAIT_NS (60 * NS_PER_S)

struct restore_cfg {
    const char *data_dir;
    bool is_stopped, is_json;
};

static const struct config_option options[] = {
    {.name = "data",
     .env = "BALM_DATA",
     .type = CONFIG_PATH,
     .offset = offsetof(struct restore_cfg, data_dir),
     .value_name = "DIR",
     .help = "the data folder to make: not there yet, or empty"},
    {.name = "stopped",
     .type = CONFIG_BOOL,
     .offset = offsetof(struct restore_cfg, is_stopped),
     .help = "no bot acts on it until balm resume"},
    {.name = "json",
     .type = CONFIG_BOOL,
     .offset = offsetof(struct restore_cfg, is_json),
     .help = "JSON instead of text"},
};

struct restore {
    const struct restore_cfg *cfg;
    const char *from, *data_dir;
    struct backup_manifest manifest;
    struct backup_draft draft;
    struct audit_report report;
    struct backup_progress progress;
    struct strview key, key_before; /* public halves, where the key is a new one; else empty */
    struct strview before;          /* then: "audit/before-TIME", where what the old one signed is */
    uint64_t restored_seq;          /* of the record that says so */
    struct arena *arena;
    struct error *err;
};

/* ---- looking first ---- */

static enum status check_not_in_use(struct restore *r)
{
    char text[256] = "";
    struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
    int fd = open(arena_printf(r->arena, "%s/lock", r->data_dir).ptr, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return STATUS_OK;
    bool is_held = fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
    (void)!pread(fd, text, sizeof(text) - 1, 0);
    (void)close(fd);
    if (!is_held) return STATUS_OK;
    return error_set(r->err, STATUS_FAILED_PRECONDITION,
                     "%s is in use by a running balm (%s): give --data another folder", r->data_dir, text);
}

static enum status look(struct restore *r)
{
    enum status s = cli_data_dir(r->cfg->data_dir, r->arena, &r->data_dir, r->err);
    if (s == STATUS_OK) s = backup_manifest_read(r->from, r->arena, &r->manifest, r->err);
    if (s == STATUS_OK) s = check_not_in_use(r);
    return s;
}

/* ---- copying ---- */

static enum status copy_one(struct restore *r, const struct backup_file *f)
{
    struct arena a = {0};
    const char *from = arena_printf(&a, "%s/%.*s", r->from, SV_ARG(f->path)).ptr;
    const char *to = arena_printf(&a, "%s/%.*s", r->draft.path, SV_ARG(f->path)).ptr;
    const char *folder = arena_cstr(&a, sv_n(to, (size_t)(strrchr(to, '/') - to)));
    enum status s = dir_make(folder, 0700, r->err);
    if (s == STATUS_OK) s = backup_file_copy(from, to, UINT64_MAX, r->err);
    arena_release(&a);
    return s;
}

static enum status copy_files(struct restore *r)
{
    enum status s = STATUS_OK;
    for (size_t i = 0; i < r->manifest.n_files && s == STATUS_OK; i++) {
        s = copy_one(r, &r->manifest.files[i]);
        backup_progress_show(&r->progress, "copying", i + 1, r->manifest.n_files, "files");
    }
    if (s == STATUS_OK) s = backup_files_check(r->draft.path, &r->manifest, &r->progress, r->err);
    return s;
}

/* The log that the manifest is about, and the one that was sealed. */
static enum status verify_log(struct restore *r)
{
    char root[SHA256_HEX + 1];
    enum status s = backup_log_verify(r->draft.path, &r->progress, r->arena, &r->report, r->err);
    if (s == STATUS_DATA_LOSS) return error_prefix(r->err, s, "the backup is damaged");
    if (s != STATUS_OK) return s;
    hex_encode(r->report.root.bytes, SHA256_BYTES, root);
    if (!sv_eq(r->manifest.root, sv(root)))
        return error_set(r->err, STATUS_DATA_LOSS,
                         "the backup is damaged: its records have the root %s, and " BACKUP_MANIFEST
                         " says %.*s",
                         root, SV_ARG(r->manifest.root));
    return STATUS_OK;
}

/* ---- a new signing key ---- */

static enum status move_aside(struct restore *r, const char *folder, const char *name)
{
    const char *from = arena_printf(r->arena, "%s/audit/%s", r->draft.path, name).ptr;
    const char *to = arena_printf(r->arena, "%s/%s", folder, name).ptr;
    return rename(from, to) == 0 || errno == ENOENT
               ? STATUS_OK
               : error_set(r->err, status_from_errno(errno), "rename %s: %s", from, strerror(errno));
}

/* What the old key signed stays, in audit/before-TIME, for those who trust it. */
static enum status set_old_key_aside(struct restore *r)
{
    char now[RFC3339_LEN + 1];
    struct audit_key *old = NULL;
    rfc3339_format(clock_unix_ns(), now);
    const char *public_path = arena_printf(r->arena, "%s/audit/key.pub", r->draft.path).ptr;
    r->before = arena_printf(r->arena, "audit/before-%s", now);
    const char *folder = arena_printf(r->arena, "%s/%.*s", r->draft.path, SV_ARG(r->before)).ptr;
    enum status s = audit_key_read_public(public_path, &old, r->err);
    if (s != STATUS_OK) return s;
    r->key_before = arena_copy(r->arena, audit_key_public_text(old));
    audit_key_free(old);
    s = dir_make(folder, 0700, r->err);
    if (s == STATUS_OK) s = move_aside(r, folder, "key.pub");
    return s == STATUS_OK ? move_aside(r, folder, "checkpoints") : s;
}

/* The old key has just proved these records: the new one signs the same root, and goes on from there. */
static enum status make_key(struct restore *r)
{
    struct audit_key *key = NULL;
    struct strview note;
    enum status s = set_old_key_aside(r);
    if (s != STATUS_OK) return s;
    struct strview name = sv_sub(r->key_before, 0, sv_find(r->key_before, '+'));
    s = audit_key_load(r->draft.path, name, &key, r->err);
    if (s != STATUS_OK) return s;
    r->key = arena_copy(r->arena, audit_key_public_text(key));
    s = checkpoint_sign(key, r->manifest.last_seq, r->report.root, clock_unix_ns(), r->arena, &note, r->err);
    audit_key_free(key);
    if (s != STATUS_OK) return s;
    return file_write_atomic(arena_printf(r->arena, "%s/audit/checkpoints", r->draft.path).ptr,
                             arena_printf(r->arena, "%.*s\n", SV_ARG(note)), 0600, r->err);
}

/* ---- recording it ---- */

struct append {
    struct restore *restore;
    struct loop *loop;
    struct record records[2];
    size_t n;
    struct journal_cfg cfg;
    enum status status;
};

static void append_fiber(void *arg)
{
    struct append *x = arg;
    struct journal *j = NULL;
    struct error *err = x->restore->err;
    uint64_t last_seq = 0;
    x->status = journal_open_sqlite(x->loop, &x->cfg, &j, err);
    if (x->status != STATUS_OK) return;
    x->status = journal_append(j, x->records, x->n, &last_seq, err);
    if (x->status == STATUS_OK)
        x->status = journal_wait_durable(j, last_seq, clock_monotonic_ns() + DURABLE_WAIT_NS, err);
    x->restore->restored_seq = last_seq + 1 - x->n;
    journal_close(j);
}

/* They belong to the installation that wrote the last one. */
static enum status find_names(struct restore *r, struct journal_cfg *cfg)
{
    struct journal_reader *reader = NULL;
    struct journal_entry *entries = NULL;
    size_t n = 0;
    cfg->dir = arena_printf(r->arena, "%s/journal", r->draft.path).ptr;
    if (r->manifest.last_seq < r->manifest.first_seq) return STATUS_OK;
    enum status s = journal_reader_open(cfg->dir, &reader, r->err);
    if (s != STATUS_OK) return s;
    s = journal_reader_read(reader, r->manifest.last_seq, 1, true, r->arena, &entries, &n, r->err);
    if (s == STATUS_OK && n == 1) {
        cfg->tenant = entries[0].record->tenant;
        cfg->cluster = entries[0].record->cluster;
    }
    journal_reader_close(reader);
    return s;
}

static struct strview detail_of(struct restore *r)
{
    json_t *o = json_pack("{s:o, s:I, s:o}", "balm", json_text(r->manifest.version), "last",
                          (json_int_t)r->manifest.last_seq, "made", json_text(r->manifest.made));
    if (r->key.len > 0) {
        (void)json_object_set_new(o, "key", json_text(r->key));
        (void)json_object_set_new(o, "keyBefore", json_text(r->key_before));
    }
    struct strview text = json_canonical(r->arena, o);
    json_release(o);
    return text;
}

/* Whoever reads the log later must not take its silence between two records for peace. */
static enum status record_it(struct restore *r)
{
    int64_t now_ns = clock_unix_ns();
    struct append x = {.restore = r, .n = r->cfg->is_stopped ? 2 : 1};
    x.records[0] = (struct record){
        .kind = RECORD_RESTORED,
        .time_ns = now_ns,
        .message = arena_printf(r->arena,
                                "restored from a backup of %.*s: what happened after record %" PRIu64
                                " and before this one is not in this log%s",
                                SV_ARG(r->manifest.made), r->manifest.last_seq,
                                r->key.len > 0 ? "; sealed by a new key from here on" : ""),
        .detail = detail_of(r)};
    x.records[1] = (struct record){
        .kind = RECORD_FREEZE, .time_ns = now_ns, .on = true, .actor = SV("balm restore --stopped")};
    enum status s = find_names(r, &x.cfg);
    if (s == STATUS_OK) s = loop_new(&x.loop, r->err);
    if (s != STATUS_OK) return s;
    s = loop_run_fiber(x.loop, append_fiber, &x, r->err);
    loop_free(x.loop);
    return s == STATUS_OK ? x.status : s;
}

/* ---- the command ---- */

static enum status make_data_folder(struct restore *r)
{
    enum status s = copy_files(r);
    if (s == STATUS_OK) s = verify_log(r);
    if (s == STATUS_OK && r->manifest.is_without_secrets) s = make_key(r);
    if (s == STATUS_OK) s = record_it(r);
    return s == STATUS_OK ? backup_draft_finish(&r->draft, r->err) : s;
}

/* A damaged backup is found out before anything is written. */
static enum status restore(struct restore *r)
{
    enum status s = look(r);
    if (s != STATUS_OK) return s;
    backup_progress_init(&r->progress, !r->cfg->is_json);
    s = backup_files_check(r->from, &r->manifest, &r->progress, r->err);
    if (s == STATUS_OK) s = backup_draft_begin(&r->draft, r->data_dir, r->arena, r->err);
    if (s == STATUS_OK) s = make_data_folder(r);
    backup_progress_clear(&r->progress);
    backup_draft_abandon(&r->draft);
    return s;
}

static void print_json(const struct restore *r)
{
    json_t *o = json_pack("{s:s, s:o, s:I, s:I, s:o, s:I, s:b, s:o, s:o}", "data", r->draft.target, "made",
                          json_text(r->manifest.made), "first", (json_int_t)r->manifest.first_seq, "last",
                          (json_int_t)r->manifest.last_seq, "root", json_text(r->manifest.root), "seq",
                          (json_int_t)r->restored_seq, "stopped", r->cfg->is_stopped, "newKey",
                          json_text(r->key), "before", json_text(r->before));
    (void)json_dumpf(o, stdout, JSON_COMPACT | JSON_SORT_KEYS);
    putchar('\n');
    json_release(o);
}

static void print_new_key(const struct restore *r)
{
    printf("new key      %.*s\n             seals from here on: make it known to those who verify\n",
           SV_ARG(r->key));
    printf("old key      %.*s\n             what it signed: balm audit verify --data %s --before %s/%.*s\n",
           SV_ARG(r->key_before), r->draft.target, r->draft.target, SV_ARG(r->before));
    puts("secrets      none in the backup: new ones are made at the start; Alertmanager needs the new token");
}

static void print_text(const struct restore *r)
{
    printf("restored     %s from a backup of %.*s (balm %.*s)\n", r->draft.target, SV_ARG(r->manifest.made),
           SV_ARG(r->manifest.version));
    printf("records      %" PRIu64 " to %" PRIu64 ", verified; record %" PRIu64
           " says that it was restored\n",
           r->manifest.first_seq, r->manifest.last_seq, r->restored_seq);
    printf("acts         %zu without outcome at that time%s\n", r->report.n_open_intents,
           r->report.n_open_intents > 0 ? ": each is looked at again when balm starts" : "");
    if (r->key.len > 0) print_new_key(r);
    if (r->cfg->is_stopped) puts("stopped      no bot acts until balm resume");
    printf("next         balm up --data %s\n", r->draft.target);
}

static int run_restore(const struct command *self, int argc, char **argv)
{
    struct arena a = {0};
    struct restore_cfg cfg = {0};
    struct error err = {0};
    struct restore r = {.cfg = &cfg, .draft = {.fd = -1}, .arena = &a, .err = &err};
    int n = 0, code = CLI_OK;
    enum status s;
    if (!cli_parse(self, argc, argv, &a, &cfg, &n, &code)) goto out;
    (void)umask(077);
    r.from = n == 1 ? argv[1] : "";
    if (n == 1)
        s = restore(&r);
    else
        s = error_set(&err, STATUS_INVALID_ARGUMENT, "say one folder that balm backup made");
    if (s != STATUS_OK)
        code = backup_fail(self, &err);
    else if (cfg.is_json)
        print_json(&r);
    else
        print_text(&r);
out:
    arena_release(&a);
    return code;
}

const struct command command_restore = {
    .name = "restore",
    .arguments = "DIR",
    .summary = "a new data folder from a backup, verified first",
    .description =
        "Checks every file of the backup DIR against backup.json, copies them, verifies the log of the copy, and gives the data folder\n"
        "its name only then. A damaged backup, a newer format, and a folder that is not empty are refused, and nothing is changed.\n"
        "What happened between the backup and the restore is not known to it; a record of kind restored says so, and the log goes on\n"
        "behind it. Acts without outcome are looked at again by their bots' on_unknown, past their deadline they end as expired;\n"
        "overdue timers fire; alerts that still fire are sent again by their source. Cooldowns and rates count from what is known:\n"
        "--stopped lets you look (balm status) before anything acts. A checkpoint kept elsewhere (balm audit verify --checkpoint) that\n"
        "is younger than the backup will not be found in the restored log, and that is right.\n"
        "A backup without secrets gives a new signing key, which has to be made known, and new passwords and tokens.",
    .options = options,
    .n_options = ARRAY_LEN(options),
    .run = run_restore,
};

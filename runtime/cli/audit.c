#include "cli/audit_source.h"

#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "audit/notes.h"
#include "audit/verify.h"
#include "base/clock.h"
#include "functions/dispatcher/decide.h"
#include "store/journal.h"

#define BATCH   1000
#define POLL_NS (200 * NS_PER_MS) /* tail -f: how often to look for new records */
#define ASK_NS  NS_PER_S          /* the same where a platform elsewhere is asked */

struct audit_cfg {
    struct cli_platform platform;
    const char *data_dir, *kind, *function, *incident, *public_key, *checkpoints, *before;
    int64_t from, lines;
    bool is_json, is_following;
};

static const struct config_option options[] = {
    CLI_PLATFORM_OPTIONS(struct audit_cfg, platform),
    {.name = "kind",
     .type = CONFIG_TEXT,
     .offset = offsetof(struct audit_cfg, kind),
     .help = "only records of this kind (signal, intent, outcome …)"},
    {.name = "function",
     .type = CONFIG_TEXT,
     .offset = offsetof(struct audit_cfg, function),
     .help = "only records of this function"},
    {.name = "incident",
     .type = CONFIG_TEXT,
     .offset = offsetof(struct audit_cfg, incident),
     .help = "only records of this incident"},
    {.name = "from",
     .type = CONFIG_INT,
     .default_text = "1",
     .min = 1,
     .max = INT64_MAX,
     .offset = offsetof(struct audit_cfg, from),
     .help = "cat: first sequence number"},
    {.name = "lines",
     .short_name = 'n',
     .type = CONFIG_INT,
     .default_text = "10",
     .min = 0,
     .max = 1000000,
     .offset = offsetof(struct audit_cfg, lines),
     .help = "tail: how many records from the end"},
    {.name = "follow",
     .short_name = 'f',
     .type = CONFIG_BOOL,
     .offset = offsetof(struct audit_cfg, is_following),
     .help = "tail: go on as records come"},
    {.name = "public-key",
     .type = CONFIG_PATH,
     .offset = offsetof(struct audit_cfg, public_key),
     .value_name = "FILE",
     .help = "verify, checkpoint: trust this key (DIR/audit/key.pub)"},
    {.name = "checkpoint",
     .type = CONFIG_PATH,
     .offset = offsetof(struct audit_cfg, checkpoints),
     .value_name = "FILE",
     .help = "verify: also against these checkpoints, which were kept elsewhere"},
    {.name = "before",
     .type = CONFIG_PATH,
     .offset = offsetof(struct audit_cfg, before),
     .value_name = "DIR",
     .help = "verify: by what an earlier key signed, DIR/audit/before-TIME (balm restore)"},
    {.name = "json",
     .type = CONFIG_BOOL,
     .offset = offsetof(struct audit_cfg, is_json),
     .help = "JSON instead of text (cat always is)"},
};

static bool is_wanted(const struct audit_cfg *cfg, const struct record *r)
{
    if (cfg->kind != NULL && strcmp(cfg->kind, record_kind_name(r->kind)) != 0) return false;
    if (cfg->function != NULL && !sv_eq(r->function, sv(cfg->function))) return false;
    return cfg->incident == NULL || sv_eq(r->incident, sv(cfg->incident));
}

/* The stored object with `seq` in front; the members that every reader may rely on are there even where
 * they are empty. */
static void print_json(const struct journal_entry *e)
{
    const struct record *r = e->record;
    printf("{\"seq\":%llu", (unsigned long long)e->seq);
    if (r->incident.len == 0) fputs(",\"incident\":\"\"", stdout);
    if (r->fingerprint.len == 0) fputs(",\"fingerprint\":\"\"", stdout);
    if (r->function.len == 0) fputs(",\"function\":\"\"", stdout);
    putchar(',');
    (void)fwrite(e->bytes.ptr + 1, 1, e->bytes.len - 1, stdout);
    putchar('\n');
}

static struct strview what_it_says(const struct record *r)
{
    if (r->kind == RECORD_SIGNAL) return r->status;
    if (r->message.len > 0) return r->message;
    if (r->reason.len > 0) return r->reason;
    if (r->state.len > 0) return r->state;
    return r->how.len > 0 ? r->how : r->target;
}

static void print_line(const struct journal_entry *e, struct arena *a)
{
    const struct record *r = e->record;
    char time[RFC3339_LEN + 1];
    rfc3339_format(r->time_ns, time);
    struct strview alert = cli_shown(a, record_label(&r->labels, SV("alertname")));
    struct strview says = cli_shown(a, what_it_says(r));
    printf("%7llu  %.23sZ  %-10s %-30.*s %.*s%s%.*s%s%.*s\n", (unsigned long long)e->seq, time,
           record_kind_name(r->kind), SV_ARG(r->incident), SV_ARG(r->function), alert.len > 0 ? "  " : "",
           SV_ARG(alert), says.len > 0 ? "  " : "", SV_ARG(says));
}

/* Prints what is wanted from `seq` to the present end; *ret_next is where to go on. */
static enum status print_from(struct audit_source *source, const struct audit_cfg *cfg, uint64_t seq,
                              bool as_json, uint64_t *ret_next, struct error *err)
{
    struct arena a = {0};
    for (;;) {
        struct journal_entry *entries;
        size_t n;
        enum status s = audit_source_read(source, seq, BATCH, &a, &entries, &n, err);
        uint64_t first = source->reader != NULL ? journal_reader_first_seq(source->reader) : 0;
        if (s == STATUS_OUT_OF_RANGE && first > seq) { /* before we began, or meanwhile */
            fprintf(stderr, "balm audit: records before %llu were removed by retention\n",
                    (unsigned long long)first);
            seq = first;
            continue;
        }
        if (s != STATUS_OK || n == 0 || ferror(stdout)) {
            arena_release(&a);
            *ret_next = seq;
            return s;
        }
        for (size_t i = 0; i < n; i++) {
            if (!is_wanted(cfg, entries[i].record)) continue;
            if (as_json)
                print_json(&entries[i]);
            else
                print_line(&entries[i], &a);
        }
        seq = entries[n - 1].seq + 1;
        arena_reset(&a);
    }
}

/* Sequence of the n-th wanted record from the end: a ring of the last n met. */
static enum status find_tail(struct audit_source *source, const struct audit_cfg *cfg, struct arena *a,
                             uint64_t *ret_seq, struct error *err)
{
    size_t want = (size_t)cfg->lines, met = 0;
    uint64_t *ring = arena_array(a, want + 1, sizeof(*ring));
    uint64_t seq = source->first_seq;
    struct arena batch = {0};
    for (;;) {
        struct journal_entry *entries;
        size_t n;
        enum status s = audit_source_read(source, seq, BATCH, &batch, &entries, &n, err);
        if (s != STATUS_OK || n == 0) {
            arena_release(&batch);
            *ret_seq = want == 0 ? seq : met == 0 ? seq : met < want ? ring[0] : ring[met % want];
            return s;
        }
        for (size_t i = 0; i < n && want > 0; i++)
            if (is_wanted(cfg, entries[i].record)) ring[met++ % want] = entries[i].seq;
        seq = entries[n - 1].seq + 1;
        arena_reset(&batch);
    }
}

static enum status open_reader(const struct audit_cfg *cfg, struct arena *a,
                               struct journal_reader **ret_reader, struct error *err)
{
    return journal_reader_open(arena_printf(a, "%s/journal", cfg->data_dir).ptr, ret_reader, err);
}

static enum status run_cat(const struct audit_cfg *cfg, struct error *err)
{
    struct audit_source source;
    enum status s = audit_source_open(&cfg->platform, cfg->data_dir, &source, err);
    if (s != STATUS_OK) return s;
    uint64_t next;
    s = print_from(&source, cfg, (uint64_t)cfg->from, true, &next, err);
    audit_source_close(&source);
    return s;
}

/* Sequences of the wanted records from `from` to before `end`, which lie at most BATCH apart. A batch may be
 * cut by its bytes. */
static enum status find_wanted(struct audit_source *source, const struct audit_cfg *cfg, uint64_t from,
                               uint64_t end, uint64_t ret_seqs[BATCH], size_t *ret_n, struct error *err)
{
    struct arena batch = {0};
    enum status s = STATUS_OK;
    *ret_n = 0;
    while (s == STATUS_OK && from < end) {
        struct journal_entry *entries;
        size_t n = 0;
        s = audit_source_read(source, from, (size_t)(end - from), &batch, &entries, &n, err);
        for (size_t i = 0; s == STATUS_OK && i < n; i++) {
            if (is_wanted(cfg, entries[i].record)) ret_seqs[(*ret_n)++] = entries[i].seq;
            from = entries[i].seq + 1;
        }
        if (n == 0) break;
        arena_reset(&batch);
    }
    arena_release(&batch);
    return s;
}

/* The same as find_tail() where the end is known: from there backwards, since all of it would have to come
 * over the wire. */
static enum status find_tail_backwards(struct audit_source *source, const struct audit_cfg *cfg,
                                       uint64_t *ret_seq, struct error *err)
{
    uint64_t end = source->last_seq + 1, want = (uint64_t)cfg->lines, seqs[BATCH];
    enum status s = STATUS_OK;
    *ret_seq = end;
    while (s == STATUS_OK && end > source->first_seq && want > 0) {
        size_t n = 0;
        uint64_t from = end - source->first_seq > BATCH ? end - BATCH : source->first_seq;
        s = find_wanted(source, cfg, from, end, seqs, &n, err);
        size_t n_taken = n < want ? n : (size_t)want;
        if (n_taken > 0) *ret_seq = seqs[n - n_taken];
        want -= n_taken;
        end = from;
    }
    return s;
}

static enum status run_tail(const struct audit_cfg *cfg, struct arena *a, struct error *err)
{
    struct audit_source source;
    enum status s = audit_source_open(&cfg->platform, cfg->data_dir, &source, err);
    if (s != STATUS_OK) return s;
    uint64_t next = 1;
    bool is_remote = source.reader == NULL;
    s = is_remote ? find_tail_backwards(&source, cfg, &next, err) : find_tail(&source, cfg, a, &next, err);
    if (s == STATUS_OK) s = print_from(&source, cfg, next, cfg->is_json, &next, err);
    while (s == STATUS_OK && cfg->is_following && fflush(stdout) == 0) {
        int64_t pause_ns = is_remote ? ASK_NS : POLL_NS;
        (void)nanosleep(&(struct timespec){.tv_sec = pause_ns / NS_PER_S, .tv_nsec = pause_ns % NS_PER_S},
                        NULL);
        s = print_from(&source, cfg, next, cfg->is_json, &next, err);
    }
    audit_source_close(&source);
    return s;
}

/* ---- verify ---- */

static void on_progress(uint64_t done, void *arg)
{
    (void)arg;
    fprintf(stderr, "\r%llu records …", (unsigned long long)done);
}

static int verdict(const struct audit_report *r)
{
    if (r->first_bad_seq != 0) return CLI_FAILED;
    if (r->is_end_unsealed || r->n_late_seals > 0) return CLI_UNPROVEN;
    return r->n_open_intents > 0 ? CLI_INCOMPLETE : CLI_OK;
}

static void print_report_json(const struct audit_report *r)
{
    char root[SHA256_HEX + 1], sealed[RFC3339_LEN + 1] = "";
    hex_encode(r->root.bytes, SHA256_BYTES, root);
    if (r->sealed_unix_ns != 0) rfc3339_format(r->sealed_unix_ns, sealed);
    json_t *open = json_array();
    for (size_t i = 0; i < r->n_open_intents && i < 100; i++)
        json_array_append_new(open, json_text(r->open_intents[i]));
    json_t *late = json_array();
    for (size_t i = 0; i < r->n_late_seals; i++)
        json_array_append_new(late, json_text(r->late_seals[i]));
    json_t *restores = json_array();
    for (size_t i = 0; i < r->n_restores; i++)
        json_array_append_new(restores, json_text(r->restores[i]));
    json_t *o =
        json_pack("{s:b, s:I, s:I, s:I, s:I, s:s, s:s, s:I, s:s%, s:I, s:o, s:I, s:b, s:o, s:o}", "ok",
                  verdict(r) == CLI_OK, "records", (json_int_t)r->records, "removed", (json_int_t)r->removed,
                  "checkpoints", (json_int_t)r->checkpoints, "sealed", (json_int_t)r->sealed_records,
                  "sealedAt", sealed, "root", root, "firstBad", (json_int_t)r->first_bad_seq, "reason",
                  r->bad_reason.len > 0 ? r->bad_reason.ptr : "", r->bad_reason.len, "openIntentCount",
                  (json_int_t)r->n_open_intents, "openIntents", open, "unsealed",
                  (json_int_t)(r->records - r->sealed_records), "endUnsealed", r->is_end_unsealed,
                  "lateSeals", late, "restores", restores);
    json_dumpf(o, stdout, JSON_COMPACT);
    putchar('\n');
    json_release(o);
}

/* What no signature, or one that came too late, says anything about. */
static void print_unproven(const struct audit_report *r)
{
    printf("verdict      NOT PROVEN: no change is found, but some records were not sealed in time:\n");
    if (r->is_end_unsealed)
        printf(
            "             records %llu to %llu are not sealed: sealing stands still, or checkpoints were removed\n",
            (unsigned long long)r->sealed_records + 1, (unsigned long long)r->records);
    for (size_t i = 0; i < r->n_late_seals; i++)
        printf("             %.*s\n", SV_ARG(r->late_seals[i]));
}

static void print_open_intents(const struct audit_report *r)
{
    if (r->n_open_intents == 0) return;
    printf("%s %zu act%s without outcome (under way, or interrupted):\n",
           verdict(r) == CLI_INCOMPLETE ? "verdict      genuine;" : "also        ", r->n_open_intents,
           r->n_open_intents == 1 ? "" : "s");
    for (size_t i = 0; i < r->n_open_intents && i < 100; i++)
        printf("             %.*s\n", SV_ARG(r->open_intents[i]));
}

/* Nobody changed it; but it is not all that happened. */
static void print_restores(const struct audit_report *r)
{
    for (size_t i = 0; i < r->n_restores; i++)
        printf("%s %.*s\n", i == 0 ? "restored    " : "            ", SV_ARG(r->restores[i]));
}

static void print_report(const struct audit_report *r, bool is_before)
{
    char root[SHA256_HEX + 1], sealed[RFC3339_LEN + 1] = "never";
    hex_encode(r->root.bytes, SHA256_BYTES, root);
    if (r->sealed_unix_ns != 0) rfc3339_format(r->sealed_unix_ns, sealed);
    printf("records      %llu\ncheckpoints  %llu good\nsealed       %llu records, %s\nroot         %s\n",
           (unsigned long long)r->records, (unsigned long long)r->checkpoints,
           (unsigned long long)r->sealed_records, sealed, root);
    if (r->removed > 0)
        printf("removed      records 1 to %llu by retention; their hashes stand for them\n",
               (unsigned long long)r->removed);
    if (r->records > r->sealed_records)
        printf("unsealed     %llu records are not sealed%s\n",
               (unsigned long long)(r->records - r->sealed_records), is_before ? " by this key" : " yet");
    if (r->first_bad_seq != 0) {
        printf("verdict      TAMPERED at record %llu: %.*s\n", (unsigned long long)r->first_bad_seq,
               SV_ARG(r->bad_reason));
        return;
    }
    print_restores(r);
    if (verdict(r) == CLI_UNPROVEN) print_unproven(r);
    if (verdict(r) == CLI_OK && r->records > 0 && r->sealed_records == 0)
        puts("verdict      nothing is sealed yet: the first record has just been written");
    else if (verdict(r) == CLI_OK && r->records > r->sealed_records)
        printf("verdict      genuine and complete up to record %llu\n",
               (unsigned long long)r->sealed_records);
    else if (verdict(r) == CLI_OK)
        puts("verdict      genuine and complete");
    print_open_intents(r);
}

static enum status run_verify(const struct audit_cfg *cfg, struct arena *a, int *ret_code, struct error *err)
{
    struct audit_report report = {0};
    bool shows_progress = isatty(2) == 1 && !cfg->is_json;
    struct audit_verify_cfg verify = {.data_dir = cfg->data_dir,
                                      .public_key_file = cfg->public_key,
                                      .before_dir = cfg->before,
                                      .checkpoints_file = cfg->checkpoints,
                                      .on_progress = shows_progress ? on_progress : NULL};
    enum status s = audit_verify(&verify, a, &report, err);
    if (shows_progress) fputs("\r\033[K", stderr);
    if (s != STATUS_OK) return s;
    if (cfg->is_json)
        print_report_json(&report);
    else
        print_report(&report, cfg->before != NULL);
    *ret_code = verdict(&report);
    return STATUS_OK;
}

/* As it stands in the file, with the empty line behind it: so that what is appended to a file is such a file.
 */
static enum status run_checkpoint(const struct audit_cfg *cfg, struct arena *a, struct error *err)
{
    struct strview note;
    enum status s = notes_newest(cfg->data_dir, cfg->public_key, a, &note, err);
    if (s != STATUS_OK) return s;
    if (cfg->is_json) {
        json_t *o = json_pack("{s:o}", "checkpoint", json_text(note));
        (void)json_dumpf(o, stdout, JSON_COMPACT);
        json_release(o);
    } else {
        (void)fwrite(note.ptr, 1, note.len, stdout);
    }
    putchar('\n');
    return STATUS_OK;
}

/* ---- refold ---- */

static enum status run_refold(const struct audit_cfg *cfg, struct arena *a, int *ret_code, struct error *err)
{
    struct journal_reader *reader = NULL;
    struct decide_report *report = arena_zalloc(a, sizeof(*report));
    enum status s = open_reader(cfg, a, &reader, err);
    if (s != STATUS_OK) return s;
    s = decide_verify(reader, report, err);
    journal_reader_close(reader);
    if (s != STATUS_OK && s != STATUS_DATA_LOSS) return s;
    *ret_code = s == STATUS_OK ? CLI_OK : CLI_FAILED;
    if (cfg->is_json) {
        json_t *o =
            json_pack("{s:b, s:I, s:I, s:I, s:I}", "ok", s == STATUS_OK, "records",
                      (json_int_t)report->n_records, "decided", (json_int_t)report->n_decided, "undecided",
                      (json_int_t)report->n_undecided, "firstBad", (json_int_t)report->bad_seq);
        (void)json_dumpf(o, stdout, JSON_COMPACT);
        putchar('\n');
        json_release(o);
        return STATUS_OK;
    }
    printf("records      %llu\ndecided      %llu of them, folded again and compared byte for byte\n",
           (unsigned long long)report->n_records, (unsigned long long)report->n_decided);
    if (s == STATUS_OK)
        puts("verdict      the same decisions");
    else
        printf("verdict      DIFFERENT at record %llu\n  expected   %s\n  found      %s\n",
               (unsigned long long)report->bad_seq, report->expected, report->found);
    return STATUS_OK;
}

static int run_audit(const struct command *self, int argc, char **argv)
{
    struct arena a = {0};
    struct audit_cfg cfg = {0};
    struct error err = {0};
    int n = 0, code = CLI_OK;
    enum status s;
    if (!cli_parse(self, argc, argv, &a, &cfg, &n, &code)) goto out;
    const char *what = n == 1 ? argv[1] : "";
    bool reads_files = strcmp(what, "cat") != 0 && strcmp(what, "tail") != 0;
    s = cfg.platform.url != NULL ? STATUS_OK : cli_data_dir(cfg.platform.data_dir, &a, &cfg.data_dir, &err);
    if (s == STATUS_OK && reads_files && cfg.platform.url != NULL)
        s = error_set(
            &err, STATUS_INVALID_ARGUMENT,
            "--url is for tail and cat; the others prove something about the files: run them on the data folder");
    if (s != STATUS_OK) {
        code = cli_fail(self, &err);
        goto out;
    }
    if (strcmp(what, "cat") == 0)
        s = run_cat(&cfg, &err);
    else if (strcmp(what, "tail") == 0)
        s = run_tail(&cfg, &a, &err);
    else if (strcmp(what, "verify") == 0)
        s = run_verify(&cfg, &a, &code, &err);
    else if (strcmp(what, "checkpoint") == 0)
        s = run_checkpoint(&cfg, &a, &err);
    else if (strcmp(what, "refold") == 0)
        s = run_refold(&cfg, &a, &code, &err);
    else
        s = error_set(&err, STATUS_INVALID_ARGUMENT,
                      "say one of tail, cat, verify, checkpoint, refold (got '%s')", what);
    if (s != STATUS_OK) code = cli_fail(self, &err);
    if (code == CLI_OK && fflush(stdout) != 0) code = CLI_FAILED;
out:
    arena_release(&a);
    return code;
}

const struct command command_audit = {
    .name = "audit",
    .arguments = "tail|cat|verify|checkpoint|refold",
    .summary = "read the journal, or prove that nobody changed it",
    .description =
        "tail        the last records, one line each; -f goes on\n"
        "cat         every record as one JSON object a line, with its sequence number\n"
        "verify      recomputes the Merkle tree and checks it against the signed checkpoints, and that every act has its outcome;\n"
        "            exit code 0 genuine and complete, 1 tampered, 4 genuine but an act has no outcome,\n"
        "            5 no change is found, but some records were not sealed in time\n"
        "checkpoint  prints the newest signed checkpoint, to be kept on another machine for verify --checkpoint\n"
        "refold      decides on every recorded input again and compares with what was decided then, byte for byte\n"
        "tail and cat also read from a platform elsewhere (--url); the others prove something about the files, on the data folder itself",
    .options = options,
    .n_options = ARRAY_LEN(options),
    .run = run_audit,
};

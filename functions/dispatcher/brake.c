/* balm stop in its three forms: the API, SIGUSR1, and the file DIR/stop.
 *
 * First the brake, then the paper: nothing is handed out from the moment that somebody asks, whether the
 * journal takes the record or not. What it does not take now is recorded as soon as it does. Resuming is the
 * other way round.
 *
 * The file is a brake, not a switch: while it is there nothing acts and nobody can resume, and when it is
 * gone nothing acts either until somebody resumes. A file can vanish by accident (a cleaner, a volume that is
 * not mounted, a restored backup); that bots act again must be somebody's word. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "functions/dispatcher/dispatcher_impl.h"
#include "log/log.h"
#include "loop/folder_watch.h"

#define LOOK_NS       NS_PER_S       /* at the file, where the kernel tells of no change */
#define RECORD_NS     (5 * NS_PER_S) /* between two tries to record a stop */
#define FILE_ACTOR    "stop file"
#define FILE_BYTES    65536
#define WRITE_WAIT_MS 200 /* who makes the file may be about to write the reason */

/* ---- the file ---- */

struct look {
    const char *path;
    bool is_there;
    char reason[BRAKE_REASON_MAX + 1];
};

/* A stranger's bytes as one line of text. */
static void copy_line(struct strview text, char ret_line[BRAKE_REASON_MAX + 1])
{
    size_t len = 0;
    for (text = sv_trim(text); text.len > 0;) {
        size_t n = sv_utf8_sequence(text);
        bool is_plain = n > 0 && (unsigned char)text.ptr[0] >= 0x20 && text.ptr[0] != 0x7F;
        size_t step = n > 0 ? n : 1, kept = is_plain ? n : 1;
        if (len + kept > BRAKE_REASON_MAX) break;
        if (is_plain)
            memcpy(ret_line + len, text.ptr, n);
        else
            ret_line[len] = ' ';
        len += kept;
        text = sv_sub(text, step, text.len);
    }
    ret_line[len] = '\0';
}

/* Whatever is there, of whatever kind and readable or not, stops; so does what cannot be looked at. */
static void look(void *arg)
{
    struct look *l = arg;
    struct stat st;
    struct arena a = {0};
    struct strview text;
    l->reason[0] = '\0';
    l->is_there = lstat(l->path, &st) == 0 || (errno != ENOENT && errno != ENOTDIR);
    if (l->is_there && file_read(&a, l->path, FILE_BYTES, &text, NULL) == STATUS_OK)
        copy_line(text, l->reason);
    arena_release(&a);
}

static void look_at_file(struct dispatcher *d, struct look *ret_look)
{
    struct arena a = {0};
    ret_look->path = arena_printf(&a, "%s/" BRAKE_FILE, d->env.dir).ptr;
    if (fiber_current() != NULL)
        work_run(look, ret_look);
    else
        look(ret_look);
    arena_release(&a);
}

/* ---- stopping ---- */

static void pull(struct dispatcher *d)
{
    d->is_braked = true;
    d->brake.n_pulled++;
    queue_freeze(d->queue, true);
}

static void want_record(struct dispatcher *d, struct strview actor, struct strview reason)
{
    struct brake *b = &d->brake;
    b->is_unrecorded = true;
    (void)snprintf(b->actor, sizeof(b->actor), "%.*s", SV_ARG(actor));
    copy_line(reason, b->reason);
    fiber_event_set(&b->changed);
}

void brake_pull(struct dispatcher *d, struct strview actor, struct strview reason)
{
    pull(d);
    want_record(d, actor, reason);
}

static struct record freeze_record(bool is_on, struct strview actor, struct strview reason)
{
    return (struct record){.kind = RECORD_FREEZE, .on = is_on, .actor = actor, .reason = reason};
}

enum status brake_stop(struct dispatcher *d, struct strview actor, struct strview reason, uint64_t *ret_seq,
                       struct error *err)
{
    struct record r = freeze_record(true, actor, reason);
    struct error why;
    pull(d);
    enum status s = dispatcher_append_durably(d, &r, ret_seq, err);
    if (s == STATUS_OK) {
        d->brake.is_unrecorded = false;
        return dispatcher_apply_freeze(d, err);
    }
    want_record(d, actor, reason);
    enum status frozen = d->env.invoker->freeze(d->env.invoker_arg, true, &why);
    log_error("dispatcher", "acting is stopped, but that is not recorded: a restart would resume",
              LOG_STR("error", err->message));
    return error_prefix(err, s,
                        frozen == STATUS_OK ? "acting is stopped, but not recorded"
                                            : "not recorded, and a bot may still act");
}

/* ---- resuming ---- */

enum status brake_resume(struct dispatcher *d, struct strview actor, struct strview reason, uint64_t *ret_seq,
                         struct error *err)
{
    struct record r = freeze_record(false, actor, reason);
    struct look file;
    uint64_t n_pulled = d->brake.n_pulled;
    look_at_file(d, &file);
    if (file.is_there)
        return error_set(err, STATUS_FAILED_PRECONDITION,
                         "the file %s/" BRAKE_FILE " stops acting: remove it first, then resume", d->env.dir);
    d->brake.is_file = false;
    enum status s = dispatcher_append_durably(d, &r, ret_seq, err);
    if (s != STATUS_OK) return s;
    if (d->brake.n_pulled == n_pulled) { /* else somebody has stopped it again while we waited */
        d->is_braked = dispatcher_state(d)->is_frozen;
        d->brake.is_unrecorded = false;
    }
    return dispatcher_apply_freeze(d, err);
}

/* ---- watching ---- */

void brake_note(struct dispatcher *d, const struct record *r)
{
    struct brake *b = &d->brake;
    (void)snprintf(b->by, sizeof(b->by), "%.*s", SV_ARG(r->on ? r->actor : (struct strview){0}));
    copy_line(r->on ? r->reason : (struct strview){0}, b->why);
}

void brake_save(const struct brake *b, struct pack *p)
{
    pack_text(p, sv(b->by));
    pack_text(p, sv(b->why));
}

void brake_load(struct brake *b, struct unpack *u)
{
    struct strview by = unpack_text(u);
    (void)snprintf(b->by, sizeof(b->by), "%.*s", SV_ARG(by));
    copy_line(unpack_text(u), b->why);
}

enum status brake_check_start(struct dispatcher *d, struct error *err)
{
    struct look file;
    look_at_file(d, &file);
    d->brake.is_file = file.is_there;
    if (!file.is_there) return STATUS_OK;
    pull(d);
    log_warn("dispatcher", "acting is stopped by the file " BRAKE_FILE, LOG_STR("reason", file.reason));
    if (dispatcher_state(d)->is_frozen) return STATUS_OK;
    struct record r = freeze_record(true, SV(FILE_ACTOR), sv(file.reason));
    dispatcher_stamp(d, &r);
    return journal_append(d->env.journal, &r, 1, NULL, err);
}

static void see_file(struct dispatcher *d)
{
    struct look file;
    look_at_file(d, &file);
    if (file.is_there == d->brake.is_file) return;
    d->brake.is_file = file.is_there;
    if (!file.is_there) {
        log_info("dispatcher", "the file " BRAKE_FILE " is gone; balm resume lets bots act again");
        return;
    }
    pull(d);
    if (file.reason[0] == '\0' && sleep_ms(WRITE_WAIT_MS) == STATUS_OK) look_at_file(d, &file);
    want_record(d, SV(FILE_ACTOR), sv(file.reason));
}

/* The bots hear of it even where the journal is full. Once is told, then it is tried in silence. */
static void record_stop(struct dispatcher *d)
{
    struct brake *b = &d->brake;
    struct error err;
    uint64_t seq, n_pulled = b->n_pulled;
    struct record r = freeze_record(true, sv(b->actor), sv(b->reason));
    bool is_first = b->n_told < n_pulled;
    if (is_first && dispatcher_apply_freeze(d, &err) != STATUS_OK)
        log_error("dispatcher", "a bot may still act", LOG_STR("error", err.message));
    if (!b->is_unrecorded) return; /* somebody has resumed meanwhile */
    if (dispatcher_append_durably(d, &r, &seq, &err) == STATUS_OK) {
        if (b->n_pulled == n_pulled) b->is_unrecorded = false;
        if (dispatcher_apply_freeze(d, &err) != STATUS_OK)
            log_error("dispatcher", "a bot may still act", LOG_STR("error", err.message));
        log_warn("dispatcher", "the stop is recorded and no bot acts", LOG_STR("by", b->by),
                 LOG_STR("reason", b->why));
    } else if (is_first) {
        log_error("dispatcher", "acting is stopped, but that is not recorded: a restart would resume",
                  LOG_STR("error", err.message));
    }
    b->n_told = n_pulled;
    b->record_after_ns = clock_monotonic_ns() + RECORD_NS;
}

static bool is_record_due(const struct brake *b)
{
    return b->is_unrecorded && (b->n_told < b->n_pulled || clock_monotonic_ns() >= b->record_after_ns);
}

void brake_fiber(void *arg)
{
    struct dispatcher *d = arg;
    struct folder_watch *watch = NULL;
    struct error err;
    enum status s;
    if (folder_watch_start(d->env.loop, d->env.dir, &d->brake.changed, &watch, &err) != STATUS_OK)
        log_warn("dispatcher", "the data folder is not watched, but looked at each second",
                 LOG_STR("error", err.message));
    do {
        fiber_event_reset(&d->brake.changed);
        see_file(d);
        if (is_record_due(&d->brake)) record_stop(d);
        s = fiber_event_wait(&d->brake.changed, clock_monotonic_ns() + LOOK_NS);
    } while (s == STATUS_OK || s == STATUS_DEADLINE_EXCEEDED);
    folder_watch_stop(watch);
}

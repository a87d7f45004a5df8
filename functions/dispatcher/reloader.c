/* Runbooks that changed on disk: noticed, and as far as balm was told to (env.self_reload), read by
 * themselves.
 *
 *   look --same as what is in force--> nothing
 *    |---a swap--> reload at once                             RELOAD_SWAPS, RELOAD_EDITS
 *    |---an edit, and then QUIET_NS without another--> reload RELOAD_EDITS
 *    '---else: `balm status` says that it changed and waits for balm reload
 *
 * One change gives one activation: what was read carries the mark of the folder, and only a folder with
 * another mark is read again. What was refused is read again once it changes, and from time to time, because
 * the reason may lie elsewhere (a function that was not deployed yet, a full disk). */
#include <string.h>

#include "functions/dispatcher/dispatcher_impl.h"
#include "log/log.h"
#include "loop/folder_watch.h"

#define LOOK_NS  (5 * NS_PER_S)  /* where the kernel tells of no change */
#define QUIET_NS (2 * NS_PER_S)  /* an editor has saved, a copy has ended */
#define RETRY_NS (30 * NS_PER_S) /* of what was refused */

struct look {
    const char *dir;
    struct runbook_mark mark;
    struct error err;
    enum status status;
};

static void look(void *arg)
{
    struct look *l = arg;
    struct arena a = {0};
    struct runbook_folder folder;
    l->status = runbook_folder_list(l->dir, &a, &folder, &l->err);
    if (l->status == STATUS_OK) l->mark = folder.mark;
    arena_release(&a);
}

static void note_changed(struct reloader *r, bool is_changed)
{
    if (!is_changed)
        r->changed_ns = 0;
    else if (r->changed_ns == 0)
        r->changed_ns = clock_unix_ns();
}

static void note_missing(struct reloader *r, const struct error *err)
{
    if (strcmp(r->folder_error, err->message) == 0) return;
    (void)snprintf(r->folder_error, sizeof(r->folder_error), "%s", err->message);
    log_warn("dispatcher", "runbooks cannot be looked at, the old set stays", LOG_STR("error", err->message));
}

static void reload(struct dispatcher *d, const struct runbook_mark *mark)
{
    const struct reload_cause cause = {.actor = SV("runbooks folder"), .is_own = true};
    struct reloader *r = &d->reloader;
    struct error err;
    bool was_refused = r->is_refused && runbook_mark_eq(&r->tried, mark);
    r->tried = *mark;
    r->retry_after_ns = clock_monotonic_ns() + RETRY_NS;
    r->is_refused = d->env.reload(d->env.reload_arg, &cause, &err) != STATUS_OK;
    if (!r->is_refused)
        log_info("dispatcher", "runbooks changed on disk and are in force");
    else if (!was_refused && !fiber_is_cancelled())
        log_error("dispatcher", "runbooks changed on disk and are refused, the old set stays",
                  LOG_STR("error", err.message));
}

/* May it be read now? Else *ret_wake_ns is when to ask again. */
static bool is_due(struct dispatcher *d, const struct runbook_mark *mark, int64_t *ret_wake_ns)
{
    struct reloader *r = &d->reloader;
    int64_t now_ns = clock_monotonic_ns();
    bool is_swap = runbook_mark_is_swapped(&d->set->mark, mark);
    if (d->env.reload == NULL || d->env.self_reload == RELOAD_ASKED) return false;
    if (!is_swap && d->env.self_reload != RELOAD_EDITS) return false;
    if (!runbook_mark_eq(&r->seen, mark)) {
        r->seen = *mark;
        r->quiet_at_ns = now_ns + (is_swap ? 0 : QUIET_NS);
    }
    int64_t due_ns = r->quiet_at_ns;
    if (r->is_refused && runbook_mark_eq(&r->tried, mark) && due_ns < r->retry_after_ns)
        due_ns = r->retry_after_ns;
    if (due_ns > now_ns && due_ns < *ret_wake_ns) *ret_wake_ns = due_ns;
    return due_ns <= now_ns;
}

/* What was refused is gone, and the folder is again what is in force. */
static void forget_refused(struct dispatcher *d)
{
    if (!d->is_own_error) return;
    d->last_reload_error[0] = '\0';
    d->is_own_error = false;
    d->reloader.is_refused = false;
    log_info("dispatcher", "runbooks on disk are again those in force");
}

/* A watch hangs on the folder that had the name when it began. */
static void keep_watch(struct dispatcher *d, const struct runbook_mark *mark)
{
    struct reloader *r = &d->reloader;
    struct error ignored; /* then the looks alone must do */
    if (r->watch != NULL && r->device == mark->device && r->inode == mark->inode) return;
    folder_watch_stop(r->watch);
    r->watch = NULL;
    r->device = mark->device;
    r->inode = mark->inode;
    (void)!folder_watch_start(d->env.loop, d->env.runbooks_dir, &r->changed, &r->watch, &ignored);
}

/* Returns when to look again at the latest. */
static int64_t look_and_reload(struct dispatcher *d)
{
    struct look l = {.dir = d->env.runbooks_dir};
    struct reloader *r = &d->reloader;
    int64_t wake_ns = clock_monotonic_ns() + LOOK_NS;
    work_run(look, &l);
    if (l.status != STATUS_OK) {
        note_missing(r, &l.err);
        return wake_ns;
    }
    r->folder_error[0] = '\0';
    keep_watch(d, &l.mark);
    if (runbook_mark_eq(&d->set->mark, &l.mark))
        forget_refused(d);
    else if (is_due(d, &l.mark, &wake_ns))
        reload(d, &l.mark);
    note_changed(r, !runbook_mark_eq(&d->set->mark, &l.mark));
    return wake_ns;
}

void reloader_fiber(void *arg)
{
    struct dispatcher *d = arg;
    struct reloader *r = &d->reloader;
    enum status s;
    do {
        fiber_event_reset(&r->changed);
        int64_t wake_ns = look_and_reload(d);
        s = fiber_event_wait(&r->changed, wake_ns);
    } while (s == STATUS_OK || s == STATUS_DEADLINE_EXCEEDED);
    folder_watch_stop(r->watch);
    r->watch = NULL;
}

#include "disk-clean.gen.h"

#include <inttypes.h>

#include "config/bytes.h"
#include "function/secret.h"
#include "walk.h"

#define BATCH_FILES                                                                                          \
    64 /* between two looks at the stop switch, the deadline and the goal: some ms of unlinks */
/* What is left of the deadline when we stop: an answer that says what was freed is worth more than one batch.
 */
#define VERDICT_NS (500 * NS_PER_MS)
#define GIVE_UP_NS (60 * NS_PER_S) /* where nobody set a deadline */

/* ---- what may be cleaned ---- */

static bool is_listed(struct strview list, struct strview root)
{
    struct strview line, entry;
    while (sv_next(&list, '\n', &line))
        while (sv_next(&line, ':', &entry))
            if (sv_eq(sv_trim(entry), root)) return true;
    return false;
}

/* STATUS_OK and an empty *ret_why: the operator allows it. The list is never the alert's. */
static bool is_allowed(struct arena *a, struct strview root, struct error *ret_why)
{
    const char *environment = getenv("disk_clean_roots");
    struct strview list = sv(environment);
    if (sv_eq(root, SV("/"))) {
        (void)error_set(ret_why, STATUS_PERMISSION_DENIED, "'/' is never cleaned");
        return false;
    }
    if (list.len == 0 && secret_read(a, "disk-clean-roots", &list, NULL) != STATUS_OK) {
        (void)error_set(
            ret_why, STATUS_PERMISSION_DENIED,
            "no folder may be cleaned: neither disk_clean_roots nor the secret disk-clean-roots names one");
        return false;
    }
    if (is_listed(list, root)) return true;
    (void)error_set(ret_why, STATUS_PERMISSION_DENIED,
                    "'%.*s' is not on the list of folders that may be cleaned", SV_ARG(root));
    return false;
}

/* ---- blocking steps, on a worker thread ---- */

struct job {
    struct clean_spec spec;
    struct clean_plan plan;
    struct clean_space before, now;
    size_t from, to;
    enum status status;
    struct error err;
};

static void make_plan(void *arg)
{
    struct job *j = arg;
    j->status = clean_plan_make(&j->spec, &j->plan, &j->err);
    if (j->status != STATUS_OK) return;
    j->status = clean_space_of(&j->plan, &j->before, &j->err);
    j->now = j->before;
    if (j->status != STATUS_OK) clean_plan_release(&j->plan);
}

static void remove_batch(void *arg)
{
    struct job *j = arg;
    clean_remove(&j->plan, j->from, j->to);
    j->status = clean_space_of(&j->plan, &j->now, &j->err);
}

static void release_plan(void *arg)
{
    clean_plan_release(&((struct job *)arg)->plan);
}

/* ---- the act ---- */

static bool is_goal_reached(const struct disk_clean_params *p, const struct job *j)
{
    bool is_free = p->until_free_percent > 0 && j->now.free_percent >= p->until_free_percent;
    return is_free || j->plan.counts.bytes_freed >= p->max_bytes_bytes;
}

/* The next files that are not more than what is still to be freed. */
static void choose_batch(const struct disk_clean_params *p, struct job *j)
{
    int64_t bytes = j->plan.counts.bytes_freed;
    j->from = j->to;
    while (j->to < j->plan.n && j->to - j->from < BATCH_FILES && bytes < p->max_bytes_bytes)
        bytes += j->plan.files[j->to++].bytes;
}

static enum status remove_files(struct invocation *inv, const struct disk_clean_params *p, struct job *j,
                                struct error *err)
{
    while (j->to < j->plan.n && !is_goal_reached(p, j) && clock_monotonic_ns() < j->spec.deadline_ns) {
        enum status s = invocation_check(inv, err);
        /* Stopped in the middle: what was removed is told, not hidden behind an error. */
        if (s != STATUS_OK && j->plan.counts.removed == 0) return s;
        if (s != STATUS_OK) break;
        choose_batch(p, j);
        work_run(remove_batch, j);
        if (j->status != STATUS_OK) return error_set(err, j->status, "%s", j->err.message);
    }
    if (j->to == 0 && j->plan.n > 0 && !is_goal_reached(p, j))
        return error_set(err, STATUS_DEADLINE_EXCEEDED, "looking through %.*s took all of the time",
                         SV_ARG(p->root));
    return STATUS_OK;
}

/* What a real run would do, by what the files occupy. */
static void pretend(const struct disk_clean_params *p, struct job *j)
{
    struct clean_counts *c = &j->plan.counts;
    while (j->to < j->plan.n && !is_goal_reached(p, j)) {
        c->bytes_freed += j->plan.files[j->to++].bytes;
        c->removed++;
        if (j->now.usable_bytes > 0)
            j->now.free_percent = (j->before.free_bytes + c->bytes_freed) / (j->now.usable_bytes / 100 + 1);
    }
    j->now = j->before;
}

static void describe(struct result *ret, const struct disk_clean_params *p, const struct job *j)
{
    const struct clean_counts *c = &j->plan.counts;
    result_set_text(ret, "root", p->root);
    result_set_int(ret, "bytesFreed", c->bytes_freed);
    result_set_int(ret, "filesRemoved", c->removed);
    result_set_int(ret, "bytesFreeBefore", j->before.free_bytes);
    result_set_int(ret, "bytesLeftFree", j->now.free_bytes);
    result_set_int(ret, "freePercent", j->now.free_percent);
    result_set_int(ret, "entriesScanned", c->entries);
    result_set_int(ret, "filesMatched", c->matched);
    result_set_int(ret, "skippedOpen", c->open);
    result_set_int(ret, "skippedChanged", c->changed);
    result_set_int(ret, "skippedMounts", c->mounts);
    result_set_int(ret, "skippedUnreadable", c->unreadable);
    result_set_int(ret, "skippedDeep", c->deep);
    result_set_int(ret, "skippedOther", c->other);
    result_set_int(ret, "filesFailed", c->failed);
    json_object_set_new(ret->detail, "dryRun", json_boolean(p->dry_run));
    json_object_set_new(ret->detail, "isPartial", json_boolean(j->plan.is_partial));
}

static enum status conclude(const struct disk_clean_params *p, const struct job *j, struct result *ret,
                            struct error *err)
{
    const struct clean_counts *c = &j->plan.counts;
    char freed[BYTES_TEXT_MAX], age[DURATION_TEXT_MAX];
    (void)bytes_format(c->bytes_freed, freed);
    if (c->removed == 0 && c->failed > 0)
        return error_set(err, status_from_errno(j->plan.last_errno),
                         "none of %" PRId64 " old files below %.*s could be removed: %s", c->failed,
                         SV_ARG(p->root), strerror(j->plan.last_errno));
    describe(ret, p, j);
    if (p->dry_run)
        return result_unchanged(ret, "dry run: %" PRId64 " files with %s below %.*s would be removed",
                                c->removed, freed, SV_ARG(p->root));
    if (c->removed == 0 && is_goal_reached(p, j))
        return result_unchanged(ret, "%" PRId64 " %% are free already", j->now.free_percent);
    if (c->removed == 0)
        return result_unchanged(
            ret, "nothing below %.*s can go: %" PRId64 " files are older than %s, of %" PRId64 " entries",
            SV_ARG(p->root), c->matched, duration_format(p->older_than_ns, age), c->entries);
    return result_done(ret, "removed %" PRId64 " files with %s below %.*s; %" PRId64 " %% are free now",
                       c->removed, freed, SV_ARG(p->root), j->now.free_percent);
}

static enum status clean(struct invocation *inv, const struct disk_clean_params *p, struct job *j,
                         struct result *ret, struct error *err)
{
    enum status s = STATUS_OK;
    if (p->dry_run)
        pretend(p, j);
    else
        s = remove_files(inv, p, j, err);
    return s == STATUS_OK ? conclude(p, j, ret, err) : s;
}

enum status disk_clean_handle(struct invocation *inv, const struct disk_clean_params *p, struct result *ret,
                              struct error *err)
{
    struct error why;
    if (!is_allowed(inv->arena, p->root, &why)) return result_refused(ret, "%s", why.message);
    enum status s = invocation_check(inv, err);
    if (s != STATUS_OK) return s;
    int64_t deadline_ns =
        fiber_deadline() != 0 ? fiber_deadline() - VERDICT_NS : clock_monotonic_ns() + GIVE_UP_NS;
    struct job *j = arena_zalloc(inv->arena, sizeof(*j));
    j->spec = (struct clean_spec){
        .root = arena_cstr(inv->arena, p->root),
        .cutoff_unix_ns = clock_unix_ns() - p->older_than_ns,
        .max_files = (size_t)p->max_files,
        .max_scan = (uint64_t)p->max_scan,
        .deadline_ns = deadline_ns,
    };
    work_run(make_plan, j);
    if (j->status == STATUS_FAILED_PRECONDITION) return result_refused(ret, "%s", j->err.message);
    if (j->status != STATUS_OK) return error_set(err, j->status, "%s", j->err.message);
    s = clean(inv, p, j, ret, err);
    work_run(release_plan, j); /* closing and freeing 100 000 names takes a while */
    return s;
}

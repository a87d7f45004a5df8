/* Gauges that are computed when /metrics is asked for, and the disk's, which are looked at by a worker
 * thread. */
#include <dirent.h>
#include <fcntl.h>
#include <math.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/version.h"
#include "functions/dispatcher/dispatcher_impl.h"

#define DISK_LOOK_MS 15000

static void set(enum catalog_id id, double value)
{
    metric_set(catalog_series(id, NULL), value);
}

static void set_of(enum catalog_id id, struct strview label, double value)
{
    metric_set(catalog_series(id, &label), value);
}

static double seconds_since(int64_t unix_ns)
{
    int64_t age_ns = unix_ns != 0 ? clock_elapsed_ns(unix_ns, clock_unix_ns()) : 0;
    return age_ns > 0 ? (double)age_ns / (double)NS_PER_S : 0;
}

/* ---- the queue ---- */

/* Also makes the counters of this function, so that their first increase is one. */
static void set_queue(void *arg, struct strview function)
{
    const struct dispatcher *d = arg;
    struct queue_depth depth = queue_depth(d->queue, function);
    const struct {
        struct strview state;
        size_t n;
    } rows[] = {{SV("ready"), depth.ready},
                {SV("leased"), depth.leased},
                {SV("waiting"), depth.waiting},
                {SV("dead"), depth.dead}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        metric_set(catalog_series(CATALOG_QUEUE_DEPTH, (struct strview[]){function, rows[i].state}),
                   (double)rows[i].n);
    set_of(CATALOG_QUEUE_OLDEST_AGE, function, seconds_since(depth.oldest_ns));
    (void)catalog_series(CATALOG_DEAD_LETTERS, &function);
    (void)catalog_series(CATALOG_VERIFICATIONS, (struct strview[]){function, SV("verified")});
    (void)catalog_series(CATALOG_VERIFICATIONS, (struct strview[]){function, SV("failed")});
}

static void set_queues(struct dispatcher *d)
{
    const struct state *s = dispatcher_state(d);
    metrics_zero(catalog_family(CATALOG_QUEUE_DEPTH));
    metrics_zero(catalog_family(CATALOG_QUEUE_OLDEST_AGE));
    queue_each_function(d->queue, set_queue, d);
    for (size_t i = 0; i < s->n_active; i++) {
        const struct runbook *rb = s->active[i].runbook;
        for (size_t k = 0; k < rb->n_steps; k++)
            set_queue(d, rb->steps[k].bot);
        if (rb->follow_up.bot.len > 0) set_queue(d, rb->follow_up.bot);
        if (rb->escalate.bot.len > 0) set_queue(d, rb->escalate.bot);
    }
}

/* ---- incidents and runbooks ---- */

static void set_incidents(const struct state *s)
{
    int64_t now_ns = clock_unix_ns(), oldest_ns[INCIDENT_PHASES] = {0};
    size_t n_stuck = 0;
    for (struct list *node = s->incidents_list.next; node != &s->incidents_list; node = node->next) {
        const struct incident *inc = container_of(node, struct incident, node);
        int64_t *oldest = &oldest_ns[inc->phase];
        if (*oldest == 0 || inc->phase_ns < *oldest) *oldest = inc->phase_ns;
        n_stuck += incident_is_stuck(s, inc, now_ns);
    }
    for (int phase = 0; phase < INCIDENT_PHASES; phase++) {
        struct strview name = sv(incident_phase_name((enum incident_phase)phase));
        set_of(CATALOG_INCIDENTS_OPEN, name, (double)s->n_phase[phase]);
        set_of(CATALOG_INCIDENT_OLDEST_AGE, name, seconds_since(oldest_ns[phase]));
    }
    set(CATALOG_INCIDENTS_STUCK, (double)n_stuck);
}

static void set_runbooks(const struct state *s)
{
    size_t n[RUNBOOK_ACT + 1] = {0};
    for (size_t i = 0; i < s->n_active; i++)
        n[s->active[i].mode]++;
    for (int mode = RUNBOOK_OFF; mode <= RUNBOOK_ACT; mode++)
        set_of(CATALOG_RUNBOOKS, sv(runbook_mode_name((enum runbook_mode)mode)), (double)n[mode]);
}

/* ---- the dispatcher itself and its journal ---- */

static void set_stopped(struct dispatcher *d)
{
    const struct state *s = dispatcher_state(d);
    bool is_stopped = s->is_frozen || d->is_braked;
    /* A brake that could not be recorded has no time in the journal: since it was first seen, then. */
    if (!is_stopped) d->metrics.stopped_seen_ns = 0;
    if (is_stopped && d->metrics.stopped_seen_ns == 0) d->metrics.stopped_seen_ns = clock_unix_ns();
    int64_t since_ns = s->is_frozen ? s->frozen_ns : d->metrics.stopped_seen_ns;
    set(CATALOG_STOPPED, is_stopped);
    set(CATALOG_STOPPED_SINCE, (double)since_ns / (double)NS_PER_S);
}

static void set_journal(const struct journal *j)
{
    uint64_t first = journal_first_seq(j), last = journal_last_seq(j), durable = journal_durable_seq(j);
    set(CATALOG_STORE_HEALTHY, journal_is_healthy(j));
    set(CATALOG_JOURNAL_RECORDS, first == 0 || last < first ? 0 : (double)(last - first + 1));
    uint64_t reserve_max;
    set(CATALOG_RESERVE, (double)journal_reserve_left(j, &reserve_max));
    set(CATALOG_JOURNAL_PENDING, (double)journal_pending_bytes(j));
    set(CATALOG_JOURNAL_LAG, last > durable ? (double)(last - durable) : 0);
}

static void on_collect(void *arg)
{
    struct dispatcher *d = arg;
    const struct state *s = dispatcher_state(d);
    set_queues(d);
    set_incidents(s);
    set_runbooks(s);
    set_stopped(d);
    set_journal(d->env.journal);
    set(CATALOG_DECIDING, decider_is_active(d->decider));
    set_of(CATALOG_BUILD_INFO, SV(BALM_VERSION), 1);
    uint64_t hits = s->n_limit_hits;
    if (hits > d->metrics.limit_hits_counted)
        metric_add(catalog_series(CATALOG_LIMIT_HITS, NULL), (double)(hits - d->metrics.limit_hits_counted));
    d->metrics.limit_hits_counted = hits;
}

void gauges_init(struct dispatcher *d)
{
    (void)catalog_series(CATALOG_LIMIT_HITS, NULL);
    metrics_on_collect(on_collect, d);
}

void gauges_release(struct dispatcher *d)
{
    metrics_off_collect(on_collect, d);
}

/* ---- the disk: stat() of a sick one may hang, and must not take the loop with it ---- */

struct disk {
    const char *dir;
    double free_bytes, size_bytes, journal_bytes; /* NaN: could not be seen */
};

static double folder_bytes(const char *dir, const char *name)
{
    int parent = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), fd = -1;
    if (parent >= 0) fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (parent >= 0) (void)close(parent);
    DIR *folder = fd >= 0 ? fdopendir(fd) : NULL;
    if (folder == NULL) {
        if (fd >= 0) (void)close(fd);
        return NAN;
    }
    double sum = 0;
    for (const struct dirent *entry = readdir(folder); entry != NULL; entry = readdir(folder)) {
        struct stat st;
        if (fstatat(fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode))
            sum += (double)st.st_size;
    }
    (void)closedir(folder);
    return sum;
}

static void look_at_disk(void *arg)
{
    struct disk *disk = arg;
    struct statvfs fs;
    disk->free_bytes = disk->size_bytes = NAN;
    if (statvfs(disk->dir, &fs) == 0) {
        disk->free_bytes = (double)fs.f_bavail * (double)fs.f_frsize;
        disk->size_bytes = (double)fs.f_blocks * (double)fs.f_frsize;
    }
    disk->journal_bytes = folder_bytes(disk->dir, "journal");
}

void gauges_disk_fiber(void *arg)
{
    const struct dispatcher *d = arg;
    do {
        struct disk disk = {.dir = d->env.dir};
        work_run(look_at_disk, &disk);
        set(CATALOG_DISK_FREE, disk.free_bytes);
        set(CATALOG_DISK_SIZE, disk.size_bytes);
        set(CATALOG_JOURNAL_BYTES, disk.journal_bytes);
    } while (sleep_ms(DISK_LOOK_MS) == STATUS_OK);
}

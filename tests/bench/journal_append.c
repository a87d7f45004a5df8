/* Appending one by one from many fibers, each waiting until its record is durable: `journal_append DIR
 * [fibers] [seconds]` prints records/s, the mean group, latency and the CPU of the loop thread a record
 * beyond encoding it. DIR must be on a real disk. */
#include <inttypes.h>
#include <linux/magic.h>
#include <sys/resource.h>
#include <sys/vfs.h>

#include "base/clock.h"
#include "base/memory.h"
#include "tests/contract/check.h"
#include "store/journal.h"

#define LATENCIES_MAX 4000000

struct bench {
    const char *dir;
    struct loop *loop;
    struct journal *journal;
    unsigned fibers;
    int64_t stop_at_ns;
    uint64_t done;
    uint32_t *latency_us;
};

static double cpu_us(int who)
{
    struct rusage u;
    (void)getrusage(who, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e6 +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

/* About 600 bytes, as an alert of the field has. */
static struct record sample(char fingerprint[17], uint64_t number)
{
    static const struct http_header labels[] = {{{"alertname", 9}, {"KubePodCrashLooping", 19}},
                                                {{"container", 9}, {"checkout", 8}},
                                                {{"namespace", 9}, {"shop", 4}},
                                                {{"pod", 3}, {"checkout-6b9f7c4d5d-x2x7k", 25}},
                                                {{"severity", 8}, {"critical", 8}}};
    (void)snprintf(fingerprint, 17, "%016" PRIx64, number * UINT64_C(0x9e3779b97f4a7c15));
    return (struct record){.kind = RECORD_SIGNAL,
                           .time_ns = clock_unix_ns(),
                           .status = SV("firing"),
                           .source = SV("alertmanager"),
                           .fingerprint = sv_n(fingerprint, 16),
                           .incident = sv_n(fingerprint, 16),
                           .receiver = SV("balm"),
                           .group_key = SV("{}:{alertname=\"KubePodCrashLooping\"}"),
                           .starts_at_ns = 1700000000 * NS_PER_S,
                           .generator_url =
                               SV("http://prometheus.monitoring.svc:9090/graph?g0.expr=rate%28kube_pod"),
                           .labels = {labels, 5}};
}

static void append_until_stop(void *arg)
{
    struct bench *b = arg;
    struct error err;
    char fingerprint[17];
    int64_t start;
    while ((start = clock_monotonic_ns()) < b->stop_at_ns) {
        struct record r = sample(fingerprint, b->done);
        uint64_t seq;
        CHECK_OK(journal_append(b->journal, &r, 1, &seq, &err), &err);
        CHECK_OK(journal_wait_durable(b->journal, seq, 0, &err), &err);
        if (b->done < LATENCIES_MAX)
            b->latency_us[b->done] = (uint32_t)((clock_monotonic_ns() - start) / NS_PER_US);
        b->done++;
    }
}

static double encode_us(size_t *ret_bytes)
{
    enum { ROUNDS = 20000 };
    struct buf out;
    char fingerprint[17];
    buf_init(&out, RECORD_BYTES_MAX);
    double start = cpu_us(RUSAGE_THREAD);
    for (unsigned i = 0; i < ROUNDS; i++) {
        struct record r = sample(fingerprint, i);
        r.tenant = SV("default");
        r.cluster = SV("local");
        buf_reset(&out);
        record_encode(&r, &out);
    }
    double each = (cpu_us(RUSAGE_THREAD) - start) / ROUNDS;
    *ret_bytes = out.len;
    buf_release(&out);
    return each;
}

static double mean_group(const struct journal *j)
{
    uint64_t last = journal_durable_seq(j), n = last < 60000 ? last : 60000, groups = 1;
    for (uint64_t seq = last - n + 2; seq <= last; seq++)
        if (journal_durable_unix_ns(j, seq) != journal_durable_unix_ns(j, seq - 1)) groups++;
    return (double)n / (double)groups;
}

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static void run(void *arg)
{
    struct bench *b = arg;
    struct error err;
    struct fiber_scope scope;
    size_t bytes;
    double encode = encode_us(&bytes);
    CHECK_OK(journal_open_sqlite(b->loop, &(struct journal_cfg){.dir = b->dir}, &b->journal, &err), &err);
    fiber_scope_init(&scope);
    double cpu = cpu_us(RUSAGE_THREAD), cpu_all = cpu_us(RUSAGE_SELF);
    int64_t start = clock_monotonic_ns();
    for (unsigned i = 0; i < b->fibers; i++)
        CHECK_OK(fiber_scope_spawn(&scope, append_until_stop, b, &err), &err);
    fiber_scope_join(&scope);
    double seconds = (double)(clock_monotonic_ns() - start) / 1e9, n = (double)b->done;
    size_t measured = b->done < LATENCIES_MAX ? (size_t)b->done : LATENCIES_MAX;
    cpu = (cpu_us(RUSAGE_THREAD) - cpu) / n;
    cpu_all = (cpu_us(RUSAGE_SELF) - cpu_all) / n;
    double group = mean_group(b->journal);
    qsort(b->latency_us, measured, sizeof(*b->latency_us), compare);
    printf("journal_append: %u fibers, records of %zu bytes: %.0f records/s in groups of %.1f; "
           "latency p50 %u us, p99 %u us, max %u us; "
           "CPU a record: loop %.2f us (encoding %.2f us), both threads %.2f us\n",
           b->fibers, bytes, n / seconds, group, b->latency_us[measured / 2],
           b->latency_us[measured * 99 / 100], b->latency_us[measured - 1], cpu, encode, cpu_all);
    journal_close(b->journal);
}

int main(int argc, char **argv)
{
    struct error err;
    struct statfs fs;
    CHECK(argc > 1);
    if (statfs(argv[1], &fs) != 0 || fs.f_type == TMPFS_MAGIC) {
        fprintf(stderr, "journal_append: '%s' is not a folder on a real disk\n", argv[1]);
        return 2;
    }
    struct bench b = {.dir = argv[1], .fibers = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : 64};
    b.latency_us = mem_zalloc(LATENCIES_MAX, sizeof(*b.latency_us));
    b.stop_at_ns = clock_monotonic_ns() + (argc > 3 ? strtol(argv[3], NULL, 10) : 3) * NS_PER_S;
    CHECK_OK(loop_new(&b.loop, &err), &err);
    CHECK_OK(loop_run_fiber(b.loop, run, &b, &err), &err);
    loop_free(b.loop);
    free(b.latency_us);
    return 0;
}

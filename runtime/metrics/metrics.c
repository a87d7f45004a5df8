#include "metrics/metrics.h"

#include <assert.h>
#include <dirent.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/escape.h"
#include "base/hash.h"
#include "base/list.h"
#include "base/memory.h"

/* A value may come from a peer, so its length is bounded as their number is. */
enum { LABEL_VALUE_MAX = 128, LABELS_TEXT_MAX = 4096 };

struct metric {
    struct metric_family *family;
    char *labels; /* owned: method="GET",code="200", escaped; "" without labels */
    size_t labels_len;
    uint64_t hash;
    double value;     /* histogram: the sum */
    uint64_t count;   /* histogram: observations */
    uint64_t *counts; /* histogram: owned; observations by bucket, not cumulative */
};

struct metric_family {
    enum metric_type type;
    char *name, *help; /* owned; help is escaped */
    unsigned n_labels, n_buckets;
    char *labels[METRICS_LABELS_MAX]; /* owned */
    double *buckets;                  /* owned */
    struct metric **series;           /* owned, in order of birth */
    struct metric **table;            /* owned; open addressing, a power of two of slots, at most half full */
    size_t n_series, n_slots;
};

struct collector {
    void (*fn)(void *arg);
    void *arg;
};

static struct {
    struct metric_family **families; /* sorted by name */
    size_t n_families;
    struct collector *collectors;
    size_t n_collectors;
} registry;

/* ---- families
 * ---------------------------------------------------------------------------------------------------- */

static bool is_name(const char *name, bool may_have_colon)
{
    for (const char *c = name; *c != '\0'; c++) {
        bool is_letter = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || *c == '_' ||
                         (*c == ':' && may_have_colon);
        if (!is_letter && (c == name || *c < '0' || *c > '9')) return false;
    }
    return name[0] != '\0';
}

/* Exposition format: backslash and line feed are escaped, in label values the quote too. */
static void append_escaped(struct buf *b, struct strview s, bool is_value)
{
    for (;;) {
        size_t n = json_plain_run(s); /* nothing in it that is escaped here either */
        buf_append(b, sv_sub(s, 0, n));
        s = sv_sub(s, n, s.len);
        if (s.len == 0) return;
        n = sv_utf8_sequence(s); /* one invalid byte would make Prometheus drop the whole scrape */
        if (n == 0)
            buf_append(b, SV("\xEF\xBF\xBD"));
        else if (s.ptr[0] == '\\')
            buf_append(b, SV("\\\\"));
        else if (s.ptr[0] == '\n')
            buf_append(b, SV("\\n"));
        else if (s.ptr[0] == '"' && is_value)
            buf_append(b, SV("\\\""));
        else
            buf_append(b, sv_sub(s, 0, n));
        s = sv_sub(s, n ? n : 1, s.len);
    }
}

/* Index of the family, or where it belongs. */
static size_t family_index(const char *name, bool *ret_found)
{
    size_t low = 0, high = registry.n_families;
    *ret_found = false;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(registry.families[middle]->name, name);
        if (order == 0) *ret_found = true;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void set_buckets(struct metric_family *f, const double *buckets, unsigned n)
{
    static const double usual[] = {.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10};
    if (buckets == NULL) {
        buckets = usual;
        n = ARRAY_LEN(usual);
    }
    if (n > 0 && isinf(buckets[n - 1])) n--; /* +Inf is written in any case */
    f->buckets = mem_zalloc(n, sizeof(*f->buckets));
    for (unsigned i = 0; i < n; i++) {
        assert(isfinite(buckets[i]) && (i == 0 || buckets[i] > buckets[i - 1]));
        f->buckets[i] = buckets[i];
    }
    f->n_buckets = n;
}

struct metric_family *metrics_family(enum metric_type type, const char *name, const char *help,
                                     const char *const *labels, unsigned n_labels, const double *buckets,
                                     unsigned n_buckets)
{
    assert(is_name(name, true) && n_labels <= METRICS_LABELS_MAX);
    bool is_known;
    size_t at = family_index(name, &is_known);
    if (is_known) {
        assert(registry.families[at]->type == type && registry.families[at]->n_labels == n_labels);
        return registry.families[at];
    }
    struct metric_family *f = mem_zalloc(1, sizeof(*f));
    struct buf text;
    f->type = type;
    f->name = sv_heap_copy(sv(name));
    buf_init(&text, LABELS_TEXT_MAX);
    append_escaped(&text, sv(help), false);
    f->help = sv_heap_copy(buf_view(&text));
    buf_release(&text);
    f->n_labels = n_labels;
    for (unsigned i = 0; i < n_labels; i++) {
        assert(is_name(labels[i], false) && strcmp(labels[i], "le") != 0 &&
               strlen(labels[i]) <= LABEL_VALUE_MAX);
        f->labels[i] = sv_heap_copy(sv(labels[i]));
    }
    if (type == METRIC_HISTOGRAM) set_buckets(f, buckets, n_buckets);
    registry.families =
        mem_realloc(registry.families, (registry.n_families + 1) * sizeof(struct metric_family *));
    memmove(registry.families + at + 1, registry.families + at,
            (registry.n_families - at) * sizeof(struct metric_family *));
    registry.families[at] = f;
    registry.n_families++;
    /* A counter that is first seen at 1 never increases from 0: without labels the series is known from the
     * start. */
    if (n_labels == 0) (void)metrics_series(f, NULL);
    return f;
}

/* ---- series
 * ------------------------------------------------------------------------------------------------------ */

static struct metric **find_slot(const struct metric_family *f, uint64_t hash, struct strview labels)
{
    size_t mask = f->n_slots - 1, i = (size_t)hash & mask;
    while (f->table[i] != NULL &&
           !(f->table[i]->hash == hash && sv_eq(sv_n(f->table[i]->labels, f->table[i]->labels_len), labels)))
        i = (i + 1) & mask;
    return &f->table[i];
}

static void grow_table(struct metric_family *f)
{
    f->n_slots = f->n_slots ? f->n_slots * 2 : 4;
    free(f->table);
    f->table = mem_zalloc(f->n_slots, sizeof(struct metric *));
    f->series = mem_realloc(f->series, f->n_slots / 2 * sizeof(struct metric *));
    for (size_t i = 0; i < f->n_series; i++)
        *find_slot(f, f->series[i]->hash, sv_n(f->series[i]->labels, f->series[i]->labels_len)) =
            f->series[i];
}

/* A series is known by the text it is written as: two values that are equal after cutting and repair are one
 * series. */
static void format_labels(const struct metric_family *f, const struct strview *values, struct buf *out)
{
    assert(values != NULL || f->n_labels == 0);
    for (unsigned i = 0; i < f->n_labels; i++) {
        struct strview value = values[i];
        if (value.len > LABEL_VALUE_MAX) { /* cut between characters */
            size_t len = LABEL_VALUE_MAX;
            while (len > 0 && ((unsigned char)value.ptr[len] & 0xC0) == 0x80)
                len--;
            value.len = len;
        }
        if (i > 0) buf_append_char(out, ',');
        buf_append(out, sv(f->labels[i]));
        buf_append(out, SV("=\""));
        append_escaped(out, value, true);
        buf_append_char(out, '"');
    }
}

static struct metric *find_or_make(struct metric_family *f, const struct strview *values, size_t max_series)
{
    struct buf labels;
    buf_init(&labels, LABELS_TEXT_MAX);
    format_labels(f, values, &labels);
    assert(buf_status(&labels) == STATUS_OK); /* 4 × (128 + 3 × 128 + punctuation) fits */
    uint64_t hash = fnv1a_add(FNV1A_START, buf_view(&labels));
    struct metric **slot = f->n_slots ? find_slot(f, hash, buf_view(&labels)) : NULL;
    struct metric *m = slot ? *slot : NULL;
    if (m == NULL && f->n_series < max_series) {
        if (2 * (f->n_series + 1) > f->n_slots) grow_table(f);
        m = mem_zalloc(1, sizeof(*m));
        m->family = f;
        m->labels = sv_heap_copy(buf_view(&labels));
        m->labels_len = labels.len;
        m->hash = hash;
        if (f->type == METRIC_HISTOGRAM) m->counts = mem_zalloc((size_t)f->n_buckets + 1, sizeof(*m->counts));
        f->series[f->n_series++] = m;
        *find_slot(f, hash, buf_view(&labels)) = m;
    }
    buf_release(&labels);
    return m;
}

struct metric *metrics_series(struct metric_family *f, const struct strview *values)
{
    struct metric *m = find_or_make(f, values, METRICS_SERIES_MAX);
    if (m != NULL) return m;
    static const struct strview other[METRICS_LABELS_MAX] = {
        {"other", 5}, {"other", 5}, {"other", 5}, {"other", 5}};
    return find_or_make(f, other, METRICS_SERIES_MAX + 1);
}

void metric_add(struct metric *m, double delta)
{
    /* A counter that falls would look like a restart to rate(). */
    if (m->family->type == METRIC_COUNTER && !(delta >= 0)) return;
    m->value += delta;
}

void metric_set(struct metric *m, double value)
{
    m->value = value;
}

void metric_observe(struct metric *m, double value)
{
    const struct metric_family *f = m->family;
    assert(f->type == METRIC_HISTOGRAM);
    if (isnan(value)) return; /* it would turn the sum into NaN for ever */
    unsigned i = 0;
    while (i < f->n_buckets && value > f->buckets[i])
        i++;
    m->counts[i]++;
    m->count++;
    m->value += value;
}

double metric_value(const struct metric *m)
{
    return m->family->type == METRIC_HISTOGRAM ? (double)m->count : m->value;
}

void metrics_zero(struct metric_family *f)
{
    assert(f->type == METRIC_GAUGE);
    for (size_t i = 0; i < f->n_series; i++)
        f->series[i]->value = 0;
}

void metrics_on_collect(void (*fn)(void *arg), void *arg)
{
    registry.collectors =
        mem_realloc(registry.collectors, (registry.n_collectors + 1) * sizeof(struct collector));
    registry.collectors[registry.n_collectors++] = (struct collector){fn, arg};
}

void metrics_off_collect(void (*fn)(void *arg), void *arg)
{
    for (size_t i = 0; i < registry.n_collectors; i++) {
        if (registry.collectors[i].fn != fn || registry.collectors[i].arg != arg) continue;
        registry.collectors[i] = registry.collectors[--registry.n_collectors];
        return;
    }
}

/* ---- process_* of this process
 * ----------------------------------------------------------------------------------- */

static void set_process(enum metric_type type, const char *name, const char *help, double value)
{
    metrics_family(type, name, help, NULL, 0, NULL, 0)->series[0]->value = value;
}

static double count_open_fds(void)
{
    DIR *folder = opendir("/proc/self/fd");
    if (folder == NULL) return NAN;
    double n = -1; /* the folder's own */
    for (const struct dirent *entry = readdir(folder); entry != NULL; entry = readdir(folder))
        if (entry->d_name[0] != '.') n++;
    closedir(folder);
    return n;
}

static void collect_stat(void)
{
    char text[1024];
    int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return;
    ssize_t n = read(fd, text, sizeof(text) - 1);
    (void)close(fd);
    text[n > 0 ? n : 0] = '\0';
    const char *after_name = strrchr(text, ')'); /* the name itself may hold spaces and parentheses */
    unsigned long long utime, stime, started, virtual_bytes;
    long n_threads, resident_pages;
    if (after_name == NULL ||
        /* NOLINTNEXTLINE(cert-err34-c): the kernel's own numbers; how many were read is checked */
        sscanf(after_name + 1,
               " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu %*d %*d %*d %*d %ld %*d %llu %llu %ld",
               &utime, &stime, &n_threads, &started, &virtual_bytes, &resident_pages) != 6)
        return;
    double ticks = (double)sysconf(_SC_CLK_TCK);
    static double start_time; /* computed once: two clocks read apart would make it jitter */
    if (start_time <= 0) {
        struct timespec since_boot;
        if (clock_gettime(CLOCK_BOOTTIME, &since_boot) != 0) return;
        double boot =
            (double)clock_unix_ns() / 1e9 - ((double)since_boot.tv_sec + (double)since_boot.tv_nsec / 1e9);
        start_time = (double)(int64_t)((boot + (double)started / ticks) * 100 + .5) / 100;
    }
    set_process(METRIC_COUNTER, "process_cpu_seconds_total", "User and system CPU time spent in seconds.",
                (double)(utime + stime) / ticks);
    set_process(METRIC_GAUGE, "process_threads", "Number of threads.", (double)n_threads);
    set_process(METRIC_GAUGE, "process_start_time_seconds", "Start time since the Unix epoch in seconds.",
                start_time);
    set_process(METRIC_GAUGE, "process_virtual_memory_bytes", "Virtual memory size in bytes.",
                (double)virtual_bytes);
    set_process(METRIC_GAUGE, "process_resident_memory_bytes", "Resident memory size in bytes.",
                (double)resident_pages * (double)sysconf(_SC_PAGESIZE));
}

static void collect_process(void)
{
    collect_stat();
    double n_fds = count_open_fds();
    if (!isnan(n_fds))
        set_process(METRIC_GAUGE, "process_open_fds", "Number of open file descriptors.", n_fds);
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
        set_process(METRIC_GAUGE, "process_max_fds", "Maximum number of open file descriptors.",
                    limit.rlim_cur == RLIM_INFINITY ? INFINITY : (double)limit.rlim_cur);
}

const char *metric_type_name(enum metric_type type)
{
    static const char *const names[] = {"counter", "gauge", "histogram"};
    return names[type];
}

/* ---- exposition
 * -------------------------------------------------------------------------------------------------- */

/* Shortest of 15 to 17 digits that reads back as the same number. */
static void append_number(struct buf *out, double v)
{
    char text[40];
    if (isnan(v)) {
        buf_append(out, SV("NaN"));
        return;
    }
    if (isinf(v)) {
        buf_append(out, v > 0 ? SV("+Inf") : SV("-Inf"));
        return;
    }
    for (int digits = 15; digits <= 17; digits++) {
        (void)snprintf(text, sizeof(text), "%.*g", digits, v);
        if (strtod(text, NULL) == v) break;
    }
    buf_append(out, sv(text));
}

/* name_suffix{labels,extra} without the value; `extra` is the histogram's le, or empty. */
static void append_sample_name(struct buf *out, const struct metric *m, const char *suffix,
                               struct strview extra)
{
    buf_append(out, sv(m->family->name));
    buf_append(out, sv(suffix));
    if (m->labels_len + extra.len > 0) {
        buf_append_char(out, '{');
        buf_append(out, sv_n(m->labels, m->labels_len));
        if (m->labels_len > 0 && extra.len > 0) buf_append_char(out, ',');
        buf_append(out, extra);
        buf_append_char(out, '}');
    }
    buf_append_char(out, ' ');
}

static void append_histogram(struct buf *out, const struct metric *m)
{
    const struct metric_family *f = m->family;
    struct strview none = {NULL, 0};
    struct buf le;
    buf_init(&le, 64);
    uint64_t sum = 0;
    for (unsigned i = 0; i <= f->n_buckets; i++) {
        sum += m->counts[i];
        buf_reset(&le);
        buf_append(&le, SV("le=\""));
        append_number(&le, i < f->n_buckets ? f->buckets[i] : INFINITY);
        buf_append_char(&le, '"');
        append_sample_name(out, m, "_bucket", buf_view(&le));
        buf_append_u64(out, sum);
        buf_append_char(out, '\n');
    }
    buf_release(&le);
    append_sample_name(out, m, "_sum", none);
    append_number(out, m->value);
    buf_append_char(out, '\n');
    append_sample_name(out, m, "_count", none);
    buf_append_u64(out, m->count);
    buf_append_char(out, '\n');
}

static void append_family(struct buf *out, const struct metric_family *f)
{
    if (f->n_series == 0) return;
    buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", f->name, f->help, f->name, metric_type_name(f->type));
    for (size_t i = 0; i < f->n_series; i++) {
        const struct metric *m = f->series[i];
        if (f->type == METRIC_HISTOGRAM) {
            append_histogram(out, m);
            continue;
        }
        append_sample_name(out, m, "", (struct strview){NULL, 0});
        append_number(out, m->value);
        buf_append_char(out, '\n');
    }
}

void metrics_write(struct buf *out)
{
    for (size_t i = 0; i < registry.n_collectors; i++)
        registry.collectors[i].fn(registry.collectors[i].arg);
    collect_process();
    for (size_t i = 0; i < registry.n_families; i++)
        append_family(out, registry.families[i]);
}

#include "metrics/metrics.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static struct buf out; /* Criterion runs each test in a process of its own: families do not meet */

static const char *exposition(void)
{
    buf_release(&out);
    buf_init(&out, 1 << 20);
    metrics_write(&out);
    cr_assert(buf_status(&out) == STATUS_OK);
    return out.ptr;
}

static void release(void)
{
    buf_release(&out);
}

TestSuite(metrics, .fini = release);

/* Value of the sample whose line starts with `name` and a space; NAN if there is none. */
static double sample(const char *name)
{
    struct strview rest = sv(exposition()), line;
    while (sv_next(&rest, '\n', &line))
        if (sv_starts_with(line, sv(name)) && line.len > strlen(name) && line.ptr[strlen(name)] == ' ')
            return strtod(line.ptr + strlen(name) + 1, NULL);
    return NAN;
}

Test(metrics, counters_and_gauges_are_written_with_help_and_type)
{
    const char *labels[] = {"method", "code"};
    struct metric_family *f =
        metrics_family(METRIC_COUNTER, "balm_requests_total", "Requests\nby \\ code.", labels, 2, NULL, 0);
    struct metric *m = metrics_series(f, (struct strview[]){SV("GET"), SV("200")});
    metric_add(m, 1);
    metric_add(m, 2.5);
    struct metric *g =
        metrics_series(metrics_family(METRIC_GAUGE, "balm_depth", "Depth.", NULL, 0, NULL, 0), NULL);
    metric_set(g, -7);
    metric_add(g, 2);
    cr_assert_eq(metric_value(m), 3.5);
    cr_assert_eq(metric_value(g), -5);
    cr_assert(sv_starts_with(sv(exposition()),
                             SV("# HELP balm_depth Depth.\n# TYPE balm_depth gauge\nbalm_depth -5\n"
                                "# HELP balm_requests_total Requests\\nby \\\\ code.\n"
                                "# TYPE balm_requests_total counter\n"
                                "balm_requests_total{method=\"GET\",code=\"200\"} 3.5\n")),
              "%s", out.ptr);
    cr_assert_eq(out.ptr[out.len - 1], '\n');
}

Test(metrics, same_name_and_same_labels_are_the_same)
{
    const char *labels[] = {"a"};
    struct metric_family *f = metrics_family(METRIC_GAUGE, "balm_x", "X.", labels, 1, NULL, 0);
    cr_assert_eq(metrics_family(METRIC_GAUGE, "balm_x", "X.", labels, 1, NULL, 0), f);
    struct metric *m = metrics_series(f, (struct strview[]){SV("v")});
    cr_assert_eq(metrics_series(f, (struct strview[]){SV("v")}), m);
    cr_assert_neq(metrics_series(f, (struct strview[]){SV("w")}), m);
}

Test(metrics, series_survive_growth_of_their_family)
{
    const char *labels[] = {"n"};
    struct metric_family *f = metrics_family(METRIC_GAUGE, "balm_x", "X.", labels, 1, NULL, 0);
    struct metric *series[METRICS_SERIES_MAX];
    char name[20];
    for (int i = 0; i < METRICS_SERIES_MAX; i++) {
        (void)snprintf(name, sizeof(name), "%d", i);
        series[i] = metrics_series(f, (struct strview[]){sv(name)});
        metric_set(series[i], i);
    }
    for (int i = 0; i < METRICS_SERIES_MAX; i++) {
        (void)snprintf(name, sizeof(name), "%d", i);
        cr_assert_eq(metrics_series(f, (struct strview[]){sv(name)}), series[i]);
        cr_assert_eq(metric_value(series[i]), i);
    }
}

Test(metrics, past_the_maximum_everything_goes_to_other)
{
    const char *labels[] = {"n", "k"};
    struct metric_family *f = metrics_family(METRIC_COUNTER, "balm_x_total", "X.", labels, 2, NULL, 0);
    char name[20];
    for (int i = 0; i < METRICS_SERIES_MAX + 500; i++) {
        (void)snprintf(name, sizeof(name), "%d", i);
        metric_add(metrics_series(f, (struct strview[]){sv(name), SV("k")}), 1);
    }
    cr_assert_eq(sample("balm_x_total{n=\"999\",k=\"k\"}"), 1);
    cr_assert(isnan(sample("balm_x_total{n=\"1000\",k=\"k\"}")));
    cr_assert_eq(sample("balm_x_total{n=\"other\",k=\"other\"}"), 500);
    /* A peer that calls itself so meets the same series, not a duplicate of it. */
    metric_add(metrics_series(f, (struct strview[]){SV("other"), SV("other")}), 1);
    cr_assert_eq(sample("balm_x_total{n=\"other\",k=\"other\"}"), 501);
}

Test(metrics, counters_do_not_fall)
{
    struct metric *m =
        metrics_series(metrics_family(METRIC_COUNTER, "balm_x_total", "X.", NULL, 0, NULL, 0), NULL);
    metric_add(m, 2);
    metric_add(m, -1);
    metric_add(m, NAN);
    cr_assert_eq(metric_value(m), 2);
}

Test(metrics, histogram_is_cumulative_and_ends_at_inf)
{
    const char *labels[] = {"stage"};
    const double buckets[] = {0.1, 1, 2.5};
    struct metric_family *f = metrics_family(METRIC_HISTOGRAM, "balm_s", "S.", labels, 1, buckets, 3);
    struct metric *m = metrics_series(f, (struct strview[]){SV("x")});
    const double seen[] = {0.05, 0.1, 0.10001, 1, 2.5, 3, 1e9, -1};
    for (size_t i = 0; i < 8; i++)
        metric_observe(m, seen[i]);
    metric_observe(m, NAN);
    cr_assert_eq(metric_value(m), 8);
    cr_assert(sv_starts_with(sv(exposition()), SV("# HELP balm_s S.\n# TYPE balm_s histogram\n"
                                                  "balm_s_bucket{stage=\"x\",le=\"0.1\"} 3\n"
                                                  "balm_s_bucket{stage=\"x\",le=\"1\"} 5\n"
                                                  "balm_s_bucket{stage=\"x\",le=\"2.5\"} 6\n"
                                                  "balm_s_bucket{stage=\"x\",le=\"+Inf\"} 8\n"
                                                  "balm_s_sum{stage=\"x\"} ")),
              "%s", out.ptr);
    cr_assert_not_null(strstr(out.ptr, "\nbalm_s_count{stage=\"x\"} 8\n"));
}

Test(metrics, histogram_without_labels_or_buckets_has_the_usual_ones)
{
    metric_observe(metrics_series(metrics_family(METRIC_HISTOGRAM, "balm_s", "S.", NULL, 0, NULL, 0), NULL),
                   0.2);
    cr_assert_eq(sample("balm_s_bucket{le=\"0.005\"}"), 0);
    cr_assert_eq(sample("balm_s_bucket{le=\"0.25\"}"), 1);
    cr_assert_eq(sample("balm_s_bucket{le=\"10\"}"), 1);
    cr_assert_eq(sample("balm_s_bucket{le=\"+Inf\"}"), 1);
    cr_assert_eq(sample("balm_s_sum"), 0.2);
    cr_assert_eq(sample("balm_s_count"), 1);
}

Test(metrics, a_counter_without_labels_is_there_from_the_start_and_an_empty_family_is_not)
{
    const char *labels[] = {"a"};
    (void)metrics_family(METRIC_COUNTER, "balm_x_total", "X.", NULL, 0, NULL, 0);
    (void)metrics_family(METRIC_COUNTER, "balm_y_total", "Y.", labels, 1, NULL, 0);
    cr_assert_eq(sample("balm_x_total"), 0);
    cr_assert_null(strstr(out.ptr, "balm_y_total"));
}

Test(metrics, label_values_of_peers_are_escaped_repaired_and_cut)
{
    const char *labels[] = {"v"};
    struct metric_family *f = metrics_family(METRIC_GAUGE, "balm_x", "X.", labels, 1, NULL, 0);
    metric_set(metrics_series(f, (struct strview[]){SV("a\"b\\c\nd\xFF")}), 1);
    cr_assert_eq(sample("balm_x{v=\"a\\\"b\\\\c\\nd\uFFFD\"}"), 1);
    char longer[1000];
    memset(longer, 'x', sizeof(longer));
    struct metric *m = metrics_series(f, (struct strview[]){sv_n(longer, 1000)});
    cr_assert_eq(metrics_series(f, (struct strview[]){sv_n(longer, 999)}), m); /* written alike: one series */
    memset(longer, '\xFF', sizeof(longer));
    (void)metrics_series(f, (struct strview[]){sv_n(longer, 1000)});
    cr_assert(sv_is_utf8(sv(exposition())));
    cr_assert_lt(out.len, 4000);
}

Test(metrics, numbers_read_back_exactly)
{
    struct metric *m = metrics_series(metrics_family(METRIC_GAUGE, "balm_x", "X.", NULL, 0, NULL, 0), NULL);
    const double values[] = {
        0, 1, -1, 0.1, 1.0 / 3, 1e15, 123456789012345678., 1e300, 5e-324, 1795356084.123456789};
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        metric_set(m, values[i]);
        cr_assert_eq(sample("balm_x"), values[i], "%.17g", values[i]);
    }
    metric_set(m, INFINITY);
    cr_assert_not_null(strstr(exposition(), "balm_x +Inf\n"));
    metric_set(m, -INFINITY);
    cr_assert_not_null(strstr(exposition(), "balm_x -Inf\n"));
    metric_set(m, NAN);
    cr_assert_not_null(strstr(exposition(), "balm_x NaN\n"));
    metric_set(m, 0.1);
    cr_assert_not_null(strstr(exposition(), "balm_x 0.1\n")); /* and not 0.10000000000000001 */
}

Test(metrics, process_set_describes_this_process)
{
    double before = sample("process_open_fds");
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    cr_assert_eq(sample("process_open_fds"), before + 1);
    (void)close(fd);
    double started = sample("process_start_time_seconds"), now = (double)time(NULL);
    cr_assert(started > now - 600 && started <= now + 1, "%f, now %f", started, now);
    cr_assert_eq(sample("process_start_time_seconds"), started);
    cr_assert_geq(sample("process_threads"), 1);
    cr_assert_gt(sample("process_resident_memory_bytes"), 100000);
    cr_assert_geq(sample("process_virtual_memory_bytes"), sample("process_resident_memory_bytes"));
    cr_assert_gt(sample("process_max_fds"), 2);
    cr_assert_geq(sample("process_cpu_seconds_total"), 0);
}

static void on_collect(void *arg)
{
    metric_add(arg, 1);
}

Test(metrics, collectors_run_before_each_exposition)
{
    struct metric *m = metrics_series(metrics_family(METRIC_GAUGE, "balm_x", "X.", NULL, 0, NULL, 0), NULL);
    metrics_on_collect(on_collect, m);
    cr_assert_eq(sample("balm_x"), 1);
    cr_assert_eq(sample("balm_x"), 2);
    metrics_off_collect(on_collect, NULL); /* another's */
    cr_assert_eq(sample("balm_x"), 3);
    metrics_off_collect(on_collect, m);
    cr_assert_eq(sample("balm_x"), 3);
}

Test(metrics, gauge_that_is_computed_anew_keeps_no_value_of_what_is_gone)
{
    const char *const labels[] = {"l"};
    struct metric_family *f = metrics_family(METRIC_GAUGE, "balm_y", "Y.", labels, 1, NULL, 0);
    metric_set(metrics_series(f, (struct strview[]){SV("gone")}), 7);
    metric_set(metrics_series(f, (struct strview[]){SV("here")}), 8);
    metrics_zero(f);
    metric_set(metrics_series(f, (struct strview[]){SV("here")}), 9);
    cr_assert_eq(sample("balm_y{l=\"gone\"}"), 0);
    cr_assert_eq(sample("balm_y{l=\"here\"}"), 9);
}

/* The rules of promtool check metrics that a writer can break: family lines together, HELP then TYPE, once,
 * in order. */
Test(metrics, every_family_has_one_help_and_one_type_in_order)
{
    for (int i = 20; i > 0; i--) {
        char name[32];
        const char *labels[] = {"l"};
        (void)snprintf(name, sizeof(name), "balm_%c_total", 'a' + i);
        struct metric_family *f = metrics_family(METRIC_COUNTER, name, "X.", labels, 1, NULL, 0);
        (void)metrics_series(f, (struct strview[]){SV("1")});
        (void)metrics_series(f, (struct strview[]){SV("2")});
    }
    struct strview rest = sv(exposition()), line, last = {NULL, 0}, current = {NULL, 0};
    bool has_type = false;
    while (sv_next(&rest, '\n', &line)) {
        if (line.len == 0) continue;
        bool is_help = sv_starts_with(line, SV("# HELP ")), is_type = sv_starts_with(line, SV("# TYPE "));
        struct strview name = is_help || is_type ? sv_sub(line, 7, line.len) : line;
        size_t end = 0;
        while (end < name.len && name.ptr[end] != ' ' && name.ptr[end] != '{')
            end++;
        name = sv_sub(name, 0, end);
        if (is_help) {
            cr_assert_lt(sv_cmp(last, name), 0);
            last = current = name;
            has_type = false;
        } else if (is_type) {
            cr_assert(sv_eq(name, current) && !has_type);
            has_type = true;
        } else {
            cr_assert(sv_eq(name, current) && has_type, "%.*s", SV_ARG(line));
        }
    }
}

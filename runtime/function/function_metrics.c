#include "function/function_impl.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/list.h"
#include "metrics/metrics.h"

#define EXPOSITION_BYTES_MAX ((size_t)4 * 1024 * 1024)
#define SERIES_CACHED_MAX    32

/* Names, labels and buckets as of-watchdog has them (contracts/openfaas.md §1.13). */
static struct metric_family *requests, *durations;
static struct metric *in_flight;

/* Series by (method, status), so that counting a request looks up no labels. A function answers with a
 * handful of them. */
static struct cached {
    const char *method;
    int status;
    struct metric *requests, *durations;
} cache[SERIES_CACHED_MAX];
static size_t n_cached;

void function_metrics_init(void)
{
    static const char *const labels[] = {"code", "method"};
    requests = metrics_family(METRIC_COUNTER, "http_requests_total", "Requests to the function.", labels, 2,
                              NULL, 0);
    durations = metrics_family(METRIC_HISTOGRAM, "http_request_duration_seconds",
                               "Time from request to answer.", labels, 2, NULL, 0);
    in_flight = metrics_series(
        metrics_family(METRIC_GAUGE, "http_requests_in_flight", "Requests being served.", NULL, 0, NULL, 0),
        NULL);
}

void function_metrics_inflight(unsigned inflight)
{
    metric_set(in_flight, inflight);
}

/* A peer names the method: what is not a usual one must not become a label. */
static const char *method_label(struct strview method)
{
    static const struct {
        const char *method, *label;
    } known[] = {
        {"POST", "post"},       {"GET", "get"},         {"PUT", "put"},
        {"DELETE", "delete"},   {"HEAD", "head"},       {"PATCH", "patch"},
        {"OPTIONS", "options"}, {"CONNECT", "connect"}, {"TRACE", "trace"},
    };
    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        if (sv_eq(sv(known[i].method), method)) return known[i].label;
    return "unknown";
}

static struct cached find_series(const char *method, int status)
{
    for (size_t i = 0; i < n_cached; i++)
        if (cache[i].method == method && cache[i].status == status) return cache[i];
    char code[16];
    (void)snprintf(code, sizeof(code), "%d", status);
    struct strview values[] = {sv(code), sv(method)};
    struct cached c = {method, status, metrics_series(requests, values), metrics_series(durations, values)};
    if (n_cached < SERIES_CACHED_MAX) cache[n_cached++] = c;
    return c;
}

void function_metrics_count(struct strview method, int status, int64_t duration_ns)
{
    struct cached c = find_series(method_label(method), status);
    metric_add(c.requests, 1);
    metric_observe(c.durations, (double)duration_ns / (double)NS_PER_S);
}

void function_metrics_serve(void *arg, const struct http_req *req, struct http_resp *resp)
{
    struct buf text;
    (void)arg;
    if (!sv_eq(req->path, SV("/metrics"))) {
        http_resp_set(resp, 404, SV("text/plain"), SV("only /metrics is here\n"));
        return;
    }
    buf_init(&text, EXPOSITION_BYTES_MAX);
    metrics_write(&text);
    http_resp_set(resp, 200, SV("text/plain; version=0.0.4; charset=utf-8"),
                  arena_copy(req->arena, buf_view(&text)));
    buf_release(&text);
}

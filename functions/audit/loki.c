#include "functions/audit/loki.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "fiber/fiber.h"
#include "functions/audit/answer.h"
#include "functions/audit/logql.h"
#include "functions/audit/params.h"
#include "functions/audit/query.h"
#include "loop/loop.h"
#include "metrics/catalog.h"

#define DATA_MAX          (4 * 1024 * 1024) /* INDEX_SERIES_MAX label sets of names of 1 KiB */
#define SELECTORS_MAX     16
#define SELECT_TIMEOUT_NS (10 * NS_PER_S)

/* ---- query_range ---- */

/* Waits for a slot. False: answered with why not. */
static bool take_slot(struct loki *l, const struct http_req *req, struct http_resp *resp, int64_t deadline_ns)
{
    static char token;
    if (l->waiting >= LOKI_WAITING_MAX) {
        answer_error(resp, req->arena, 429, SV("too many outstanding requests"));
        return false;
    }
    l->waiting++;
    enum status s = channel_send(&l->slots, &token, deadline_ns);
    l->waiting--;
    if (s != STATUS_OK)
        answer_error(resp, req->arena, s == STATUS_DEADLINE_EXCEEDED ? 504 : 503,
                     SV("context deadline exceeded"));
    return s == STATUS_OK;
}

static void give_slot(struct loki *l)
{
    void *token = NULL;
    (void)!channel_receive(&l->slots, 0, &token); /* ours is in it: it does not wait */
}

static void run_lines(struct loki *l, const struct http_req *req, struct http_resp *resp,
                      const struct logql_query *logql, struct range_params params)
{
    struct error err = {0};
    struct query q;
    int64_t deadline_ns = clock_monotonic_ns() + LOKI_QUERY_TIMEOUT_NS;
    if (!take_slot(l, req, resp, deadline_ns)) return;
    query_init(&q, logql, params);
    if (query_run(&q, l->journal, l->index, deadline_ns, &err) == STATUS_OK)
        answer_streams(req, resp, &q);
    else
        answer_failure(resp, req->arena, &err);
    query_release(&q);
    give_slot(l);
}

struct parse_work {
    struct strview text;
    struct arena *arena;
    struct logql_query query;
    enum status status;
    struct error *err;
};

/* Regular expressions are compiled to machine code: milliseconds for a large one. */
static void do_parse(void *arg)
{
    struct parse_work *w = arg;
    w->status = logql_parse(w->text, w->arena, &w->query, w->err);
}

static void query_range(struct loki *l, const struct params *p, const struct http_req *req,
                        struct http_resp *resp)
{
    struct error err = {0};
    struct range_params params;
    struct parse_work w = {.text = params_get(p, SV("query")), .arena = req->arena, .err = &err};
    enum status s = params_query_range(p, clock_unix_ns(), &params, &err);
    if (s == STATUS_OK) {
        work_run(do_parse, &w);
        s = w.status;
    }
    if (s != STATUS_OK) {
        answer_failure(resp, req->arena, &err);
        return;
    }
    if (w.query.is_scalar)
        answer_error(resp, req->arena, 400,
                     SV("metric queries are not supported here: ask for lines, as in {app=\"balm\"}"));
    else
        run_lines(l, req, resp, &w.query, params);
    logql_release(&w.query);
}

/* ---- query: what a data source's health check asks, vector(1)+vector(1) ---- */

/* The shortest text that reads back as the same number, as Go writes it. */
static void format_value(double value, char *ret_text, size_t size)
{
    if (isnan(value) || isinf(value)) {
        (void)snprintf(ret_text, size, "%s", isnan(value) ? "NaN" : value > 0 ? "+Inf" : "-Inf");
        return;
    }
    for (int digits = 1; digits <= 17; digits++) {
        (void)snprintf(ret_text, size, "%.*g", digits, value);
        if (strtod(ret_text, NULL) == value) return;
    }
}

static const char log_query_at_an_instant[] =
    "log queries are not supported as an instant query type, please change your "
    "query to a range query type";
static const char vector_answer[] =
    "{\"resultType\":\"vector\",\"result\":[{\"metric\":{},\"value\":%.*s}],\"stats\":{}}";
static const char scalar_answer[] = "{\"resultType\":\"scalar\",\"result\":%.*s,\"stats\":{}}";

static void answer_value(const struct logql_query *logql, int64_t time_ns, const struct http_req *req,
                         struct http_resp *resp)
{
    char value[64];
    format_value(logql->value, value, sizeof(value));
    struct strview sample = arena_printf(req->arena, "[%.15g,\"%s\"]", (double)time_ns / 1e9, value);
    if (logql->is_vector)
        answer_data(req, resp, arena_printf(req->arena, vector_answer, SV_ARG(sample)));
    else
        answer_data(req, resp, arena_printf(req->arena, scalar_answer, SV_ARG(sample)));
}

static void query_instant(struct loki *l, const struct params *p, const struct http_req *req,
                          struct http_resp *resp)
{
    (void)l;
    struct error err = {0};
    struct parse_work w = {.text = params_get(p, SV("query")), .arena = req->arena, .err = &err};
    int64_t time_ns = 0;
    if (params_time(params_get(p, SV("time")), clock_unix_ns(), &time_ns) != STATUS_OK) {
        answer_error(resp, req->arena, 400, SV("could not parse 'time' parameter"));
        return;
    }
    work_run(do_parse, &w);
    if (w.status != STATUS_OK) {
        answer_failure(resp, req->arena, &err);
        return;
    }
    if (w.query.is_scalar)
        answer_value(&w.query, time_ns, req, resp);
    else
        answer_error(resp, req->arena, 400, sv(log_query_at_an_instant));
    logql_release(&w.query);
}

/* ---- labels, values, series ---- */

struct selectors {
    struct logql_query items[SELECTORS_MAX];
    size_t n;
};

static void selectors_release(struct selectors *s)
{
    for (size_t i = 0; i < s->n; i++)
        logql_release(&s->items[i]);
    s->n = 0;
}

/* All values of the parameters `one` and `two`. */
static enum status selectors_read(const struct params *p, struct strview one, struct strview two,
                                  struct arena *a, struct selectors *ret_selectors, struct error *err)
{
    struct selectors *s = ret_selectors;
    s->n = 0;
    for (size_t i = 0; i < p->n; i++) {
        if (!sv_eq(p->items[i].name, one) && !sv_eq(p->items[i].name, two)) continue;
        enum status status =
            s->n == SELECTORS_MAX
                ? error_set(err, STATUS_INVALID_ARGUMENT, "more than %d selectors", SELECTORS_MAX)
                : logql_parse_selector(p->items[i].value, a, &s->items[s->n], err);
        if (status != STATUS_OK) {
            selectors_release(s);
            return status;
        }
        s->n++;
    }
    return STATUS_OK;
}

/* Of any of the selectors; of all where there is none. */
static enum status selects(const struct selectors *s, const struct index_series *x, bool *ret_selects,
                           struct error *err)
{
    *ret_selects = s->n == 0;
    for (size_t i = 0; i < s->n && !*ret_selects; i++) {
        enum status status = query_selects(&s->items[i], x->kind, x->function, ret_selects, err);
        if (status != STATUS_OK) return status;
    }
    return STATUS_OK;
}

/* Selecting is the client's regular expressions on each series: a worker's work, on a copy of what the index
 * has now. */
struct select_work {
    const struct params *params;
    struct strview one, two; /* names of the parameters that have selectors */
    struct arena *arena;
    struct index_series *series; /* in the range; then the n selected ones */
    size_t n;
    enum status status;
    struct error err;
};

static void do_select(void *arg)
{
    struct select_work *w = arg;
    struct selectors *selectors = arena_zalloc(w->arena, sizeof(*selectors));
    int64_t deadline_ns = clock_monotonic_ns() + SELECT_TIMEOUT_NS;
    size_t n = 0;
    w->status = selectors_read(w->params, w->one, w->two, w->arena, selectors, &w->err);
    for (size_t i = 0; i < w->n && w->status == STATUS_OK; i++) {
        bool is_selected = false;
        w->status = selects(selectors, &w->series[i], &is_selected, &w->err);
        if (is_selected) w->series[n++] = w->series[i];
        if (w->status == STATUS_OK && clock_monotonic_ns() > deadline_ns)
            w->status = error_set(&w->err, STATUS_DEADLINE_EXCEEDED, "context deadline exceeded");
    }
    w->n = n;
    selectors_release(selectors);
}

static void copy_series(const struct audit_index *x, struct time_range range, struct select_work *w)
{
    w->series = arena_array(w->arena, x->n_series + 1, sizeof(*w->series));
    for (size_t i = 0; i < x->n_series; i++) {
        if (x->series[i].max_ns < range.start_ns || x->series[i].min_ns >= range.end_ns) continue;
        w->series[w->n] = x->series[i];
        w->series[w->n++].function = arena_copy(w->arena, x->series[i].function);
    }
}

typedef void series_cb(void *arg, const struct index_series *x);

/* The series with records in the range that are selected, to `cb`. False: answered with what is wrong.
 * Suspends. */
static bool each_series(struct loki *l, const struct params *p, struct strview one, struct strview two,
                        const struct http_req *req, struct http_resp *resp, series_cb *cb, void *arg)
{
    struct time_range range;
    struct select_work w = {.params = p, .one = one, .two = two, .arena = req->arena};
    if (!take_slot(l, req, resp, clock_monotonic_ns() + LOKI_QUERY_TIMEOUT_NS)) return false;
    w.status = query_check_index(l->journal, journal_generation(l->journal), &w.err);
    if (w.status == STATUS_OK) w.status = params_range(p, clock_unix_ns(), &range, &w.err);
    if (w.status == STATUS_OK) {
        copy_series(l->index, range, &w);
        work_run(do_select, &w);
    }
    give_slot(l);
    for (size_t i = 0; i < w.n && w.status == STATUS_OK; i++)
        cb(arg, &w.series[i]);
    if (w.status != STATUS_OK) answer_failure(resp, req->arena, &w.err);
    return w.status == STATUS_OK;
}

struct values {
    struct strview label;
    struct strview items[INDEX_SERIES_MAX];
    size_t n;
};

static void add_value(struct values *v, struct strview value)
{
    if (value.len == 0) return;
    for (size_t i = 0; i < v->n; i++)
        if (sv_eq(v->items[i], value)) return;
    v->items[v->n++] = value; /* one a series at most */
}

static void on_label_value(void *arg, const struct index_series *x)
{
    struct values *v = arg;
    if (sv_eq(v->label, SV("app")))
        add_value(v, SV("balm"));
    else if (sv_eq(v->label, SV("kind")))
        add_value(v, sv(record_kind_name(x->kind)));
    else if (sv_eq(v->label, SV("function")))
        add_value(v, x->function);
}

static void on_label_names(void *arg, const struct index_series *x)
{
    add_value(arg, SV("app"));
    add_value(arg, SV("kind"));
    if (x->function.len > 0) add_value(arg, SV("function"));
}

static int compare_values(const void *a, const void *b)
{
    return sv_cmp(*(const struct strview *)a, *(const struct strview *)b);
}

static void answer_values(const struct http_req *req, struct http_resp *resp, struct values *v)
{
    struct buf data;
    buf_init(&data, DATA_MAX);
    if (v->n > 1) qsort(v->items, v->n, sizeof(v->items[0]), compare_values);
    buf_append_char(&data, '[');
    for (size_t i = 0; i < v->n; i++) {
        if (i > 0) buf_append_char(&data, ',');
        buf_append_json_string(&data, v->items[i]);
    }
    buf_append_char(&data, ']');
    if (buf_status(&data) == STATUS_OK)
        answer_data(req, resp, buf_view(&data));
    else
        answer_error(resp, req->arena, 400, SV("too many values: give a selector by 'query'"));
    buf_release(&data);
}

static void label_values(struct loki *l, const struct params *p, struct strview label,
                         const struct http_req *req, struct http_resp *resp)
{
    struct values *v = arena_zalloc(req->arena, sizeof(*v));
    v->label = label;
    if (each_series(l, p, SV("query"), SV("query"), req, resp,
                    label.len > 0 ? on_label_value : on_label_names, v))
        answer_values(req, resp, v);
}

static void labels(struct loki *l, const struct params *p, const struct http_req *req, struct http_resp *resp)
{
    label_values(l, p, SV(""), req, resp);
}

static void on_series(void *arg, const struct index_series *x)
{
    struct buf *data = arg;
    if (data->len > 1) buf_append_char(data, ',');
    answer_labels(data, x->kind, x->function);
}

static void series(struct loki *l, const struct params *p, const struct http_req *req, struct http_resp *resp)
{
    struct buf data;
    buf_init(&data, DATA_MAX);
    buf_append_char(&data, '[');
    if (each_series(l, p, SV("match[]"), SV("match"), req, resp, on_series, &data)) {
        buf_append_char(&data, ']');
        if (buf_status(&data) == STATUS_OK)
            answer_data(req, resp, buf_view(&data));
        else
            answer_error(resp, req->arena, 400, SV("too many series: give a selector by 'match[]'"));
    }
    buf_release(&data);
}

/* ---- routes ---- */

static const struct route {
    const char *path;
    void (*handle)(struct loki *l, const struct params *p, const struct http_req *req,
                   struct http_resp *resp);
} routes[] = {
    {"query_range", query_range}, {"query", query_instant}, {"labels", labels}, {"label", labels},
    {"series", series},
};

/* Both reach people as they are: logcli prints them. */
static const char no_tail[] = "live tail is not supported here: ask query_range again from the newest line's "
                              "time on, or read along with 'balm audit tail -f'";
static const char not_here[] = "404 page not found: this log answers query_range, query, labels, "
                               "label/NAME/values and series";

/* What writes is refused by name: nothing but the journal's owner adds to it, and nobody takes anything away.
 */
static bool is_writing(struct strview path)
{
    return sv_eq(path, SV("push")) || sv_eq(path, SV("delete")) || sv_starts_with(path, SV("delete/"));
}

static void handle_route(struct loki *l, struct strview path, const struct http_req *req,
                         struct http_resp *resp, const char **ret_route)
{
    struct params p;
    struct error err = {0};
    struct strview label = SV("");
    const struct route *route = NULL;
    for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++)
        if (sv_eq(path, sv(routes[i].path))) route = &routes[i];
    bool is_values = sv_starts_with(path, SV("label/")) && sv_ends_with(path, SV("/values")) &&
                     path.len > sizeof("label//values") - 1;
    if (is_writing(path)) {
        answer_error(resp, req->arena, 405, SV("this log is read only"));
    } else if (sv_eq(path, SV("tail"))) {
        answer_error(resp, req->arena, 400, SV(no_tail));
    } else if (route == NULL && !is_values) {
        answer_error(resp, req->arena, 404, SV(not_here));
    } else if (!sv_eq(req->method, SV("GET")) && !sv_eq(req->method, SV("POST"))) {
        http_resp_header(resp, SV("allow"), SV("GET, POST"));
        answer_error(resp, req->arena, 405, SV("GET or POST only"));
    } else if (params_read(req, &p, &err) != STATUS_OK) {
        answer_failure(resp, req->arena, &err);
    } else if (route != NULL) {
        *ret_route = route->path;
        route->handle(l, &p, req, resp);
    } else {
        *ret_route = "label_values";
        label = sv_sub(path, sizeof("label/") - 1, path.len - (sizeof("/values") - 1));
        if (http_percent_decode(req->arena, label, &label) != STATUS_OK)
            answer_error(resp, req->arena, 400, SV("bad escape in the label's name"));
        else
            label_values(l, &p, label, req, resp);
    }
}

void loki_handle(struct loki *l, struct strview path, const struct http_req *req, struct http_resp *resp)
{
    const char *route = "other";
    char code[8];
    handle_route(l, path, req, resp, &route);
    (void)snprintf(code, sizeof(code), "%d", resp->status);
    metric_add(metrics_series(l->requests, (struct strview[]){sv(route), sv(code)}), 1);
}

void loki_init(struct loki *l, struct journal *j, const struct audit_index *x)
{
    *l = (struct loki){.journal = j, .index = x};
    channel_init(&l->slots, LOKI_QUERIES_MAX);
    l->requests = catalog_family(CATALOG_AUDIT_QUERIES);
}

void loki_release(struct loki *l)
{
    channel_release(&l->slots);
}

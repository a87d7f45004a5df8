/* /system/logs (contracts/openfaas.md §2.8), as `faas-cli logs` uses it: the newest lines of a function, as
 * JSON lines, and those that come as long as somebody follows. */
#include <stdio.h>

#include "base/clock.h"
#include "gateway/routes.h"

#define LOG_LOOKBACK_NS (5 * 60 * NS_PER_S) /* without `since`, as faasd and faas-netes */

struct log_query {
    struct strview name;
    struct strview instance; /* empty: all of them */
    bool is_following;
    int64_t since_unix_ns;
    uint64_t tail; /* 0: all */
};

static enum status parse_log_query(const struct http_req *req, struct log_query *q, struct error *err)
{
    struct strview value;
    *q = (struct log_query){.since_unix_ns = clock_unix_ns() - LOG_LOOKBACK_NS};
    if (!http_query_get(req, SV("name"), &q->name) || q->name.len == 0)
        return error_set(err, STATUS_INVALID_ARGUMENT, "name is required");
    (void)http_query_get(req, SV("instance"), &q->instance);
    if (http_query_get(req, SV("follow"), &value))
        q->is_following = sv_eq(value, SV("true")) || sv_eq(value, SV("1"));
    if (http_query_get(req, SV("tail"), &value)) {
        int64_t n;
        if (sv_parse_i64(value, &n) != STATUS_OK)
            return error_set(err, STATUS_INVALID_ARGUMENT, "tail '%.*s' is no number", SV_ARG(value));
        q->tail = n > 0 ? (uint64_t)n : 0;
    }
    if (http_query_get(req, SV("since"), &value) && rfc3339_parse(value, &q->since_unix_ns) != STATUS_OK)
        return error_set(err, STATUS_INVALID_ARGUMENT, "since '%.*s' is no RFC 3339 time", SV_ARG(value));
    return STATUS_OK;
}

static enum status write_log_line(struct http_resp *resp, const struct log_query *q, struct strview name,
                                  const struct function_log_line *line)
{
    char time[RFC3339_LEN + 1], instance[96];
    rfc3339_format(line->time_unix_ns, time);
    (void)snprintf(instance, sizeof(instance), "%.*s-%u", SV_ARG(name), line->replica);
    if (q->instance.len > 0 && !sv_eq(q->instance, sv(instance))) return STATUS_OK;
    struct buf text;
    buf_init(&text, 64 * 1024);
    buf_printf(&text,
               "{\"instance\":\"%s\",\"name\":\"%.*s\",\"namespace\":\"" FUNCTION_NAMESPACE "\",\"text\":",
               instance, SV_ARG(name));
    buf_append_json_string(&text, line->text);
    buf_printf(&text, ",\"timestamp\":\"%s\"}\n", time);
    enum status s = http_resp_write(resp, buf_view(&text));
    buf_release(&text);
    return s;
}

static uint64_t first_log_line(struct function_log *log, const struct log_query *q)
{
    uint64_t last = function_log_last(log), number = 1;
    if (q->tail > 0 && last > q->tail) number = last - q->tail + 1;
    struct function_log_line line;
    while (function_log_get(log, number, &line) && line.time_unix_ns < q->since_unix_ns)
        number = line.number + 1;
    return number;
}

/* True: it was followed until it was replaced or removed. */
static bool stream_logs(struct deployment *d, const struct log_query *q, struct http_resp *resp)
{
    struct function_log *log = d->log;
    uint64_t next = first_log_line(log, q);
    for (;;) {
        struct function_log_line line;
        while (function_log_get(log, next, &line)) {
            next = line.number + 1;
            if (write_log_line(resp, q, d->spec.name, &line) != STATUS_OK) return false;
        }
        if (!q->is_following || d->gateway->is_draining) return false;
        if (d->is_removed) return true;
        fiber_event_reset(function_log_event(log));
        enum status s = fiber_event_wait(function_log_event(log), clock_monotonic_ns() + NS_PER_S);
        if ((s != STATUS_OK && s != STATUS_DEADLINE_EXCEEDED) || http_resp_is_gone(resp)) return false;
    }
}

/* Whoever follows a function follows its next version as well. */
static void stream_versions(struct gateway *g, struct deployment *d, struct log_query *q,
                            struct http_resp *resp)
{
    while (d != NULL) {
        d->users++;
        bool is_replaced = stream_logs(d, q, resp);
        d->users--;
        d = is_replaced ? supervisor_find(g, q->name) : NULL;
        q->tail = 0;
    }
}

void routes_logs(struct gateway *g, const struct http_req *req, struct http_resp *resp)
{
    struct log_query q;
    struct error err;
    if (parse_log_query(req, &q, &err) != STATUS_OK) {
        route_answer_text(req, resp, 422, err.message);
        return;
    }
    struct deployment *d = route_is_our_namespace(req, NULL) ? supervisor_find(g, q.name) : NULL;
    if (d == NULL) {
        route_answer_text(req, resp, 404, "no such function");
        return;
    }
    http_resp_header(resp, SV("content-type"), SV("application/x-ndjson"));
    d->users++; /* the start of the answer may suspend */
    enum status s = http_resp_stream(resp);
    d->users--;
    if (s == STATUS_OK) stream_versions(g, d, &q, resp);
}

#include "functions/audit/answer.h"

#include <string.h>
#include <zlib.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/memory.h"
#include "loop/loop.h"

#define BODY_MAX                                                                                             \
    (QUERY_KEPT_BYTES_MAX *                                                                                  \
     3) /* a quote becomes two bytes; control characters, which grow to six, are rare in JSON */
#define GZIP_FROM  1024 /* smaller ones fit a packet as they are */
#define GZIP_LEVEL 1
#define JSON_TYPE  SV("application/json; charset=UTF-8")
#define TEXT_TYPE  SV("text/plain; charset=utf-8")

void answer_error(struct http_resp *resp, struct arena *a, int http_status, struct strview sentence)
{
    http_resp_set(resp, http_status, TEXT_TYPE, arena_printf(a, "%.*s\n", SV_ARG(sentence)));
    http_resp_header(resp, SV("x-content-type-options"), SV("nosniff"));
}

void answer_failure(struct http_resp *resp, struct arena *a, const struct error *err)
{
    int http_status = status_to_http(err->code);
    if (err->code == STATUS_UNIMPLEMENTED || err->code == STATUS_RESOURCE_EXHAUSTED ||
        err->code == STATUS_OUT_OF_RANGE)
        http_status = 400;
    answer_error(resp, a, http_status, sv(err->message));
    if (http_status == 503) http_resp_header(resp, SV("retry-after"), SV("1"));
}

/* ---- what the client takes ---- */

/* Is `word` in the comma list, and not with q=0? */
static bool list_has(struct strview list, struct strview word)
{
    struct strview item;
    while (list.len > 0 && sv_next(&list, ',', &item)) {
        struct strview name = sv_trim(sv_sub(item, 0, sv_find(item, ';')));
        struct strview parameters = sv_sub(item, sv_find(item, ';'), item.len);
        bool is_refused = sv_contains(parameters, SV("q=0")) && !sv_contains(parameters, SV("q=0."));
        if (sv_eq_nocase(name, word)) return !is_refused;
    }
    return false;
}

static bool takes_gzip(const struct http_req *req)
{
    return list_has(http_req_header(req, SV("accept-encoding")), SV("gzip"));
}

/* False: it stays as it is. */
static bool compress_body(struct arena *a, struct strview body, struct strview *ret_body)
{
    z_stream z = {0};
    if (deflateInit2(&z, GZIP_LEVEL, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK)
        return false; /* + 16: a gzip header */
    size_t room = deflateBound(&z, body.len);
    char *out = arena_alloc(a, room);
    z.next_in = (Bytef *)(uintptr_t)body.ptr;
    z.avail_in = (uInt)body.len;
    z.next_out = (Bytef *)out;
    z.avail_out = (uInt)room;
    bool is_done = deflate(&z, Z_FINISH) == Z_STREAM_END;
    *ret_body = sv_n(out, room - z.avail_out);
    (void)deflateEnd(&z);
    return is_done;
}

/* Moves the text into the exchange's arena, compressed if asked for. Any thread. */
static bool finish_body(struct arena *a, const struct buf *text, bool gzip, struct strview *ret_body)
{
    if (gzip && text->len >= GZIP_FROM && compress_body(a, buf_view(text), ret_body)) return true;
    *ret_body = arena_copy(a, buf_view(text));
    return false;
}

static void send_json(const struct http_req *req, struct http_resp *resp, struct strview body, bool is_gzip)
{
    http_resp_set(resp, 200, JSON_TYPE, body);
    if (is_gzip) http_resp_header(resp, SV("content-encoding"), SV("gzip"));
    if (takes_gzip(req)) http_resp_header(resp, SV("vary"), SV("Accept-Encoding"));
}

/* ---- streams ---- */

void answer_labels(struct buf *out, enum record_kind kind, struct strview function)
{
    buf_append(out, SV("{\"app\":\"balm\""));
    if (function.len > 0) {
        buf_append(out, SV(",\"function\":"));
        buf_append_json_string(out, function);
    }
    buf_append(out, SV(",\"kind\":"));
    buf_append_json_string(out, sv(record_kind_name(kind)));
    buf_append_char(out, '}');
}

/* Lines of one stream, linked in the answer's order. */
struct stream {
    enum record_kind kind;
    struct strview function;
    size_t first, last;
};

struct streams {
    struct stream *items; /* sorted by labels */
    size_t n;
    size_t *next; /* [line]: the following one of its stream */
};

static int compare_streams(const void *a, const void *b)
{
    const struct stream *x = a, *y = b;
    int order = sv_cmp(x->function, y->function);
    return order != 0 ? order : strcmp(record_kind_name(x->kind), record_kind_name(y->kind));
}

static void add_line(struct streams *s, size_t i, const struct line *line)
{
    s->next[i] = SIZE_MAX;
    for (size_t k = 0; k < s->n; k++) {
        struct stream *one = &s->items[k];
        if (one->kind != line->kind || !sv_eq(one->function, line->function)) continue;
        s->next[one->last] = i;
        one->last = i;
        return;
    }
    s->items[s->n++] = (struct stream){.kind = line->kind, .function = line->function, .first = i, .last = i};
}

static void append_values(struct buf *out, const struct query *q, const struct streams *s,
                          const struct stream *one, bool has_categories)
{
    for (size_t i = one->first; i != SIZE_MAX; i = s->next[i]) {
        buf_append(out, i == one->first ? SV("[\"") : SV(",[\""));
        buf_append_i64(out, q->lines[i].time_ns);
        buf_append(out, SV("\","));
        buf_append_json_string(out, q->lines[i].bytes);
        buf_append(out, has_categories ? SV(",{}]") : SV("]"));
    }
}

static void append_stats(struct buf *out, const struct query *q)
{
    double seconds = (double)(clock_monotonic_ns() - q->began_ns) / 1e9;
    if (seconds <= 0) seconds = 1e-9;
    buf_printf(
        out,
        "{\"summary\":{\"bytesProcessedPerSecond\":%.0f,\"linesProcessedPerSecond\":%.0f,\"totalBytesProcessed\":%llu,"
        "\"totalLinesProcessed\":%llu,\"execTime\":%.6f,\"queueTime\":0,\"subqueries\":0,\"totalEntriesReturned\":%zu,\"splits\":0,"
        "\"shards\":0},\"querier\":{\"store\":{}},\"ingester\":{}}",
        (double)q->read_bytes / seconds, (double)q->read_lines / seconds, (unsigned long long)q->read_bytes,
        (unsigned long long)q->read_lines, seconds, q->n);
}

static void append_streams(struct buf *out, const struct query *q, bool has_categories)
{
    struct streams s = {.items = mem_zalloc(q->n + 1, sizeof(struct stream)),
                        .next = mem_zalloc(q->n + 1, sizeof(size_t))};
    for (size_t i = 0; i < q->n; i++)
        add_line(&s, i, &q->lines[i]);
    if (s.n > 1) qsort(s.items, s.n, sizeof(*s.items), compare_streams);
    buf_append(out, SV("{\"status\":\"success\",\"data\":{\"resultType\":\"streams\","));
    if (has_categories) buf_append(out, SV("\"encodingFlags\":[\"categorize-labels\"],"));
    buf_append(out, SV("\"result\":["));
    for (size_t k = 0; k < s.n; k++) {
        buf_append(out, k == 0 ? SV("{\"stream\":") : SV(",{\"stream\":"));
        answer_labels(out, s.items[k].kind, s.items[k].function);
        buf_append(out, SV(",\"values\":["));
        append_values(out, q, &s, &s.items[k], has_categories);
        buf_append(out, SV("]}"));
    }
    buf_append(out, SV("],\"stats\":"));
    append_stats(out, q);
    buf_append(out, SV("}}"));
    free(s.items);
    free(s.next);
}

struct write_work {
    const struct query *query;
    struct arena *arena;
    bool has_categories, gzip;
    struct strview body;
    enum status status;
};

static void do_write(void *arg)
{
    struct write_work *w = arg;
    struct buf text;
    buf_init(&text, BODY_MAX);
    append_streams(&text, w->query, w->has_categories);
    w->status = buf_status(&text);
    if (w->status == STATUS_OK) w->gzip = finish_body(w->arena, &text, w->gzip, &w->body);
    buf_release(&text);
}

void answer_streams(const struct http_req *req, struct http_resp *resp, const struct query *q)
{
    struct write_work w = {.query = q, .arena = req->arena, .gzip = takes_gzip(req)};
    w.has_categories =
        list_has(http_req_header(req, SV("x-loki-response-encoding-flags")), SV("categorize-labels"));
    work_run(do_write, &w);
    if (w.status == STATUS_OK)
        send_json(req, resp, w.body, w.gzip);
    else
        answer_error(resp, req->arena, 400,
                     SV("the answer is too large: ask for fewer lines (limit) or a shorter time"));
}

void answer_data(const struct http_req *req, struct http_resp *resp, struct strview data)
{
    struct buf text;
    struct strview body;
    buf_init(&text, data.len + 64);
    buf_append(&text, SV("{\"status\":\"success\",\"data\":"));
    buf_append(&text, data);
    buf_append_char(&text, '}');
    bool is_gzip = finish_body(req->arena, &text, takes_gzip(req), &body);
    buf_release(&text);
    send_json(req, resp, body, is_gzip);
}

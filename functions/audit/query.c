#include "functions/audit/query.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/json_scan.h"
#include "base/memory.h"
#include "loop/loop.h"

#define CLOCK_EVERY 64 /* lines filtered between two looks at the clock */

void query_init(struct query *q, const struct logql_query *logql, struct range_params params)
{
    *q = (struct query){.logql = logql, .params = params, .began_ns = clock_monotonic_ns()};
    q->lines = mem_zalloc(params.limit, sizeof(*q->lines));
}

void query_release(struct query *q)
{
    for (size_t i = 0; i < q->n; i++)
        free((char *)q->lines[i].bytes.ptr);
    free(q->lines);
    *q = (struct query){0};
}

/* ---- one line ---- */

/* Members stand in byte order: function < kind < time. */
bool line_peek(struct strview bytes, struct arena *scratch, struct line *ret_line)
{
    struct json_scan s;
    struct strview name, text;
    bool is_first = true, has_kind = false;
    *ret_line = (struct line){.bytes = bytes};
    json_scan_init(&s, bytes, scratch);
    if (!json_scan_open(&s, '{')) return false;
    while (json_scan_member(&s, &is_first, &name)) {
        bool is_function = sv_eq(name, SV("function")), is_kind = sv_eq(name, SV("kind"));
        if (!is_function && !is_kind && !sv_eq(name, SV("time"))) {
            if (!json_scan_value(&s, NULL)) return false;
            continue;
        }
        if (!json_scan_string(&s, &text)) return false;
        if (is_function)
            ret_line->function = text;
        else if (!is_kind)
            return has_kind && rfc3339_parse(text, &ret_line->time_ns) == STATUS_OK;
        else if ((ret_line->kind = record_kind_from_name(text)) != RECORD_NONE)
            has_kind = true;
    }
    return false;
}

static struct strview label_value(struct strview name, enum record_kind kind, struct strview function)
{
    if (sv_eq(name, SV("kind"))) return sv(record_kind_name(kind));
    if (sv_eq(name, SV("function"))) return function;
    return sv_eq(name, SV("app")) ? SV("balm") : SV("");
}

enum status query_selects(const struct logql_query *logql, enum record_kind kind, struct strview function,
                          bool *ret_selects, struct error *err)
{
    bool selects = true;
    for (size_t i = 0; i < logql->n_matchers && selects; i++) {
        enum status s = logql_match(&logql->matchers[i], label_value(logql->matchers[i].name, kind, function),
                                    &selects, err);
        if (s != STATUS_OK) return s;
    }
    *ret_selects = selects;
    return STATUS_OK;
}

/* ---- the heap: the line to go first is on top ---- */

/* Order of the answer: <0 when a comes before b. Lines of one nanosecond in the order of the journal. */
static int compare(const struct query *q, const struct line *a, const struct line *b)
{
    int order = a->time_ns != b->time_ns ? (a->time_ns > b->time_ns) - (a->time_ns < b->time_ns)
                                         : (a->seq > b->seq) - (a->seq < b->seq);
    return q->params.is_forward ? order : -order;
}

static void swap(struct line *a, struct line *b)
{
    struct line c = *a;
    *a = *b;
    *b = c;
}

static void sift_down(struct query *q, size_t at, size_t n)
{
    for (;;) {
        size_t last = at, left = 2 * at + 1;
        if (left < n && compare(q, &q->lines[left], &q->lines[last]) > 0) last = left;
        if (left + 1 < n && compare(q, &q->lines[left + 1], &q->lines[last]) > 0) last = left + 1;
        if (last == at) return;
        swap(&q->lines[at], &q->lines[last]);
        at = last;
    }
}

static void sift_up(struct query *q, size_t at)
{
    for (; at > 0 && compare(q, &q->lines[at], &q->lines[(at - 1) / 2]) > 0; at = (at - 1) / 2)
        swap(&q->lines[at], &q->lines[(at - 1) / 2]);
}

static bool is_full(const struct query *q)
{
    return q->n == q->params.limit;
}

static enum status keep(struct query *q, const struct line *line, struct error *err)
{
    struct line kept = *line;
    char *bytes = mem_alloc(line->bytes.len + line->function.len);
    memcpy(bytes, line->bytes.ptr, line->bytes.len);
    kept.bytes = sv_n(bytes, line->bytes.len);
    kept.function = sv_n(bytes + line->bytes.len, line->function.len);
    if (line->function.len > 0) memcpy(bytes + line->bytes.len, line->function.ptr, line->function.len);
    q->kept_bytes += line->bytes.len;
    if (is_full(q)) {
        q->kept_bytes -= q->lines[0].bytes.len;
        free((char *)q->lines[0].bytes.ptr);
        q->lines[0] = kept;
        sift_down(q, 0, q->n);
    } else {
        q->lines[q->n++] = kept;
        sift_up(q, q->n - 1);
    }
    if (q->kept_bytes <= QUERY_KEPT_BYTES_MAX) return STATUS_OK;
    return error_set(err, STATUS_INVALID_ARGUMENT,
                     "the answer would be larger than %d MiB: ask for fewer lines (limit) or a shorter time",
                     QUERY_KEPT_BYTES_MAX / 1024 / 1024);
}

/* Heap sort: the top goes to the end, so what is first in the answer comes first. */
static void put_in_order(struct query *q)
{
    for (size_t n = q->n; n > 1; n--) {
        swap(&q->lines[0], &q->lines[n - 1]);
        sift_down(q, 0, n - 1);
    }
}

/* ---- filtering a batch, on a worker thread ---- */

struct batch {
    struct query *query;
    const struct journal_entry *entries;
    size_t n;
    int64_t deadline_ns;
    enum status status;
    struct error *err;
};

static enum status consider(struct query *q, const struct journal_entry *e, struct arena *scratch,
                            struct error *err)
{
    struct line line;
    bool matches = false;
    q->read_lines++;
    q->read_bytes += e->bytes.len;
    if (!line_peek(e->bytes, scratch, &line))
        return STATUS_OK; /* of a newer format: it has no labels that we know */
    line.seq = e->seq;
    if (line.time_ns < q->params.range.start_ns || line.time_ns >= q->params.range.end_ns) return STATUS_OK;
    if (is_full(q) && compare(q, &line, &q->lines[0]) > 0) return STATUS_OK;
    enum status s = query_selects(q->logql, line.kind, line.function, &matches, err);
    if (s == STATUS_OK && matches) s = logql_filter(q->logql, line.bytes, &matches, err);
    return s == STATUS_OK && matches ? keep(q, &line, err) : s;
}

static void do_filter(void *arg)
{
    struct batch *b = arg;
    struct arena scratch = {0};
    b->status = STATUS_OK;
    for (size_t i = 0; i < b->n && b->status == STATUS_OK; i++) {
        size_t at = b->query->params.is_forward ? i : b->n - 1 - i;
        b->status = consider(b->query, &b->entries[at], &scratch, b->err);
        if (scratch.used_bytes > ARENA_KEEP_BYTES) arena_reset(&scratch);
        if (b->status == STATUS_OK && i % CLOCK_EVERY == 0 && clock_monotonic_ns() > b->deadline_ns)
            b->status = error_set(b->err, STATUS_DEADLINE_EXCEEDED, "context deadline exceeded");
    }
    arena_release(&scratch);
}

/* ---- blocks ---- */

static bool can_matter(const struct query *q, const struct index_block *b, uint32_t kinds)
{
    if ((b->kinds & kinds) == 0 || b->max_ns < q->params.range.start_ns ||
        b->min_ns >= q->params.range.end_ns)
        return false;
    if (!is_full(q)) return true;
    return q->params.is_forward ? b->min_ns <= q->lines[0].time_ns : b->max_ns >= q->lines[0].time_ns;
}

/* Kinds that the selector can take, whatever the function. */
static enum status wanted_kinds(const struct logql_query *logql, uint32_t *ret_kinds, struct error *err)
{
    *ret_kinds = 0;
    for (unsigned kind = RECORD_NONE + 1; kind < RECORD_KINDS; kind++) {
        bool selects = true;
        for (size_t i = 0; i < logql->n_matchers && selects; i++) {
            const struct logql_matcher *m = &logql->matchers[i];
            if (sv_eq(m->name, SV("function"))) continue;
            enum status s =
                logql_match(m, label_value(m->name, (enum record_kind)kind, SV("")), &selects, err);
            if (s != STATUS_OK) return s;
        }
        if (selects) *ret_kinds |= UINT32_C(1) << kind;
    }
    return STATUS_OK;
}

static enum status scan_block(struct query *q, struct journal *j, size_t block, uint64_t last_seq,
                              int64_t deadline_ns, struct error *err)
{
    struct arena a = {0};
    uint64_t seq = (uint64_t)block * INDEX_BLOCK_RECORDS + 1, end = seq + INDEX_BLOCK_RECORDS;
    enum status s = STATUS_OK;
    if (end > last_seq + 1) end = last_seq + 1;
    while (s == STATUS_OK && seq < end) {
        struct journal_entry *entries = NULL;
        struct batch b = {.query = q, .deadline_ns = deadline_ns, .err = err};
        s = journal_read_kept(j, seq, (size_t)(end - seq), false, &a, &entries, &b.n, err);
        while (s == STATUS_OK && b.n > 0 && entries[b.n - 1].seq >= end)
            b.n--; /* the whole block is gone, and these are another's */
        if (s != STATUS_OK || b.n == 0) break;
        seq = entries[b.n - 1].seq + 1;
        b.entries = entries;
        work_run(do_filter, &b);
        s = b.status;
        arena_reset(&a);
    }
    arena_release(&a);
    return s;
}

enum status query_check_index(const struct journal *j, uint64_t generation, struct error *err)
{
    if (journal_is_healthy(j) && journal_generation(j) == generation) return STATUS_OK;
    return error_set(err, STATUS_UNAVAILABLE, "the store is being reopened, ask again");
}

enum status query_run(struct query *q, struct journal *j, const struct audit_index *x, int64_t deadline_ns,
                      struct error *err)
{
    uint64_t last_seq = journal_durable_seq(j), generation = journal_generation(j);
    enum status s = query_check_index(j, generation, err);
    if (s != STATUS_OK) return s;
    size_t n_blocks = (size_t)((last_seq + INDEX_BLOCK_RECORDS - 1) / INDEX_BLOCK_RECORDS);
    uint32_t kinds = 0;
    s = wanted_kinds(q->logql, &kinds, err);
    for (size_t i = 0; i < n_blocks && s == STATUS_OK; i++) {
        size_t at = q->params.is_forward ? i : n_blocks - 1 - i;
        if (at >= x->n_blocks || !can_matter(q, &x->blocks[at], kinds)) continue;
        s = scan_block(q, j, at, last_seq, deadline_ns, err);
        if (s == STATUS_OK) s = query_check_index(j, generation, err);
    }
    if (s == STATUS_OK) put_in_order(q);
    return s;
}

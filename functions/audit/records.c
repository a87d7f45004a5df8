#include "functions/audit/records.h"

#include <inttypes.h>

#include "functions/audit/answer.h"
#include "store/journal.h"

#define BATCH_MAX  1000
#define ANSWER_MAX ((size_t)16 * 1024 * 1024) /* a batch and what stands around its records */

static bool read_number(const struct http_req *req, struct strview key, uint64_t min, uint64_t max,
                        uint64_t *ret_value)
{
    struct strview text;
    uint64_t value;
    if (!http_query_get(req, key, &text)) return true;
    if (sv_parse_u64(text, &value) != STATUS_OK || value < min || value > max) return false;
    *ret_value = value;
    return true;
}

static struct strview answer_text(struct journal *j, const struct journal_entry *entries, size_t n,
                                  struct arena *a)
{
    struct buf text;
    buf_init(&text, ANSWER_MAX);
    buf_printf(&text, "{\"first\":%" PRIu64 ",\"last\":%" PRIu64 ",\"records\":[", journal_first_seq(j),
               journal_durable_seq(j));
    for (size_t i = 0; i < n; i++)
        buf_printf(&text, "%s{\"record\":%.*s,\"seq\":%" PRIu64 "}", i > 0 ? "," : "",
                   SV_ARG(entries[i].bytes), entries[i].seq);
    buf_printf(&text, "]}");
    struct strview whole =
        buf_status(&text) == STATUS_OK ? arena_copy(a, buf_view(&text)) : (struct strview){0};
    buf_release(&text);
    return whole;
}

void records_handle(struct journal *j, const struct http_req *req, struct http_resp *resp)
{
    struct journal_entry *entries = NULL;
    struct error err;
    uint64_t from = 1, limit = BATCH_MAX;
    size_t n = 0;
    if (!sv_eq(req->method, SV("GET"))) {
        answer_error(resp, req->arena, 405, SV("GET only"));
        return;
    }
    if (!read_number(req, SV("from"), 1, INT64_MAX, &from) ||
        !read_number(req, SV("limit"), 1, BATCH_MAX, &limit)) {
        answer_error(resp, req->arena, 400, SV("from is a sequence number, limit a number from 1 to 1000"));
        return;
    }
    if (journal_read_kept(j, from, (size_t)limit, false, req->arena, &entries, &n, &err) != STATUS_OK) {
        http_resp_error(resp, req->arena, &err);
        return;
    }
    struct strview text = answer_text(j, entries, n, req->arena);
    if (text.len > 0)
        http_resp_set(resp, 200, SV("application/json"), text);
    else
        answer_error(resp, req->arena, 500, SV("the records are too large together"));
}

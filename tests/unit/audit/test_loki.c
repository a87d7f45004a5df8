#include "functions/audit/loki.h"

#include <criterion/criterion.h>

#include "base/list.h"

/* What the routes refuse before anything is read: neither journal nor loop is needed. */

static struct arena arena;
static struct loki loki;
static struct http_resp resp;

static void set_up(void)
{
    loki_init(&loki, NULL, NULL);
}

static void tear_down(void)
{
    loki_release(&loki);
    arena_release(&arena);
}

TestSuite(loki, .init = set_up, .fini = tear_down);

static void refuse(const char *method, const char *path, int status, const char *words)
{
    struct http_req req = {.method = sv(method), .arena = &arena};
    resp = (struct http_resp){0};
    loki_handle(&loki, sv(path), &req, &resp);
    cr_assert_eq(resp.status, status, "%s %s: %d", method, path, resp.status);
    cr_assert(sv_starts_with(resp.body, sv(words)), "%s %s: %.*s", method, path, SV_ARG(resp.body));
    cr_assert_eq(sv_find(resp.body, '\n'), resp.body.len - 1, "one sentence: %.*s", SV_ARG(resp.body));
}

Test(loki, live_tail_is_refused_with_what_to_do_instead)
{
    refuse("GET", "tail", 400, "live tail is not supported here: ask query_range again");
}

Test(loki, a_path_that_is_not_here_is_404_and_names_those_that_are)
{
    static const char *const paths[] = {"",       "index/stats",     "index/volume", "detected_labels",
                                        "tails",  "detected_fields", "patterns",     "label//values",
                                        "label/", "format_query"};
    for (size_t i = 0; i < ARRAY_LEN(paths); i++)
        refuse("GET", paths[i], 404, "404 page not found: this log answers query_range, query, labels,");
}

Test(loki, whatever_would_write_is_405)
{
    refuse("POST", "push", 405, "this log is read only");
    refuse("GET", "delete", 405, "this log is read only");
    refuse("DELETE", "delete", 405, "this log is read only");
    refuse("DELETE", "labels", 405, "GET or POST only");
}

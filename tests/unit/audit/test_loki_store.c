/* The query API over a real journal, without a server: what it answers while the store is being reopened, and
 * whose thread compiles a client's regular expressions. */
#include "functions/audit/loki.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "tests/unit/audit/folder.h"

#define RECORDS 40

static struct arena arena;
static struct loop *loop;
static struct journal *journal;
static struct audit_index audit_index;
static struct loki loki;
static const char *dir;
static struct error err;

static void append(unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        struct record r = {.kind = RECORD_NOTE, .time_ns = clock_unix_ns(), .message = SV("words")};
        cr_assert_eq(journal_append(journal, &r, 1, NULL, &err), STATUS_OK, "%s", err.message);
    }
    cr_assert_eq(journal_wait_durable(journal, journal_last_seq(journal), 0, &err), STATUS_OK, "%s",
                 err.message);
}

static void run_in_fiber(void *arg)
{
    struct journal_cfg cfg = {.dir = arena_printf(&arena, "%s/journal", dir).ptr};
    cr_assert_eq(journal_open_sqlite(loop, &cfg, &journal, &err), STATUS_OK, "%s", err.message);
    index_init(&audit_index);
    journal_follow(journal, &audit_index.follower);
    cr_assert_eq(journal_fold(journal, &err), STATUS_OK, "%s", err.message);
    loki_init(&loki, journal, &audit_index);
    append(RECORDS);
    ((void (*)(void))arg)();
    journal_unfollow(journal, &audit_index.follower);
    loki_release(&loki);
    journal_close(journal);
    index_release(&audit_index);
}

static void in_fiber(void (*fn)(void))
{
    dir = folder_make(&arena);
    cr_assert_eq(loop_new(&loop, &err), STATUS_OK);
    cr_assert_eq(loop_run_fiber(loop, run_in_fiber, (void *)fn, &err), STATUS_OK);
    loop_free(loop);
    folder_remove(dir);
    arena_release(&arena);
}

#define LOKI_TEST(name)                                                                                      \
    static void name(void);                                                                                  \
    Test(loki_store, name)                                                                                   \
    {                                                                                                        \
        in_fiber(name);                                                                                      \
    }                                                                                                        \
    static void name(void)

static struct http_resp get(struct strview path, struct strview query)
{
    struct http_req req = {.method = SV("GET"), .path = path, .query = query, .arena = &arena};
    struct http_resp resp = {.status = 200};
    loki_handle(&loki, path, &req, &resp);
    return resp;
}

static bool has_words(void)
{
    struct http_resp resp = get(SV("query_range"), SV("query=%7Bkind%3D%22note%22%7D"));
    return resp.status == 200 && sv_contains(resp.body, SV("words"));
}

static void expect_unavailable(struct strview path, struct strview query)
{
    struct http_resp resp = get(path, query);
    cr_assert_eq(resp.status, 503, "%.*s: %d %.*s", SV_ARG(path), resp.status, SV_ARG(resp.body));
    cr_assert(sv_eq(http_header_get(resp.headers, resp.n_headers, SV("retry-after")), SV("1")));
}

static void wait_for_health(bool is_healthy)
{
    for (int64_t end_ns = clock_monotonic_ns() + 30 * NS_PER_S; journal_is_healthy(journal) != is_healthy;) {
        cr_assert(clock_monotonic_ns() < end_ns, "not in time");
        cr_assert_eq(sleep_ms(5), STATUS_OK);
    }
}

/* Meanwhile the index holds a part of the past, and an answer from it would silently lack the rest. */
LOKI_TEST(while_the_store_is_being_reopened_nothing_is_answered)
{
    const char *name = arena_printf(&arena, "%s/journal/00000000000000000001.db", dir).ptr,
               *aside = arena_printf(&arena, "%s/aside.db", dir).ptr;
    cr_assert(has_words());
    cr_assert_eq(rename(name, aside), 0);
    wait_for_health(false);
    expect_unavailable(SV("query_range"), SV("query=%7Bkind%3D%22note%22%7D"));
    expect_unavailable(SV("labels"), SV(""));
    expect_unavailable(SV("label/kind/values"), SV(""));
    expect_unavailable(SV("series"), SV(""));
    cr_assert_eq(rename(aside, name), 0);
    wait_for_health(true);
    cr_assert(has_words());
    cr_assert_eq(get(SV("labels"), SV("")).status, 200);
}

static void set_true(void *arg)
{
    *(bool *)arg = true;
}

/* What else is ready to run does run while the selector is compiled: it is not the loop's thread that does
 * it. */
LOKI_TEST(an_instant_query_is_parsed_by_a_worker)
{
    struct fiber_scope scope;
    bool has_run = false;
    fiber_scope_init(&scope);
    cr_assert_eq(fiber_scope_spawn(&scope, set_true, &has_run, &err), STATUS_OK);
    bool had_run = has_run; /* a fiber may run as soon as it is spawned */
    struct http_resp resp = get(SV("query"), SV("query=%7Bapp%3D~%22(a%7Cb)%7B100%7D%22%7D"));
    cr_assert_eq(resp.status, 400);
    cr_assert(sv_contains(resp.body, SV("not supported as an instant query")));
    cr_assert(!had_run && has_run);
    fiber_scope_join(&scope);
}

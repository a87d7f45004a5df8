#include <stdio.h>
#include <stdlib.h>

#include "base/memory.h"
#include "functions/dispatcher/decide.h"

struct decide_check {
    struct decider *decider;
    struct arena arena;       /* of expected */
    struct strview *expected; /* canonical bytes that are due next */
    size_t n_expected, n_seen;
    struct decide_report report;
};

struct decide_check *decide_check_new(void)
{
    struct decide_check *c = mem_zalloc(1, sizeof(*c));
    c->decider = decider_new();
    decider_set_active(c->decider, true);
    return c;
}

void decide_check_free(struct decide_check *c)
{
    if (c == NULL) return;
    decider_free(c->decider);
    arena_release(&c->arena);
    free(c);
}

static bool differs(struct decide_check *c, uint64_t seq, struct strview expected, struct strview found)
{
    c->report.bad_seq = seq;
    (void)snprintf(c->report.expected, sizeof(c->report.expected), "%.*s", SV_ARG(expected));
    (void)snprintf(c->report.found, sizeof(c->report.found), "%.*s", SV_ARG(found));
    return false;
}

static bool check_decided(struct decide_check *c, uint64_t seq, const struct record *r, struct strview bytes)
{
    if (r->epoch != decider_state(c->decider)->epoch)
        return true; /* void: written by a decider that was relieved */
    if (c->n_seen == c->n_expected) return differs(c, seq, SV(""), bytes);
    if (!sv_eq(c->expected[c->n_seen], bytes)) return differs(c, seq, c->expected[c->n_seen], bytes);
    c->n_seen++;
    c->report.n_decided++;
    return true;
}

static void expect_next(struct decide_check *c)
{
    struct record *out;
    size_t n;
    decider_next(c->decider, &out, &n);
    if (n == 0) return;
    arena_reset(&c->arena);
    c->expected = arena_array(&c->arena, n, sizeof(*c->expected));
    c->n_expected = n;
    c->n_seen = 0;
    for (size_t i = 0; i < n; i++) {
        struct buf b;
        buf_init(&b, 2 * RECORD_BYTES_MAX);
        record_encode(&out[i], &b);
        c->expected[i] = arena_copy(&c->arena, buf_view(&b));
        buf_release(&b);
    }
}

bool decide_check_add(struct decide_check *c, uint64_t seq, const struct record *r, struct strview bytes)
{
    if (c->report.bad_seq != 0) return false;
    c->report.n_records++;
    if (r->cause != 0 && !check_decided(c, seq, r, bytes)) return false;
    if (r->cause == 0 && r->kind == RECORD_EPOCH && c->n_seen < c->n_expected) {
        c->report.n_undecided++;
        c->n_expected = c->n_seen = 0;
    }
    decider_apply(c->decider, seq, r);
    expect_next(c);
    return true;
}

void decide_check_report(const struct decide_check *c, struct decide_report *ret_report)
{
    *ret_report = c->report;
    if (c->n_seen < c->n_expected) ret_report->n_undecided++;
}

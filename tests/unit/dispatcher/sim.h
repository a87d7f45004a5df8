/* A journal in memory with a decider on it, in the journal's own order: all records of a batch, then what is
 * decided on them, each decided record behind everything that was there before. Every record goes through its
 * canonical bytes, and a decide_check follows along, so each test that uses this also proves that its journal
 * folds again to the same bytes. */
#ifndef BALM_TESTS_DISPATCHER_SIM_H
#define BALM_TESTS_DISPATCHER_SIM_H

#include <criterion/criterion.h>

#include "base/list.h"
#include "base/memory.h"
#include "functions/dispatcher/decide.h"

struct sim_entry {
    struct record record;
    struct strview bytes;
};

struct sim {
    struct decider *decider;
    struct decide_check *check;
    struct arena arena;
    struct sim_entry **log; /* log[0] is sequence 1; entries stay where they are */
    size_t n, capacity, n_shown;
    int64_t now_ns;
    bool is_deaf; /* the decider is dead: records are folded by nobody */
};

static inline void sim_init(struct sim *s)
{
    *s = (struct sim){.now_ns = INT64_C(1700000000) * NS_PER_S};
    s->decider = decider_new();
    decider_set_active(s->decider, true);
    s->check = decide_check_new();
}

static inline void sim_release(struct sim *s)
{
    decider_free(s->decider);
    decide_check_free(s->check);
    arena_release(&s->arena);
    free(s->log);
    *s = (struct sim){0};
}

static inline void sim_push(struct sim *s, const struct record *from)
{
    struct record r = *from;
    if (r.tenant.len == 0) r.tenant = SV("default");
    if (r.cluster.len == 0) r.cluster = SV("local");
    if (s->n == s->capacity) {
        s->capacity = s->capacity ? 2 * s->capacity : 256;
        s->log = mem_realloc(s->log, s->capacity * sizeof(struct sim_entry *));
    }
    struct sim_entry *e = s->log[s->n] = arena_zalloc(&s->arena, sizeof(*e));
    struct buf b;
    struct error err = {0};
    buf_init(&b, RECORD_BYTES_MAX);
    record_encode(&r, &b);
    cr_assert_eq(buf_status(&b), STATUS_OK);
    e->bytes = arena_copy(&s->arena, buf_view(&b));
    buf_release(&b);
    cr_assert_eq(record_decode(e->bytes, &s->arena, &e->record, &err), STATUS_OK, "%s", err.message);
    s->n++;
}

static inline void sim_show(struct sim *s)
{
    while (s->n_shown < s->n) {
        const struct sim_entry *e = s->log[s->n_shown++];
        if (!s->is_deaf) {
            decider_apply(s->decider, s->n_shown, &e->record);
            struct record *out;
            size_t n;
            decider_next(s->decider, &out, &n);
            for (size_t i = 0; i < n; i++)
                sim_push(s, &out[i]);
        }
        if (!decide_check_add(s->check, s->n_shown, &e->record, e->bytes)) {
            struct decide_report report;
            decide_check_report(s->check, &report);
            cr_assert_fail("record %zu\nexpected %s\nfound    %s", s->n_shown, report.expected, report.found);
        }
    }
}

/* Appends n inputs as one batch; time is set where it is not. Returns the sequence of the last input. */
static inline uint64_t sim_feed(struct sim *s, struct record *in, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (in[i].time_ns == 0) in[i].time_ns = s->now_ns;
        sim_push(s, &in[i]);
    }
    uint64_t last = s->n;
    sim_show(s);
    return last;
}

static inline uint64_t sim_input(struct sim *s, struct record in)
{
    return sim_feed(s, &in, 1);
}

static inline void sim_epoch(struct sim *s, uint64_t epoch)
{
    (void)sim_input(s, (struct record){.kind = RECORD_EPOCH, .epoch = epoch, .actor = SV("test")});
}

static inline void sim_fold_from(struct sim *s, size_t n_folded)
{
    for (size_t i = n_folded; i < s->n; i++)
        decider_apply(s->decider, i + 1, &s->log[i]->record);
    decider_set_active(s->decider, true);
    s->is_deaf = false;
}

/* The process dies: a new one folds the journal and is not active until its epoch. */
static inline void sim_restart(struct sim *s)
{
    decider_reset(s->decider);
    sim_fold_from(s, 0);
}

/* The same, but the new one finds a snapshot of what the old one had folded: it goes on from there, and what
 * is saved again is the same bytes. */
static inline void sim_restart_from_snapshot(struct sim *s)
{
    struct pack saved, again;
    struct unpack u;
    struct error err = {0};
    size_t n_folded = (size_t)decider_state(s->decider)->last_seq;
    pack_init(&saved, NULL, NULL);
    pack_init(&again, NULL, NULL);
    decider_save(s->decider, &saved);
    unpack_init(&u, pack_view(&saved));
    cr_assert_eq(decider_load(s->decider, &u, &err), STATUS_OK, "%s", err.message);
    cr_assert(unpack_is_good(&u));
    decider_save(s->decider, &again);
    cr_assert(sv_eq(pack_view(&saved), pack_view(&again)));
    pack_release(&saved);
    pack_release(&again);
    sim_fold_from(s, n_folded);
}

/* yaml: one runbook or a list. Appends its contents and activates exactly these. */
static inline void sim_activate(struct sim *s, const char *yaml)
{
    struct yaml_document doc;
    struct error err = {0};
    cr_assert_eq(yaml_parse(&s->arena, "test.yaml", sv(yaml), &doc, &err), STATUS_OK, "%s", err.message);
    json_t *set = json_array();
    const struct yaml_node *node = doc.root->type == YAML_LIST ? doc.root->first : doc.root;
    for (; node != NULL; node = node == doc.root ? NULL : node->next) {
        struct runbook *rb;
        cr_assert_eq(runbook_parse(&doc, node, &rb, &err), STATUS_OK, "%s", err.message);
        (void)sim_input(s, (struct record){.kind = RECORD_RUNBOOK,
                                           .runbook = rb->name,
                                           .runbook_hash = sv(rb->hash),
                                           .content = rb->content});
        (void)json_array_append_new(set, json_pack("{s:s,s:s,s:o}", "hash", rb->hash, "mode",
                                                   runbook_mode_name(rb->mode), "name", json_text(rb->name)));
        runbook_free(rb);
    }
    (void)sim_input(s,
                    (struct record){.kind = RECORD_ACTIVATION, .runbooks = json_canonical(&s->arena, set)});
    json_decref(set);
}

static inline struct record sim_signal(struct sim *s, const char *incident, const char *status,
                                       const char *alertname, const char *service)
{
    struct http_header *labels = arena_array(&s->arena, 2, sizeof(*labels));
    size_t n = 0;
    labels[n++] = (struct http_header){SV("alertname"), sv(alertname)};
    if (service != NULL) labels[n++] = (struct http_header){SV("service"), sv(service)};
    return (struct record){.kind = RECORD_SIGNAL,
                           .incident = arena_copy(&s->arena, sv(incident)),
                           .fingerprint = SV("0123456789abcdef"),
                           .status = sv(status),
                           .source = SV("alertmanager"),
                           .labels = {labels, n}};
}

/* Newest record of a kind (and incident, unless NULL), or NULL. */
static inline const struct record *sim_last(const struct sim *s, enum record_kind kind, const char *incident)
{
    for (size_t i = s->n; i > 0; i--) {
        const struct record *r = &s->log[i - 1]->record;
        if (r->kind == kind && (incident == NULL || sv_eq(r->incident, sv(incident)))) return r;
    }
    return NULL;
}

static inline size_t sim_count(const struct sim *s, enum record_kind kind, const char *incident)
{
    size_t n = 0;
    for (size_t i = 0; i < s->n; i++) {
        const struct record *r = &s->log[i]->record;
        n += r->kind == kind && (incident == NULL || sv_eq(r->incident, sv(incident)));
    }
    return n;
}

static inline void sim_outcome(struct sim *s, const char *incident, const char *state)
{
    const struct record *intent = sim_last(s, RECORD_INTENT, incident);
    cr_assert_not_null(intent);
    (void)sim_input(s, (struct record){.kind = RECORD_OUTCOME,
                                       .incident = intent->incident,
                                       .intent = intent->intent,
                                       .function = intent->function,
                                       .target = intent->target,
                                       .state = arena_copy(&s->arena, sv(state))});
}

/* Move time to the earliest timer and fire it. False: there is none. */
static inline bool sim_fire(struct sim *s)
{
    const struct timer *t = state_next_timer(decider_state(s->decider));
    if (t == NULL) return false;
    if (t->due_ns > s->now_ns) s->now_ns = t->due_ns;
    (void)sim_input(s, (struct record){.kind = RECORD_FIRED,
                                       .timer = t->seq,
                                       .incident = arena_copy(&s->arena, t->incident),
                                       .runbook = arena_copy(&s->arena, t->runbook),
                                       .purpose = arena_copy(&s->arena, t->purpose)});
    return true;
}

#endif

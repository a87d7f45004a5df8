#include "functions/alerts/reconcile.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/memory.h"
#include "functions/alerts/peer.h"
#include "log/log.h"

#define HOW SV("reconcile")
/* Senders that cut alerts off can cause rounds at will. */
#define WAKE_SPACING_NS (2 * NS_PER_S)
/* Slots of the episode table looked at in one turn of the loop. */
#define SLOTS_PER_TURN 1024

enum round_result { ROUND_OK, ROUND_PARTIAL, ROUND_FAILED, ROUND_RESULTS };
enum change { CHANGE_OPENED, CHANGE_UNKNOWN, CHANGES };

struct reconcile {
    struct intake *in;
    struct arena arena; /* of the settings */
    struct peer peers[RECONCILE_PEERS_MAX];
    size_t n_peers;
    struct strview receiver;
    const char *token_file, *ca_file; /* NULL: none */
    int64_t interval_ns, grace_ns;
    struct fiber_scope scope;
    struct fiber_event wanted;
    bool is_truncated; /* since the last round began */
    /* Monotonic: since when answers have come without a gap, and the last one. What was missing before a gap
     * may have been there meanwhile. 0: no believable answer yet. */
    int64_t believed_since_ns, believed_last_ns;
    struct quiet rejected, muted, failed;
    struct metric *rounds[ROUND_RESULTS], *changes[CHANGES];
};

/* ---- asking ---- */

/* One after the other. That some did not answer shows in *ret_n; STATUS_CANCELLED ends the fiber. */
static enum status ask_all(struct reconcile *r, struct arena *a, struct survey_answer *ret_answers,
                           size_t *ret_n)
{
    struct peer_login login = {0};
    struct error err = {0};
    enum status s = peer_login_read(r->token_file, a, &login, &err); /* anew: it may have been rotated */
    login.ca_file = r->ca_file;
    *ret_n = 0;
    for (size_t i = 0; i < r->n_peers; i++) {
        if (s != STATUS_OK)
            peer_note_failure(&r->peers[i], &err);
        else if (peer_ask(&r->peers[i], &login, r->receiver, a, &ret_answers[*ret_n]) == STATUS_OK)
            ++*ret_n;
        if (fiber_is_cancelled()) return STATUS_CANCELLED;
    }
    return STATUS_OK;
}

/* ---- what follows ---- */

struct folding {
    const struct survey_answer *answers;
    size_t n;
    struct survey_terms terms;
    struct arena *arena;
    struct survey survey;
};

static void fold(void *arg)
{
    struct folding *f = arg;
    survey_fold(f->answers, f->n, &f->terms, f->arena, &f->survey);
}

static void warn_of_what_is_left_out(struct reconcile *r, const struct survey_answer *answers, size_t n)
{
    unsigned swallowed;
    for (size_t i = 0; i < n; i++) {
        if (answers[i].listing.n_rejected > 0 && quiet_may_log(&r->rejected, &swallowed))
            log_warn("alerts", "Alertmanager lists alerts that are over a limit",
                     LOG_INT("alerts", answers[i].listing.n_rejected), LOG_INT("of", answers[i].listing.n));
        if (answers[i].status.has_time_intervals && r->muted.next_ns == 0 &&
            quiet_may_log(&r->muted, &swallowed))
            log_warn("alerts",
                     "Alertmanager's configuration has time intervals, and its API does not show what they "
                     "mute: lost deliveries are not made up for");
    }
}

static enum episode_verdict judge(const struct delivery *d, size_t i, enum episode_verdict verdict,
                                  const struct episode *e)
{
    const struct webhook_alert *alert = &d->webhook.alerts[i];
    const struct episode_alert listed = {.source = WEBHOOK_ALERTMANAGER,
                                         .fingerprint = alert->fingerprint,
                                         .fingerprint_computed = alert->fingerprint_computed};
    if (e != NULL) episodes_set_lapse(d->in->episodes, &listed, survey_lapse(d->judge_arg, i));
    return survey_judge(d->judge_arg, i, verdict, e);
}

static enum status take_listed(struct reconcile *r, const struct survey *survey, struct arena *a,
                               struct error *err)
{
    struct delivery d = {.in = r->in,
                         .arena = a,
                         .webhook = {.source = WEBHOOK_ALERTMANAGER,
                                     .receiver = r->receiver,
                                     .alerts = survey->alerts,
                                     .n_alerts = survey->n},
                         .received_unix_ns = clock_unix_ns(),
                         .how = HOW,
                         .reason = SV("Alertmanager lists it as firing, and no delivery of it has come"),
                         .judge = judge,
                         .judge_arg = survey};
    enum status s = intake_take(&d, err);
    if (d.counts[RESULT_ACCEPTED] > 0) {
        metric_add(r->changes[CHANGE_OPENED], (double)d.counts[RESULT_ACCEPTED]);
        log_warn("alerts", "alerts fire whose deliveries were lost: taken from Alertmanager's list",
                 LOG_INT("alerts", d.counts[RESULT_ACCEPTED]));
    }
    return s;
}

static void note_belief(struct reconcile *r, bool is_believable)
{
    int64_t now_ns = clock_monotonic_ns();
    if (!is_believable) return;
    if (r->believed_last_ns == 0 || now_ns - r->believed_last_ns > 2 * r->interval_ns + r->grace_ns / 2)
        r->believed_since_ns = now_ns;
    r->believed_last_ns = now_ns;
}

/* One open episode; *ret_ended: it is closed now. */
static enum status look_at(struct reconcile *r, const struct survey *survey, const struct episode *e,
                           bool *ret_ended)
{
    int64_t now_ns = clock_monotonic_ns(), since_ns = e->missing_since_ns;
    *ret_ended = false;
    if (!sv_eq(e->source, WEBHOOK_ALERTMANAGER)) return STATUS_OK; /* of somebody whom we cannot ask */
    if (since_ns != 0 && since_ns < r->believed_since_ns) since_ns = r->believed_since_ns;
    switch (survey_missing(survey, e, since_ns != 0 ? now_ns - since_ns : 0)) {
    case SURVEY_LISTED:
        episodes_set_missing(r->in->episodes, e, 0);
        return STATUS_OK;
    case SURVEY_WAIT:
        if (survey->is_believable && since_ns == 0) episodes_set_missing(r->in->episodes, e, now_ns);
        return STATUS_OK;
    case SURVEY_UNKNOWN:
        break;
    }
    *ret_ended = true;
    return intake_expire(r->in, e, clock_unix_ns(), HOW,
                         SV("no Alertmanager lists it any more, and no resolve of it has come"));
}

static enum status end_missing(struct reconcile *r, const struct survey *survey)
{
    size_t cursor = 0, n_ended = 0;
    const struct episode *e;
    enum status s = STATUS_OK;
    while (s == STATUS_OK && intake_is_current(r->in) && episodes_walk(r->in->episodes, &cursor, &e)) {
        bool is_ended = false;
        if (e != NULL) s = look_at(r, survey, e, &is_ended);
        if (s == STATUS_OK && is_ended) n_ended++;
        bool is_turn = cursor % SLOTS_PER_TURN == 0 || (is_ended && n_ended % INTAKE_BATCH_MAX == 0);
        if (s == STATUS_OK && is_turn) s = fiber_yield();
    }
    if (n_ended == 0) return s;
    metric_add(r->changes[CHANGE_UNKNOWN], (double)n_ended);
    log_warn("alerts", "alerts that no Alertmanager lists any more: closed as unknown",
             LOG_INT("alerts", n_ended));
    return s;
}

static enum status draw_conclusions(struct reconcile *r, const struct survey_answer *answers, size_t n,
                                    const struct survey_terms *terms, struct arena *a, struct error *err)
{
    struct folding f = {.answers = answers, .n = n, .terms = *terms, .arena = a};
    work_run(fold, &f);
    warn_of_what_is_left_out(r, answers, n);
    note_belief(r, f.survey.is_believable);
    enum status s = take_listed(r, &f.survey, a, err);
    if (s == STATUS_OK) s = end_missing(r, &f.survey);
    return s;
}

/* STATUS_CANCELLED ends the fiber. */
static enum status run_round(struct reconcile *r)
{
    struct arena a = {0};
    struct survey_answer answers[RECONCILE_PEERS_MAX] = {0};
    struct error err = {0};
    unsigned swallowed;
    size_t n;
    const struct survey_terms terms = {.grace_ns = r->grace_ns,
                                       .open_after_ns = r->is_truncated ? 0 : r->interval_ns,
                                       .asked_ns = clock_unix_ns()};
    r->is_truncated = false;
    enum status s = ask_all(r, &a, answers, &n);
    if (s == STATUS_OK && n > 0) s = draw_conclusions(r, answers, n, &terms, &a, &err);
    if (s != STATUS_OK && err.message[0] == '\0')
        (void)error_set(&err, s, "the journal does not take records now");
    if (s != STATUS_OK && !fiber_is_cancelled() && quiet_may_log(&r->failed, &swallowed))
        log_warn("alerts", "what Alertmanager lists was not recorded: the next round does it",
                 LOG_STR("error", err.message), LOG_INT("others_since_last", swallowed));
    enum round_result result = s != STATUS_OK || n == 0 ? ROUND_FAILED
                               : n < r->n_peers         ? ROUND_PARTIAL
                                                        : ROUND_OK;
    if (!fiber_is_cancelled()) metric_add(r->rounds[result], 1);
    arena_release(&a);
    return fiber_is_cancelled() ? STATUS_CANCELLED : STATUS_OK;
}

static void reconcile_forever(void *arg)
{
    struct reconcile *r = arg;
    for (;;) {
        fiber_event_reset(&r->wanted);
        if (run_round(r) != STATUS_OK) return;
        int64_t ended_ns = clock_monotonic_ns();
        enum status s =
            sleep_until(ended_ns + (r->interval_ns < WAKE_SPACING_NS ? r->interval_ns : WAKE_SPACING_NS));
        if (s == STATUS_OK) s = fiber_event_wait(&r->wanted, ended_ns + r->interval_ns);
        if (s == STATUS_CANCELLED) return;
    }
}

/* ---- settings ---- */

static enum status add_peer(struct reconcile *r, struct strview url, struct error *err)
{
    if (r->n_peers == RECONCILE_PEERS_MAX)
        return error_set(err, STATUS_INVALID_ARGUMENT, "--alertmanager: more than %d URLs",
                         RECONCILE_PEERS_MAX);
    enum status s = peer_init(&r->peers[r->n_peers], url, &r->arena, err);
    if (s != STATUS_OK) return s;
    for (size_t i = 0; i < r->n_peers; i++)
        if (sv_eq(r->peers[i].url, r->peers[r->n_peers].url))
            return error_set(err, STATUS_INVALID_ARGUMENT, "--alertmanager '%.*s': named twice", SV_ARG(url));
    r->n_peers++;
    return STATUS_OK;
}

static void register_metrics(struct reconcile *r)
{
    static const char *const results[ROUND_RESULTS] = {"ok", "partial", "failed"};
    static const char *const changes[CHANGES] = {"opened", "unknown"};
    for (size_t i = 0; i < ROUND_RESULTS; i++) {
        struct strview value = sv(results[i]);
        r->rounds[i] = catalog_series(CATALOG_RECONCILE, &value);
    }
    for (size_t i = 0; i < CHANGES; i++) {
        struct strview value = sv(changes[i]);
        r->changes[i] = catalog_series(CATALOG_RECONCILE_ALERTS, &value);
    }
}

/* ---- life cycle ---- */

enum status reconcile_new(const struct core_env *env, struct intake *in, struct reconcile **ret_reconcile,
                          struct error *err)
{
    struct strview urls = env->alertmanagers, url;
    struct reconcile *r = mem_zalloc(1, sizeof(*r));
    enum status s = STATUS_OK;
    while (s == STATUS_OK && sv_next(&urls, ',', &url))
        if (sv_trim(url).len > 0) s = add_peer(r, sv_trim(url), err);
    if (s != STATUS_OK || r->n_peers == 0) {
        arena_release(&r->arena);
        free(r);
        if (s == STATUS_OK) *ret_reconcile = NULL;
        return s;
    }
    r->in = in;
    r->receiver = arena_copy(&r->arena, env->alertmanager_receiver);
    r->token_file = env->alertmanager_token_file;
    r->ca_file = env->alertmanager_ca_file;
    r->interval_ns = env->reconcile_interval_ns;
    r->grace_ns = env->group_interval_ns + env->reconcile_margin_ns;
    fiber_scope_init(&r->scope);
    fiber_event_init(&r->wanted);
    register_metrics(r);
    *ret_reconcile = r;
    return STATUS_OK;
}

enum status reconcile_start(struct reconcile *r, struct error *err)
{
    return r == NULL ? STATUS_OK : fiber_scope_spawn(&r->scope, reconcile_forever, r, err);
}

void reconcile_wake(struct reconcile *r)
{
    if (r == NULL) return;
    r->is_truncated = true;
    fiber_event_set(&r->wanted);
}

void reconcile_free(struct reconcile *r)
{
    if (r == NULL) return;
    fiber_scope_cancel(&r->scope);
    fiber_scope_join(&r->scope);
    arena_release(&r->arena);
    free(r);
}

json_t *reconcile_json(const struct reconcile *r)
{
    json_t *list = json_array();
    for (size_t i = 0; r != NULL && i < r->n_peers; i++)
        (void)json_array_append_new(list, peer_json(&r->peers[i]));
    return list;
}

/* The one message that has no intent before it: that none can be recorded. It obeys balm stop like any act
 * (the gateway sends nothing then), carries the same idempotency key in every attempt, and a note says
 * afterwards what happened. */
#include <inttypes.h>
#include <stdio.h>

#include "functions/dispatcher/dispatcher_impl.h"
#include "functions/dispatcher/template.h"
#include "log/log.h"

#define NOTE_BYTES 600

const struct runbook *selfwatch_teller(const struct dispatcher *d, enum self_alert kind)
{
    struct http_header items[SELF_LABELS];
    struct record_labels labels = self_alert_labels(kind, items);
    /* The files' set: the fold's is empty while a journal that failed is being read again. */
    for (size_t i = 0; i < d->set->n; i++) {
        const struct runbook *rb = d->set->items[i];
        if (rb->mode == RUNBOOK_ACT && rb->escalate.bot.len > 0 &&
            matchers_match(&rb->match, &labels) == MATCH_YES)
            return rb;
    }
    return NULL;
}

static struct strview make_params(const struct dispatcher *d, const struct runbook *rb, struct arena *a)
{
    struct http_header label_items[SELF_LABELS], annotation_items[SELF_ANNOTATIONS];
    char since[RFC3339_LEN + 1];
    rfc3339_format(d->watch.store.since_ns, since);
    struct strview description =
        arena_printf(a,
                     "No record could be written since %s. Alertmanager repeats what it was refused. See "
                     "`balm status`, then the disk and the rights of %s.",
                     since, d->env.dir);
    struct record_labels labels = self_alert_labels(SELF_STORE, label_items);
    struct record_labels annotations = self_alert_annotations(SELF_STORE, description, annotation_items);
    struct template_vars vars = {.labels = &labels,
                                 .annotations = &annotations,
                                 .incident = sv(d->watch.store.incident),
                                 .runbook = rb->name,
                                 .target = SV("balm"),
                                 .reason = self_alert_summary(SELF_STORE),
                                 .fallback = SV("(none)")};
    struct strview params = SV("{}"), missing;
    if (rb->escalate.with != NULL)
        (void)!template_expand_json(rb->escalate.with, &vars, a, &params, &missing);
    return params;
}

static enum status invoke(struct dispatcher *d, const struct runbook *rb, struct arena *a,
                          struct strview *ret_message, struct error *err)
{
    struct self_store *store = &d->watch.store;
    int64_t now_ns = clock_unix_ns();
    struct strview function = arena_copy(a, rb->escalate.bot); /* a reload may come while we wait */
    struct invocation inv = {.function = function,
                             .intent = sv(store->intent),
                             .incident = sv(store->incident),
                             .target = arena_printf(a, "escalation/%s", store->incident),
                             .epoch = dispatcher_state(d)->epoch,
                             .attempt = ++store->attempts,
                             .intent_unix_ns = store->since_ns,
                             .deadline_unix_ns = now_ns + rb->escalate.timeout_ns,
                             .arena = a};
    struct invocation_reply reply;
    enum status s = d->env.invoker->invoke(d->env.invoker_arg, &inv, make_params(d, rb, a), a, &reply, err);
    if (s != STATUS_OK) return s;
    if (!sv_eq(reply.state, SV("done")))
        return error_set(err, STATUS_FAILED_PRECONDITION, "%.*s: %.*s", SV_ARG(function),
                         SV_ARG(reply.message));
    *ret_message = reply.message;
    return STATUS_OK;
}

static void begin(struct dispatcher *d)
{
    struct self_store *store = &d->watch.store;
    *store = (struct self_store){.since_ns = clock_unix_ns()};
    incident_id(sv(d->watch.episodes[SELF_STORE].fingerprint), store->since_ns, store->incident);
    (void)snprintf(store->intent, sizeof(store->intent), "%s-unrecorded", store->incident);
}

static void tell(struct dispatcher *d)
{
    struct self_store *store = &d->watch.store;
    struct arena a = {0};
    struct error err = {0};
    struct strview message = {0};
    const struct runbook *rb = selfwatch_teller(d, SELF_STORE);
    enum status s = rb != NULL ? invoke(d, rb, &a, &message, &err)
                               : error_set(&err, STATUS_NOT_FOUND, "no runbook tells people of it");
    if (s == STATUS_OK) store->told_ns = clock_unix_ns();
    (void)snprintf(store->outcome, sizeof(store->outcome), "%.*s",
                   SV_ARG(s == STATUS_OK ? message : sv(err.message)));
    if (s == STATUS_OK)
        log_warn("dispatcher", "the store fails; people were told", LOG_STR("how", store->outcome));
    else if (store->attempts <= 1)
        log_error("dispatcher", "the store fails, and nobody could be told", LOG_STR("why", store->outcome));
    arena_release(&a);
}

static enum status append_note(struct dispatcher *d, struct error *err)
{
    const struct self_store *store = &d->watch.store;
    char text[NOTE_BYTES], since[RFC3339_LEN + 1], told[RFC3339_LEN + 1];
    rfc3339_format(store->since_ns, since);
    rfc3339_format(store->told_ns, told);
    if (store->told_ns != 0)
        (void)snprintf(text, sizeof(text),
                       "the store failed from %s on; people were told at %s by intent %s: %s", since, told,
                       store->intent, store->outcome);
    else
        (void)snprintf(text, sizeof(text), "the store failed from %s on; nobody was told: %s", since,
                       store->outcome);
    struct record r = {.kind = RECORD_NOTE,
                       .time_ns = clock_unix_ns(),
                       .tenant = d->env.tenant,
                       .cluster = d->env.cluster,
                       .incident = sv(store->incident),
                       .actor = SV("balm"),
                       .message = sv(text)};
    return journal_append(d->env.journal, &r, 1, NULL, err);
}

void selfwatch_store(struct dispatcher *d)
{
    struct self_store *store = &d->watch.store;
    bool is_healthy = journal_is_healthy(d->env.journal), is_news = store->since_ns == 0;
    struct error err;
    if (!is_healthy && is_news)
        begin(d); /* a failed commit that is mended within a look is nobody's business */
    else if (!is_healthy && store->told_ns == 0)
        tell(d);
    else if (is_healthy && !is_news && (store->attempts == 0 || append_note(d, &err) == STATUS_OK))
        *store = (struct self_store){.since_ns = 0};
}

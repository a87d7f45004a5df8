/* Looking over all connections now and then, for what h2o 2.2.5 has no timer or limit for: clients that do
 * not read, input of unfinished requests, and floods on HTTP/2. */
#include "server/server_impl.h"

#include "base/clock.h"
#include "log/log.h"

/* A sweep in every tenth of a second only while the connections could together hold more input than they may.
 */
#define INPUT_PER_CONN_MAX (512 * 1024)  /* h2o's head limit of 408 KiB, in a buffer that doubles */
#define INPUT_SMALL_BYTES  (1024 * 1024) /* of all together: within any limit */
#define INPUT_CLASS_MIN    4096
#define STUCK_NS           NS_PER_S /* an answer that has not moved for so long goes first when room is short */

/* One line for thousands of them. */
static void cut_with_reason(struct server_conn *c, const char *reason)
{
    struct server *s = c->server;
    int64_t now_ns = loop_now_ns(s->loop);
    conn_abort(c);
    s->cuts++;
    if (s->cut_warned_ns != 0 && now_ns - s->cut_warned_ns < SERVER_WARN_PACE_NS) return;
    log_warn("server", reason, LOG_STR("server", s->cfg.name),
             LOG_SV("peer", ((struct strview){c->peer_text, c->peer_text_len})),
             LOG_INT("connections", s->cuts));
    s->cut_warned_ns = now_ns;
    s->cuts = 0;
}

/* ---- answers ---- */

static bool is_stuck(const struct server_exchange *x, int64_t since_ns)
{
    return !x->is_running && x->link != NULL && x->progress_ns < since_ns && !x->conn->is_cut;
}

static void cut_stuck_answers(struct server *s)
{
    int64_t oldest_ns = loop_now_ns(s->loop) - s->cfg.write_timeout_ns;
    for (struct list *node = s->exchanges.next; node != &s->exchanges; node = node->next) {
        struct server_exchange *x = container_of(node, struct server_exchange, node);
        if (is_stuck(x, oldest_ns)) conn_abort(x->conn);
    }
}

bool server_sweep_answers(struct server *s, size_t more_bytes)
{
    int64_t since_ns = loop_now_ns(s->loop) - STUCK_NS;
    size_t held = s->held_bytes + more_bytes;
    for (struct list *node = s->exchanges.next; node != &s->exchanges && held > s->held_max_bytes;
         node = node->next) {
        struct server_exchange *x = container_of(node, struct server_exchange, node);
        if (!is_stuck(x, since_ns)) continue;
        held -= x->held_bytes;
        cut_with_reason(x->conn,
                        "cut a connection: it does not read its answer, and too much memory is held");
    }
    return held <= s->held_max_bytes;
}

/* ---- connections without a request under way ---- */

/* h2o's timer ends them, but not while an answer of its own (a refusal) waits for a client that reads
 * nothing, nor on HTTP/2 while anything at all comes in. */
static void cut_overdue(struct server *s)
{
    int64_t oldest_ns = loop_now_ns(s->loop) - s->cfg.request_timeout_ns - s->cfg.write_timeout_ns;
    for (struct list *node = s->conns.next; node != &s->conns; node = node->next) {
        struct server_conn *c = container_of(node, struct server_conn, node);
        if (c->rest_ns >= oldest_ns) return; /* so are those behind */
        if (c->requests == 0) conn_abort(c);
    }
}

static void cut_floods(struct server *s)
{
    if (!s->cfg.http2) return;
    for (struct list *node = s->conns.next; node != &s->conns; node = node->next) {
        struct server_conn *c = container_of(node, struct server_conn, node);
        if (!c->is_cut && http2_is_flood(c)) cut_with_reason(c, "cut a connection: a flood of HTTP/2 frames");
    }
}

static size_t input_bytes(const struct server_conn *c)
{
    size_t bytes = c->sock->input->size > 0 ? c->sock->input->capacity : 0;
    return bytes + (c->server->cfg.http2 ? http2_unexplained_bytes(c) : 0);
}

static bool is_unfinished(const struct server_conn *c)
{
    return c->requests == 0 && !c->is_cut;
}

/* The largest first, and among those of about one size the one that has rested longest. The small ones do not
 * pay for requests under way, only for each other. */
static void bound_input(struct server *s)
{
    size_t total = 0, unfinished = 0;
    for (struct list *node = s->conns.next; node != &s->conns; node = node->next) {
        struct server_conn *c = container_of(node, struct server_conn, node);
        size_t bytes = input_bytes(c);
        total += bytes;
        if (is_unfinished(c)) unfinished += bytes;
    }
    if (total > INPUT_SMALL_BYTES) server_limit_memory(s);
    size_t least = 1;
    while (least <= total / 2)
        least *= 2;
    for (; total > s->input_max_bytes && least >= INPUT_CLASS_MIN; least /= 2) {
        if (least < SERVER_SMALL_BYTES && unfinished <= s->input_max_bytes) return;
        for (struct list *node = s->conns.next; node != &s->conns && total > s->input_max_bytes;
             node = node->next) {
            struct server_conn *c = container_of(node, struct server_conn, node);
            size_t bytes = input_bytes(c);
            if (bytes < least || !is_unfinished(c)) continue;
            total -= bytes;
            unfinished -= bytes;
            cut_with_reason(c, "cut a connection: unfinished requests hold too much memory");
        }
    }
}

/* ---- the pace ---- */

static void on_sweep(h2o_timeout_entry_t *entry)
{
    struct server *s = container_of(entry, struct server, sweep);
    cut_stuck_answers(s);
    cut_overdue(s);
    cut_floods(s);
    bound_input(s);
    server_place_bodies();
    server_sweep_start(s);
}

void server_sweep_start(struct server *s)
{
    size_t worst = s->n_conns * (s->config.max_request_entity_size + INPUT_PER_CONN_MAX);
    bool is_fast = worst > s->input_max_bytes || s->cfg.http2;
    h2o_timeout_t *pace = is_fast ? &s->ctx.hundred_ms_timeout : &s->ctx.one_sec_timeout;
    if (h2o_timeout_is_linked(&s->sweep)) {
        if (s->sweep_pace == pace) return;
        h2o_timeout_unlink(&s->sweep);
    }
    s->sweep.cb = on_sweep;
    s->sweep_pace = pace;
    h2o_timeout_link(s->ctx.loop, pace, &s->sweep);
}

void server_sweep_stop(struct server *s)
{
    h2o_timeout_unlink(&s->sweep);
}

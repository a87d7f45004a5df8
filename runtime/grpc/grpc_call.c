/* One call: from its head to the last that anybody knows of it. */
#include <assert.h>
#include <stdlib.h>

#include "base/memory.h"
#include "grpc/grpc_impl.h"

#define IDLE_CALLS_MAX 64

/* ---- life cycle ---- */

static struct grpc_call *take_idle(struct grpc_server *s)
{
    struct list *node = list_pop_front(&s->idle_calls);
    if (node == NULL) return mem_zalloc(1, sizeof(struct grpc_call));
    s->n_idle--;
    return container_of(node, struct grpc_call, node);
}

struct grpc_call *call_new(struct grpc_session *ss, int32_t stream_id)
{
    struct grpc_server *s = ss->server;
    struct grpc_call *call = take_idle(s);
    struct arena arena = call->arena;
    struct buf out = call->out;
    if (out.max_bytes == 0) buf_init(&out, GRPC_OUT_MAX_BYTES + s->cfg.max_message_bytes + GRPC_PREFIX_BYTES);
    *call =
        (struct grpc_call){.session = ss, .server = s, .stream_id = stream_id, .arena = arena, .out = out};
    list_init(&call->headers);
    list_init(&call->messages);
    fiber_event_init(&call->arrived);
    fiber_event_init(&call->drained);
    call->opened_ns = loop_now_ns(s->loop);
    list_push_back(&ss->calls, &call->node);
    ss->n_calls++;
    return call;
}

static void call_free(struct grpc_call *call)
{
    struct grpc_server *s = call->server;
    if (s->n_idle < IDLE_CALLS_MAX) {
        arena_reset(&call->arena);
        buf_reset(&call->out);
        list_push_front(&s->idle_calls, &call->node);
        s->n_idle++;
        return;
    }
    arena_release(&call->arena);
    buf_release(&call->out);
    free(call);
}

void call_free_idle(struct grpc_server *s)
{
    for (struct list *node; (node = list_pop_front(&s->idle_calls)) != NULL;) {
        struct grpc_call *call = container_of(node, struct grpc_call, node);
        arena_release(&call->arena);
        buf_release(&call->out);
        free(call);
    }
    s->n_idle = 0;
}

static void unhold(struct grpc_call *call)
{
    call->session->held_bytes -= call->held_bytes;
    call->server->held_bytes -= call->held_bytes;
    call->held_bytes = 0;
}

/* Thousands of streams may stay open for days, and answers untaken for seconds. */
void call_drop_request(struct grpc_call *call)
{
    unhold(call);
    list_init(&call->headers);
    list_init(&call->messages);
    call->path = call->http_method = (struct strview){0};
    call->frames.n_prefix = 0;
    if (call->is_detached || call->arena.used_bytes > GRPC_KEEP_BYTES)
        arena_release(&call->arena);
    else
        arena_reset(&call->arena);
}

void call_gone(struct grpc_call *call)
{
    struct grpc_session *ss = call->session;
    list_remove(&call->node);
    ss->n_calls--;
    unhold(call);
    call->session = NULL;
    fiber_event_set(&call->arrived);
    fiber_event_set(&call->drained);
    if (call->is_running) return; /* freed behind its handler */
    if (call->is_detached) call->on_gone(call->on_gone_arg);
    call_free(call);
}

/* ---- the handler ---- */

static void end(struct grpc_call *call, enum status s, const struct error *err)
{
    bool is_mute = s == STATUS_OK && call->method->kind == GRPC_UNARY && call->n_sent != 1;
    if (call->is_answered)
        call_drop_request(call);
    else if (is_mute)
        answer_status(call, STATUS_INTERNAL, "the handler sent no message");
    else
        answer_status(call, s, err->message);
}

/* Its server may have begun to go away before there was anything to end. */
static void live_on(struct grpc_call *call)
{
    call_drop_request(call);
    if (call->session->is_ending) answer_status(call, STATUS_OK, NULL);
}

static void end_gone(struct grpc_call *call)
{
    if (call->is_detached) call->on_gone(call->on_gone_arg);
    call_free(call);
}

static void run(struct grpc_call *call)
{
    struct grpc_server *server = call->server;
    struct error err = {0};
    enum status s = STATUS_CANCELLED;
    if (call->session != NULL) {
        (void)fiber_set_deadline(call->deadline_ns);
        s = call->method->handler(call->service->arg, call, &err);
        (void)fiber_set_deadline(0);
        fiber_set_local(NULL);
    }
    call->is_running = false;
    if (call->session == NULL)
        end_gone(call);
    else if (call->is_detached)
        live_on(call);
    else
        end(call, s, &err);
    server->n_running--;
}

static enum status add_runner(struct grpc_server *s);

/* One fiber runs all handlers of a turn, as long as none of them waits: a thousand streams that are opened at
 * once take two stacks. Behind one that waits the next runner goes on. */
static void runner_fiber(void *arg)
{
    struct grpc_server *s = arg;
    s->has_runner = false;
    for (struct list *node; (node = list_pop_front(&s->ready_calls)) != NULL;) {
        if (!list_is_empty(&s->ready_calls)) (void)!add_runner(s);
        run(container_of(node, struct grpc_call, ready_node));
        if (loop_turn_is_long(s->loop)) (void)!fiber_yield();
    }
    grpc_notice_quiet(s);
}

static enum status add_runner(struct grpc_server *s)
{
    if (s->has_runner) return STATUS_OK;
    enum status st = fiber_scope_spawn(&s->scope, runner_fiber, s, NULL);
    s->has_runner = st == STATUS_OK;
    return st;
}

void call_start(struct grpc_call *call)
{
    struct grpc_server *s = call->server;
    if (add_runner(s) != STATUS_OK) {
        answer_status(call, STATUS_RESOURCE_EXHAUSTED, "too much is under way here");
        return;
    }
    call->is_running = true;
    s->n_running++;
    fiber_event_reset(&s->quiet);
    list_push_back(&s->ready_calls, &call->ready_node);
}

/* ---- for handlers ---- */

struct arena *grpc_call_arena(struct grpc_call *call)
{
    return &call->arena;
}

static enum status say_gone(struct error *err)
{
    return error_set(err, STATUS_CANCELLED, "the client is gone");
}

static void consume(struct grpc_call *call)
{
    struct grpc_session *ss = call->session;
    if (call->unconsumed_bytes == 0) return;
    (void)nghttp2_session_consume_stream(ss->h2, call->stream_id, call->unconsumed_bytes);
    call->unconsumed_bytes = 0;
    ss->wants_output(ss->arg);
}

enum status grpc_receive(struct grpc_call *call, struct strview *ret_message, struct error *err)
{
    for (;;) {
        if (call->session == NULL || call->is_answered) return say_gone(err);
        struct list *node = list_pop_front(&call->messages);
        if (node != NULL) {
            *ret_message = container_of(node, struct grpc_message, node)->bytes;
            if (list_is_empty(&call->messages)) consume(call); /* so at most a window's bytes wait */
            return STATUS_OK;
        }
        if (call->is_half_closed)
            return error_set(err, STATUS_NOT_FOUND, "the client has sent its last message");
        consume(call); /* of one that is longer than the window */
        fiber_event_reset(&call->arrived);
        enum status s = fiber_event_wait(&call->arrived, 0);
        if (s != STATUS_OK) return error_set(err, s, "waiting for a message");
    }
}

static bool has_room(const struct grpc_call *call, size_t bytes)
{
    return call->out.len == 0 || call->out.len + bytes <= GRPC_OUT_MAX_BYTES;
}

enum status grpc_send(struct grpc_call *call, struct strview message, struct error *err)
{
    if (message.len > call->server->cfg.max_message_bytes)
        return error_set(err, STATUS_RESOURCE_EXHAUSTED, "an answer of %zu bytes; at most %zu are sent",
                         message.len, call->server->cfg.max_message_bytes);
    while (call->session != NULL && !call->is_answered && !has_room(call, message.len)) {
        enum status s = fiber_event_wait(&call->drained, 0);
        if (s != STATUS_OK) return error_set(err, s, "waiting for the client to take an answer");
    }
    if (call->session == NULL || call->is_answered) return say_gone(err);
    answer_message(call, message);
    return STATUS_OK;
}

void grpc_call_detach(struct grpc_call *call, void (*on_gone)(void *arg), void *arg)
{
    assert(call->method->kind == GRPC_SERVER_STREAM);
    call->is_detached = true;
    call->on_gone = on_gone;
    call->on_gone_arg = arg;
}

enum status grpc_try_send(struct grpc_call *call, struct strview message)
{
    assert(call->is_detached && message.len <= call->server->cfg.max_message_bytes);
    if (call->session == NULL || call->is_answered || call->out.len > 0) return STATUS_RESOURCE_EXHAUSTED;
    answer_message(call, message);
    return STATUS_OK;
}

void grpc_call_finish(struct grpc_call *call, enum status status, const char *message)
{
    assert(call->is_detached);
    call->is_detached = false;
    answer_status(call, status, message);
}

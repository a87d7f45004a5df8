#include "gateway/broker.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"
#include "gateway/broker_list.h"
#include "gateway/broker_restart.h"
#include "gateway/broker_service.h"
#include "log/log.h"

#define MESSAGE_MAX    (64 * 1024)
#define PEER_CALLS_MAX 16 /* at once for one replica: a bot that floods waits for its own answers */
#define ASK_TIMEOUT_NS (120 * NS_PER_S) /* where the message has no deadline, or a later one */

#define INTENT_SHOWN_MAX 128
#define REPLY_TIMEOUT_NS (5 * NS_PER_S)
#define LOOK_AGAIN_MS    5

/* Replaced whole by a reload; a call that is under way keeps the one it began with. */
struct shared_list {
    struct broker_list list;
    unsigned refs;
};

struct broker {
    struct broker_cfg cfg;      /* the strings are owned copies */
    struct shared_list *shared; /* one reference */
    struct shared_list *fresh;  /* one reference, between prepare and commit; else NULL */
    struct broker_restarts *restarts;
    bool is_frozen;
};

/* Our end of one replica's pair. */
struct peer {
    struct broker *broker;
    int fd;
    char *function;
    unsigned calls;
    struct fiber_event call_ended;
    struct fiber_scope scope;
};

/* One message, on a fiber of its own. */
struct peer_call {
    struct peer *peer;
    json_t *message; /* owned */
};

static void shared_list_unref(struct shared_list *shared)
{
    if (--shared->refs > 0) return;
    broker_list_release(&shared->list);
    free(shared);
}

static enum status shared_list_read(const char *file, struct shared_list **ret_shared, struct error *err)
{
    struct broker_list list;
    enum status s = broker_list_read(file, &list, err);
    if (s != STATUS_OK) return s;
    *ret_shared = mem_zalloc(1, sizeof(**ret_shared));
    **ret_shared = (struct shared_list){.list = list, .refs = 1};
    return STATUS_OK;
}

enum status broker_new(const struct broker_cfg *cfg, struct broker **ret_broker, struct error *err)
{
    struct broker *b = mem_zalloc(1, sizeof(*b));
    b->cfg = *cfg;
    b->cfg.shim_path = sv_heap_copy(sv(cfg->shim_path));
    if (cfg->allow_list_file != NULL) b->cfg.allow_list_file = sv_heap_copy(sv(cfg->allow_list_file));
    enum status s = shared_list_read(b->cfg.allow_list_file, &b->shared, err);
    if (s == STATUS_OK) s = broker_restarts_new(&b->cfg, &b->restarts, err);
    if (s == STATUS_OK)
        *ret_broker = b;
    else
        broker_free(b);
    return s;
}

void broker_free(struct broker *b)
{
    if (b == NULL) return;
    broker_restarts_free(b->restarts);
    broker_discard(b);
    if (b->shared != NULL) shared_list_unref(b->shared);
    free((char *)(uintptr_t)b->cfg.allow_list_file);
    free((char *)(uintptr_t)b->cfg.shim_path);
    free(b);
}

enum status broker_prepare(struct broker *b, struct error *err)
{
    return shared_list_read(b->cfg.allow_list_file, &b->fresh, err);
}

void broker_commit(struct broker *b)
{
    shared_list_unref(b->shared);
    b->shared = b->fresh;
    b->fresh = NULL;
}

void broker_discard(struct broker *b)
{
    if (b->fresh != NULL) shared_list_unref(b->fresh);
    b->fresh = NULL;
}

void broker_freeze(struct broker *b, bool is_frozen)
{
    b->is_frozen = is_frozen;
    if (is_frozen) broker_restarts_await_all(b->restarts);
}

size_t broker_subjects_of(const struct broker *b, struct strview function, struct arena *a,
                          struct strview **ret_names)
{
    const struct broker_list *list = &b->shared->list;
    struct strview *names = arena_array(a, list->n + list->n_programs, sizeof(*names));
    size_t n = 0;
    for (size_t i = 0; i < list->n; i++)
        if (broker_service_allows(&list->services[i], function))
            names[n++] = arena_copy(a, list->services[i].name);
    for (size_t i = 0; i < list->n_programs; i++)
        if (broker_program_allows(&list->programs[i], function))
            names[n++] = arena_copy(a, list->programs[i].name);
    *ret_names = names;
    return n;
}

/* ---- one call ---- */

/* Monotonic. The bot's clock is ours: it is the same machine. */
static enum status read_deadline(const json_t *message, int64_t *ret_deadline_ns, struct error *err)
{
    struct strview text = json_get_text(message, "deadline");
    int64_t now_ns = clock_monotonic_ns(), unix_ns = 0;
    *ret_deadline_ns = now_ns + ASK_TIMEOUT_NS;
    if (text.len == 0) return STATUS_OK;
    if (rfc3339_parse(text, &unix_ns) != STATUS_OK)
        return error_set(err, STATUS_INVALID_ARGUMENT, "'deadline' is no RFC 3339 time");
    int64_t unix_now_ns = clock_unix_ns(), left_ns = unix_ns > unix_now_ns ? unix_ns - unix_now_ns : 0;
    if (left_ns < ASK_TIMEOUT_NS) *ret_deadline_ns = now_ns + left_ns;
    return STATUS_OK;
}

static enum status restart(struct broker *b, const struct broker_service *service, const json_t *message,
                           json_t **ret_reply, struct error *err)
{
    struct strview intent = sv_sub(json_get_text(message, "intent"), 0, INTENT_SHOWN_MAX);
    int64_t deadline_ns;
    enum status s = read_deadline(message, &deadline_ns, err);
    if (s == STATUS_OK)
        s = broker_restarts_ask(b->restarts, service, intent, deadline_ns, b->is_frozen, ret_reply, err);
    return s;
}

static enum status not_listed(const char *what, struct strview subject, const char *function,
                              struct error *err)
{
    return error_set(err, STATUS_PERMISSION_DENIED, "%s '%.*s' is not on the allow list for function '%s'",
                     what, SV_ARG(sv_sub(subject, 0, 64)), function);
}

static json_t *argv_shown(const struct yaml_text_list *words)
{
    json_t *argv = json_array();
    for (size_t i = 0; i < words->n; i++)
        (void)json_array_append_new(argv, json_text(words->items[i]));
    return json_pack("{s:o}", "argv", argv);
}

/* One run is asked for as a restart is: see broker_restart.h. */
static enum status run_program(struct broker *b, const struct broker_program *p, struct yaml_text_list words,
                               const json_t *message, struct arena *a, json_t **ret_reply, struct error *err)
{
    struct broker_service run = {.name = arena_printf(a, PROGRAM_PREFIX "%.*s", SV_ARG(p->name)),
                                 .restart = words,
                                 .restart_argv = arena_array(a, words.n + 1, sizeof(char *)),
                                 .timeout_ns = p->timeout_ns};
    for (size_t i = 0; i < words.n; i++)
        run.restart_argv[i] = arena_cstr(a, words.items[i]);
    return restart(b, &run, message, ret_reply, err);
}

static enum status answer_program(const struct peer_call *c, const struct broker_list *list, struct arena *a,
                                  bool is_run, json_t **ret_reply, struct error *err)
{
    struct strview subject = json_get_text(c->message, "subject");
    const struct broker_program *p = broker_list_find_program(list, subject);
    struct yaml_text_list words;
    if (p == NULL || !broker_program_allows(p, sv(c->peer->function)))
        return not_listed("program", subject, c->peer->function, err);
    enum status s = broker_program_argv(p, json_object_get(c->message, "arguments"), a, &words, err);
    if (s == STATUS_OK && is_run) s = run_program(c->peer->broker, p, words, c->message, a, ret_reply, err);
    if (s != STATUS_OK) return s;
    if (!is_run) *ret_reply = json_object();
    json_t *shown = argv_shown(&words);
    (void)json_object_update(*ret_reply, shown);
    json_release(shown);
    return STATUS_OK;
}

static enum status answer(const struct peer_call *c, const struct broker_list *list, struct arena *a,
                          json_t **ret_reply, struct error *err)
{
    struct broker *b = c->peer->broker;
    struct strview act = json_get_text(c->message, "act"), subject = json_get_text(c->message, "subject");
    if (sv_eq(act, SV("program-run")) || sv_eq(act, SV("program-show")))
        return answer_program(c, list, a, sv_eq(act, SV("program-run")), ret_reply, err);
    const struct broker_service *service = broker_list_find(list, subject);
    if (service == NULL || !broker_service_allows(service, sv(c->peer->function)))
        return not_listed("service", subject, c->peer->function, err);
    if (sv_eq(act, SV("service-status"))) return broker_service_status(service, a, ret_reply, err);
    if (!sv_eq(act, SV("service-restart")))
        return error_set(
            err, STATUS_INVALID_ARGUMENT,
            "the broker knows service-status, service-restart, program-run and program-show, not '%.*s'",
            (int)(act.len < 64 ? act.len : 64), act.ptr);
    enum status s = restart(b, service, c->message, ret_reply, err);
    if (s != STATUS_OK)
        log_info("broker", "no restart for a function", LOG_SV("service", service->name),
                 LOG_STR("function", c->peer->function), LOG_STR("error", err->message));
    return s;
}

/* The message may repeat what the bot sent, cut in the middle of a character: json_text() repairs that. */
static json_t *error_reply(const struct error *err)
{
    return json_pack("{s:b, s:s, s:o}", "ok", 0, "code", status_name(err->code), "message",
                     json_text(sv(err->message)));
}

/* A descriptor has one waiter at a time, and this one has a reader and writers: who comes second looks again
 * soon. False once the fiber is to end or the deadline is over. */
static bool wait_for_peer(int fd, int events, int64_t deadline_ns)
{
    int ignored;
    enum status s = fd_wait(fd, events, deadline_ns, &ignored);
    if (s == STATUS_ALREADY_EXISTS) s = sleep_ms(LOOK_AGAIN_MS);
    return s == STATUS_OK && (deadline_ns == 0 || clock_monotonic_ns() < deadline_ns);
}

/* SEQPACKET: whole or not at all. A peer that does not read its answers within the limit loses them, and its
 * own wait ends by its deadline. */
static void send_reply(const struct peer *p, const json_t *reply)
{
    char *text = json_dumps(reply, JSON_COMPACT | JSON_SORT_KEYS);
    int64_t deadline_ns = clock_monotonic_ns() + REPLY_TIMEOUT_NS;
    while (send(p->fd, text, strlen(text), MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
        if (errno != EINTR && (errno != EAGAIN || !wait_for_peer(p->fd, POLLOUT, deadline_ns))) break;
    free(text);
}

static void call_fiber(void *arg)
{
    struct peer_call *c = arg;
    struct peer *p = c->peer;
    struct arena a = {0};
    struct error err;
    json_t *reply = NULL;
    struct shared_list *shared = p->broker->shared;
    shared->refs++;
    if (answer(c, &shared->list, &a, &reply, &err) == STATUS_OK)
        (void)json_object_set_new(reply, "ok", json_true());
    else
        reply = error_reply(&err);
    shared_list_unref(shared);
    (void)json_object_set(reply, "id", json_object_get(c->message, "id"));
    send_reply(p, reply);
    json_release(reply);
    json_release(c->message);
    arena_release(&a);
    free(c);
    p->calls--;
    fiber_event_set(&p->call_ended);
}

/* ---- one peer ---- */

static void take_message(struct peer *p, struct strview bytes)
{
    struct error err;
    json_t *message = NULL;
    enum status s = json_parse(bytes, 0, &message, &err);
    if (s == STATUS_OK && !json_is_object(message))
        s = error_set(&err, STATUS_INVALID_ARGUMENT, "message is not an object");
    if (s == STATUS_OK) {
        struct peer_call *c = mem_zalloc(1, sizeof(*c));
        *c = (struct peer_call){.peer = p, .message = json_incref(message)};
        p->calls++;
        s = fiber_scope_spawn(&p->scope, call_fiber, c, &err);
        if (s != STATUS_OK) {
            p->calls--;
            json_release(c->message);
            free(c);
        }
    }
    if (s != STATUS_OK) {
        json_t *reply = error_reply(&err);
        if (json_is_object(message)) (void)json_object_set(reply, "id", json_object_get(message, "id"));
        send_reply(p, reply);
        json_release(reply);
    }
    json_release(message);
}

static void refuse_oversized(struct peer *p, size_t bytes)
{
    struct error err;
    (void)!error_set(&err, STATUS_INVALID_ARGUMENT, "message of %zu bytes: at most %d are allowed", bytes,
                     MESSAGE_MAX);
    json_t *reply = error_reply(&err);
    send_reply(p, reply);
    json_release(reply);
}

/* False once the peer has closed, or we are to end. */
static bool read_message(struct peer *p, char *buffer)
{
    ssize_t n = recv(p->fd, buffer, MESSAGE_MAX, MSG_DONTWAIT | MSG_TRUNC);
    if (n > MESSAGE_MAX)
        refuse_oversized(p, (size_t)n);
    else if (n > 0)
        take_message(p, sv_n(buffer, (size_t)n));
    if (n > 0) return fiber_yield() == STATUS_OK; /* whoever writes without end gets its turn, and no more */
    if (n == 0) return false;
    return errno == EINTR || (errno == EAGAIN && wait_for_peer(p->fd, POLLIN, 0));
}

static void peer_fiber(void *arg)
{
    struct peer *p = arg;
    char *buffer = mem_alloc(MESSAGE_MAX);
    bool is_open = true;
    while (is_open) {
        if (p->calls < PEER_CALLS_MAX) {
            is_open = read_message(p, buffer);
            continue;
        }
        fiber_event_reset(&p->call_ended);
        is_open = fiber_event_wait(&p->call_ended, 0) == STATUS_OK;
    }
    /* A restart that was begun is run to its end, although nobody may hear of it: half a restart is worse. */
    fiber_shield_begin();
    fiber_scope_join(&p->scope);
    fiber_shield_end();
    (void)close(p->fd);
    free(buffer);
    free(p->function);
    free(p);
}

enum status broker_serve(struct broker *b, struct fiber_scope *scope, int fd, struct strview function,
                         struct error *err)
{
    struct peer *p = mem_zalloc(1, sizeof(*p));
    *p = (struct peer){.broker = b, .fd = fd, .function = sv_heap_copy(function)};
    fiber_event_init(&p->call_ended);
    fiber_scope_init(&p->scope);
    enum status s = fiber_scope_spawn(scope, peer_fiber, p, err);
    if (s == STATUS_OK) return STATUS_OK;
    (void)close(fd);
    free(p->function);
    free(p);
    return s;
}

/* What a bot and the platform say to each other over the pair of sockets, both ways. Any message gets one
 * answer that is an object; whatever the platform answers, the bot's call ends.
 *
 * Input: one byte: even: messages to the broker, odd: answers to a bot, where the first '@' of each is its
 * number. Then one message a line.
 *
 * Reads: gateway/broker.c gateway/broker_service.c function/host_act.c */
#include "gateway/broker.h"

#include <stdlib.h>

#include "base/json.h"
#include "folder.h"
#include "function/function.h"
#include "in_loop.h"
#include "replay.h"
#include "wire.h"

#define MESSAGES_MAX 12 /* fewer than the sockets hold */
#define PATIENCE_NS  (10 * NS_PER_S)
#define CALL_NS      (NS_PER_S / 200)

static const char allow_list[] = "services:\n  cron:\n    functions: [service-restart]\n"
                                 "    restart: [/bin/true]\n    pid_file: /proc/self/no-such-file\n";

/* ---- to the broker ---- */

/* Frozen: no restart is begun. */
static struct broker *the_broker(void)
{
    static struct broker *broker;
    struct error err;
    if (broker != NULL) return broker;
    char path[FOLDER_PATH_MAX];
    (void)snprintf(path, sizeof(path), "%s", folder_put("host-acts.yaml", sv(allow_list)));
    const struct broker_cfg cfg = {.allow_list_file = path,
                                   .run_dir_fd = open(folder(), O_RDONLY | O_DIRECTORY | O_CLOEXEC),
                                   .shim_path = "/nonexistent"};
    enum status s = broker_new(&cfg, &broker, &err);
    assert(s == STATUS_OK);
    broker_freeze(broker, true);
    return broker;
}

static void check_answer(struct strview text)
{
    json_t *o = NULL;
    enum status s = json_parse(text, JSON_ALLOW_NUL, &o, NULL);
    assert(s == STATUS_OK && json_is_object(o));
    assert(json_is_true(json_object_get(o, "ok")) || json_get_text(o, "code").len > 0);
    json_release(o);
}

static void ask_broker(struct strview text)
{
    struct fiber_scope scope;
    struct strview line;
    struct error err;
    int pair[2], n = 0;
    char *answer = malloc(65536);
    int failed = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair);
    assert(failed == 0);
    fiber_scope_init(&scope);
    enum status s = broker_serve(the_broker(), &scope, pair[0], SV("service-restart"), &err);
    assert(s == STATUS_OK);
    while (n < MESSAGES_MAX && sv_next(&text, '\n', &line))
        if (line.len > 0 && send(pair[1], line.ptr, line.len, MSG_NOSIGNAL) > 0) n++;
    int64_t deadline_ns = clock_monotonic_ns() + PATIENCE_NS;
    while (n > 0) {
        ssize_t got = recv(pair[1], answer, 65536, MSG_DONTWAIT);
        if (got > 0) {
            check_answer(sv_n(answer, (size_t)got));
            n--;
        } else {
            bool is_there = wire_wait(pair[1], POLLIN, deadline_ns);
            assert(is_there);
        }
    }
    (void)close(pair[1]);
    fiber_scope_join(&scope);
    free(answer);
}

/* ---- to the bot ---- */

struct bot {
    enum status status;
    bool is_done;
};

static void bot_fiber(void *arg)
{
    struct bot *b = arg;
    struct arena arena = {0};
    struct error err = {0};
    json_t *reply = NULL;
    const struct invocation inv = {
        .intent = SV("i"), .arena = &arena, .deadline_unix_ns = clock_unix_ns() + CALL_NS};
    b->status = host_act(&inv, SV("service-status"), SV("cron"), &reply, &err);
    if (b->status == STATUS_OK)
        assert(json_is_object(reply) && json_is_true(json_object_get(reply, "ok")));
    else
        assert(err.message[0] != '\0');
    json_release(reply);
    arena_release(&arena);
    b->is_done = true;
}

/* The platform's end; descriptor 3 is the bot's, for the life of the process. -1: it is taken. */
static int platform_end(void)
{
    static int fd = -2;
    int pair[2];
    if (fd != -2) return fd;
    fd = -1;
    if (fcntl(HOST_ACT_FD, F_GETFD) >= 0) return fd;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) != 0) return fd;
    int theirs = pair[0] == HOST_ACT_FD ? pair[0] : pair[1];
    fd = theirs == pair[0] ? pair[1] : pair[0];
    if (theirs != HOST_ACT_FD) {
        (void)dup2(theirs, HOST_ACT_FD);
        (void)close(theirs);
    }
    return fd;
}

static void answer_bot(struct strview text)
{
    struct fiber_scope scope;
    struct bot bot = {.is_done = false};
    struct error err;
    struct strview line;
    char question[4096], message[4096];
    int fd = platform_end(), n = 0, digits = 0;
    if (fd < 0) return;
    fiber_scope_init(&scope);
    enum status s = fiber_scope_spawn(&scope, bot_fiber, &bot, &err);
    assert(s == STATUS_OK);
    (void)wire_wait(fd, POLLIN, clock_monotonic_ns() + PATIENCE_NS);
    ssize_t got = recv(fd, question, sizeof(question) - 1, MSG_DONTWAIT);
    question[got > 0 ? got : 0] = '\0';
    const char *id = strstr(question, "\"id\":");
    if (id != NULL) digits = (int)strspn(id + 5, "0123456789");
    while (n++ < MESSAGES_MAX && sv_next(&text, '\n', &line)) {
        size_t at = sv_find(line, '@');
        struct strview before = sv_sub(line, 0, at), after = sv_sub(line, at + 1, line.len);
        int len = snprintf(message, sizeof(message), "%.*s%.*s%.*s", SV_ARG(before),
                           at < line.len ? digits : 0, id != NULL ? id + 5 : "", SV_ARG(after));
        if (len > 0 && len < (int)sizeof(message))
            (void)send(fd, message, (size_t)len, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
    fiber_scope_join(&scope);
    assert(bot.is_done);
}

static void play(void *arg)
{
    struct strview all = *(struct strview *)arg;
    if (all.ptr[0] % 2 == 0)
        ask_broker(sv_sub(all, 1, all.len));
    else
        answer_bot(sv_sub(all, 1, all.len));
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct strview all = sv_n((const char *)bytes, n);
    if (n == 0) return 0;
    (void)platform_end(); /* before the loop takes that number */
    in_loop(play, &all);
    return 0;
}

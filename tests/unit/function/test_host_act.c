#include "function/function.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/list.h"
#include "loop/loop.h"

/* Criterion uses descriptor 3 itself, so each scene plays in a child whose exit code says whether every CHECK
 * held. */
#define CHECK(claim)                                                                                         \
    do {                                                                                                     \
        if (claim) break;                                                                                    \
        (void)fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #claim);                                    \
        _exit(1);                                                                                            \
    } while (0)

#define LIFE (5 * NS_PER_S)

static int broker_fd;
static struct arena arena;
static struct loop *loop;

struct asked {
    const char *subject;
    int64_t life_ns;
    enum status status;
    struct error err;
    json_t *reply;
    bool is_done;
};

static void ask_fiber(void *arg)
{
    struct asked *q = arg;
    struct invocation inv = {
        .intent = SV("i-1"), .arena = &arena, .deadline_unix_ns = clock_unix_ns() + q->life_ns};
    q->status = host_act(&inv, SV("service-status"), sv(q->subject), &q->reply, &q->err);
    q->is_done = true;
}

/* Next question as the broker reads it; its id. */
static json_int_t next_question(char ret_subject[64])
{
    char message[4096];
    json_t *q = NULL;
    struct pollfd fd = {.fd = broker_fd, .events = POLLIN};
    CHECK(poll(&fd, 1, 5000) == 1);
    ssize_t n = recv(broker_fd, message, sizeof(message), 0);
    CHECK(n > 0);
    CHECK(json_parse(sv_n(message, (size_t)n), 0, &q, NULL) == STATUS_OK);
    CHECK(sv_eq(json_get_text(q, "act"), SV("service-status")) &&
          sv_eq(json_get_text(q, "intent"), SV("i-1")));
    int64_t deadline_ns = 0;
    CHECK(rfc3339_parse(json_get_text(q, "deadline"), &deadline_ns) == STATUS_OK);
    CHECK(deadline_ns <= clock_unix_ns() + LIFE && deadline_ns > clock_unix_ns() - LIFE);
    (void)snprintf(ret_subject, 64, "%.*s", SV_ARG(json_get_text(q, "subject")));
    json_int_t id = json_integer_value(json_object_get(q, "id"));
    json_decref(q);
    return id;
}

static void answer(json_int_t id, const char *members)
{
    char text[512];
    int n = snprintf(text, sizeof(text), "{\"id\":%lld,%s}", (long long)id, members);
    CHECK(send(broker_fd, text, (size_t)n, 0) == n);
}

static void *in_order_of_subject(void *arg)
{
    char subjects[3][64];
    json_int_t ids[3];
    (void)arg;
    for (int i = 0; i < 3; i++)
        ids[i] = next_question(subjects[i]);
    answer(4711, "\"ok\":true"); /* nobody's */
    CHECK(send(broker_fd, "no json", 7, 0) == 7);
    for (char c = 'a'; c <= 'c'; c++)
        for (int i = 0; i < 3; i++)
            if (subjects[i][0] == c) {
                char members[64];
                (void)snprintf(members, sizeof(members), "\"ok\":true,\"subject\":\"%c\"", c);
                answer(ids[i], members);
                (void)usleep(5000);
            }
    return NULL;
}

static void *refuse(void *arg)
{
    char subject[64];
    (void)arg;
    answer(next_question(subject),
           "\"ok\":false,\"code\":\"PERMISSION_DENIED\",\"message\":\"sshd is not on the list\"");
    return NULL;
}

static void *hang_up(void *arg)
{
    char subject[64];
    (void)arg;
    (void)next_question(subject);
    (void)next_question(subject);
    (void)close(broker_fd);
    return NULL;
}

/* Leaves the first question without answer. */
static void *answer_the_second(void *arg)
{
    char subject[64];
    (void)arg;
    (void)next_question(subject);
    json_int_t second = next_question(subject);
    (void)usleep(300000); /* until the first has given up */
    answer(second, "\"ok\":true");
    return NULL;
}

struct scene {
    void *(*broker)(void *arg);
    struct asked asked[3];
    unsigned n;
    void (*judge)(struct scene *s);
};

static void ask_all_fiber(void *arg)
{
    struct scene *s = arg;
    struct fiber_scope scope;
    fiber_scope_init(&scope);
    for (unsigned i = 0; i < s->n; i++)
        CHECK(fiber_scope_spawn(&scope, ask_fiber, &s->asked[i], NULL) == STATUS_OK);
    fiber_scope_join(&scope);
}

static void play_in_child(struct scene *s)
{
    int fds[2];
    pthread_t thread;
    struct error err;
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fds) == 0);
    broker_fd = fcntl(fds[0], F_DUPFD, 100);
    CHECK(dup2(fds[1], HOST_ACT_FD) == HOST_ACT_FD);
    for (int i = 0; i < 2; i++)
        if (fds[i] != HOST_ACT_FD) (void)close(fds[i]);
    CHECK(loop_new(&loop, &err) == STATUS_OK);
    if (s->broker != NULL) CHECK(pthread_create(&thread, NULL, s->broker, NULL) == 0);
    CHECK(loop_run_fiber(loop, ask_all_fiber, s, &err) == STATUS_OK);
    if (s->broker != NULL) (void)pthread_join(thread, NULL);
    s->judge(s);
    for (unsigned i = 0; i < s->n; i++)
        json_decref(s->asked[i].reply);
    loop_free(loop); /* asserts that nothing is left */
    _exit(0);
}

static void play(struct scene s)
{
    int status = -1;
    pid_t pid = fork();
    if (pid == 0) play_in_child(&s);
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "wait status %d", status);
}

TestSuite(host_act, .timeout = 30);

static void judge_three(struct scene *s)
{
    for (unsigned i = 0; i < 3; i++) {
        CHECK(s->asked[i].status == STATUS_OK);
        CHECK(sv_eq(json_get_text(s->asked[i].reply, "subject"), sv(s->asked[i].subject)));
    }
}

Test(host_act, replies_find_their_callers_in_any_order)
{
    play((struct scene){.broker = in_order_of_subject,
                        .n = 3,
                        .judge = judge_three,
                        .asked = {{.subject = "c", .life_ns = LIFE},
                                  {.subject = "a", .life_ns = LIFE},
                                  {.subject = "b", .life_ns = LIFE}}});
}

static void judge_refused(struct scene *s)
{
    CHECK(s->asked[0].status == STATUS_PERMISSION_DENIED);
    CHECK(strstr(s->asked[0].err.message, "sshd is not on the list") != NULL);
    CHECK(s->asked[0].reply == NULL && !s->asked[0].err.can_retry);
}

Test(host_act, a_refusal_keeps_the_broker_s_code_and_sentence)
{
    play((struct scene){
        .broker = refuse, .n = 1, .judge = judge_refused, .asked = {{.subject = "sshd", .life_ns = LIFE}}});
}

static void judge_gone(struct scene *s)
{
    for (unsigned i = 0; i < 2; i++)
        CHECK(s->asked[i].status == STATUS_UNKNOWN && !s->asked[i].err.can_retry); /* it may have been done */
    struct asked late = {.subject = "x", .life_ns = LIFE};
    CHECK(loop_run_fiber(loop, ask_fiber, &late, NULL) == STATUS_OK);
    CHECK(late.status == STATUS_UNAVAILABLE);
}

Test(host_act, a_broker_that_hangs_up_ends_all_calls)
{
    play((struct scene){.broker = hang_up,
                        .n = 2,
                        .judge = judge_gone,
                        .asked = {{.subject = "a", .life_ns = LIFE}, {.subject = "b", .life_ns = LIFE}}});
}

static void judge_handed_over(struct scene *s)
{
    CHECK(s->asked[0].status == STATUS_UNKNOWN && !s->asked[0].err.can_retry);
    CHECK(s->asked[1].status == STATUS_OK);
}

Test(host_act, a_reader_that_gives_up_leaves_the_reading_to_the_next)
{
    play((struct scene){
        .broker = answer_the_second,
        .n = 2,
        .judge = judge_handed_over,
        .asked = {{.subject = "a", .life_ns = 100 * NS_PER_MS}, {.subject = "b", .life_ns = LIFE}}});
}

static void judge_not_sent(struct scene *s)
{
    char byte;
    CHECK(s->asked[0].status == STATUS_INVALID_ARGUMENT);
    CHECK(s->asked[1].status == STATUS_DEADLINE_EXCEEDED);
    CHECK(recv(broker_fd, &byte, 1, MSG_DONTWAIT) < 0);
}

Test(host_act, too_long_and_too_late_questions_are_not_asked)
{
    static char subject[70000];
    memset(subject, 'x', sizeof(subject) - 1);
    play((struct scene){.n = 2,
                        .judge = judge_not_sent,
                        .asked = {{.subject = subject, .life_ns = LIFE}, {.subject = "a", .life_ns = -1}}});
}

static void close_broker_fd(struct scene *s)
{
    CHECK(s->asked[0].status == STATUS_OK);
    (void)close(HOST_ACT_FD);
    (void)open("/dev/null", O_RDONLY); /* something else stands there */
    struct asked q = {.subject = "x", .life_ns = LIFE};
    CHECK(loop_run_fiber(loop, ask_fiber, &q, NULL) == STATUS_OK);
    CHECK(q.status == STATUS_FAILED_PRECONDITION);
}

static void *answer_one(void *arg)
{
    char subject[64];
    (void)arg;
    answer(next_question(subject), "\"ok\":true");
    return NULL;
}

Test(host_act, without_a_broker_s_socket_it_is_a_failed_precondition)
{
    play((struct scene){.broker = answer_one,
                        .n = 1,
                        .judge = close_broker_fd,
                        .asked = {{.subject = "a", .life_ns = LIFE}}});
}

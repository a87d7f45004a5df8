/* Answers in parts: the first is there before the last is made. */
#include <criterion/criterion.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fiber/fiber.h"
#include "function/function.h"
#include "function_process.h"

static struct fiber_event gone_on; /* in the function's process */

/* Tells "one", and the rest once somebody has asked for /go. */
static enum status tell(struct invocation *inv, const void *params, struct result *ret, struct error *err)
{
    static bool is_known;
    (void)params;
    if (!is_known) fiber_event_init(&gone_on);
    is_known = true;
    if (sv_eq(inv->req->path, SV("/go"))) {
        fiber_event_set(&gone_on);
        return result_reply(ret, 204, (struct strview){0}, SV(""));
    }
    enum status s = result_stream(ret, 201, SV("text/x-parts"));
    if (s == STATUS_OK) s = result_write(ret, SV("one "));
    if (s == STATUS_OK && sv_eq(inv->req->path, SV("/wait")))
        s = fiber_event_wait(&gone_on, fiber_deadline());
    if (s == STATUS_OK && sv_eq(inv->req->path, SV("/fail"))) s = STATUS_INTERNAL;
    if (s == STATUS_OK) s = result_write(ret, SV("two"));
    return s == STATUS_OK ? s : error_set(err, s, "cut short");
}

static const struct function_def teller = {
    .name = "teller", .summary = "for tests", .handle = tell, .manifest_json = "{}"};

static struct function_process process;
static char answer[ANSWER_MAX];

#define ENV(...) ((const char *const[]){__VA_ARGS__ __VA_OPT__(, ) NULL})

static void init(void)
{
    function_start(&process, &teller,
                   ENV("port=0", "BALM_METRICS=off", "suppress_lock=1", "exec_timeout=5s"));
}

static void fini(void)
{
    function_kill(&process);
}

TestSuite(function_stream, .init = init, .fini = fini, .timeout = 60);

/* Reads on until the answer has `text`. */
static void receive_until(int fd, const char *text)
{
    size_t len = strlen(answer);
    while (strstr(answer, text) == NULL) {
        ssize_t n = recv(fd, answer + len, sizeof(answer) - 1 - len, 0);
        cr_assert_gt(n, 0, "no '%s' in: %s", text, answer);
        len += (size_t)n;
        answer[len] = '\0';
    }
}

Test(function_stream, a_part_is_on_its_way_before_the_next_is_made)
{
    int fd = -1;
    char rest[ANSWER_MAX];
    answer[0] = '\0';
    cr_assert(http_send(process.port, "GET /wait HTTP/1.1\r\nHost: f\r\nConnection: close\r\n\r\n", &fd));
    receive_until(fd, "one ");
    cr_assert_eq(http_status(answer), 201);
    cr_assert_not_null(strstr(answer, "content-type: text/x-parts\r\n"));
    cr_assert_not_null(strstr(answer, "transfer-encoding: chunked\r\n"));
    cr_assert_null(strstr(answer, "two"));
    cr_assert_eq(http_get(process.port, "/go", rest), 204);
    cr_assert(http_receive(fd, rest));
    cr_assert_str_eq(strstr(rest, "3\r\n"), "3\r\ntwo\r\n0\r\n\r\n");
}

Test(function_stream, what_breaks_off_does_not_look_whole)
{
    cr_assert_eq(http_get(process.port, "/fail", answer), 201);
    cr_assert_not_null(strstr(answer, "one "));
    cr_assert_null(strstr(answer, "0\r\n\r\n"), "%s", answer);
    cr_assert(function_log_has(&process, "cut short"));
    cr_assert_eq(http_get(process.port, "/", answer), 201);
    cr_assert_not_null(strstr(answer, "0\r\n\r\n"));
}

Test(function_stream, the_time_limit_breaks_it_off_too)
{
    cr_assert_eq(http_get(process.port, "/wait", answer), 201);
    cr_assert_null(strstr(answer, "two"));
    cr_assert_null(strstr(answer, "0\r\n\r\n"), "%s", answer);
}

Test(function_stream, what_becomes_a_reply_event_is_collected)
{
    cr_assert(http_talk(process.port,
                        "POST / HTTP/1.1\r\nHost: f\r\nConnection: close\r\nce-id: 1\r\nce-source: /s\r\n"
                        "ce-type: t\r\nce-specversion: 1.0\r\nContent-Length: 0\r\n\r\n",
                        answer));
    cr_assert_eq(http_status(answer), 200);
    cr_assert_not_null(strstr(answer, "ce-type: dev.balm.teller.result\r\n"), "%s", answer);
    cr_assert_not_null(strstr(answer, "content-type: text/x-parts\r\n"));
    cr_assert_str_eq(http_body(answer), "one two");
}

/* Answers as functions really send them and as they must not: each is given whole, and split after every
 * byte. */
#include "client/answer.h"

#include <stdio.h>
#include <string.h>

#include <criterion/criterion.h>

struct reading {
    struct arena arena;
    struct answer answer;
    struct buf body;
    size_t used; /* of all bytes given */
};

/* `step` bytes more each time, as they come from a socket; what was not used is given again. */
static void read_answer(struct reading *r, bool is_to_head, struct strview bytes, size_t step, bool is_closed)
{
    *r = (struct reading){.used = 0};
    buf_init(&r->body, 1 << 20);
    answer_init(&r->answer, is_to_head, &r->arena);
    for (size_t there = 0; there < bytes.len;) {
        there = there + step < bytes.len ? there + step : bytes.len;
        r->used += answer_feed(&r->answer, sv_sub(bytes, r->used, there), &r->body);
    }
    if (is_closed) answer_close(&r->answer);
}

static void release(struct reading *r)
{
    buf_release(&r->body);
    arena_release(&r->arena);
}

static const struct {
    const char *bytes;
    bool is_to_head, is_closed;
    enum answer_state state;
    int status;
    const char *body;
    bool is_keepable;
} cases[] = {
    {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", false, false, ANSWER_END, 200, "hello", true},
    {"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello", false, false, ANSWER_END, 200, "hello", true},
    {"HTTP/1.1 204\r\n\r\n", false, false, ANSWER_END, 204, "", true},
    {"HTTP/1.1 304 Not\r\ncontent-length: 9\r\n\r\n", false, false, ANSWER_END, 304, "", true},
    {"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n", true, false, ANSWER_END, 200, "", true},
    {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: Close\r\n\r\n", false, false, ANSWER_END, 200, "",
     false},
    {"HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\nx", false, false, ANSWER_END, 200, "x", false},
    {"HTTP/1.0 200 OK\r\nconnection: a, Keep-Alive\r\ncontent-length: 1\r\n\r\nx", false, false, ANSWER_END,
     200, "x", true},
    {"HTTP/1.1 200 OK\r\n\r\nto the end", false, false, ANSWER_BODY_UNTIL_CLOSE, 200, "to the end", false},
    {"HTTP/1.1 200 OK\r\n\r\nto the end", false, true, ANSWER_END, 200, "to the end", false},
    {"HTTP/1.1 100 Continue\r\nx: y\r\n\r\nHTTP/1.1 103\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
     false, false, ANSWER_END, 200, "ok", true},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\nA ; x=\"y\"\r\n, you all!\r\n0\r\nt: 1\r\n\r\n",
     false, false, ANSWER_END, 200, "hello, you all!", true},
    {"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
     false, false, ANSWER_END, 200, "hello", false},
    {"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nok", false, false, ANSWER_END, 200,
     "ok", true},
    {"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok and more", false, false, ANSWER_END, 200, "ok", false},
    /* Cut. */
    {"", false, true, ANSWER_BROKEN, 0, "", false},
    {"HTTP/1.1 200 OK\r\ncontent-le", false, true, ANSWER_BROKEN, 200, "", false},
    {"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhell", false, true, ANSWER_BROKEN, 200, "hell", false},
    {"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n", false, true, ANSWER_BROKEN, 200,
     "hello", false},
    {"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n", false, true, ANSWER_BROKEN,
     200, "hello", false},
    /* No HTTP. */
    {"SSH-2.0-OpenSSH\r\n", false, false, ANSWER_BROKEN, 0, "", false},
    {"HTTP/2.0 200 OK\r\n", false, false, ANSWER_BROKEN, 0, "", false},
    {"HTTP/1.1 20 OK\r\n\r\n", false, false, ANSWER_BROKEN, 0, "", false},
    {"HTTP/1.1 099 OK\r\n\r\n", false, false, ANSWER_BROKEN, 0, "", false},
    {"HTTP/1.1 600 High\r\n\r\n", false, false, ANSWER_BROKEN, 0, "", false},
    {"HTTP/1.1 101 Switching\r\nupgrade: x\r\n\r\n", false, false, ANSWER_BROKEN, 0, "", false},
    {"HTTP/1.1 200OK\r\n\r\n", false, false, ANSWER_BROKEN, 0, "", false},
    {"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", false, false, ANSWER_BROKEN, 200, "", false},
    {"HTTP/1.1 200 OK\r\n: no name\r\n\r\n", false, false, ANSWER_BROKEN, 200, "", false},
    {"HTTP/1.1 200 OK\r\nblank : x\r\n\r\n", false, false, ANSWER_BROKEN, 200, "", false},
    {"HTTP/1.1 200 OK\r\na: b\r\n folded\r\n\r\n", false, false, ANSWER_BROKEN, 200, "", false},
    {"HTTP/1.1 200 OK\r\na: \001\r\n\r\n", false, false, ANSWER_BROKEN, 200, "", false},
    /* h2o 2.2.5's client aborts the process at these. */
    {"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\nhello", false, false, ANSWER_BROKEN, 200, "", false},
    {"HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551616\r\n\r\n", false, false, ANSWER_BROKEN, 200, "",
     false},
    {"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n", false, false, ANSWER_BROKEN, 200, "", false},
    {"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok!", false, false, ANSWER_BROKEN, 200,
     "", false},
    {"HTTP/1.1 200 OK\r\ncontent-length: 2, 2\r\n\r\nok", false, false, ANSWER_BROKEN, 200, "", false},
    {"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n", false, false,
     ANSWER_BROKEN, 200, "", false},
    {"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", false, false, ANSWER_BROKEN, 200, "",
     false},
    {"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\r\n", false, false, ANSWER_BROKEN, 200, "",
     false},
    {"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1111111111111111\r\n", false, false, ANSWER_BROKEN,
     200, "", false},
    {"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok!\r\n", false, false, ANSWER_BROKEN, 200,
     "ok", false},
};

Test(answer, is_read_the_same_wherever_it_is_split)
{
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct strview bytes = sv(cases[i].bytes);
        for (size_t step = 1; step <= bytes.len + 1; step++) {
            struct reading r;
            read_answer(&r, cases[i].is_to_head, bytes, step, cases[i].is_closed);
            cr_assert_eq(r.answer.state, cases[i].state, "case %zu, step %zu: state %d", i, step,
                         (int)r.answer.state);
            cr_assert_eq(r.answer.status, cases[i].status, "case %zu, step %zu", i, step);
            cr_assert(sv_eq(buf_view(&r.body), sv(cases[i].body)), "case %zu, step %zu: '%.*s'", i, step,
                      SV_ARG(buf_view(&r.body)));
            bool is_split_end =
                cases[i].state == ANSWER_END && r.used < bytes.len; /* garbage that came later */
            cr_assert(r.answer.is_keepable == cases[i].is_keepable || is_split_end, "case %zu, step %zu", i,
                      step);
            release(&r);
        }
    }
}

Test(answer, names_are_in_lower_case_and_values_trimmed)
{
    struct reading r;
    read_answer(&r, false, SV("HTTP/1.1 200 OK\r\nX-Two-Words:\t a  b \r\nEmpty:\r\n\r\n"), 1000, false);
    cr_assert_eq(r.answer.n_headers, 2);
    cr_assert(sv_eq(r.answer.headers[0].name, SV("x-two-words")));
    cr_assert(sv_eq(r.answer.headers[0].value, SV("a  b")));
    cr_assert_eq(r.answer.headers[1].value.len, 0);
    release(&r);
}

/* `n` times `line` behind a status line. */
static enum answer_state state_after(const char *line, size_t n, size_t step)
{
    struct buf bytes;
    struct reading r;
    buf_init(&bytes, 1 << 20);
    buf_append(&bytes, SV("HTTP/1.1 200 OK\r\n"));
    for (size_t i = 0; i < n; i++)
        buf_append(&bytes, sv(line));
    read_answer(&r, false, buf_view(&bytes), step, false);
    enum answer_state state = r.answer.state;
    release(&r);
    buf_release(&bytes);
    return state;
}

Test(answer, headers_without_end_are_refused)
{
    cr_expect_eq(state_after("a: b\r\n", ANSWER_HEADERS_MAX, 7), ANSWER_HEAD);
    cr_expect_eq(state_after("a: b\r\n", ANSWER_HEADERS_MAX + 1, 7), ANSWER_BROKEN);
    cr_expect_eq(state_after("x", ANSWER_HEAD_MAX_BYTES - 100, 1000), ANSWER_HEAD);
    cr_expect_eq(state_after("x", ANSWER_HEAD_MAX_BYTES, 1000), ANSWER_BROKEN, "one line");
    struct strview forever = SV("HTTP/1.1 100 Continue\r\n\r\n");
    struct reading r = {.used = 0};
    buf_init(&r.body, 16);
    answer_init(&r.answer, false, &r.arena);
    for (size_t i = 0; i < ANSWER_HEAD_MAX_BYTES / forever.len; i++)
        (void)answer_feed(&r.answer, forever, &r.body);
    cr_expect_eq(r.answer.state, ANSWER_HEAD);
    (void)answer_feed(&r.answer, forever, &r.body);
    cr_expect_eq(r.answer.state, ANSWER_BROKEN, "1xx for ever");
    release(&r);
}

Test(answer, a_chunk_s_line_without_end_is_refused)
{
    char line[ANSWER_CHUNK_LINE_MAX + 2];
    struct reading r;
    read_answer(&r, false, SV("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"), 1000, false);
    memset(line, '0', sizeof(line));
    (void)answer_feed(&r.answer, sv_n(line, ANSWER_CHUNK_LINE_MAX), &r.body);
    cr_expect_eq(r.answer.state, ANSWER_CHUNK_SIZE);
    (void)answer_feed(&r.answer, sv_n(line, sizeof(line)), &r.body);
    cr_expect_eq(r.answer.state, ANSWER_BROKEN);
    release(&r);
}

#include "server/server_impl.h"

#include <criterion/criterion.h>

static int check(const char *head, int minor_version)
{
    const char *why = NULL;
    int status = head_check(sv(head), minor_version, &why);
    cr_expect_eq(status == 0, why == NULL, "%s", head);
    return status;
}

Test(check, ordinary_heads_pass)
{
    cr_expect_eq(check("GET / HTTP/1.1\r\nhost: a\r\n\r\n", 1), 0);
    cr_expect_eq(check("\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n", 1), 0);
    cr_expect_eq(check("GET / HTTP/1.0\r\n\r\n", 0), 0);
    cr_expect_eq(check("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello", 1), 0);
    cr_expect_eq(check("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", 1), 0);
    cr_expect_eq(check("GET / HTTP/1.1\r\nhost: a\r\nx: content-length: 1\r\n\r\n", 1), 0,
                 "a value is no name");
    cr_expect_eq(check("GET / HTTP/1.1\r\nhost: a\r\ncontent-length-x: 1\r\ncontent-lengt: 1\r\n\r\n", 1), 0);
}

Test(check, what_follows_the_empty_line_is_not_looked_at)
{
    cr_expect_eq(
        check(
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 44\r\n\r\nhost: b\r\ncontent-length: 1\r\n folded\r\n\r\n",
            1),
        0);
}

Test(check, ambiguous_framing_is_refused)
{
    cr_expect_eq(check("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\n", 1),
                 400);
    cr_expect_eq(
        check("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n", 1),
        400);
    cr_expect_eq(
        check("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n", 1),
        400);
    cr_expect_eq(
        check("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n",
              1),
        400);
    cr_expect_eq(check("POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n", 0), 400);
}

Test(check, folded_lines_and_wrong_hosts_are_refused)
{
    cr_expect_eq(check("GET / HTTP/1.1\r\nhost: a\r\nx: 1\r\n 2\r\n\r\n", 1), 400);
    cr_expect_eq(check("GET / HTTP/1.1\r\nhost: a\r\nx: 1\r\n\t2\r\n\r\n", 1), 400);
    cr_expect_eq(check("GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 1), 400);
    cr_expect_eq(check("GET / HTTP/1.1\r\n\r\n", 1), 400);
}

Test(check, a_line_feed_alone_ends_no_line)
{
    cr_expect_eq(check("GET / HTTP/1.1\nhost: a\n\n", 1), 400);
    cr_expect_eq(check("GET / HTTP/1.1\nhost: a\r\n\r\n", 1), 400);
    cr_expect_eq(check("GET / HTTP/1.1\r\nhost: a\nx: y\r\n\r\n", 1), 400);
    cr_expect_eq(check("GET / HTTP/1.1\r\nhost: a\r\n\n", 1), 400);
    cr_expect_eq(check("\nGET / HTTP/1.1\r\nhost: a\r\n\r\n", 1), 400);
}

Test(check, head_at_the_limit_passes_and_one_byte_more_does_not)
{
    static char head[SERVER_HEAD_MAX_BYTES + 2];
    const char *start = "GET / HTTP/1.1\r\nhost: a\r\nx: ";
    const char *why = NULL;
    size_t n = strlen(start);
    memset(head, 'v', sizeof(head));
    memcpy(head, start, n);
    memcpy(head + SERVER_HEAD_MAX_BYTES - 4, "\r\n\r\n", 4);
    cr_assert_eq(head_check(sv_n(head, SERVER_HEAD_MAX_BYTES), 1, &why), 0);
    memcpy(head + SERVER_HEAD_MAX_BYTES - 4, "vvvv", 4);
    memcpy(head + SERVER_HEAD_MAX_BYTES - 3, "\r\n\r\n", 4);
    cr_assert_eq(head_check(sv_n(head, SERVER_HEAD_MAX_BYTES + 1), 1, &why), 431);
    cr_assert_not_null(why);
}

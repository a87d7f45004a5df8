#include "base/status.h"

#include <criterion/criterion.h>
#include <errno.h>

Test(status, set_fills_code_sentence_and_retry)
{
    struct error err = {0};
    cr_assert(error_set(&err, STATUS_UNAVAILABLE, "lease from '%s': %d", "alerts", 5) == STATUS_UNAVAILABLE);
    cr_assert(err.code == STATUS_UNAVAILABLE);
    cr_assert(err.can_retry);
    cr_assert_str_eq(err.message, "lease from 'alerts': 5");
    cr_assert(error_set(&err, STATUS_INVALID_ARGUMENT, "x") == STATUS_INVALID_ARGUMENT);
    cr_assert_not(err.can_retry);
    cr_assert(error_set(NULL, STATUS_ABORTED, "nobody reads %s", "this") == STATUS_ABORTED);
}

Test(status, only_four_codes_are_worth_a_retry)
{
    for (int code = 0; code <= STATUS_UNAUTHENTICATED; code++) {
        struct error err = {0};
        (void)error_set(&err, (enum status)code, "x");
        bool expected = code == STATUS_UNAVAILABLE || code == STATUS_ABORTED ||
                        code == STATUS_DEADLINE_EXCEEDED || code == STATUS_RESOURCE_EXHAUSTED;
        cr_assert_eq(err.can_retry, expected, "%s", status_name((enum status)code));
    }
}

Test(status, prefix_goes_in_front_and_keeps_code_and_retry)
{
    struct error err = {0};
    (void)error_set(&err, STATUS_ABORTED, "version 7, not 6");
    cr_assert(error_prefix(&err, STATUS_INTERNAL, "patch %s", "web") == STATUS_ABORTED);
    cr_assert_str_eq(err.message, "patch web: version 7, not 6");
    cr_assert(err.can_retry);
    cr_assert(error_prefix(NULL, STATUS_INTERNAL, "x") == STATUS_INTERNAL);
}

Test(status, prefix_of_an_unset_error_takes_the_given_code)
{
    struct error err = {0};
    cr_assert(error_prefix(&err, STATUS_UNAVAILABLE, "dial") == STATUS_UNAVAILABLE);
    cr_assert(err.code == STATUS_UNAVAILABLE && err.can_retry);
}

Test(status, old_message_may_be_an_argument_of_the_new)
{
    struct error err = {0};
    (void)error_set(&err, STATUS_INTERNAL, "inner");
    (void)error_set(&err, STATUS_INTERNAL, "outer: %s", err.message);
    cr_assert_str_eq(err.message, "outer: inner");
}

Test(status, long_messages_are_cut_between_characters)
{
    char text[2 * ERROR_MESSAGE_MAX];
    for (size_t shift = 0; shift < 4; shift++) { /* the cut falls on each byte of the three-byte character */
        memset(text, 'a', sizeof(text));
        for (size_t i = shift; i + 3 < sizeof(text); i += 3)
            memcpy(text + i, "\xE2\x82\xAC", 3);
        text[sizeof(text) - 1] = '\0';
        struct error err = {0};
        (void)error_set(&err, STATUS_INTERNAL, "%s", text);
        size_t len = strlen(err.message);
        cr_assert(len >= ERROR_MESSAGE_MAX - 4 && len < ERROR_MESSAGE_MAX);
        cr_assert_eq((len - shift) % 3, 0, "shift %zu len %zu", shift, len);
        (void)error_prefix(&err, STATUS_INTERNAL, "x");
        cr_assert_eq((strlen(err.message) - shift - 3) % 3, 0);
    }
}

Test(status, names_are_those_of_grpc)
{
    cr_assert_str_eq(status_name(STATUS_OK), "OK");
    cr_assert_str_eq(status_name(STATUS_CANCELLED), "CANCELLED");
    cr_assert_str_eq(status_name(STATUS_UNAUTHENTICATED), "UNAUTHENTICATED");
    cr_assert_str_eq(status_name((enum status)17), "UNKNOWN");
    cr_assert_str_eq(status_name((enum status) - 1), "UNKNOWN");
}

Test(status, http_codes_follow_the_header)
{
    const struct {
        enum status code;
        int http;
    } rows[] = {
        {STATUS_OK, 200},
        {STATUS_CANCELLED, 499},
        {STATUS_UNKNOWN, 500},
        {STATUS_INVALID_ARGUMENT, 400},
        {STATUS_DEADLINE_EXCEEDED, 504},
        {STATUS_NOT_FOUND, 404},
        {STATUS_ALREADY_EXISTS, 409},
        {STATUS_PERMISSION_DENIED, 403},
        {STATUS_RESOURCE_EXHAUSTED, 503},
        {STATUS_FAILED_PRECONDITION, 412},
        {STATUS_ABORTED, 409},
        {STATUS_OUT_OF_RANGE, 500},
        {STATUS_UNIMPLEMENTED, 501},
        {STATUS_INTERNAL, 500},
        {STATUS_UNAVAILABLE, 503},
        {STATUS_DATA_LOSS, 500},
        {STATUS_UNAUTHENTICATED, 401},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        cr_assert_eq(status_to_http(rows[i].code), rows[i].http, "%s", status_name(rows[i].code));
}

Test(status, answers_of_peers_become_codes)
{
    cr_assert(status_from_http(200) == STATUS_OK && status_from_http(204) == STATUS_OK);
    cr_assert(status_from_http(299) == STATUS_OK && status_from_http(300) == STATUS_INTERNAL);
    cr_assert(status_from_http(408) == STATUS_DEADLINE_EXCEEDED &&
              status_from_http(504) == STATUS_DEADLINE_EXCEEDED);
    cr_assert(status_from_http(429) == STATUS_UNAVAILABLE && status_from_http(502) == STATUS_UNAVAILABLE);
    cr_assert(status_from_http(409) == STATUS_ABORTED && status_from_http(413) == STATUS_INVALID_ARGUMENT);
    cr_assert(status_from_http(500) == STATUS_INTERNAL && status_from_http(0) == STATUS_INTERNAL);
}

Test(status, errno_becomes_a_code)
{
    cr_assert(status_from_errno(ENOENT) == STATUS_NOT_FOUND &&
              status_from_errno(EPERM) == STATUS_PERMISSION_DENIED);
    cr_assert(status_from_errno(ENOSPC) == STATUS_RESOURCE_EXHAUSTED &&
              status_from_errno(EPIPE) == STATUS_UNAVAILABLE);
    cr_assert(status_from_errno(ETIMEDOUT) == STATUS_DEADLINE_EXCEEDED &&
              status_from_errno(EIO) == STATUS_INTERNAL);
}

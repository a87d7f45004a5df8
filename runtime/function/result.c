#include "function/function.h"

#include <stdio.h>

#include "function/function_impl.h"

#define RESULT_MESSAGE_MAX 1024

static enum status result_say(struct result *ret, enum result_state state, const char *fmt, va_list args)
    __attribute__((format(printf, 3, 0)));

static enum status result_say(struct result *ret, enum result_state state, const char *fmt, va_list args)
{
    char text[RESULT_MESSAGE_MAX];
    int n = vsnprintf(text, sizeof(text), fmt, args);
    size_t len = n < 0 ? 0 : (size_t)n;
    if (len >= sizeof(text)) len = sizeof(text) - 1;
    ret->state = state;
    ret->message = arena_copy(ret->arena, sv_n(text, len));
    return STATUS_OK;
}

enum status result_done(struct result *ret, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    enum status s = result_say(ret, RESULT_DONE, fmt, args);
    va_end(args);
    return s;
}

enum status result_unchanged(struct result *ret, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    enum status s = result_say(ret, RESULT_UNCHANGED, fmt, args);
    va_end(args);
    return s;
}

enum status result_refused(struct result *ret, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    enum status s = result_say(ret, RESULT_REFUSED, fmt, args);
    va_end(args);
    return s;
}

enum status result_reply(struct result *ret, int http_status, struct strview content_type,
                         struct strview body)
{
    ret->state = RESULT_NONE;
    ret->http_status = http_status;
    ret->content_type = content_type;
    ret->body = body;
    return STATUS_OK;
}

enum status result_stream(struct result *ret, int http_status, struct strview content_type)
{
    (void)result_reply(ret, http_status, content_type, (struct strview){0});
    if (ret->parts == NULL) {
        buf_init(&ret->collected, RESULT_COLLECTED_MAX);
        return STATUS_OK;
    }
    ret->is_answered = true;
    function_answer_reply(ret, ret->parts);
    return http_resp_stream(ret->parts);
}

enum status result_write(struct result *ret, struct strview part)
{
    if (ret->parts != NULL) return http_resp_write(ret->parts, part);
    buf_append(&ret->collected, part);
    return buf_status(&ret->collected);
}

static void result_set(struct result *ret, const char *name, json_t *value)
{
    if (ret->detail == NULL) ret->detail = json_object();
    json_object_set_new(ret->detail, name, value);
}

void result_set_text(struct result *ret, const char *name, struct strview value)
{
    result_set(ret, name, json_text(value));
}

void result_set_int(struct result *ret, const char *name, int64_t value)
{
    result_set(ret, name, json_integer(value));
}

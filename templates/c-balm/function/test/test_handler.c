/* The handler alone: make test */
#include "my-bot.gen.h"

#include <assert.h>
#include <stdlib.h>
#include <unistd.h>

/* What the handler says of `file`. */
static struct result look(struct arena *arena, const char *file)
{
    struct invocation inv = {.function = SV("my-bot"), .arena = arena};
    struct my_bot_params p = {.alertname = SV("Test"), .file = sv(file)};
    struct result result = {.arena = arena};
    struct error err = {0};
    enum status s = my_bot_handle(&inv, &p, &result, &err);
    printf("%s: %s%.*s\n", file, s == STATUS_OK ? "" : err.message, SV_ARG(result.message));
    assert(s == STATUS_OK);
    return result;
}

static void a_file_that_is_there(struct arena *arena)
{
    const char *folder = getenv("TMPDIR");
    char path[4096];
    (void)snprintf(path, sizeof(path), "%s/my-bot-XXXXXX", folder != NULL ? folder : "/tmp");
    int fd = mkstemp(path);
    assert(fd >= 0 && write(fd, "12345", 5) == 5);
    struct result result = look(arena, path);
    assert(result.state == RESULT_UNCHANGED);
    assert(json_integer_value(json_object_get(result.detail, "bytes")) == 5);
    json_release(result.detail);
    (void)close(fd);
    (void)unlink(path);
}

static void a_file_that_is_not_there(struct arena *arena)
{
    assert(look(arena, "/no/such/file").state == RESULT_REFUSED);
}

/* As a fiber, so that a handler may wait. */
static void tests(void *arg)
{
    a_file_that_is_there(arg);
    a_file_that_is_not_there(arg);
}

int main(void)
{
    struct arena arena = {0};
    struct loop *loop = NULL;
    struct error err = {0};
    enum status s = loop_new(&loop, &err);
    if (s == STATUS_OK) s = loop_run_fiber(loop, tests, &arena, &err);
    if (s != STATUS_OK) fprintf(stderr, "%s\n", err.message);
    loop_free(loop);
    arena_release(&arena);
    return s == STATUS_OK ? 0 : 1;
}

/* What was deployed through the API, on a disk that does not sync, and while somebody else deploys. */
#include "gateway/deployed.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "scene.h"

#define PLAIN  "{\"service\":\"plain\",\"image\":\"plain\"}"
#define GONE   "{\"functionName\":\"plain\"}"
#define STORED "data/functions/plain.json"

/* ---- the disk ---- */

static atomic_bool is_failing;                     /* no folder syncs */
static atomic_bool is_holding, is_held, is_let_go; /* the next sync of a folder waits to be let go */

int fsync(int fd)
{
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISDIR(st.st_mode)) return (int)syscall(SYS_fsync, fd);
    if (atomic_exchange(&is_holding, false)) {
        is_held = true;
        while (!is_let_go)
            (void)usleep(1000);
    }
    if (!is_failing) return (int)syscall(SYS_fsync, fd);
    errno = EIO;
    return -1;
}

/* ---- removing ---- */

static int code_of(struct scene *s, const char *method, const char *body)
{
    struct answer a = ask(s, method, "/system/functions", body);
    CHECK_OK(s, a.status);
    return a.code;
}

static void removed_on_a_bad_disk(struct scene *s)
{
    CHECK(code_of(s, "POST", PLAIN) == 202);
    is_failing = true;
    CHECK(code_of(s, "DELETE", GONE) == 500);
    CHECK(deployment_of(s, "plain") != NULL && scene_has(s, STORED));
    is_failing = false;
    scene_stop(s);
    CHECK_OK(s, scene_start(s));
    CHECK(deployment_of(s, "plain") != NULL);
    CHECK(code_of(s, "DELETE", GONE) == 202);
    CHECK(deployment_of(s, "plain") == NULL && !scene_has(s, STORED));
    scene_stop(s);
    CHECK_OK(s, scene_start(s));
    CHECK(deployment_of(s, "plain") == NULL);
}

Test(deployed, a_function_that_cannot_be_forgotten_is_still_there, .timeout = 60)
{
    play(NULL, removed_on_a_bad_disk);
}

static void removed_without_a_file(struct scene *s)
{
    CHECK_OK(s, deployed_forget(s->gateway, SV("plain"), &s->err));
    CHECK(code_of(s, "POST", PLAIN) == 202);
    CHECK(unlink(scene_path(s, STORED)) == 0);
    is_failing = true; /* its name may be on the disk yet */
    CHECK(code_of(s, "DELETE", GONE) == 500);
    is_failing = false;
    CHECK(code_of(s, "DELETE", GONE) == 202 && code_of(s, "DELETE", GONE) == 404);
}

Test(deployed, a_function_that_was_not_stored_is_removed_too, .timeout = 60)
{
    play(NULL, removed_without_a_file);
}

static void left_by_a_crash(struct scene *s)
{
    CHECK(code_of(s, "POST", PLAIN) == 202);
    scene_stop(s);
    (void)scene_write(s, "data/functions/old.removed", PLAIN, 0600);
    (void)scene_write(s, "data/functions/old.json~4dsx1A", PLAIN, 0600);
    CHECK_OK(s, scene_start(s));
    CHECK(deployment_of(s, "plain") != NULL && deployment_of(s, "old") == NULL);
    CHECK(!scene_has(s, "data/functions/old.removed") && !scene_has(s, "data/functions/old.json~4dsx1A"));
}

Test(deployed, what_a_crash_left_of_a_change_goes, .timeout = 60)
{
    play(NULL, left_by_a_crash);
}

/* ---- one change at a time ---- */

struct asker {
    struct scene *scene;
    const char *method, *body;
    int code; /* 0: no answer yet */
};

static void ask_fiber(void *arg)
{
    struct asker *a = arg;
    a->code = code_of(a->scene, a->method, a->body);
}

static bool is_removal_held(void *arg)
{
    (void)arg;
    return is_held;
}

static void replaced_while_removed(struct scene *s)
{
    struct asker removal = {s, "DELETE", GONE, 0}, update = {s, "PUT", PLAIN, 0};
    struct fiber_scope askers;
    CHECK(code_of(s, "POST", PLAIN) == 202);
    fiber_scope_init(&askers);
    is_holding = true;
    CHECK_OK(s, fiber_scope_spawn(&askers, ask_fiber, &removal, &s->err));
    CHECK(await(is_removal_held, NULL));
    CHECK_OK(s, fiber_scope_spawn(&askers, ask_fiber, &update, &s->err));
    for (unsigned i = 0; i < 50 && update.code == 0; i++) /* it would overtake within that */
        CHECK_OK(s, sleep_ms(10));
    is_let_go = true;
    fiber_scope_join(&askers);
    CHECK(removal.code == 202 && update.code == 404); /* on which faas-cli creates it */
    CHECK(deployment_of(s, "plain") == NULL && !scene_has(s, STORED));
}

Test(deployed, what_is_deployed_is_what_is_stored_whoever_is_faster, .timeout = 60)
{
    play(NULL, replaced_while_removed);
}

/* ---- how many replicas ---- */

static int scale(struct scene *s, const char *body)
{
    struct answer a = ask(s, "POST", "/system/scale-function/plain", body);
    CHECK_OK(s, a.status);
    return a.code;
}

static void restart(struct scene *s)
{
    scene_stop(s);
    CHECK_OK(s, scene_start(s));
}

static void scaled(struct scene *s)
{
    CHECK(code_of(s, "POST", PLAIN) == 202);
    restart(s);
    CHECK(deployment_of(s, "plain")->n_routed == 1); /* as after its deploy */
    CHECK(scale(s, "{\"replicas\":3}") == 202 && deployment_of(s, "plain")->n_routed == 3);
    (void)!sleep_ms(600); /* no load: it is somebody's wish */
    CHECK(deployment_of(s, "plain")->n_routed == 3);
    restart(s);
    CHECK(deployment_of(s, "plain")->n_routed == 3);
    CHECK(code_of(s, "PUT", PLAIN) == 202 && deployment_of(s, "plain")->n_routed == 3);
    CHECK(scale(s, "{\"serviceName\":\"plain.openfaas-fn\",\"replicas\":0}") == 202);
    restart(s);
    CHECK(deployment_of(s, "plain")->n_routed == 0);
    CHECK(scale(s, "{\"replicas\":8}") == 202); /* no label forbids it */
    CHECK(code_of(s, "DELETE", GONE) == 202);
    CHECK(code_of(s, "POST", PLAIN) == 202);
    CHECK(deployment_of(s, "plain")->n_routed == 1);
    restart(s);
    CHECK(deployment_of(s, "plain")->n_routed == 1);
}

Test(deployed, the_scale_somebody_set_outlives_a_restart, .timeout = 60)
{
    play(NULL, scaled);
}

static void badly_scaled(struct scene *s)
{
    static const char *const bad[] = {
        "{}",
        "[]",
        "{\"replicas\":-1}",
        "{\"replicas\":1.5}",
        "{\"replicas\":\"1\"}",
        "{\"replicas\":65}",
        "{\"replicas\":99999999999999999999}",
        "{\"replicas\":1",
        "{\"serviceName\":\"other\",\"replicas\":1}",
        "{\"serviceName\":7,\"replicas\":1}",
        "{\"replicas\":3}", /* a label */
        "{\"replicas\":0}",
    };
    CHECK(code_of(s, "POST",
                  "{\"service\":\"plain\",\"image\":\"plain\",\"labels\":{\"com.openfaas.scale.max\":\"2\","
                  "\"com.openfaas.scale.min\":\"1\"}}") == 202);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        CHECK(scale(s, bad[i]) == 400);
    CHECK(deployment_of(s, "plain")->n_routed == 1 && !scene_has(s, "data/functions/plain.scale"));
    is_failing = true;
    CHECK(scale(s, "{\"replicas\":2}") == 500 && deployment_of(s, "plain")->n_routed == 1);
    is_failing = false;
    CHECK(scale(s, "{\"replicas\":2}") == 202);
    CHECK(ask(s, "POST", "/system/scale-function/nobody", "{\"replicas\":1}").code == 404);
    CHECK(ask(s, "GET", "/system/scale-function/plain", NULL).code == 405);
}

Test(deployed, a_scale_that_makes_no_sense_is_refused, .timeout = 60)
{
    play(NULL, badly_scaled);
}

static void scale_leftovers(struct scene *s)
{
    CHECK(code_of(s, "POST", PLAIN) == 202);
    (void)scene_write(s, "data/functions/plain.scale", "lots", 0600);
    (void)scene_write(s, "data/functions/gone.scale", "3", 0600);
    restart(s);
    CHECK(deployment_of(s, "plain") != NULL && !scene_has(s, "data/functions/gone.scale"));
}

Test(deployed, a_scale_that_cannot_be_read_stops_nothing, .timeout = 60)
{
    play(NULL, scale_leftovers);
}

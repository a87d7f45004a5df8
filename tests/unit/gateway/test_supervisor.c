#include "scene.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

static void deploy_plain(struct scene *s)
{
    CHECK_OK(s, deploy_named(s, "plain", "plain"));
}

static void starts_on_demand(struct scene *s)
{
    deploy_plain(s);
    CHECK(deployment_replicas(deployment_of(s, "plain")) == 0);
    struct answer a = ask(s, "POST", "/function/plain", "{\"a\":1}");
    CHECK(a.status == STATUS_OK && a.code == 200);
    CHECK(sv_eq(a.body, SV("{\"a\":1}")));
    CHECK(deployment_replicas(deployment_of(s, "plain")) == 1);
}

Test(supervisor, a_function_starts_with_its_first_request, .timeout = 30)
{
    play(NULL, starts_on_demand);
}

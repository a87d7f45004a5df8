/* What bots need: to be deployed, to come up, their secrets, and what they may do on the host. */
#include "cli/doctor.h"

/* What was found of all functions. */
struct needs {
    struct doctor *d;
    size_t n_healthy, n_lacking; /* those that come up; those without a secret */
};

static struct strview joined(const json_t *names, struct arena *a)
{
    struct strview text = SV("");
    size_t i;
    json_t *name;
    json_array_foreach(names, i, name) text =
        arena_printf(a, "%.*s%s%s", SV_ARG(text), i > 0 ? ", " : "", json_string_value(name));
    return text;
}

/* Does a runbook that acts name it? Those in shadow call nobody. */
static bool is_used(const struct doctor *d, struct strview function)
{
    size_t i, k;
    json_t *runbook, *bot;
    json_array_foreach(json_object_get(d->status, "runbooks"), i, runbook)
    {
        if (!sv_eq(json_get_text(runbook, "mode"), SV("act"))) continue;
        if (sv_eq(json_get_text(runbook, "escalate"), function)) return true;
        json_array_foreach(json_object_get(runbook, "bots"), k,
                           bot) if (sv_eq(sv(json_string_value(bot)), function)) return true;
    }
    return false;
}

static bool is_deployed(const struct doctor *d, struct strview function)
{
    size_t i;
    json_t *f;
    json_array_foreach(d->functions, i, f) if (sv_eq(json_get_text(f, "name"), function)) return true;
    return false;
}

static void check_secrets(struct needs *n, struct strview name, const json_t *found, bool is_in_use)
{
    struct doctor *d = n->d;
    const json_t *missing = json_object_get(found, "missingSecrets"),
                 *unlisted = json_object_get(found, "unlistedSecrets");
    bool is_lacking = json_array_size(missing) > 0 || (json_array_size(unlisted) > 0 && is_in_use);
    n->n_lacking += is_lacking;
    if (json_array_size(missing) > 0)
        doctor_fail(d, "secrets", "faas-cli secret create NAME for each", "%.*s does not start without: %.*s",
                    SV_ARG(name), SV_ARG(joined(missing, &d->arena)));
    else if (is_lacking)
        doctor_fail(d, "secrets",
                    "faas-cli secret create NAME, and list it under secrets of the function in stack.yml",
                    "%.*s is not given what it reads: %.*s", SV_ARG(name),
                    SV_ARG(joined(unlisted, &d->arena)));
}

static void check_host(struct needs *n, struct strview name, const json_t *found, bool is_in_use)
{
    const json_t *services = json_object_get(found, "hostServices");
    if (services == NULL || !is_in_use) return;
    if (json_array_size(services) > 0)
        doctor_ok(n->d, "host acts", "%.*s may act on: %.*s", SV_ARG(name),
                  SV_ARG(joined(services, &n->d->arena)));
    else
        doctor_fail(
            n->d, "host acts", "write the list (README: A runbook) and start with balm up --host-acts FILE",
            "%.*s may %s of the host", SV_ARG(name),
            sv_eq(json_get_text(found, "hostKind"), SV("program")) ? "run no program" : "act on no service");
}

/* Its name is a DNS label, so it is a path as it is. */
static void check_function(struct needs *n, struct strview name)
{
    struct doctor *d = n->d;
    struct error err = {0};
    json_t *body = json_object(), *found = NULL;
    const char *path = arena_printf(&d->arena, "/system/check-function/%.*s", SV_ARG(name)).ptr;
    enum status s = cli_api(&d->cfg->platform, "POST", path, body, &found, &err);
    bool is_in_use = is_used(d, name);
    if (s != STATUS_OK) {
        doctor_fail(d, "functions", "balm status", "%.*s could not be checked: %s", SV_ARG(name),
                    err.message);
    } else {
        bool is_missing = json_array_size(json_object_get(found, "missingSecrets")) > 0;
        if (json_is_true(json_object_get(found, "healthy")))
            n->n_healthy++;
        else if (!is_missing)
            doctor_fail(d, "functions", "faas-cli logs NAME, and the platform's log", "%.*s",
                        SV_ARG(json_get_text(found, "error")));
        check_secrets(n, name, found, is_in_use);
        check_host(n, name, found, is_in_use);
    }
    json_release(found);
    json_decref(body);
}

static void check_named(struct doctor *d, const json_t *runbook, struct strview bot)
{
    if (bot.len == 0 || is_deployed(d, bot)) return;
    doctor_fail(d, "functions", "deploy it (stack.yml and balm reload, or faas-cli deploy)",
                "runbook %.*s names %.*s, which is not deployed", SV_ARG(json_get_text(runbook, "name")),
                SV_ARG(bot));
}

void doctor_check_functions(struct doctor *d)
{
    struct needs n = {.d = d};
    size_t i, k;
    json_t *f, *runbook, *bot;
    if (d->status == NULL) return;
    json_array_foreach(json_object_get(d->status, "runbooks"), i, runbook)
    {
        json_array_foreach(json_object_get(runbook, "bots"), k, bot)
            check_named(d, runbook, sv(json_string_value(bot)));
        check_named(d, runbook, json_get_text(runbook, "escalate"));
    }
    json_array_foreach(d->functions, i, f) check_function(&n, json_get_text(f, "name"));
    size_t n_all = json_array_size(d->functions);
    if (n_all == 0)
        doctor_fail(d, "functions", "balm up -f stack.yml, or faas-cli deploy", "none is deployed");
    else if (n.n_healthy == n_all)
        doctor_ok(d, "functions", "%zu deployed, each comes up and answers", n_all);
    if (n_all > 0 && n.n_lacking == 0) doctor_ok(d, "secrets", "nothing that is needed is missing");
}

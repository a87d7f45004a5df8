/* A folder with one file of runbooks, of any bytes: read as a set, checked against a bot. What is taken is
 * what a fold makes of its content, and has no fault when all are asked for; what is refused has one.
 *
 * Reads: functions/dispatcher/runbook.c functions/dispatcher/runbook_set.c
 * functions/dispatcher/runbook_step.c functions/dispatcher/runbook_schedule.c
 * functions/dispatcher/runbook_check.c functions/dispatcher/runbook_folder.c */
#include "functions/dispatcher/runbook.h"

#include "folder.h"
#include "function/manifest.h"
#include "gateway/gateway.h"
#include "replay.h"

static const char bot_yaml[] = "name: service-restart\nsummary: Restarts a service.\nacts: true\n"
                               "on_unknown: rerun\ntimeout: 30s\nparams:\n"
                               "  unit: {type: text, required: true, pattern: unit}\n"
                               "  settle: {type: duration, default: 5s, max: 1m}\n"
                               "touches: {units: [any]}\nverify: it looks\nundo: none\n";

/* The only one that is deployed. */
static enum status info(void *arg, struct strview function, struct function_info *ret_info, struct error *err)
{
    static struct manifest m;
    static struct arena arena;
    (void)arg;
    if (!sv_eq(function, SV("service-restart"))) return error_set(err, STATUS_NOT_FOUND, "no such function");
    if (m.json == NULL) {
        enum status s = manifest_parse("bot.yaml", sv(bot_yaml), &m, err);
        assert(s == STATUS_OK);
    }
    gateway_manifest_info(m.json, SV("service-restart"), &arena, ret_info);
    arena_reset(&arena);
    ret_info->manifest_json = json_canonical(&arena, m.json);
    return STATUS_OK;
}

static const struct invoker_ops deployed = {.name = "one bot", .info = info};

static void count(void *arg, const struct error *err)
{
    assert(err->message[0] != '\0');
    ++*(size_t *)arg;
}

static void check_content(const struct runbook *rb)
{
    struct runbook *back = NULL;
    enum status s = runbook_from_content(rb->content, &back, NULL);
    assert(s == STATUS_OK && strcmp(rb->hash, back->hash) == 0 && sv_eq(rb->content, back->content));
    assert(sv_eq(rb->name, back->name) && rb->mode == back->mode && rb->n_steps == back->n_steps &&
           rb->match.n == back->match.n && rb->n_steps <= RUNBOOK_STEPS_MAX);
    assert(runbook_is_scheduled(rb) == runbook_is_scheduled(back));
    runbook_free(back);
}

static void check_set(const struct runbook_set *set)
{
    struct arena arena = {0};
    struct error err;
    size_t n_faults = 0;
    bool may_be_unheard = false; /* one that only tells people: it starts without its function */
    for (size_t i = 0; i < set->n; i++) {
        check_content(set->items[i]);
        may_be_unheard |= set->items[i]->n_steps == 0;
    }
    enum status s = runbook_set_check(set, &deployed, NULL, &err);
    runbook_set_check_all(set, &deployed, NULL, count, &n_faults);
    assert(s == STATUS_OK || n_faults > 0);
    assert(s != STATUS_OK || n_faults == 0 || may_be_unheard);
    assert(sv_is_utf8(runbook_set_json(set, &arena)));
    arena_release(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static struct runbook_set set, all;
    struct error err = {0};
    size_t n_faults = 0;
    char path[FOLDER_PATH_MAX];
    (void)snprintf(path, sizeof(path), "%s", folder_put("a.yaml", sv_n((const char *)bytes, n)));
    enum status s = runbook_set_read(folder(), &set, &err);
    runbook_set_read_all(path, &all, count, &n_faults);
    if (s == STATUS_OK) {
        assert(n_faults == 0 && all.n == set.n);
        check_set(&set);
    } else {
        assert(s == STATUS_INVALID_ARGUMENT && strncmp(err.message, path, strlen(path)) == 0);
    }
    runbook_set_release(&set);
    runbook_set_release(&all);
    return 0;
}

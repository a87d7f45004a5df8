#include "cli/cli.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "functions/dispatcher/explain.h"
#include "store/journal.h"

struct why_cfg {
    struct cli_platform platform;
    bool is_json;
};

static const struct config_option options[] = {
    CLI_PLATFORM_OPTIONS(struct why_cfg, platform),
    {.name = "json",
     .type = CONFIG_BOOL,
     .offset = offsetof(struct why_cfg, is_json),
     .help = "JSON instead of text"},
};

/* The incident somebody means by "last": that of the newest record that belongs to one. */
static enum status find_last(struct journal_reader *reader, struct arena *a, struct strview *ret_incident,
                             struct error *err)
{
    struct arena batch = {0};
    uint64_t seq = journal_reader_first_seq(reader);
    struct strview last = sv(NULL);
    for (;;) {
        struct journal_entry *entries;
        size_t n;
        enum status s = journal_reader_read(reader, seq, 1000, true, &batch, &entries, &n, err);
        if (s != STATUS_OK || n == 0) {
            arena_release(&batch);
            *ret_incident = last;
            if (s == STATUS_OK && last.len == 0)
                s = error_set(err, STATUS_NOT_FOUND, "the journal has no incident yet");
            return s;
        }
        for (size_t i = n; i > 0; i--)
            if (entries[i - 1].record->incident.len > 0) {
                if (!sv_eq(last, entries[i - 1].record->incident))
                    last = arena_copy(a, entries[i - 1].record->incident);
                break;
            }
        seq = entries[n - 1].seq + 1;
        arena_reset(&batch);
    }
}

static enum status explain_from_disk(const char *data_dir, struct strview incident, struct arena *a,
                                     json_t **ret_json, struct error *err)
{
    struct journal_reader *reader = NULL;
    enum status s = journal_reader_open(arena_printf(a, "%s/journal", data_dir).ptr, &reader, err);
    if (s != STATUS_OK) return s;
    if (sv_eq(incident, SV("last"))) s = find_last(reader, a, &incident, err);
    if (s == STATUS_OK) s = explain_read(reader, incident, ret_json, err);
    journal_reader_close(reader);
    return s;
}

/* Ids are made of these; anything else would change the path. */
static bool is_id(struct strview id)
{
    for (size_t i = 0; i < id.len; i++) {
        char c = id.ptr[i];
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || c == '-')) return false;
    }
    return id.len > 0;
}

enum status cli_explain_incident(const struct cli_platform *platform, struct strview incident,
                                 struct arena *a, json_t **ret_json, struct error *err)
{
    if (!is_id(incident))
        return error_set(err, STATUS_NOT_FOUND, "no incident '%.*s'", SV_ARG(sv_sub(incident, 0, 100)));
    const char *path = arena_printf(a, "/function/dispatcher/incidents/%.*s", SV_ARG(incident)).ptr;
    return cli_api(platform, "GET", path, NULL, ret_json, err);
}

static enum status explain(const void *arg, char *const *arguments, struct arena *a, json_t **ret_json,
                           struct error *err)
{
    const struct why_cfg *cfg = arg;
    const struct cli_platform *platform = &cfg->platform;
    struct strview incident = sv(arguments[0]);
    if (incident.ptr == NULL)
        return error_set(err, STATUS_INVALID_ARGUMENT,
                         "say which incident (its id from balm incident list or balm audit tail), or 'last'");
    if (platform->url != NULL) return cli_explain_incident(platform, incident, a, ret_json, err);
    const char *data_dir;
    enum status s = cli_data_dir(platform->data_dir, a, &data_dir, err);
    if (s == STATUS_OK) s = explain_from_disk(data_dir, incident, a, ret_json, err);
    if (s == STATUS_OK && cli_is_abandoned(data_dir, a))
        (void)json_object_set_new(*ret_json, "platform", json_string("down"));
    return s;
}

static void print_text(const void *cfg, const json_t *explained, struct arena *a)
{
    struct buf text;
    (void)cfg;
    (void)a;
    buf_init(&text, 16 * 1024 * 1024);
    explain_text(explained, &text);
    (void)fwrite(text.ptr, 1, text.len, stdout);
    buf_release(&text);
}

static int run_why(const struct command *self, int argc, char **argv)
{
    static const struct cli_action action = {.arguments = "[INCIDENT]", .ask = explain, .print = print_text};
    struct why_cfg cfg = {0};
    return cli_act(self, &action, 1, argc, argv, &cfg, &cfg.is_json);
}

const struct command command_why = {
    .name = "why",
    .arguments = "INCIDENT|last",
    .summary = "one incident from alert to undo: what was seen, decided, done and verified",
    .description =
        "Everything about one incident on one screen, from the journal alone: the alert, the runbook and its hash, each gate with its value,\n"
        "the acts and their outcomes, the verification, what comes next, and the command that takes it back.",
    .options = options,
    .n_options = ARRAY_LEN(options),
    .run = run_why,
};

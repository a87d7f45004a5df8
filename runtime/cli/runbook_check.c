/* balm runbook check: every fault of every file at once, without a platform. */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/memory.h"
#include "cli/runbook.h"
#include "function/manifest.h"
#include "functions/dispatcher/runbook.h"
#include "gateway/gateway.h"
#include "loop/loop.h"

#define FAULTS_MAX 1000 /* shown; the rest is counted */
#define BOTS_MAX   256  /* bot.yaml files */

struct fault {
    struct strview file, reason, nearest, field; /* field: where in the file, as a path */
    unsigned line, column;                       /* 0: the whole file */
};

struct bot {
    struct manifest manifest;
    struct function_info info;
};

struct check {
    const struct runbook_cfg *cfg;
    struct up_cfg up; /* where balm up would look */
    char **paths;
    int n_paths;
    struct arena arena;
    struct runbook_set *set;
    const char *current; /* the file that is read */
    struct fault *faults;
    size_t n_faults, n_files, n_bots;
    struct bot *bots;
    struct gateway_plan *plan; /* NULL: the stack file is faulty, and steps are not checked */
    enum status status;        /* of the command itself */
    struct error *err;
};

/* ---- faults ---- */

/* "FILE:7:14: …"; FILE may have colons, and a digit behind one. */
static bool split_place(struct strview text, struct fault *ret_fault)
{
    for (size_t i = 0; i < text.len; i++) {
        struct strview rest = sv_sub(text, i + 1, text.len), line, column;
        uint64_t at_line, at_column;
        if (text.ptr[i] != ':' || !sv_next(&rest, ':', &line) || !sv_next(&rest, ':', &column)) continue;
        if (sv_parse_u64(line, &at_line) != STATUS_OK || sv_parse_u64(column, &at_column) != STATUS_OK)
            continue;
        ret_fault->file = sv_sub(text, 0, i);
        ret_fault->line = (unsigned)at_line;
        ret_fault->column = (unsigned)at_column;
        ret_fault->reason = sv_trim(rest);
        return true;
    }
    return false;
}

static struct strview between(struct strview text, struct strview before, struct strview after)
{
    for (size_t i = 0; i + before.len <= text.len; i++) {
        if (!sv_starts_with(sv_sub(text, i, text.len), before)) continue;
        struct strview rest = sv_sub(text, i + before.len, text.len);
        for (size_t k = 0; k + after.len <= rest.len; k++)
            if (sv_starts_with(sv_sub(rest, k, rest.len), after)) return sv_sub(rest, 0, k);
    }
    return (struct strview){0};
}

static void on_fault(void *arg, const struct error *fault)
{
    struct check *c = arg;
    struct fault *f = &c->faults[c->n_faults < FAULTS_MAX ? c->n_faults : FAULTS_MAX];
    c->n_faults++;
    *f = (struct fault){.reason = arena_copy(&c->arena, sv(fault->message))};
    if (!split_place(f->reason, f) && c->current != NULL) f->file = sv(c->current);
    f->nearest = between(f->reason, SV("(did you mean '"), SV("'?)"));
}

static int by_place(const void *a, const void *b)
{
    const struct fault *x = a, *y = b;
    int by_file = sv_cmp(x->file, y->file);
    if (by_file != 0) return by_file;
    if (x->line != y->line) return x->line < y->line ? -1 : 1;
    return x->column < y->column ? -1 : x->column > y->column;
}

/* The file is read again for it, once for all its faults: the tree of the first reading is gone. */
static void find_field(struct check *c, struct fault *f, struct yaml_document *doc, struct arena *of_doc)
{
    const char *path;
    struct strview missing;
    if (f->line == 0) return;
    if (doc->file == NULL || !sv_eq(sv(doc->file), f->file)) {
        *doc = (struct yaml_document){.file = NULL};
        arena_reset(of_doc);
        if (yaml_read(of_doc, arena_cstr(&c->arena, f->file), doc, NULL) != STATUS_OK) return;
    }
    bool is_key = sv_starts_with(f->reason, SV("unknown field"));
    path = yaml_path_at(doc, f->line, f->column, is_key, &c->arena);
    if (path == NULL) return;
    size_t end = sv_find(f->reason, ' ');
    missing = sv_starts_with(sv_sub(f->reason, end, f->reason.len), SV(" is missing in "))
                  ? sv_sub(f->reason, 0, end)
                  : (struct strview){0};
    f->field = missing.len == 0
                   ? sv(path)
                   : arena_printf(&c->arena, "%s%s%.*s", path, path[0] != '\0' ? "." : "", SV_ARG(missing));
}

/* ---- what the runbooks are held against ---- */

static void read_bot(struct check *c, const char *path)
{
    struct error err;
    c->current = path;
    struct bot *b = &c->bots[c->n_bots];
    if (manifest_read(path, &b->manifest, &err) != STATUS_OK) {
        on_fault(c, &err);
        return;
    }
    gateway_manifest_info(b->manifest.json, b->manifest.name, &b->manifest.arena, &b->info);
    c->n_bots++;
}

static int is_folder_of_bot(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static enum status read_bots(struct check *c)
{
    struct dirent **entries;
    struct stat st;
    const char *dir = c->cfg->bots_dir; /* each file is named in what is wrong with it */
    int n = scandir(dir, &entries, is_folder_of_bot, alphasort);
    if (n < 0) return error_set(c->err, status_from_errno(errno), "--bots %s: %s", dir, strerror(errno));
    for (int i = 0; i < n; i++) {
        const char *path = arena_printf(&c->arena, "%s/%s/bot.yaml", dir, entries[i]->d_name).ptr;
        if (c->n_bots < BOTS_MAX && stat(path, &st) == 0) read_bot(c, path);
        free(entries[i]);
    }
    free(entries);
    return STATUS_OK;
}

static enum status info(void *arg, struct strview function, struct function_info *ret_info, struct error *err)
{
    const struct check *c = arg;
    const char *names[BOTS_MAX];
    for (size_t i = 0; i < c->n_bots; i++) {
        names[i] = c->bots[i].info.name.ptr;
        if (!sv_eq(c->bots[i].info.name, function)) continue;
        *ret_info = c->bots[i].info;
        return STATUS_OK;
    }
    enum status s = gateway_planned.info(c->plan, function, ret_info, err);
    if (s != STATUS_NOT_FOUND || c->n_bots == 0) return s;
    struct arena a = {0};
    const char *nearest = config_nearest(arena_cstr(&a, function), names, c->n_bots);
    if (nearest != NULL)
        s = error_set(err, s, "no function '%.*s' is deployed (did you mean '%s'?)", SV_ARG(function),
                      nearest);
    arena_release(&a);
    return s;
}

static const struct invoker_ops functions_to_be = {.name = "checked", .info = info};

/* A stack file that cannot be read is a fault among the others; what its functions take is then not known. */
static void read_stack(struct check *c)
{
    struct error err;
    struct gateway_cfg cfg = {.stack_file = c->up.stack_file, .functions_dir = c->up.functions_dir};
    /* Without -f, --bots says all that there is. */
    if (c->cfg->bots_dir != NULL && c->cfg->stack_file == NULL) cfg.stack_file = NULL;
    c->current = cfg.stack_file;
    cfg.core = cli_core_functions(&cfg.n_core);
    if (gateway_plan_new(loop_current(), &cfg, &c->plan, &err) != STATUS_OK) on_fault(c, &err);
}

/* ---- reading ---- */

static void read_file(struct check *c, const char *path)
{
    c->current = path;
    c->n_files++;
    runbook_set_read_all(path, c->set, on_fault, c);
}

static enum status read_folder(struct check *c, const char *dir)
{
    struct runbook_folder folder;
    enum status s = runbook_folder_list(dir, &c->arena, &folder, c->err);
    for (size_t i = 0; s == STATUS_OK && i < folder.n; i++)
        read_file(c, arena_printf(&c->arena, "%s/%.*s", dir, SV_ARG(folder.names[i])).ptr);
    return s;
}

static enum status read_path(struct check *c, const char *path)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return error_set(c->err, status_from_errno(errno), "%s: %s", path, strerror(errno));
    if (S_ISDIR(st.st_mode)) return read_folder(c, path);
    read_file(c, path);
    return STATUS_OK;
}

static enum status read_all(struct check *c)
{
    enum status s = STATUS_OK;
    if (c->n_paths == 0) return read_folder(c, c->up.runbooks_dir);
    for (int i = 0; i < c->n_paths && s == STATUS_OK; i++)
        s = read_path(c, c->paths[i]);
    return s;
}

static void check_fiber(void *arg)
{
    struct check *c = arg;
    c->status = read_all(c);
    if (c->status == STATUS_OK && c->cfg->bots_dir != NULL) c->status = read_bots(c);
    if (c->status != STATUS_OK) return;
    read_stack(c);
    if (c->plan != NULL) runbook_set_check_all(c->set, &functions_to_be, c, on_fault, c);
    gateway_plan_free(c->plan);
    size_t n = c->n_faults < FAULTS_MAX ? c->n_faults : FAULTS_MAX;
    qsort(c->faults, n, sizeof(*c->faults), by_place);
    struct arena of_doc = {0};
    struct yaml_document doc = {.file = NULL};
    for (size_t i = 0; i < n; i++)
        find_field(c, &c->faults[i], &doc, &of_doc);
    arena_release(&of_doc);
}

/* ---- saying ---- */

static size_t n_shown(const struct check *c)
{
    return c->n_faults < FAULTS_MAX ? c->n_faults : FAULTS_MAX;
}

static json_t *fault_json(const struct fault *f)
{
    json_t *o = json_pack("{s:o, s:o}", "file", json_text(f->file), "reason", json_text(f->reason));
    if (f->line != 0) {
        (void)json_object_set_new(o, "line", json_integer(f->line));
        (void)json_object_set_new(o, "column", json_integer(f->column));
    }
    if (f->field.len > 0) (void)json_object_set_new(o, "field", json_text(f->field));
    if (f->nearest.len > 0) (void)json_object_set_new(o, "nearest", json_text(f->nearest));
    return o;
}

static void print_json(const struct check *c)
{
    json_t *list = json_array();
    for (size_t i = 0; i < n_shown(c); i++)
        (void)json_array_append_new(list, fault_json(&c->faults[i]));
    json_t *all = json_pack("{s:b, s:I, s:I, s:I, s:b, s:o}", "ok", c->n_faults == 0, "files",
                            (json_int_t)c->n_files, "runbooks", (json_int_t)c->set->n, "faultCount",
                            (json_int_t)c->n_faults, "stepsChecked", c->plan != NULL, "faults", list);
    (void)json_dumpf(all, stdout, JSON_COMPACT | JSON_SORT_KEYS);
    putchar('\n');
    json_release(all);
}

static void print_fault(struct check *c, const struct fault *f)
{
    if (f->line != 0) printf("%s:%u:%u: ", cli_shown(&c->arena, f->file).ptr, f->line, f->column);
    if (f->field.len > 0) printf("%s: ", cli_shown(&c->arena, f->field).ptr);
    puts(cli_shown(&c->arena, f->reason).ptr);
}

static const char *plural(size_t n)
{
    return n == 1 ? "" : "s";
}

static void print_text(struct check *c)
{
    size_t n_act = 0;
    for (size_t i = 0; i < n_shown(c); i++)
        print_fault(c, &c->faults[i]);
    for (size_t i = 0; i < c->set->n; i++)
        n_act += c->set->items[i]->mode == RUNBOOK_ACT;
    if (c->n_faults > FAULTS_MAX) printf("and %zu more\n", c->n_faults - FAULTS_MAX);
    if (c->plan == NULL) puts("the steps were not held against their functions: the stack file is at fault");
    if (c->n_faults > 0)
        printf("%zu fault%s in %zu file%s\n", c->n_faults, plural(c->n_faults), c->n_files,
               plural(c->n_files));
    else
        printf("%zu runbook%s in %zu file%s: no fault; %zu would act\n", c->set->n, plural(c->set->n),
               c->n_files, plural(c->n_files), n_act);
}

static void release(struct check *c)
{
    for (size_t i = 0; i < c->n_bots; i++)
        manifest_release(&c->bots[i].manifest);
    free(c->bots);
    free(c->faults);
    runbook_set_release(c->set);
    free(c->set);
    arena_release(&c->arena);
}

int runbook_run_check(const struct command *self, const struct runbook_cfg *cfg, char **paths, int n)
{
    struct error err = {0};
    struct loop *loop;
    struct check c = {.cfg = cfg,
                      .up = {.stack_file = cfg->stack_file, .functions_dir = cfg->functions_dir},
                      .paths = paths,
                      .n_paths = n,
                      .err = &err};
    c.set = mem_zalloc(1, sizeof(*c.set));
    c.faults = mem_zalloc(FAULTS_MAX + 1, sizeof(*c.faults));
    c.bots = mem_zalloc(BOTS_MAX, sizeof(*c.bots));
    cli_complete_defaults(&c.up, &c.arena);
    enum status s = loop_new(&loop, &err);
    if (s == STATUS_OK) {
        s = loop_run_fiber(loop, check_fiber, &c, &err);
        loop_free(loop);
    }
    if (s == STATUS_OK) s = c.status;
    int code = c.n_faults == 0 ? CLI_OK : CLI_USAGE;
    if (s != STATUS_OK)
        code = cli_fail(self, &err);
    else if (cfg->is_json)
        print_json(&c);
    else
        print_text(&c);
    release(&c);
    return code;
}

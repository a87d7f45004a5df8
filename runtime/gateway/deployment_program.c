/* What is run: the executable that an image's name stands for, or the program that fprocess names. */
#include "gateway/gateway_impl.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "config/words.h"
#include "config/yaml.h"
#include "function/manifest.h"

#define IMAGE_SHOWN_MAX 128

bool file_identify(const char *path, struct file_identity *ret_identity)
{
    struct stat st;
    if (stat(path, &st) != 0 || !S_ISREG(st.st_mode)) return false;
    *ret_identity =
        (struct file_identity){.device = st.st_dev,
                               .inode = st.st_ino,
                               .changed_ns = (int64_t)st.st_ctim.tv_sec * NS_PER_S + st.st_ctim.tv_nsec};
    return true;
}

static bool is_folder(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static struct strview image_shown(const struct deployment *d)
{
    return sv_sub(d->spec.image, 0, IMAGE_SHOWN_MAX);
}

/* ---- native ---- */

enum status deployment_image_name(struct strview image, struct strview *ret_name, struct error *err)
{
    struct strview rest = image, part, last = image;
    bool leads_elsewhere = sv_starts_with(image, SV("/"));
    while (sv_next(&rest, '/', &part)) {
        leads_elsewhere |= sv_eq(part, SV(".."));
        last = part;
    }
    /* Its last part would be taken, which is not what is written there. */
    if (leads_elsewhere)
        return error_set(err, STATUS_INVALID_ARGUMENT, "image '%.*s' leads out of the functions folder",
                         SV_ARG(sv_sub(image, 0, IMAGE_SHOWN_MAX)));
    last = sv_sub(last, 0, sv_find(last, ':'));
    last = sv_sub(last, 0, sv_find(last, '@'));
    if (last.len == 0 || last.ptr[0] == '.' || memchr(last.ptr, '\0', last.len) != NULL)
        return error_set(err, STATUS_INVALID_ARGUMENT, "image '%.*s' names no executable",
                         SV_ARG(sv_sub(image, 0, IMAGE_SHOWN_MAX)));
    *ret_name = last;
    return STATUS_OK;
}

/* "echo", "./echo", "bin/echo": what stack.yml says of a function whose process is the executable. */
static bool names_executable(struct strview process, struct strview executable)
{
    struct strview part, last = process;
    while (sv_next(&process, '/', &part))
        last = part;
    return sv_eq(last, executable);
}

static bool take_executable(struct deployment *d, const char *path)
{
    char *real = realpath(path, NULL);
    bool is_there = real != NULL && file_identify(real, &d->build) && access(real, X_OK) == 0;
    if (is_there) d->executable = arena_cstr(&d->arena, sv(real));
    free(real);
    return is_there;
}

/* ---- programs ---- */

static struct strview given_process(const struct deployment *d)
{
    return d->spec.process.len > 0 ? d->spec.process : json_get_text(d->spec.env, "fprocess");
}

/* template.yml, which came along with the folder. */
struct template_work {
    struct arena *arena;
    const char *path;
    struct strview process;
    enum status status;
    struct error *err;
};

static void read_template(void *arg)
{
    struct template_work *w = arg;
    struct yaml_document doc;
    w->status = yaml_read(w->arena, w->path, &doc, w->err);
    if (w->status != STATUS_OK) return;
    const struct yaml_node *process = yaml_get(doc.root, SV("fprocess"));
    if (process != NULL && process->type == YAML_SCALAR) w->process = process->text;
}

static enum status process_of_folder(struct deployment *d, const char *path, struct strview *ret_process,
                                     struct error *err)
{
    struct template_work w = {
        .arena = &d->arena, .path = arena_printf(&d->arena, "%s/template.yml", path).ptr, .err = err};
    work_run(read_template, &w);
    if (w.status != STATUS_OK && w.status != STATUS_NOT_FOUND) return w.status;
    *ret_process = w.process;
    if (w.process.len > 0) return STATUS_OK;
    return error_set(
        err, STATUS_INVALID_ARGUMENT,
        "image '%.*s': the folder %s has no template.yml that says fprocess, and the deployment gives none",
        SV_ARG(image_shown(d)), path);
}

static const char *existing(struct arena *a, const char *folder, const char *name,
                            bool (*is_it)(const char *path))
{
    const char *path = arena_printf(a, "%s/%s", folder, name).ptr;
    return is_it(path) ? path : NULL;
}

static bool is_file(const char *path)
{
    struct file_identity ignored;
    return file_identify(path, &ignored);
}

static void look_into_folder(struct deployment *d, const char *path)
{
    struct arena *a = &d->arena;
    const char *handler = existing(a, path, "function", is_folder);
    d->folder = handler != NULL ? handler : path;
    d->bot_file = existing(a, d->folder, "bot.yaml", is_file);
    if (d->bot_file == NULL) d->bot_file = existing(a, path, "bot.yaml", is_file);
}

static enum status find_on_path(const struct deployment *d, const char *name, char ret_path[PATH_MAX],
                                struct error *err)
{
    char text[WORDS_BYTES_MAX];
    struct strview own = json_get_text(d->spec.env, "PATH");
    int n = snprintf(text, sizeof(text), "PATH=%.*s", SV_ARG(own.len > 0 ? own : SV(FUNCTION_PATH)));
    if (n < 0 || (size_t)n >= sizeof(text))
        return error_set(err, STATUS_INVALID_ARGUMENT, "PATH is too long");
    return process_find(name, (const char *const[]){text, NULL}, ret_path, err);
}

/* argv[0] as it was written -> an absolute path. */
static enum status resolve(struct deployment *d, const char *word, const char *image_path,
                           const char **ret_path, struct error *err)
{
    char found[PATH_MAX];
    enum status s = STATUS_OK;
    if (word[0] == '/') {
        *ret_path = word;
    } else if (strchr(word, '/') == NULL) {
        s = find_on_path(d, word, found, err);
        if (s == STATUS_OK) *ret_path = arena_cstr(&d->arena, sv(found));
    } else if (d->folder != NULL) {
        *ret_path = arena_printf(&d->arena, "%s/%s", d->folder, word).ptr;
    } else {
        s = error_set(err, STATUS_NOT_FOUND, "no executable and no folder %s to look for it", image_path);
    }
    if (s == STATUS_OK && (!file_identify(*ret_path, &d->build) || access(*ret_path, X_OK) != 0))
        s = error_set(err, STATUS_NOT_FOUND, "no executable %s", *ret_path);
    return s;
}

static enum status find_program(struct deployment *d, struct strview process, const char *image_path,
                                struct error *err)
{
    const char *const *words;
    size_t n;
    enum status s = words_split(process, &d->arena, &words, &n, err);
    if (s == STATUS_OK) s = resolve(d, words[0], image_path, &d->executable, err);
    if (s != STATUS_OK)
        return error_prefix(err, s, "image '%.*s', fprocess '%.*s'", SV_ARG(image_shown(d)),
                            SV_ARG(sv_sub(process, 0, 128)));
    const char **program = arena_array(&d->arena, n + 1, sizeof(*program));
    for (size_t i = 1; i < n; i++)
        program[i] = words[i];
    program[0] = d->executable;
    d->program = program;
    if (d->folder == NULL) d->folder = "/";
    return STATUS_OK;
}

enum status deployment_find(struct deployment *d, struct error *err)
{
    struct strview name = {0}, process = given_process(d);
    enum status s = deployment_image_name(d->spec.image, &name, err);
    if (s != STATUS_OK) return s;
    const char *path = arena_printf(&d->arena, "%s/%.*s", d->gateway->cfg.functions_dir, SV_ARG(name)).ptr;
    bool is_native = process.len == 0 || names_executable(process, name);
    d->is_remote = remote_url(&d->spec).len > 0;
    if ((is_native || d->is_remote) && take_executable(d, path)) return STATUS_OK;
    if (d->is_remote) { /* what it does is known by its bot.yaml, or not at all */
        if (is_folder(path)) look_into_folder(d, path);
        return STATUS_OK;
    }
    if (is_folder(path)) {
        char *real = realpath(path, NULL); /* it runs in another folder than we */
        look_into_folder(d, real != NULL ? arena_cstr(&d->arena, sv(real)) : path);
        free(real);
        if (process.len == 0) s = process_of_folder(d, path, &process, err);
    } else if (process.len == 0) {
        s = error_set(err, STATUS_NOT_FOUND, "image '%.*s': no executable %s", SV_ARG(image_shown(d)), path);
    }
    return s == STATUS_OK ? find_program(d, process, path, err) : s;
}

/* ---- its manifest ---- */

struct manifest_work {
    const char *path; /* NULL: there is none */
    json_t *json;
    enum status status;
    struct error *err;
};

static void read_bot_file(void *arg)
{
    static const char plain[] = "{name: program, summary: A program of this machine, acts: false}";
    struct manifest_work *w = arg;
    struct manifest m;
    w->status = w->path != NULL ? manifest_read(w->path, &m, w->err)
                                : manifest_parse("manifest", SV(plain), &m, w->err);
    if (w->status != STATUS_OK) return;
    w->json = json_incref(m.json);
    /* Nobody said what it takes, and it may have a document of its own. */
    if (w->path == NULL) (void)json_object_del(w->json, "schema");
    manifest_release(&m);
}

enum status deployment_read_bot_file(struct deployment *d, struct error *err)
{
    struct manifest_work w = {.path = d->bot_file, .err = err};
    if (d->bot_file != NULL) (void)file_identify(d->bot_file, &d->bot_build); /* before it is read */
    work_run(read_bot_file, &w);
    if (w.status == STATUS_OK) d->manifest = w.json;
    return w.status == STATUS_OK ? STATUS_OK
                                 : error_prefix(err, w.status, "image '%.*s'", SV_ARG(image_shown(d)));
}

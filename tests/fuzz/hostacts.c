/* The list of host acts on any bytes: it decides what runs outside the sandbox, so whatever is on it must be
 * a service or a program with a name that is a file's, and a command that begins with an absolute path.
 *
 * Reads: gateway/broker_list.c gateway/broker_program.c */
#include "gateway/broker_list.h"

#include <string.h>

#include "folder.h"
#include "replay.h"

static bool is_plain(struct strview name)
{
    return name.len > 0 && name.len <= 200 && sv_is_utf8(name) && sv_find(name, '/') == name.len &&
           name.ptr[0] != '-' && name.ptr[0] != '.' && memchr(name.ptr, '\0', name.len) == NULL;
}

static void check(const struct broker_list *list)
{
    for (size_t i = 0; i < list->n; i++) {
        const struct broker_service *s = &list->services[i];
        assert(is_plain(s->name) && broker_list_find(list, s->name) == s);
        assert(s->unit.len > 0 || s->restart.n > 0);
        assert(s->functions.n == 0 || broker_service_allows(s, s->functions.items[0]));
        for (size_t k = 0; k < s->restart.n; k++)
            assert(sv_eq(sv(s->restart_argv[k]), s->restart.items[k]));
        if (s->restart.n == 0) continue;
        assert(s->restart_argv[0][0] == '/' && s->restart_argv[s->restart.n] == NULL);
        assert(s->pid_file.len > 0 && s->pid_file.ptr[0] == '/');
    }
}

/* With whatever is asked for: the first word stays the operator's, and there are as many. */
static void check_program(const struct broker_program *p)
{
    struct arena a = {0};
    struct yaml_text_list words = {0};
    struct error err = {0};
    json_t *arguments = json_object();
    assert(is_plain(p->name) && p->timeout_ns > 0 && p->command.n > 0);
    assert(p->command.items[0].len > 0 && p->command.items[0].ptr[0] == '/');
    assert(p->functions.n == 0 || broker_program_allows(p, p->functions.items[0]));
    for (size_t i = 0; i < p->params.n_params; i++) {
        struct strview name = p->params.params[i].name;
        (void)json_object_setn_new(arguments, name.ptr, name.len, json_string(i % 2 == 0 ? "1" : "-x ${y}"));
    }
    if (broker_program_argv(p, arguments, &a, &words, &err) == STATUS_OK)
        assert(words.n == p->command.n && sv_eq(words.items[0], p->command.items[0]));
    else
        assert(err.code == STATUS_INVALID_ARGUMENT && err.message[0] != '\0');
    json_release(arguments);
    arena_release(&a);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct broker_list list;
    struct error err = {0};
    const char *path = folder_put("host-acts.yaml", sv_n((const char *)bytes, n));
    if (broker_list_read(path, &list, &err) == STATUS_OK) {
        check(&list);
        for (size_t i = 0; i < list.n_programs; i++)
            check_program(&list.programs[i]);
        broker_list_release(&list);
    } else {
        assert(err.code == STATUS_INVALID_ARGUMENT && strncmp(err.message, path, strlen(path)) == 0);
    }
    return 0;
}

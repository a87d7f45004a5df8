/* The list of host acts on any bytes: it decides what runs outside the sandbox, so whatever is on it must be
 * a service with a name that is a file's, and a command that begins with an absolute path.
 *
 * Reads: gateway/broker_list.c */
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

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct broker_list list;
    struct error err = {0};
    const char *path = folder_put("host-acts.yaml", sv_n((const char *)bytes, n));
    if (broker_list_read(path, &list, &err) == STATUS_OK) {
        check(&list);
        broker_list_release(&list);
    } else {
        assert(err.code == STATUS_INVALID_ARGUMENT && strncmp(err.message, path, strlen(path)) == 0);
    }
    return 0;
}

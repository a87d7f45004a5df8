#include "gateway/broker_list.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/list.h"

#define SERVICE_NAME_MAX 200 /* it becomes part of a file's name, see broker_restart.h */

static const struct yaml_field service_fields[] = {
    {.name = "functions",
     .type = YAML_FIELD_TEXT_LIST,
     .offset = offsetof(struct broker_service, functions),
     .is_required = true},
    {.name = "unit", .type = YAML_FIELD_TEXT, .offset = offsetof(struct broker_service, unit)},
    {.name = "restart", .type = YAML_FIELD_TEXT_LIST, .offset = offsetof(struct broker_service, restart)},
    {.name = "pid_file", .type = YAML_FIELD_TEXT, .offset = offsetof(struct broker_service, pid_file)},
};

struct broker_file {
    const struct yaml_node *services, *programs;
};

static const struct yaml_field file_fields[] = {
    {.name = "services", .type = YAML_FIELD_NODE, .offset = offsetof(struct broker_file, services)},
    {.name = "programs", .type = YAML_FIELD_NODE, .offset = offsetof(struct broker_file, programs)},
};

/* Whoever can write this file decides what runs outside the sandbox with our rights. */
static enum status check_owner(int fd, const char *path, struct error *err)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return error_set(err, status_from_errno(errno), "allow list %s: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return error_set(err, STATUS_INVALID_ARGUMENT, "allow list %s is no regular file", path);
    if (st.st_uid != 0 && st.st_uid != geteuid())
        return error_set(err, STATUS_PERMISSION_DENIED,
                         "allow list %s belongs to uid %u; it must belong to root or to uid %u", path,
                         (unsigned)st.st_uid, (unsigned)geteuid());
    if ((st.st_mode & (S_IWGRP | S_IWOTH)) != 0)
        return error_set(err, STATUS_PERMISSION_DENIED,
                         "allow list %s can be written by others (mode %03o); chmod go-w %s", path,
                         (unsigned)st.st_mode & 0777, path);
    return STATUS_OK;
}

/* The file that was checked is the one that is read: by its descriptor. */
static enum status read_checked(const char *path, struct arena *a, struct strview *ret_text,
                                struct error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe of that name must not hold us up */
    if (fd < 0) return error_set(err, status_from_errno(errno), "allow list %s: %s", path, strerror(errno));
    enum status s = check_owner(fd, path, err);
    char *text = s == STATUS_OK ? arena_alloc(a, YAML_BYTES_MAX + 1) : NULL;
    size_t len = 0;
    while (s == STATUS_OK && len <= YAML_BYTES_MAX) {
        ssize_t n = read(fd, text + len, YAML_BYTES_MAX + 1 - len);
        if (n == 0) break;
        if (n > 0)
            len += (size_t)n;
        else if (errno != EINTR)
            s = error_set(err, status_from_errno(errno), "read %s: %s", path, strerror(errno));
    }
    (void)close(fd);
    *ret_text = sv_n(text, len); /* one byte too many is refused by the parser */
    return s;
}

static bool is_unit_name(struct strview name)
{
    if (name.len == 0 || name.len > 255 || name.ptr[0] == '-' || name.ptr[0] == '.') return false;
    for (size_t i = 0; i < name.len; i++) {
        char c = name.ptr[i];
        bool is_fine = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       strchr(":-_.@", c) != NULL;
        if (!is_fine || c == '\0') return false;
    }
    return true;
}

static enum status check_service(const struct yaml_document *doc, const struct yaml_node *node,
                                 struct broker_service *s, struct arena *a, struct error *err)
{
    if (!is_unit_name(s->name) || s->name.len > SERVICE_NAME_MAX)
        return yaml_error(doc, node, err, "service name '%.*s': letters, digits and :-_.@ only, at most %d",
                          SV_ARG(s->name), SERVICE_NAME_MAX);
    if (s->unit.len > 0 && !is_unit_name(s->unit))
        return yaml_error(doc, node, err, "unit '%.*s' is no unit name", SV_ARG(s->unit));
    if (s->unit.len == 0 && s->restart.n == 0)
        return yaml_error(doc, node, err, "service '%.*s' has neither unit nor restart", SV_ARG(s->name));
    if (s->restart.n == 0) return STATUS_OK;
    if (!sv_starts_with(s->restart.items[0], SV("/")))
        return yaml_error(doc, node, err, "restart of '%.*s' must begin with an absolute path, not '%.*s'",
                          SV_ARG(s->name), SV_ARG(s->restart.items[0]));
    if (!sv_starts_with(s->pid_file, SV("/")))
        return yaml_error(doc, node, err,
                          "service '%.*s' needs pid_file (an absolute path) to tell whether it came up",
                          SV_ARG(s->name));
    s->restart_argv = arena_array(a, s->restart.n + 1, sizeof(*s->restart_argv));
    for (size_t i = 0; i < s->restart.n; i++)
        s->restart_argv[i] = arena_cstr(a, s->restart.items[i]);
    return STATUS_OK;
}

static enum status read_services(struct broker_list *list, const struct yaml_document *doc,
                                 const struct yaml_node *services, struct error *err)
{
    if (services == NULL) return STATUS_OK;
    if (services->type != YAML_MAP) return yaml_error(doc, services, err, "services must be a map of names");
    list->services = arena_array(&list->arena, services->n_children, sizeof(*list->services));
    for (const struct yaml_node *n = services->first; n != NULL; n = n->next) {
        struct broker_service *service = &list->services[list->n++];
        service->name = n->key;
        enum status s = yaml_decode(doc, n, "service", service_fields, ARRAY_LEN(service_fields),
                                    &list->arena, service, err);
        if (s == STATUS_OK) s = check_service(doc, n, service, &list->arena, err);
        if (s != STATUS_OK) return s;
    }
    return STATUS_OK;
}

static enum status read_programs(struct broker_list *list, const struct yaml_document *doc,
                                 const struct yaml_node *programs, struct error *err)
{
    if (programs == NULL) return STATUS_OK;
    if (programs->type != YAML_MAP) return yaml_error(doc, programs, err, "programs must be a map of names");
    list->programs = arena_array(&list->arena, programs->n_children, sizeof(*list->programs));
    for (const struct yaml_node *n = programs->first; n != NULL; n = n->next) {
        if (!is_unit_name(n->key) || n->key.len > SERVICE_NAME_MAX)
            return yaml_error(doc, n, err, "program name '%.*s': letters, digits and :-_.@ only, at most %d",
                              SV_ARG(n->key), SERVICE_NAME_MAX);
        enum status s = broker_program_read(doc, n, &list->arena, &list->programs[list->n_programs], err);
        if (s != STATUS_OK) return s;
        list->n_programs++;
    }
    return STATUS_OK;
}

static enum status read_entries(struct broker_list *list, const struct yaml_document *doc, struct error *err)
{
    struct broker_file file = {0};
    enum status s = yaml_decode(doc, doc->root, "the allow list", file_fields, ARRAY_LEN(file_fields),
                                &list->arena, &file, err);
    if (s == STATUS_OK && file.services == NULL && file.programs == NULL)
        s = yaml_error(doc, doc->root, err, "services is missing in the allow list, and so is programs");
    if (s == STATUS_OK) s = read_services(list, doc, file.services, err);
    if (s == STATUS_OK) s = read_programs(list, doc, file.programs, err);
    return s;
}

enum status broker_list_read(const char *path, struct broker_list *ret_list, struct error *err)
{
    struct broker_list list = {0};
    if (path == NULL) {
        *ret_list = list;
        return STATUS_OK;
    }
    struct yaml_document doc;
    struct strview text;
    enum status s = read_checked(path, &list.arena, &text, err);
    if (s == STATUS_OK) s = yaml_parse(&list.arena, path, text, &doc, err);
    if (s == STATUS_OK) s = read_entries(&list, &doc, err);
    if (s == STATUS_OK)
        *ret_list = list;
    else
        broker_list_release(&list);
    return s;
}

void broker_list_release(struct broker_list *list)
{
    for (size_t i = 0; i < list->n_programs; i++)
        broker_program_release(&list->programs[i]);
    arena_release(&list->arena);
    *list = (struct broker_list){0};
}

const struct broker_service *broker_list_find(const struct broker_list *list, struct strview name)
{
    for (size_t i = 0; i < list->n; i++)
        if (sv_eq(list->services[i].name, name)) return &list->services[i];
    return NULL;
}

const struct broker_program *broker_list_find_program(const struct broker_list *list, struct strview name)
{
    for (size_t i = 0; i < list->n_programs; i++)
        if (sv_eq(list->programs[i].name, name)) return &list->programs[i];
    return NULL;
}

bool broker_service_allows(const struct broker_service *s, struct strview function)
{
    for (size_t i = 0; i < s->functions.n; i++)
        if (sv_eq(s->functions.items[i], function)) return true;
    return false;
}

#include "function/secret.h"

#include <dirent.h>
#include <stdlib.h>

#include "base/file.h"

#define SECRETS_DEFAULT "/var/openfaas/secrets"

/* The one key of a secret's folder, whatever its name; NULL if there are none or several. What begins with a
 * dot is Kubernetes's own machinery of a mounted secret. */
static const char *only_entry(struct arena *a, const char *folder)
{
    const char *found = NULL;
    const struct dirent *entry;
    DIR *dir = opendir(folder);
    unsigned n = 0;
    if (dir == NULL) return NULL;
    while ((entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] == '.') continue;
        if (n++ == 0) found = arena_printf(a, "%s/%s", folder, entry->d_name).ptr;
    }
    (void)closedir(dir);
    return n == 1 ? found : NULL;
}

/* A file; where it is a folder, the key of its own name, else the only one. The reason of a failure is what
 * is wrong with the one that would be it. */
static enum status read_either(struct arena *a, const char *folder, const char *name,
                               struct strview *ret_content, struct error *err)
{
    const char *path = arena_printf(a, "%s/%s", folder, name).ptr;
    enum status s = file_read(a, path, SECRET_READ_MAX, ret_content, err);
    if (s == STATUS_OK) return s;
    const char *key = arena_printf(a, "%s/%s", path, name).ptr;
    enum status of_key = file_read(a, key, SECRET_READ_MAX, ret_content, NULL);
    if (of_key == STATUS_OK) return of_key;
    const char *only = only_entry(a, path);
    return only != NULL ? file_read(a, only, SECRET_READ_MAX, ret_content, err) : s;
}

const char *secret_folder(void)
{
    const char *folder = getenv("secret_mount_path");
    return folder != NULL && folder[0] != '\0' ? folder : SECRETS_DEFAULT;
}

enum status secret_read(struct arena *a, const char *name, struct strview *ret_secret, struct error *err)
{
    return secret_read_from(a, secret_folder(), name, ret_secret, err);
}

enum status secret_read_from(struct arena *a, const char *folder, const char *name,
                             struct strview *ret_secret, struct error *err)
{
    struct strview content = {0};
    struct error why = {0};
    enum status s = read_either(a, folder, name, &content, &why);
    if (s != STATUS_OK)
        return error_set(err, STATUS_FAILED_PRECONDITION, "secret '%s' cannot be read: %s", name,
                         why.message);
    content = sv_trim(content);
    if (content.len == 0) return error_set(err, STATUS_FAILED_PRECONDITION, "secret '%s' is empty", name);
    *ret_secret = content;
    return STATUS_OK;
}

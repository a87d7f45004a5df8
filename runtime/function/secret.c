#include "function/secret.h"

#include <stdlib.h>

#include "base/file.h"

#define SECRETS_DEFAULT "/var/openfaas/secrets"

enum status secret_read(struct arena *a, const char *name, struct strview *ret_secret, struct error *err)
{
    const char *folder = getenv("secret_mount_path");
    if (folder == NULL || folder[0] == '\0') folder = SECRETS_DEFAULT;
    const struct strview paths[] = {arena_printf(a, "%s/%s", folder, name),
                                    arena_printf(a, "%s/%s/%s", folder, name, name)};
    struct strview content = {0};
    struct error why = {0};
    /* The first path's reason is the one to tell, unless it is the folder that Knative makes. */
    enum status s = file_read(a, paths[0].ptr, SECRET_READ_MAX, &content, &why);
    if (s != STATUS_OK) s = file_read(a, paths[1].ptr, SECRET_READ_MAX, &content, NULL);
    if (s != STATUS_OK)
        return error_set(err, STATUS_FAILED_PRECONDITION, "secret '%s' cannot be read: %s", name,
                         why.message);
    content = sv_trim(content);
    if (content.len == 0) return error_set(err, STATUS_FAILED_PRECONDITION, "secret '%s' is empty", name);
    *ret_secret = content;
    return STATUS_OK;
}

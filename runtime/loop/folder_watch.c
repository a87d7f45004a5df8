#include "loop/folder_watch.h"

#include <stdlib.h>

#include "base/memory.h"
#include "loop/loop_impl.h"

struct folder_watch { /* freed by its close callback, one turn after the stop */
    uv_fs_event_t handle;
    struct fiber_event *changed;
};

static void on_folder_changed(uv_fs_event_t *handle, const char *name, int events, int status)
{
    (void)name; /* what it was is looked up, not believed */
    (void)events;
    (void)status;
    fiber_event_set(container_of(handle, struct folder_watch, handle)->changed);
}

static void on_folder_watch_closed(uv_handle_t *handle)
{
    free(container_of(handle, struct folder_watch, handle));
}

enum status folder_watch_start(struct loop *l, const char *dir, struct fiber_event *changed,
                               struct folder_watch **ret_watch, struct error *err)
{
    struct folder_watch *w = mem_zalloc(1, sizeof(*w));
    w->changed = changed;
    int rc = uv_fs_event_init(&l->uv, &w->handle);
    if (rc != 0) {
        free(w);
        return error_set(err, status_from_errno(-rc), "watch %s: %s", dir, uv_strerror(rc));
    }
    rc = uv_fs_event_start(&w->handle, on_folder_changed, dir, 0);
    if (rc != 0) {
        folder_watch_stop(w);
        return error_set(err, status_from_errno(-rc), "watch %s: %s", dir, uv_strerror(rc));
    }
    *ret_watch = w;
    return STATUS_OK;
}

void folder_watch_stop(struct folder_watch *w)
{
    if (w != NULL) uv_close((uv_handle_t *)&w->handle, on_folder_watch_closed);
}

#include "client/client_curl.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>

#include "base/list.h"
#include "fiber/fiber.h"
#include "loop/loop.h"

#define LIBCURL_NAME "libcurl.so.4"

struct client_curl client_curl;

static atomic_bool is_open;
static pthread_mutex_t open_mutex = PTHREAD_MUTEX_INITIALIZER;

struct opening {
    enum status status;
    struct error err;
};

/* Symbol of the table's entry: POSIX lets a function pointer be stored as void *, ISO C only byte-wise. */
static bool find_symbol(void *library, const char *name, void *ret_entry)
{
    void *symbol = dlsym(library, name);
    memcpy(ret_entry, &symbol, sizeof(symbol));
    return symbol != NULL;
}

static enum status open_library(struct error *err)
{
    struct client_curl *c = &client_curl;
    const struct {
        const char *name;
        void *entry;
    } symbols[] = {
        {"curl_global_init", &c->global_init},
        {"curl_easy_init", &c->easy_init},
        {"curl_easy_cleanup", &c->easy_cleanup},
        {"curl_easy_setopt", &c->easy_setopt},
        {"curl_easy_getinfo", &c->easy_getinfo},
        {"curl_easy_strerror", &c->easy_strerror},
        {"curl_multi_init", &c->multi_init},
        {"curl_multi_setopt", &c->multi_setopt},
        {"curl_multi_add_handle", &c->multi_add_handle},
        {"curl_multi_remove_handle", &c->multi_remove_handle},
        {"curl_multi_socket_action", &c->multi_socket_action},
        {"curl_multi_info_read", &c->multi_info_read},
        {"curl_multi_cleanup", &c->multi_cleanup},
        {"curl_multi_strerror", &c->multi_strerror},
    };
    void *library = dlopen(LIBCURL_NAME, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) return error_set(err, STATUS_UNAVAILABLE, "open the HTTP client: %s", dlerror());
    for (size_t i = 0; i < ARRAY_LEN(symbols); i++) {
        if (find_symbol(library, symbols[i].name, symbols[i].entry)) continue;
        (void)dlclose(library);
        return error_set(err, STATUS_UNAVAILABLE, "open the HTTP client: %s has no %s", LIBCURL_NAME,
                         symbols[i].name);
    }
    CURLcode code = c->global_init(CURL_GLOBAL_DEFAULT);
    if (code == CURLE_OK) return STATUS_OK;
    return error_set(err, STATUS_UNAVAILABLE, "open the HTTP client: %s", c->easy_strerror(code));
}

static void open_once(void *arg)
{
    struct opening *o = arg;
    (void)pthread_mutex_lock(
        &open_mutex); /* fibers that call out at the same time meet here, in worker threads */
    o->status = atomic_load(&is_open) ? STATUS_OK : open_library(&o->err);
    if (o->status == STATUS_OK) atomic_store(&is_open, true);
    (void)pthread_mutex_unlock(&open_mutex);
}

enum status client_curl_open(struct error *err)
{
    struct opening o = {.status = STATUS_OK};
    if (atomic_load(&is_open)) return STATUS_OK;
    if (fiber_current() != NULL)
        work_run(open_once, &o);
    else
        open_once(&o);
    if (o.status != STATUS_OK && err != NULL) *err = o.err;
    return o.status;
}

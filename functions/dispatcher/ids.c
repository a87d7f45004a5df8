#include "functions/dispatcher/ids.h"

#include "base/buf.h"
#include "config/config.h"

#define SHOWN_BYTES 300 /* of ids in a message */

static enum status say_nearest(struct strview text, const struct strview *known, size_t n, const char *what,
                               const char *list_command, struct error *err)
{
    struct arena a = {0};
    struct buf b;
    const char *names[IDS_LOOKED_MAX], *word = arena_cstr(&a, text);
    if (n > IDS_LOOKED_MAX) n = IDS_LOOKED_MAX;
    for (size_t i = 0; i < n; i++) /* of a part, what it may be the beginning of */
        names[i] = arena_cstr(&a, sv_sub(known[i], 0, text.len < ID_PART_MIN ? known[i].len : text.len));
    buf_init(&b, SHOWN_BYTES);
    for (int k = 0; k < IDS_NEAREST; k++) { /* what is said is taken out: nothing is near to "" */
        const char *nearest = config_nearest(word, names, n);
        size_t at = 0;
        while (nearest != NULL && names[at] != nearest)
            at++;
        if (nearest == NULL) break;
        buf_printf(&b, "%s%.*s", k == 0 ? "; nearest: " : ", ", SV_ARG(known[at]));
        for (size_t i = 0; i < n; i++)
            if (sv_eq(known[i], known[at])) names[i] = "";
    }
    if (b.len == 0) buf_printf(&b, "; %s has them", list_command);
    enum status s = error_set(err, STATUS_NOT_FOUND, "no %s '%.*s'%.*s", what, SV_ARG(sv_sub(text, 0, 100)),
                              SV_ARG(buf_view(&b)));
    buf_release(&b);
    arena_release(&a);
    return s;
}

static enum status say_several(struct strview text, const struct strview *known, size_t n, size_t n_fit,
                               const char *what, struct error *err)
{
    struct buf b;
    size_t n_said = 0;
    buf_init(&b, SHOWN_BYTES);
    for (size_t i = 0; i < n && n_said < IDS_NEAREST; i++)
        if (sv_contains(known[i], text))
            buf_printf(&b, "%s%.*s", n_said++ == 0 ? "" : ", ", SV_ARG(known[i]));
    enum status s = error_set(err, STATUS_NOT_FOUND, "'%.*s' fits %zu %ss: %.*s%s; say more of it",
                              SV_ARG(text), n_fit, what, SV_ARG(buf_view(&b)), n_fit > n_said ? " …" : "");
    buf_release(&b);
    return s;
}

enum status ids_find(struct strview text, const struct strview *known, size_t n, const char *what,
                     const char *list_command, struct strview *ret_id, struct error *err)
{
    size_t n_fit = 0, fit = 0;
    if (text.len == 0 || text.len > ID_TEXT_MAX)
        return error_set(err, STATUS_NOT_FOUND, "no %s of that name; %s has them", what, list_command);
    for (size_t i = 0; i < n; i++) {
        if (sv_eq(known[i], text)) {
            *ret_id = known[i];
            return STATUS_OK;
        }
        if (text.len < ID_PART_MIN || !sv_contains(known[i], text)) continue;
        if (n_fit > 0 && sv_eq(known[i], known[fit])) continue;
        if (n_fit++ == 0) fit = i;
    }
    if (n_fit == 0) return say_nearest(text, known, n, what, list_command, err);
    if (n_fit > 1) return say_several(text, known, n, n_fit, what, err);
    *ret_id = known[fit];
    return STATUS_OK;
}

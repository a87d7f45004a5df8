#include "functions/dispatcher/ids.h"

#include <criterion/criterion.h>
#include <string.h>

#include "base/list.h"

static const struct strview known[] = {{"6189c21008115e3d-1a203ff58a2", 28},
                                       {"6189c21008115e3d-1a203ff5900", 28},
                                       {"ab00c21008115e3d-1a203ff5901", 28},
                                       {"ab00c21008115e3d-1a203ff5901", 28}};

static const char *find(const char *text, struct error *err)
{
    struct strview id;
    enum status s = ids_find(sv(text), known, ARRAY_LEN(known), "incident", "balm incident list", &id, err);
    cr_assert(s == STATUS_OK || s == STATUS_NOT_FOUND);
    return s == STATUS_OK ? id.ptr : NULL;
}

static void expect_message(const char *text, const char *message)
{
    struct error err = {0};
    cr_expect_null(find(text, &err));
    cr_expect_str_eq(err.message, message);
}

Test(ids, a_whole_one_or_a_part_that_fits_one_alone_is_found)
{
    struct error err = {0};
    cr_expect_eq(find("6189c21008115e3d-1a203ff5900", &err), known[1].ptr);
    cr_expect_eq(find("58a2", &err), known[0].ptr);
    cr_expect_eq(find("ab00c2", &err), known[2].ptr);
}

Test(ids, a_part_that_fits_several_is_refused_with_them)
{
    expect_message("6189c2", "'6189c2' fits 2 incidents: 6189c21008115e3d-1a203ff58a2, "
                             "6189c21008115e3d-1a203ff5900; say more of it");
}

Test(ids, an_unknown_one_names_the_nearest)
{
    expect_message("ab00c21008115e3d-1a203ff5902",
                   "no incident 'ab00c21008115e3d-1a203ff5902'; nearest: ab00c21008115e3d-1a203ff5901, "
                   "6189c21008115e3d-1a203ff5900, 6189c21008115e3d-1a203ff58a2");
    expect_message("ab0x", "no incident 'ab0x'; nearest: ab00c21008115e3d-1a203ff5901");
    expect_message("zzzzzzzz", "no incident 'zzzzzzzz'; balm incident list has them");
    expect_message("ab", "no incident 'ab'; balm incident list has them");
    expect_message("../../etc/passwd", "no incident '../../etc/passwd'; balm incident list has them");
}

Test(ids, nothing_and_what_is_longer_than_any_id_is_refused_shortly)
{
    char text[5000];
    memset(text, 'a', sizeof(text));
    text[sizeof(text) - 1] = '\0';
    expect_message("", "no incident of that name; balm incident list has them");
    expect_message(text, "no incident of that name; balm incident list has them");
}

Test(ids, among_none_nothing_is_near)
{
    struct error err = {0};
    struct strview id;
    cr_expect_eq(ids_find(SV("abcd"), NULL, 0, "incident", "balm incident list", &id, &err),
                 STATUS_NOT_FOUND);
}

#include "store/record.h"

#include "base/json.h"

bool record_clock_turn(const struct record *r, struct clock_turn *ret_turn)
{
    json_t *detail = NULL;
    if (r->kind != RECORD_CLOCK || !r->on || r->detail.len == 0 ||
        json_parse(r->detail, 0, &detail, NULL) != STATUS_OK)
        return false;
    const json_t *jump = json_object_get(detail, "jumpNs");
    bool is_turn = json_is_integer(jump);
    if (is_turn) *ret_turn = (struct clock_turn){json_integer_value(jump), r->time_ns};
    json_release(detail);
    return is_turn;
}

int64_t clock_turn_ahead(const struct clock_turn *turn, int64_t due_ns)
{
    int64_t moved;
    if (!__builtin_add_overflow(due_ns, turn->jump_ns, &moved)) return moved;
    return turn->jump_ns < 0 ? 0 : INT64_MAX;
}

int64_t clock_turn_apply(const struct clock_turn *turn, int64_t then_ns)
{
    int64_t moved;
    if (__builtin_add_overflow(then_ns, turn->jump_ns, &moved)) return turn->jump_ns < 0 ? 0 : turn->now_ns;
    return moved < turn->now_ns ? moved : turn->now_ns;
}

/* balm.h: all that a bot's author includes.
 *
 * A bot is a folder: handler.c (this header and its own generated one), bot.yaml (what it is, its
 * parameters, what it may touch), README.md. The build makes from bot.yaml `NAME.gen.h` with `struct
 * NAME_params`, its validating decoder and the function's definition; handler.c provides
 *
 *     enum status NAME_handle(struct invocation *inv, const struct NAME_params *p, struct result *ret,
 *                             struct error *err);
 *
 * A handler runs as a fiber: http_request(), sleep_ms(), process_run(), host_act() look blocking and
 * suspend. It reads from top to bottom, leaves by its error status, and everything it allocates from
 * inv->arena dies with the invocation. Between two waits nothing else of this process runs. Each wait ends
 * at inv's deadline. */
#ifndef BALM_H
#define BALM_H

#include "base/arena.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/status.h"
#include "base/strview.h"
#include "client/client.h"
#include "fiber/fiber.h"
#include "function/function.h"
#include "log/log.h"
#include "loop/loop.h"

#endif

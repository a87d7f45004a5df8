/* KEDA's external scaler (README.md beside this file): what waits for each function, asked for or pushed.
 *
 *   journal --every record--> watches.c: a function has work --> "true" on each stream that watches it
 *   KEDA ---GetMetrics------> backlog of the function, as the supervisor of this machine sees it (scaling.h)
 *
 * Nothing is kept for a ScaledObject: KEDA never says when one goes. */
#ifndef BALM_FUNCTIONS_SCALER_SCALER_H
#define BALM_FUNCTIONS_SCALER_SCALER_H

#include "function/core.h"

extern const struct core_function scaler_function;

#endif

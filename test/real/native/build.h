/* What every handler of this suite says of itself: its name, and which of two builds it is. */
#ifndef REAL_BUILD_H
#define REAL_BUILD_H

#include "handler.h"

#ifndef BUILD
#define BUILD 1
#endif

#define TEXT_OF(VALUE) #VALUE
#define TEXT(VALUE) TEXT_OF(VALUE)

#define DESCRIBE(NAME)                                                                  \
  HANDLER_DEFINE_ABI();                                                                 \
  HANDLER_EXPORT const handler_description *handler_info(void) {                        \
    static const handler_description info = {sizeof info, 0, NAME, TEXT(BUILD), NULL};        \
    return &info;                                                                       \
  }                                                                                     \
  struct describe_needs_a_semicolon

#endif

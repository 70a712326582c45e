/** How the numbers come about, for readers of the report. */
export const METHOD = `\
- **The same work for everyone.** Every contender calls the same native function through koffi, on as many threads as the others, with the same
  bytes in and out. Every response is checked. The function burns as much CPU time as the request says; in an echo, none.
- **Fresh processes, rounds interleaved.** A trial is one contender in one setting, in a process of its own. A round runs all trials once (A B C, A B C, …), so
  that a machine that becomes slower does so for everyone. Tables have the median of the rounds, and the lowest and highest in brackets.
- **Warm-up.** Each trial runs its load unmeasured first, so that code is compiled and pages are resident.
- **Closed loop** says how much can be done at most: so many callers, each of whom asks again as soon as it has its answer.
- **Open loop** says how long requests take: arrivals are a Poisson process from a seed, the same for everyone, and a request's time counts from
  when it was *meant* to be sent. If the sender or the pool falls behind, the wait is part of what is measured (no coordinated omission).
- **Percentiles** come from HDR histograms with three digits, never from averages of percentiles.
- **Event-loop delay** is how much later than due the main thread's timers fire, watched every millisecond during each load; **busy** is the
  share of the time in which its event loop was not idle.
- **The event loop is held for** so long by an operation: the longest hold during it, less the longest one in an equally long time without it, in the same
  run (the median of several such times). On a machine that is shared, the rest is not the operation's.
- **Limits** are measured in the same run: the direct synchronous call, two bare threads that wake each other over shared memory, and \`memcpy\`.
- Raw results are in \`bench/results/published/\`. Each question is one file in \`bench/\` that begins with the answer that was predicted.

Contenders, each as it comes and as its documentation says is fastest:`;

/**
 * Small mistakes in the ring, made in the compiled code, each with a script that shows what it leads to.
 *
 * One line of the ring has none: that a slot which is still queued is not queued again when a lane dies. It keeps the queue
 * from overflowing after many deaths, which takes more of them than these scripts have.
 */

import type { Mutation } from './ring-source.js';

export interface RingMutation extends Mutation {
  /** What is wrong with the ring then. */
  readonly name: string;
  /** A script in which it is noticed. */
  readonly script: string;
}

const producer = (script: string, name: string, from: string, to: string): RingMutation => ({
  name,
  module: 'producer',
  script,
  from,
  to,
});
const consumer = (script: string, name: string, from: string, to: string): RingMutation => ({
  name,
  module: 'consumer',
  script,
  from,
  to,
});

export const ringMutations: readonly RingMutation[] = [
  // ---- Taking ----
  consumer(
    'a lane dies',
    'the queue entry is read after the head has moved',
    `const slot = Atomics.load(words, layout.queueWords + (head & layout.queueMask));`,
    `if (Atomics.compareExchange(words, CONTROL.HEAD, head, (head + 1) | 0) !== head) continue;
            const slot = Atomics.load(words, layout.queueWords + (head & layout.queueMask));
            Atomics.store(words, this.$record + LANE.SLOT, slot + 1);
            const state = slotAt(layout, slot);
            const found = Atomics.compareExchange(words, state + SLOT.STATE, STATE.QUEUED, this.$running);
            if (found === STATE.QUEUED) return slot;
            if (found === STATE.WITHDRAWN) this.$skip(slot, state);
            
            continue;`,
  ),
  consumer(
    'both lanes die',
    'the head is moved without a comparison',
    `if (Atomics.compareExchange(words, CONTROL.HEAD, head, (head + 1) | 0) !== head)`,
    `if (Atomics.load(words, CONTROL.HEAD) !== head || Atomics.store(words, CONTROL.HEAD, (head + 1) | 0) === -1)`,
  ),
  consumer(
    'one given up',
    'a slot is taken without a comparison',
    `const before = Atomics.compareExchange(words, at + SLOT.STATE, STATE.QUEUED, this.#running);`,
    `const before = Atomics.load(words, at + SLOT.STATE);
            if (before === STATE.QUEUED) Atomics.store(words, at + SLOT.STATE, this.#running);`,
  ),
  consumer(
    'a lane dies',
    'what is being taken is not noted',
    `Atomics.store(words, this.#record + LANE.SLOT, slot + 1);`,
    ``,
  ),
  consumer(
    'a lane dies',
    'it is noted after the head has moved',
    `Atomics.store(words, this.#record + LANE.SLOT, slot + 1);
            if (Atomics.compareExchange(words, CONTROL.HEAD, head, (head + 1) | 0) !== head)
                continue;`,
    `if (Atomics.compareExchange(words, CONTROL.HEAD, head, (head + 1) | 0) !== head)
                continue;
            Atomics.store(words, this.#record + LANE.SLOT, slot + 1);`,
  ),
  consumer(
    'one request',
    'an empty queue is not noticed',
    `if (head === Atomics.load(words, CONTROL.TAIL))`,
    `if (false)`,
  ),
  consumer(
    'one given up',
    'withdrawn requests are not passed over',
    `if (before === STATE.WITHDRAWN)
                this.#skip(slot, at);`,
    ``,
  ),
  consumer(
    'a lane dies, one given up',
    'a withdrawn slot is handed back without a comparison',
    `const before = Atomics.compareExchange(this.words, at + SLOT.STATE, STATE.WITHDRAWN, this.#done);
        if (before === STATE.WITHDRAWN)
            this.#publish(slot);`,
    `Atomics.store(this.words, at + SLOT.STATE, this.#done);
        this.#publish(slot);`,
  ),
  // ---- Completing ----
  consumer(
    'one request',
    'a slot is marked done after it can be seen',
    `Atomics.store(this.words, slotAt(this.layout, slot) + SLOT.STATE, this.#done);
        this.#publish(slot);`,
    `this.#publish(slot);
        Atomics.store(this.words, slotAt(this.layout, slot) + SLOT.STATE, this.#done);`,
  ),
  consumer(
    'two requests',
    'a bit of the bitmap is set by load and store',
    `Atomics.or(words, this.layout.bitmapWords + (slot >> 5), 1 << (slot & 31));`,
    `Atomics.store(words, this.layout.bitmapWords + (slot >> 5), Atomics.load(words, this.layout.bitmapWords + (slot >> 5)) | (1 << (slot & 31)));`,
  ),
  consumer(
    'one request',
    'the doorbell rings before the bit is set',
    `Atomics.or(words, this.layout.bitmapWords + (slot >> 5), 1 << (slot & 31));
        if (Atomics.exchange(words, CONTROL.DOORBELL, 1) === 0)
            this.#ringDoorbell();`,
    `if (Atomics.exchange(words, CONTROL.DOORBELL, 1) === 0)
            this.#ringDoorbell();
        Atomics.or(words, this.layout.bitmapWords + (slot >> 5), 1 << (slot & 31));`,
  ),
  consumer('one request', 'the doorbell never rings', `this.#ringDoorbell();`, `;`),
  // ---- Waiting ----
  consumer(
    'one request',
    'a lane sleeps without a last look',
    `if (this.#nothingNew(mailRead))
            Atomics.wait(`,
    `Atomics.wait(`,
  ),
  consumer(
    'one request',
    'a lane looks before it says that it sleeps',
    `Atomics.store(words, wait, WAIT.ASLEEP);
        if (this.#nothingNew(mailRead))
            Atomics.wait(`,
    `const nothing = this.#nothingNew(mailRead);
        Atomics.store(words, wait, WAIT.ASLEEP);
        if (nothing)
            Atomics.wait(`,
  ),
  consumer('a closed ledger', 'a lane that is to leave goes to sleep', `!this.leaving &&`, ``),
  consumer('mail', 'a lane with mail goes to sleep', `this.mail === mailRead);`, `true);`),
  consumer(
    'one request, a lane watches',
    'a lane that watched sleeps without saying so',
    `Atomics.store(words, wait, WAIT.ASLEEP);
        if (this.#nothingNew(mailRead))
            Atomics.wait(words, wait, WAIT.ASLEEP, longestMs);`,
    `const now = this.#watches ? WAIT.WATCHING : WAIT.ASLEEP;
        if (!this.#watches) Atomics.store(words, wait, WAIT.ASLEEP);
        if (this.#nothingNew(mailRead)) Atomics.wait(words, wait, now);`,
  ),
  consumer(
    'two requests, the first waits for the second',
    'a lane that has work says that it waits',
    `Atomics.store(words, wait, WAIT.NO);`,
    ``,
  ),
  // ---- Submitting ----
  producer(
    'one request',
    'a slot is queued before its request is written',
    `Atomics.store(words, at + SLOT.STATE, STATE.QUEUED);
        this.#enqueue(slot);`,
    `this.#enqueue(slot);
        Atomics.store(words, at + SLOT.STATE, STATE.QUEUED);`,
  ),
  producer(
    'two requests',
    'the tail moves before the entry is written',
    `Atomics.store(words, layout.queueWords + (tail & layout.queueMask), slot);
        Atomics.store(words, CONTROL.TAIL, (tail + 1) | 0);`,
    `Atomics.store(words, CONTROL.TAIL, (tail + 1) | 0);
        Atomics.store(words, layout.queueWords + (tail & layout.queueMask), slot);`,
  ),
  producer(
    'given up, and its slot used again',
    "the last request's cancel flag stays raised",
    `words[at + SLOT.CANCEL] = 0;`,
    ``,
  ),
  producer(
    'one request',
    'nobody is woken for a request',
    `Atomics.store(words, CONTROL.TAIL, (tail + 1) | 0);
        this.#wakeOne();`,
    `Atomics.store(words, CONTROL.TAIL, (tail + 1) | 0);`,
  ),
  producer(
    'one request',
    'a lane is woken before the request can be seen',
    `Atomics.store(words, CONTROL.TAIL, (tail + 1) | 0);
        this.#wakeOne();`,
    `this.#wakeOne();
        Atomics.store(words, CONTROL.TAIL, (tail + 1) | 0);`,
  ),
  producer(
    'one request',
    'a lane is claimed and not notified',
    `Atomics.notify(this.words, laneAt(this.layout, lane) + LANE.WAIT);`,
    ``,
  ),
  producer(
    'one request',
    'a lane is notified and not claimed',
    `return Atomics.compareExchange(this.words, at, wait, WAIT.NO) === wait;`,
    `return Atomics.load(this.words, at) === wait;`,
  ),
  producer(
    'a watching lane dismissed',
    'a lane is claimed without a comparison',
    `return Atomics.compareExchange(this.words, at, wait, WAIT.NO) === wait;`,
    `return Atomics.load(this.words, at) === wait && Atomics.store(this.words, at, WAIT.NO) === WAIT.NO;`,
  ),
  producer(
    'a lane dismissed',
    'work is given to a lane that leaves',
    `if (Atomics.load(this.words, at + LANE.DISMISSED) !== 0)
                continue;`,
    ``,
  ),
  producer(
    'one request',
    'only lanes that watch are given work',
    `if (asleep !== NO_LANE)
            this.#wake(asleep);`,
    ``,
  ),
  // ---- Withdrawing and collecting ----
  producer(
    'one given up',
    'a request is withdrawn without a comparison',
    `const before = Atomics.compareExchange(this.words, state, STATE.QUEUED, STATE.WITHDRAWN);`,
    `const before = Atomics.load(this.words, state);
        if (before === STATE.QUEUED) Atomics.store(this.words, state, STATE.WITHDRAWN);`,
  ),
  producer(
    'one given up',
    'a withdrawn request stays in flight',
    `this.release();
        return true;`,
    `return true;`,
  ),
  producer(
    'looked for with the doorbell silent',
    'the doorbell is answered after the bitmap has been read',
    `Atomics.store(this.words, CONTROL.DOORBELL, 0);
        this.collectEarly(settle);`,
    `this.collectEarly(settle);
        Atomics.store(this.words, CONTROL.DOORBELL, 0);`,
  ),
  producer(
    'looked for with the doorbell silent',
    'the doorbell is not answered',
    `Atomics.store(this.words, CONTROL.DOORBELL, 0);
        this.collectEarly(settle);`,
    `this.collectEarly(settle);`,
  ),
  producer(
    'two requests',
    'the bitmap is read and cleared in two steps',
    `let bits = Atomics.exchange(words, index, 0);`,
    `let bits = Atomics.load(words, index);
            Atomics.store(words, index, 0);`,
  ),
  producer(
    'one request',
    'the bitmap is not cleared',
    `let bits = Atomics.exchange(words, index, 0);`,
    `let bits = Atomics.load(words, index);`,
  ),
  producer(
    'one request',
    'what was completed stays in flight',
    `if (words[slotAt(layout, slot) + SLOT.STATUS] !== STATUS.WITHDRAWN)
                    this.release();`,
    ``,
  ),
  producer(
    'one given up',
    'what was withdrawn leaves the ledger twice',
    `if (words[slotAt(layout, slot) + SLOT.STATUS] !== STATUS.WITHDRAWN)
                    this.release();`,
    `this.release();`,
  ),
  // ---- Stopping, dismissing, mail ----
  producer(
    'a closed ledger',
    'lanes that sleep are not told to stop',
    `Atomics.compareExchange(this.words, CONTROL.MODE, MODE.SERVE, MODE.STOP);
        this.#wakeAll();`,
    `Atomics.compareExchange(this.words, CONTROL.MODE, MODE.SERVE, MODE.STOP);`,
  ),
  producer(
    'a closed ledger',
    'lanes are woken before they are told to stop',
    `Atomics.compareExchange(this.words, CONTROL.MODE, MODE.SERVE, MODE.STOP);
        this.#wakeAll();`,
    `this.#wakeAll();
        Atomics.compareExchange(this.words, CONTROL.MODE, MODE.SERVE, MODE.STOP);`,
  ),
  producer(
    'mail',
    'lanes are woken before mail is announced',
    `Atomics.add(this.words, CONTROL.MAIL, 1);
        this.#wakeAll();`,
    `this.#wakeAll();
        Atomics.add(this.words, CONTROL.MAIL, 1);`,
  ),
  producer(
    'a lane dismissed',
    'a lane that sleeps is not told to leave',
    `this.#wake(lane);
        this.#wakeForQueued();`,
    `this.#wakeForQueued();`,
  ),
  producer(
    'a watching lane dismissed',
    'what a dismissed lane was claimed for is forgotten',
    `this.#wake(lane);
        this.#wakeForQueued();`,
    `this.#wake(lane);`,
  ),
  // ---- Burying ----
  producer(
    'a watching lane dies',
    'what a dead lane was claimed for is forgotten',
    `this.prepareLane(lane);
        this.#wakeForQueued();`,
    `this.prepareLane(lane);`,
  ),
  producer(
    'a lane dies',
    'what a dead lane had taken and not begun is not queued again',
    `if (!this.#isQueued(slot))
                    this.#enqueue(slot);`,
    ``,
  ),
  producer(
    'a lane dies, its slot is used again',
    'a dead lane takes along what runs on another',
    `if (laneIn(word) !== lane)`,
    `if (false)`,
  ),
  producer(
    'a lane dies',
    'what died with its lane stays in flight',
    `this.release();
                return slot;`,
    `return slot;`,
  ),
  producer(
    'a lane dies',
    'what a lane was completing when it died is forgotten',
    `if (laneIn(word) === lane)
                    this.#markDone(slot);`,
    ``,
  ),
  producer(
    'a lane dies, its slot is used again',
    'what another lane completes is marked for a dead one',
    `if (laneIn(word) === lane)
                    this.#markDone(slot);`,
    `this.#markDone(slot);`,
  ),
  // ---- The library ----
  consumer(
    'stop',
    'every lane initialises the library',
    `if (Atomics.compareExchange(words, CONTROL.LIBRARY, before, mine) !== before)
                        break;`,
    `Atomics.store(words, CONTROL.LIBRARY, mine);`,
  ),
  consumer(
    'stop',
    'a lane does not wait for handler_init on another',
    `Atomics.wait(words, CONTROL.LIBRARY, before);`,
    `return true;`,
  ),
  consumer(
    'stop',
    'nobody is told that handler_init is over',
    `Atomics.notify(this.words, CONTROL.LIBRARY);`,
    ``,
  ),
  consumer(
    'stop',
    'two lanes let go at once and neither is the last',
    `if (Atomics.compareExchange(words, CONTROL.LIBRARY, before, after) === before)
                return after;`,
    `Atomics.store(words, CONTROL.LIBRARY, after);
            return after;`,
  ),
  consumer(
    'stop',
    'whoever lets go shuts the library down',
    `if (holdersIn(before) > 1)
                return before - HOLDER_ONE;`,
    ``,
  ),
  consumer(
    'dismissal',
    'a lane initialises what another is shutting down',
    `case LIBRARY.NEW: {`,
    `case LIBRARY.CLOSING:
                case LIBRARY.NEW: {`,
  ),
  consumer(
    'dismissal',
    'a lane uses what another is shutting down',
    `case LIBRARY.READY:`,
    `case LIBRARY.CLOSING:
                case LIBRARY.READY:`,
  ),
  consumer(
    'dismissal',
    'nobody is told that the library is shut down',
    `this.#settleLibrary(LIBRARY.NEW);`,
    ``,
  ),
  producer(
    'death in handler_init',
    "lanes wait for a dead one's handler_init",
    `state === LIBRARY.INITIALISING ? LIBRARY.REFUSED : state`,
    `state`,
  ),
  producer(
    'death in handler_init',
    'nobody is told that handler_init has died',
    `Atomics.notify(words, CONTROL.LIBRARY);`,
    ``,
  ),
  // ---- The end of the process ----
  consumer(
    'exit',
    'a lane enters koffi although the process ends',
    `Atomics.store(this.words, this.#record + LANE.CRITICAL, 1);
        this.#freezeIfEnding();`,
    `Atomics.store(this.words, this.#record + LANE.CRITICAL, 1);`,
  ),
  consumer(
    'dismissal and exit',
    'a lane looks before it says that it enters koffi',
    `Atomics.store(this.words, this.#record + LANE.CRITICAL, 1);
        this.#freezeIfEnding();`,
    `this.#freezeIfEnding();
        Atomics.store(this.words, this.#record + LANE.CRITICAL, 1);`,
  ),
];
